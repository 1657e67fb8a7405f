"""What an output folder records of the labels in it: by which network, and of which images.

`predict.jsonl` has a line for each start of a process, with what the labels depend on, and one for
each image that is labelled after it. Several processes have a file each.
"""

import datetime
import fcntl
import json
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import IO, NamedTuple

import jax

from data_pipelines import digests
from data_pipelines.errors import BadInput, cannot_write
from diga_jax.inference.image_paths import Found
from diga_jax.types import PyTree

NAME = 'predict.jsonl'
INSTEAD = 'give another --output, or --overwrite'


class _Entry(NamedTuple):
  """The image that a file was made of: its path, and what changes when it does."""

  image: str
  stamp: list[int]
  made_by: dict[str, PyTree]


class Record:
  """The record of an output folder; it begins to write with the first image.

  Args:
    directory: the folder, which need not exist.
    made_by: what labels depend on, JSON-able.
    overwrite: whether files may be replaced that are not known to be of the same network and image.

  Raises:
    BadInput: the folder was made by something else, without `overwrite`, or its record is damaged.
  """

  def __init__(self, directory: pathlib.Path, made_by: Mapping[str, PyTree], overwrite: bool):
    self._directory, self._overwrite = directory, overwrite
    self._made_by = json.loads(json.dumps(made_by))
    self._entries = _read(directory)
    self._file: IO[str] | None = None
    others = [each.made_by for each in self._entries.values() if each.made_by != self._made_by]
    if others and not overwrite:
      raise BadInput(f'{directory}: {_differences(others[-1], self._made_by)}: {INSTEAD}')

  def others(self) -> int:
    """How many files that were made by something else are still in the folder."""
    return sum(
      each.made_by != self._made_by and (self._directory / name).exists()
      for name, each in _read(self._directory).items()
    )

  def is_done(self, found: Found, files: Sequence[str], stamp: digests.Stamp) -> bool:
    """Whether all files are there, made of the image as it is now by the same network.

    Args:
      found: the image.
      files: the names of what is made of it.
      stamp: of the image.

    Raises:
      BadInput: a file is there that was made of another image, or by nobody knows what, and may
        not be replaced.
    """
    wanted = _Entry(_path_of(found), list(stamp), self._made_by)
    there = [name for name in files if os.path.lexists(self._directory / name)]
    for name in there:
      path, entry = self._directory / name, self._entries.get(name)
      if entry is None and path.is_dir():
        raise BadInput(f'{path}: a folder of something else is in the way: give another --output')
      if not self._overwrite and (entry is None or entry.image != wanted.image):
        of = f'was made of {entry.image}' if entry else f'{NAME} does not say what it was made of'
        raise BadInput(f'{path}: {of}; it would be replaced by that of {found.path}: {INSTEAD}')
    return len(there) == len(files) and all(self._entries.get(n) == wanted for n in files)

  def begin(self, found: Found, files: Sequence[str], stamp: digests.Stamp, shape: str) -> None:
    """Removes what there is of an image's files, and records that they are made now.

    A process that is killed after this leaves files missing: the image is labelled again.
    """
    for name in files:
      _remove(self._directory / name)
    self._append(
      {
        'image': _path_of(found),
        'stamp': list(stamp),
        'files': list(files),
        'shape': shape,
        'date': datetime.datetime.now(datetime.UTC).isoformat(),
      }
    )

  def close(self) -> None:
    if self._file is not None:
      self._file.close()

  def _append(self, entry: Mapping[str, PyTree]) -> None:
    try:
      if self._file is None:
        self._file = self._open()
        self._file.write(json.dumps({'made_by': self._made_by}) + '\n')
      self._file.write(json.dumps(entry) + '\n')
      self._file.flush()
    except OSError as error:
      raise cannot_write(self._directory / NAME, error) from None

  def _open(self) -> IO[str]:
    index = jax.process_index()
    self._directory.mkdir(parents=True, exist_ok=True)
    path = self._directory / (NAME.replace('.', f'-{index}.') if index else NAME)
    file = path.open('a', encoding='utf-8')
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.close()
      raise BadInput(
        f'{self._directory}: another predict is at work there: wait for it, or give another '
        '--output'
      ) from None
    text = path.read_text(encoding='utf-8')
    file.truncate(len(text[: text.rfind('\n') + 1].encode()))  # half a line of a killed process
    return file


def _read(directory: pathlib.Path) -> dict[str, _Entry]:
  """What the records of all processes say of each file: the last entry of it; raises BadInput."""
  dated = []
  for path in directory.glob(NAME.replace('.', '*.')):
    made_by: dict[str, PyTree] = {}
    try:
      *lines, _ = path.read_text(encoding='utf-8').split('\n')  # the last one is empty, or cut
      for line in map(json.loads, lines):
        made_by = line.get('made_by', made_by)
        if 'files' in line:
          entry = _Entry(line['image'], line['stamp'], made_by)
          dated += [(line['date'], name, entry) for name in line['files']]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
      raise BadInput(
        f'{path}: is damaged, or no record of predict: remove it, or give another --output'
      ) from None
  return {name: entry for _, name, entry in sorted(dated, key=lambda each: each[0])}


def _path_of(found: Found) -> str:
  return str(found.path.resolve())


def _remove(path: pathlib.Path) -> None:
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path)
  elif os.path.lexists(path):
    path.unlink()


def _differences(old: Mapping[str, PyTree], new: Mapping[str, PyTree]) -> str:
  """What labels there were made with that is another thing now, in words."""
  parts = [
    f'{key} {str(old.get(key, "unknown"))[:60]} there, {str(new.get(key, "unknown"))[:60]} now'
    for key in dict.fromkeys([*new, *old])
    if old.get(key) != new.get(key)
  ]
  return f'holds labels that were made otherwise ({"; ".join(parts[:3])})'
