"""Folders that are complete or absent, and record what they were made from."""

import contextlib
import fcntl
import fnmatch
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypedDict

from data_pipelines import atomic, records
from data_pipelines.errors import BadInput
from diga_jax.parallel import processes
from diga_jax.storage import file_digests, run_record
from diga_jax.types import PyTree

RECORD = 'stage.json'
# Files of a complete folder that are read later; those of a checkpoint have digests in its own.
CHECKPOINTS = f'checkpoints/*/{file_digests.SUMS}'
SCORES = 'checkpoints.json'  # of the checkpoints of a stage, by criterion
FILES = ('labels/*.png', '*.npz', 'metrics.json', SCORES, CHECKPOINTS)
TRAINED = ('checkpoints', 'networks')  # what is in them has been trained
OTHER_WORKDIR = 'use another --workdir'


class Record(TypedDict):
  """What RECORD holds; a partial folder's has neither result nor files yet."""

  identity: dict[str, PyTree]
  result: PyTree
  files: dict[str, str]  # name in the folder -> SHA-256 (hex)


def read_record(directory: pathlib.Path) -> Record:
  """The record of a folder.

  Raises:
    BadInput: if it is missing, and what the folder is instead; or if it is damaged, was written
      without digests, or is of a folder that is not complete, whatever its name says.
  """
  if not (directory / RECORD).exists():
    raise BadInput(f'{directory}: {why_no_stage(directory)}')
  redo = 'restore it from a copy, or use another --workdir or evaluation.name (see CHANGELOG.md)'
  complete = () if directory.name.endswith('.partial') else ('result',)
  return records.read(directory / RECORD, redo, 'identity', *complete)


def hash_of(identity: Mapping[str, PyTree]) -> str:
  """The hash of an identity, recorded or about to be."""
  record = json.dumps(identity, sort_keys=True)
  return hashlib.sha256(record.encode()).hexdigest()[:16]


def warnings_in(record: Record) -> list[str]:
  """What the record of a complete stage warns of: classes that vanish or take over."""
  return record['result'].get('class_balance', {}).get('warnings', [])


class Network(NamedTuple):
  """Which checkpoint of a complete stage is meant.

  Attributes:
    directory: the stage's folder.
    step: of the checkpoint; None for a label pass.
    chosen_by: how it was chosen; None for a label pass.
  """

  directory: pathlib.Path
  step: int | None
  chosen_by: str | None


def stage_and_choice(name: str) -> tuple[str, str]:
  """STAGE@CHOICE -> (stage, choice); STAGE -> (stage, '')."""
  stage, _, choice = name.partition('@')
  return stage, choice


def network_of(path: pathlib.Path) -> Network:
  """The network that WORKDIR/STAGE or WORKDIR/STAGE@CHOICE names.

  The first is the one that later stages take, the second one of those that config.criteria.record
  keeps beside it.

  Raises:
    BadInput: the stage is not complete, or does not keep this one.
  """
  name, choice = stage_and_choice(path.name)
  directory = path.with_name(name) if choice else path
  result = read_record(directory).get('result')
  if not isinstance(result, dict):
    raise BadInput(f'{directory}: the stage is not complete: finish it first')
  own = result.get('chosen_by')
  if not choice:
    return Network(directory, result.get('step'), own)
  kept = result.get('kept') or {own: result.get('step')}
  if choice not in kept:
    raise BadInput(
      f'{directory} keeps no checkpoint chosen by {choice!r}, but by {", ".join(map(str, kept))}: '
      'name it in config.criteria.record before it is trained'
    )
  return Network(directory, kept[choice], choice)


def check_files(directory: pathlib.Path, pattern: str) -> None:
  """Compares files of a complete folder with the digests in its record.

  Args:
    directory: the folder.
    pattern: of their names, such as 'labels/*', where * stands for '/' too.

  Raises:
    BadInput: a file is missing or not as it was written, or the folder should have none.
  """
  files = read_record(directory).get('files', {})
  wanted = {name: files[name] for name in fnmatch.filter(files, pattern)}
  if not wanted:
    raise BadInput(f'{directory / pattern}: its stage made no such file')
  file_digests.check(directory, wanted, redo=directory)


def why_no_stage(directory: pathlib.Path) -> str:
  """Why a path is no complete stage, and what to name instead."""
  if (directory.parent / f'{directory.name}.partial').exists():
    return 'the stage is not complete: run it first'
  if inside := stages_in(directory):
    return f'this is a working directory: name one of its stages, {", ".join(inside)}'
  found = 'there is no such stage'
  if directory.exists():
    found = 'not the folder of a stage: it has no stage.json'
  if beside := stages_in(directory.parent):
    return f'{found}; {directory.parent} has {", ".join(beside)}'
  return f'{found}; name one in a working directory that `run` has made'


def stages_in(directory: pathlib.Path) -> list[str]:
  """The names of the complete stages of a working directory; none in any other folder."""
  found = (path.parent.name for path in directory.glob(f'*/{RECORD}'))
  return sorted(name for name in found if not name.endswith('.partial'))


