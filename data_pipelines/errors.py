"""Errors in one line: the shared floor, which every module of either package may import."""

import errno
import os

_REMEDIES = {
  errno.ENOSPC: 'free space, or inodes (df -i)',
  errno.EDQUOT: 'free space in your quota',
  errno.EFBIG: 'raise the limit on the size of files (ulimit -f)',
  errno.ENAMETOOLONG: 'use a shorter folder or name',
  errno.EROFS: 'use a folder that can be written',
  **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), 'use another folder: a file is in its way'),
  **dict.fromkeys((errno.EACCES, errno.EPERM), 'give permission, or use another folder'),
}


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
  try:
    text = str(error)
  except Exception:  # of a class that cannot be printed
    text = ''
  return printable(' '.join(text.split()))[:200] or type(error).__name__


def cannot_write(path: str | os.PathLike[str], error: OSError) -> BadInput:
  """The error to raise for a file that cannot be written: its name, the reason, what to do."""
  remedy = _REMEDIES.get(error.errno or 0, 'see to the disk')
  reason = error.strerror or one_line(error)
  return BadInput(f'{os.fspath(path)}: cannot be written ({reason}): {remedy}, and run again')


def line_of(error: BaseException) -> str:
  """What is printed of the error that ends a command."""
  if isinstance(error, OSError):  # a full disk, a folder without permission: it names the file
    return f'{error}; fix this and run again'
  return str(error) if isinstance(error, BadInput) else f'{type(error).__name__}: {one_line(error)}'
