"""The folder of a card: made whole, or not at all, and never over what others have written."""

import contextlib
import json
import os
import pathlib
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping

from data_pipelines import atomic, digests
from data_pipelines.errors import BadInput, cannot_write
from diga_jax.recipe import hub_config
from diga_jax.types import PyTree

README, NETWORK, PICTURE, ONNX = 'README.md', 'network.py', 'sample.png', 'model.onnx'
PASSPORTS = 'passports'
OWN = re.compile(
  '|'.join(map(re.escape, (README, NETWORK, PICTURE, ONNX, hub_config.WEIGHTS)))
  + rf'|{PASSPORTS}/[\w-][\w.-]*/[\w-][\w.-]*\.json'
)


def written_before(output: pathlib.Path, overwrite: bool) -> dict[str, str]:
  """The files of a card that is in a folder: name -> SHA-256; {} where there is none.

  Raises:
    BadInput: the folder is not empty and `overwrite` is not set, or the files of the card have been
      changed since.
  """
  if not output.is_dir() or not any(output.iterdir()):
    return {}
  if not overwrite:
    raise BadInput(
      f'{output}: is not empty: give a new folder, or --overwrite to replace a card there'
    )
  old = _files_of(output / hub_config.NAME)
  for name, digest in old.items():
    if os.path.lexists(output / name) and digests.of_file(output / name) != digest:
      raise BadInput(f'{output / name}: has been changed since the card was written: move it away')
  return old


def _files_of(path: pathlib.Path) -> dict[str, str]:
  """What config.json records of the files beside it; {} where no card has written it."""
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
    files = content['files'] if content['library_name'] == hub_config.LIBRARY else {}
    return {name: digest for name, digest in files.items() if OWN.fullmatch(name)}
  except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
    return {}


@contextlib.contextmanager
def new_folder(output: pathlib.Path) -> Iterator[pathlib.Path]:
  """A temporary folder beside `output` that is gone in the end.

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


def write_config(folder: pathlib.Path, content: Mapping[str, PyTree]) -> dict[str, PyTree]:
  """Writes config.json with the digests of the files in a folder; returns what it holds."""
  names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file())
  files = {name: digests.of_file(folder / name) for name in names if name != hub_config.NAME}
  whole = {**content, 'files': files}
  text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False)
  (folder / hub_config.NAME).write_text(f'{text}\n', encoding='utf-8')
  return whole


def publish(folder: pathlib.Path, output: pathlib.Path, old: Mapping[str, str]) -> None:
  """Gives a complete folder its name, or its files their places in a folder that is there.

  config.json comes last: it has the digests of the others, by which a folder that a kill has left
  half old and half new is refused.

  Raises:
    BadInput: a file of the same name is there that is no card's, or a place cannot be written.
  """
  names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file())
  names.sort(key=hub_config.NAME.__eq__)
  try:
    if not output.is_dir() or not any(output.iterdir()):
      os.replace(folder, output)
      return
    for name in names:
      known = name in old or (old and name == hub_config.NAME)
      if os.path.lexists(output / name) and not known:
        raise BadInput(f'{output / name}: is no part of a card: move it away')
    for name in sorted(old.keys() - set(names)):
      (output / name).unlink(missing_ok=True)
      with contextlib.suppress(OSError):  # it holds others, or is not there
        os.removedirs((output / name).parent)
    for name in names:
      (output / name).parent.mkdir(parents=True, exist_ok=True)
      os.replace(folder / name, output / name)
  except OSError as error:
    raise cannot_write(output, error) from None
