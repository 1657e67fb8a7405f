"""Files found by names that stand for them: in another Unicode form, or with an ending in capitals.

macOS and some archives write é as two characters, and cameras write .JPG.
"""

import contextlib
import os
import unicodedata


def normal(name: str) -> str:
  """A name in the form in which two that look alike are equal (NFC)."""
  return name if name.isascii() else unicodedata.normalize('NFC', name)


def ending_of(name: str) -> str:
  """What follows the last dot of a file's name, with the dot; '' if there is none."""
  _, dot, ending = name.rpartition('.')
  return '' if '/' in ending or not dot else dot + ending


def _key(name: str) -> str:
  """Equal for the names that are taken for one."""
  name, ending = normal(name), ending_of(name)
  return name.removesuffix(ending) + ending.lower()


class Listing:
  """The entries of folders, each of which is listed once, without a look at its files."""

  def __init__(self) -> None:
    self._entries: dict[str, dict[str, os.DirEntry]] = {}
    self._alike: dict[str, dict[str, os.DirEntry]] = {}

  def find(self, path: str) -> os.DirEntry | None:
    """The entry of that name, or one that stands for it; None if there is neither."""
    directory, name = os.path.split(path)
    entries = self._of(directory)
    if name not in entries and directory not in self._alike:
      self._alike[directory] = {_key(other): entries[other] for other in sorted(entries)[::-1]}
    return entries.get(name) or self._alike[directory].get(_key(name))

  def _of(self, directory: str) -> dict[str, os.DirEntry]:
    if directory not in self._entries:
      self._entries[directory] = {}
      with contextlib.suppress(OSError), os.scandir(self._place(directory)) as entries:
        self._entries[directory] = {entry.name: entry for entry in entries}
    return self._entries[directory]

  def _place(self, directory: str) -> str:
    """Where a folder is whose name may be in another form."""
    if directory.isascii() or os.path.isdir(directory):
      return directory or '.'
    entry = self.find(directory)
    return entry.path if entry else directory
