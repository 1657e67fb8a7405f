"""Errors in one line: the shared floor, which every module of either package may import."""


class BadInput(ValueError):
  """Wrong input: a file, a folder or a config field that the user has to change.

  The message is one line that names the file or field and says how to fix it. The command line
  prints it without a traceback and exits with status 2.
  """

  def __init__(self, message: str = ''):
    super().__init__(printable(message))


def printable(text: str) -> str:
  """The text with a backslash code in place of every character that no terminal shows.

  Names of files may hold line breaks, and bytes that are not UTF-8.
  """
  return ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def one_line(error: object) -> str:
  """The message of a library's error on one line of at most 200 characters; else its type."""
  return ' '.join(str(error).split())[:200] or type(error).__name__
