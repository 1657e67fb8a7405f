"""Zip archives that cannot fill the memory: .npz files, and PyTorch's since 1.6."""

import contextlib
import pathlib
import zipfile
from collections.abc import Iterator

from data_pipelines.errors import BadInput

# What a file may unpack to: so many times its own size, and some memory more.
TIMES, MORE = 16, 2**26


def check_budget(path: pathlib.Path, size: int) -> None:
  """Raises BadInput where a file becomes more bytes than any that holds weights."""
  most = TIMES * path.stat().st_size + MORE
  if size > most:
    raise BadInput(
      f'it would take {size} bytes of memory, more than the {most} of any file like it'
    )


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[zipfile.ZipFile]:
  """The archive, whose directory is looked at before anything is unpacked; raises BadInput."""
  with zipfile.ZipFile(path) as archive:
    check_budget(path, sum(entry.file_size for entry in archive.infolist()))
    if len(set(archive.namelist())) < len(archive.namelist()):
      raise BadInput('it holds two entries of one name: refused')
    yield archive


def read(archive: zipfile.ZipFile, name: str, most: int | None = None) -> bytes:
  """The bytes of an entry, with their checksum compared.

  Raises:
    BadInput: it has more than `most`, or is packed in a way that weights are not.
    ValueError: its size is not the announced one. Other errors of zipfile: it is damaged.
  """
  entry = archive.getinfo(name)
  if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    raise BadInput(f'it is packed by method {entry.compress_type} of zip: refused')
  if most is not None and entry.file_size > most:
    raise BadInput(f'its pickle has more than {most} bytes: refused')
  with archive.open(entry) as file:
    data = file.read(entry.file_size + 1)  # asked for by size, no more is unpacked than announced
  if len(data) != entry.file_size:
    raise ValueError(f'an entry has {len(data)} bytes instead of {entry.file_size}')
  return data