def check_same(
  directory: pathlib.Path, identity: Mapping[str, PyTree], instead: str = OTHER_WORKDIR
) -> None:
  """Refuses a folder that was made from another config or other inputs.

  Args:
    directory: the folder.
    identity: what it should have been made from.
    instead: how to keep both it and what is made now.

  Raises:
    BadInput: naming the first differences.
  """
  old, new = read_record(directory)['identity'], json.loads(json.dumps(identity))
  different = [
    f'{key}: files of this data set have changed since, or are damaged'
    if key.startswith('images.') and key in old and key in new
    else f'{key}: {old.get(key, "absent")!r} there, {new.get(key, "absent")!r} now'
    for key in sorted(old.keys() | new.keys())
    if old.get(key, 'absent') != new.get(key, 'absent')
  ]
  if different:
    more = f' (and {len(different) - 3} more)' if len(different) > 3 else ''
    raise BadInput(
      f'{directory} was made with other settings: {"; ".join(different[:3])}{more}: set them '
      f'back, or {instead}'
    )


@contextlib.contextmanager
def lock(directory: pathlib.Path, field: str = '--workdir') -> Iterator[None]:
  """Keeps other runs out of a working directory; the lock goes with the process, however it ends.

  Args:
    directory: the folder.
    field: what names it, for messages.

  Raises:
    BadInput: if another run is there.
  """
  if not processes.is_main_process():
    processes.see_file(directory / '.lock', field)
    yield
    return
  was_there = directory.exists()
  directory.mkdir(parents=True, exist_ok=True)
  with (directory / '.lock').open('a') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise BadInput(
        f'{directory}: another run is at work there; wait for it, stop it, or use another folder'
      ) from None
    processes.see_file(directory / '.lock', field)
    try:
      yield
    finally:
      # After a mistake, nothing was made.
      if not {path.name for path in directory.iterdir()} - {'.lock', run_record.NAME}:
        (directory / run_record.NAME).unlink(missing_ok=True)
        (directory / '.lock').unlink()
        if not was_there:
          directory.rmdir()


def produce(
  directory: pathlib.Path,
  identity: Mapping[str, PyTree],
  build: Callable[[pathlib.Path], PyTree],
  instead: str = OTHER_WORKDIR,
) -> PyTree:
  """Makes a folder once: under the name DIRECTORY.partial, renamed when it is complete.

  Args:
    directory: the folder.
    identity: what it depends on, flat, JSON-able; two runs with the same identity are the same.
    build: fills the given (partial) folder, going on from what it finds there, and returns the
      result to record.
    instead: as of `check_same`.

  Returns:
    The recorded result, of this run or of the one that made the folder.

  Raises:
    BadInput: if the folder, or its partial one, was made from something else.
  """
  check_link(directory)
  processes.compare(directory.name, identity)
  partial = directory.with_name(directory.name + '.partial')
  if processes.is_main_process():
    atomic.sweep(partial)
  processes.barrier(f'{directory.name} is looked for')
  if directory.exists():
    check_same(directory, identity, instead)
    return read_record(directory)['result']
  record = {'identity': dict(identity)}
  if (partial / RECORD).exists():
    check_same(partial, identity, instead)
  else:
    processes.barrier(f'{directory.name} is begun')
    write_record(partial, record)
    processes.barrier(f'{directory.name} is there')
  try:
    result = build(partial)
  except BadInput:
    # Nothing half-written stays behind, but what was trained is never thrown away.
    trained = [path for name in TRAINED for path in (partial / name).glob('[0-9]*')]
    if not trained:
      shutil.rmtree(partial, ignore_errors=True)
    raise
  processes.barrier(f'{directory.name} is complete')
  write_record(partial, {**record, 'result': result, 'files': digests_of(partial)})
  if processes.is_main_process():
    partial.rename(directory)
  processes.barrier(f'{directory.name} has its name')
  return result


def check_link(directory: pathlib.Path) -> None:
  """Refuses a folder that is a link to one that is gone; raises BadInput."""
  if directory.is_symlink() and not directory.exists():
    raise BadInput(
      f'{directory}: is a link to {os.readlink(directory)}, which is gone: restore that, or remove '
      'the link'
    )


def digests_of(directory: pathlib.Path) -> dict[str, str]:
  """SHA-256 (hex) of the `FILES` of a folder, by name; several processes share them."""
  found = [path.relative_to(directory).as_posix() for path in directory.rglob('*')]
  return file_digests.of_files(
    directory, [name for name in found if any(fnmatch.fnmatch(name, each) for each in FILES)]
  )


def check_output(path: pathlib.Path) -> None:
  """Refuses a place in a folder that `produce` made: other commands read what is there.

  Raises:
    BadInput: naming the folder.
  """
  place = pathlib.Path(os.path.realpath(path))  # `resolve` raises for a link to itself
  for folder in (place, *place.parents):
    if (folder / RECORD).exists():
      raise BadInput(f'{path}: lies in {folder}, which others read: give another --output')


def write_record(directory: pathlib.Path, record: Mapping[str, PyTree]) -> None:
  """Writes the record of a folder, by one process."""
  if processes.is_main_process():
    records.write(directory / RECORD, record)


def write_metrics(path: str | os.PathLike[str], metrics: PyTree) -> None:
  """Writes metrics as JSON. Raises ValueError for NaN (`evaluate` gives None instead)."""
  atomic.write_text(path, json.dumps(metrics, indent=2, allow_nan=False) + '\n')
