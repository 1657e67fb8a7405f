"""passport.json: the numbers of one measurement with what they were made from, in one small file.

`recipe.provenance` says what is in it. The file holds the SHA-256 of its own content, so that it
can be passed on without the folder that it was written in.
"""

import pathlib
from collections.abc import Mapping

import numpy as np

from data_pipelines import records
from data_pipelines.errors import BadInput
from diga_jax.parallel import processes
from diga_jax.storage import stage_folder
from diga_jax.types import PyTree

NAME = 'passport.json'
VERSION = 1  # of what a passport holds
KEYS = ('kind', 'name', 'scores', 'protocol', 'made_from', 'measurement')
REDO = 'restore it from a copy, or run `evaluate` again with the config of its run'


def write(folder: pathlib.Path, content: Mapping[str, PyTree]) -> None:
  """Writes the passport of a measurement's folder, by one process."""
  if processes.is_main_process():
    records.write(folder / NAME, {'passport': VERSION, **content})


def read(path: pathlib.Path) -> dict[str, PyTree]:
  """A passport, wherever it lies.

  Raises:
    BadInput: it is missing, damaged or edited, of another version, no passport, or lies in the
      folder of another measurement.
  """
  found = records.read(path, REDO, 'passport')
  if found['passport'] != VERSION:
    raise BadInput(
      f'{path}: is a passport of version {found["passport"]!r}, and this package reads {VERSION}: '
      'use the version of the package that wrote it'
    )
  if missing := set(KEYS).difference(found):
    raise BadInput(f'{path}: is damaged: it has no {min(missing)}; {REDO}')
  if (path.parent / stage_folder.RECORD).exists():
    identity = stage_folder.read_record(path.parent)['identity']
    if stage_folder.hash_of(identity) != found['measurement']:
      raise BadInput(f'{path}: is of another measurement than its folder: {REDO}')
  return found


def find(path: pathlib.Path) -> pathlib.Path:
  """The passport of the folder of a measurement, or of a stage that is measured once.

  Raises:
    BadInput: the folder is neither, has no passport, or the stage is measured in several ways.
  """
  if (path / NAME).is_file():
    return path / NAME
  if (path / 'metrics.json').is_file():
    raise BadInput(f'{path}: has no {NAME}: run `evaluate` again with the config of its run')
  if not (path / stage_folder.RECORD).exists():
    raise BadInput(f'{path}: {stage_folder.why_no_stage(path)}')
  folders = sorted(path.parent.glob(f'evaluation/*/{path.name}/*'))
  folders = [folder for folder in folders if (folder / stage_folder.RECORD).exists()]
  if not folders:
    raise BadInput(f'{path}: the stage is not measured: run `evaluate` with the config of its run')
  if len(folders) > 1:
    names = ', '.join(map(str, folders))
    raise BadInput(f'{path}: the stage is measured several times: name one of {names}')
  return find(folders[0])


def counts(path: pathlib.Path) -> dict[str, np.ndarray] | None:
  """The arrays of images.npz beside a passport, 'ids', 'intersection' and 'union'; None without.

  Raises:
    BadInput: they are damaged.
  """
  folder = path.parent
  if path.name != NAME or not (folder / stage_folder.RECORD).exists():
    return None
  if 'images.npz' not in stage_folder.read_record(folder).get('files', {}):
    return None
  stage_folder.check_files(folder, 'images.npz')
  with np.load(folder / 'images.npz') as arrays:
    return dict(arrays)
