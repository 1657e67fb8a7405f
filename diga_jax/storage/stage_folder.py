"""Folders that are complete or absent, and record what they were made from."""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import TypedDict

from data_pipelines import atomic
from data_pipelines.errors import BadInput, one_line
from diga_jax.parallel import processes
from diga_jax.storage import run_record
from diga_jax.types import PyTree

RECORD = 'stage.json'

# Old names of fields of the identity, and their present names (CHANGELOG.md).
RENAMED = {
  'choose': 'checkpoint_choice', 'stage.batch': 'selector_batch',
  'stage.ema': 'ema_decay_max (of a hiast stage: ema_decay)',
  'optimizer.head': 'head_lr_multiplier', 'optimizer.final': 'final_lr_ratio',
  'optimizer.total': 'decay_steps', 'batch.low': 'low_rows', 'batch.full': 'full_rows',
  'copy_paste.never': 'excluded_classes', 'copy_paste.images': 'max_donors',
  'adversarial.fooling': 'adversarial_weight', 'adversarial.entropy': 'entropy_weight',
  'adversarial.width': 'discriminator_width',
}  # fmt: skip


class Record(TypedDict):
  """What RECORD holds; a partial folder's has no result yet."""

  identity: dict[str, PyTree]
  result: PyTree


def read_record(directory: pathlib.Path) -> Record:
  """The record of a folder.

  Raises:
    BadInput: if it is missing or damaged.
  """
  path = directory / RECORD
  try:
    return json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise BadInput(
      f'{path}: missing or damaged ({one_line(error)}); delete {directory} to redo it'
    ) from None


def check_same(directory: pathlib.Path, identity: Mapping[str, PyTree]) -> None:
  """Refuses a folder that was made from another config or other inputs.

  Raises:
    BadInput: naming the first differences, or a field that has been renamed.
  """
  old, new = read_record(directory)['identity'], json.loads(json.dumps(identity))
  for field in sorted(old.keys() - new.keys()):
    for name in RENAMED:
      if field.endswith(name):
        raise BadInput(
          f'{directory} was made by a version before fields of the config were renamed ({field} is '
          f'now {RENAMED[name]}): use another --workdir (see CHANGELOG.md)'
        )
  different = [
    f'{key}: {old.get(key, "absent")!r} there, {new.get(key, "absent")!r} now'
    for key in sorted(old.keys() | new.keys())
    if old.get(key, 'absent') != new.get(key, 'absent')
  ]
  if different:
    more = f' (and {len(different) - 3} more)' if len(different) > 3 else ''
    raise BadInput(
      f'{directory} was made with other settings: {"; ".join(different[:3])}{more}. Use another '
      '--workdir, or delete that folder'
    )


@contextlib.contextmanager
def lock(directory: pathlib.Path) -> Iterator[None]:
  """Keeps other runs out of a working directory; the lock goes with the process, however it ends.

  Raises:
    BadInput: if another run is there.
  """
  if not processes.is_main_process():
    processes.see_file(directory / '.lock', '--workdir')
    yield
    return
  was_there = directory.exists()
  directory.mkdir(parents=True, exist_ok=True)
  with (directory / '.lock').open('a') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise BadInput(
        f'{directory}: another run is at work there; wait for it, stop it, or use another --workdir'
      ) from None
    processes.see_file(directory / '.lock', '--workdir')
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
  directory: pathlib.Path, identity: Mapping[str, PyTree], build: Callable[[pathlib.Path], PyTree]
) -> PyTree:
  """Makes a folder once: under the name DIRECTORY.partial, renamed when it is complete.

  Args:
    directory: the folder.
    identity: what it depends on, flat, JSON-able; two runs with the same identity are the same.
    build: fills the given (partial) folder, going on from what it finds there, and returns the
      result to record.

  Returns:
    The recorded result, of this run or of the one that made the folder.

  Raises:
    BadInput: if the folder, or its partial one, was made from something else.
  """
  processes.compare(directory.name, identity)
  partial = directory.with_name(directory.name + '.partial')
  if processes.is_main_process():
    atomic.sweep(partial)
  processes.barrier(f'{directory.name} is looked for')
  if directory.exists():
    check_same(directory, identity)
    return read_record(directory)['result']
  record = {'identity': dict(identity)}
  if (partial / RECORD).exists():
    check_same(partial, identity)
  else:
    processes.barrier(f'{directory.name} is begun')
    write_record(partial, record)
    processes.barrier(f'{directory.name} is there')
  try:
    result = build(partial)
  except BadInput:
    # Nothing half-written stays behind, but what was trained is never thrown away.
    if not any((partial / 'checkpoints').glob('[0-9]*')):
      shutil.rmtree(partial)
    raise
  processes.barrier(f'{directory.name} is complete')
  write_record(partial, {**record, 'result': result})
  if processes.is_main_process():
    partial.rename(directory)
  processes.barrier(f'{directory.name} has its name')
  return result


def write_record(directory: pathlib.Path, record: Mapping[str, PyTree]) -> None:
  """Writes the record of a folder, by one process."""
  if processes.is_main_process():
    atomic.write_text(directory / RECORD, json.dumps(record, indent=1))


def write_metrics(path: str | os.PathLike[str], metrics: PyTree) -> None:
  """Writes metrics as JSON. Raises ValueError for NaN (`evaluate` gives None instead)."""
  atomic.write_text(path, json.dumps(metrics, indent=2, allow_nan=False) + '\n')
