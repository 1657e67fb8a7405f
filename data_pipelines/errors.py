"""Errors in one line: the shared floor, which every module of either package may import."""


class BadInput(ValueError):
  """Wrong input: a file, a folder or a config field that the user has to change.

  The message is one line that names the file or field and says how to fix it. The command line
  prints it without a traceback and exits with status 2.
  """


def one_line(error: object) -> str:
  """The message of a library's error on one line of at most 200 characters; else its type."""
  return ' '.join(str(error).split())[:200] or type(error).__name__


def line_of(error: BaseException) -> str:
  """What is printed of the error that ends a command."""
  if isinstance(error, OSError):  # a full disk, a folder without permission: it names the file
    return f'{error}; fix this and run again'
  return str(error) if isinstance(error, BadInput) else f'{type(error).__name__}: {one_line(error)}'
