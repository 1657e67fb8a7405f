"""The folder of a card: made whole, or not at all, and never over what others have written."""

import contextlib
import glob
import os
import pathlib
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping

from data_pipelines import atomic, digests, records
from data_pipelines.errors import BadInput, cannot_write
from diga_jax.recipe import hub_config
from diga_jax.types import PyTree

README, NETWORK, PICTURE, ONNX = 'README.md', 'network.py', 'sample.png', 'model.onnx'
PASSPORTS = 'passports'
OWN = re.compile(
  '|'.join(map(re.escape, (README, NETWORK, PICTURE, ONNX, hub_config.WEIGHTS)))
  + rf'|{PASSPORTS}/[\w-][\w.-]*/[\w-][\w.-]*\.json'
)
OLD = '.old'  # how the name of a folder ends while another one takes its place
ABANDONED = 3600.0  # seconds after which nobody is at work in a temporary folder


def clear_remains(output: pathlib.Path) -> None:
  """Undoes what a kill has left half done: gives an old card its name again, or removes it."""
  for path in output.parent.glob(f'.{glob.escape(output.name)}.{"[0-9a-f]" * 8}.*'):
    with contextlib.suppress(FileNotFoundError):  # another process has done it
      if path.suffix == OLD and not os.path.lexists(output):
        path.rename(output)
      age = time.time() - path.stat().st_mtime
      if path.suffix == OLD or (path.suffix == atomic.TEMPORARY and age > ABANDONED):
        shutil.rmtree(path, ignore_errors=True)


def written_before(output: pathlib.Path, overwrite: bool) -> dict[str, str]:
  """The files of a card that is in a folder, without config.json: name -> SHA-256; {} for none.

  Raises:
    BadInput: the folder is not empty, and `overwrite` is not set, it holds no card, the card has
      been changed since, or this process is in it.
  """
  if not output.is_dir() or not any(output.iterdir()):
    return {}
  if not overwrite:
    raise BadInput(
      f'{output}: is not empty: give a new folder, or --overwrite to replace a card there'
    )
  content = hub_config.content_of(output, 'give a new folder')
  if not content:
    raise BadInput(f'{output}: holds no card that could be replaced: give a new folder')
  if pathlib.Path(os.path.realpath('.')).is_relative_to(output):
    raise BadInput(f'{output}: is replaced as a whole: leave it first (cd ..)')
  old = {name: digest for name, digest in content['files'].items() if OWN.fullmatch(name)}
  for name, digest in old.items():
    path = output / name
    if os.path.lexists(path) and not (path.is_file() and digests.of_file(path) == digest):
      raise BadInput(f'{path}: has been changed since the card was written: move it away')
  return old


@contextlib.contextmanager
def new_folder(output: pathlib.Path) -> Iterator[pathlib.Path]:
  """A temporary folder beside `output` that is gone in the end, as is an old `output`.

  Raises:
    BadInput: it cannot be made.
  """
  folder = output.with_name(f'.{output.name}.{secrets.token_hex(4)}{atomic.TEMPORARY}')
  try:
    try:
      folder.mkdir(parents=True)
    except OSError as error:
      raise cannot_write(output, error) from None
    yield folder
  finally:
    shutil.rmtree(folder, ignore_errors=True)
    clear_remains(output)


def write_config(folder: pathlib.Path, content: Mapping[str, PyTree]) -> dict[str, PyTree]:
  """Writes config.json with the digests of the files in a folder; returns what it holds."""
  names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file())
  files = {name: digests.of_file(folder / name) for name in names if name != hub_config.NAME}
  whole = {**content, 'files': files}
  records.write(folder / hub_config.NAME, whole)
  return whole


def publish(folder: pathlib.Path, output: pathlib.Path, overwrite: bool) -> None:
  """Gives a complete folder its name; what is no card's in a folder of this name moves into it.

  Args:
    folder: made by `new_folder`.
    output: a new or empty folder, or with `overwrite` one that holds a card.

  Raises:
    BadInput: as of `written_before`, since others may have been there in the meantime; what is no
      card's has the name of a file of the card; or a place cannot be written.
  """
  old = written_before(output, overwrite)
  try:
    if old:
      take_others(folder, output, {*old, hub_config.NAME})
      output.rename(folder.with_suffix(OLD))
    folder.rename(output)
  except OSError as error:
    raise cannot_write(output, error) from None


def take_others(folder: pathlib.Path, output: pathlib.Path, own: set[str]) -> None:
  """Links the files of a folder but for the card's `own` into the new one; errors of `publish`."""

  def ignore(place: str, names: list[str]) -> list[str]:
    return [name for name in names if os.path.relpath(f'{place}/{name}', output) in own]

  shutil.copytree(
    output, folder, symlinks=True, ignore=ignore, copy_function=_link, dirs_exist_ok=True
  )
  for name in own:
    with contextlib.suppress(OSError):  # it holds something, or is not there
      os.removedirs((folder / name).parent)


def _link(source: str, target: str) -> None:
  """A second name of a file, or a copy where the file system has none; raises BadInput."""
  if os.path.lexists(target):
    raise BadInput(f'{source}: is no part of a card: move it away')
  try:
    os.link(source, target, follow_symlinks=False)
  except OSError:
    shutil.copy2(source, target)
