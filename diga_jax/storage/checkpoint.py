"""Orbax checkpoints: the whole state while a stage trains, its networks for the next one.

A checkpoint is a folder STEP/ that gets this name when the digests of its files lie beside them
(`file_digests.SUMS`); they are compared before any of it is read.
"""

import contextlib
import functools
import logging as python_logging
import math
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Sequence

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers
from orbax.checkpoint.path import atomicity

from data_pipelines import atomic
from data_pipelines.errors import BadInput, one_line
from diga_jax.parallel import processes
from diga_jax.state import NETWORKS, TrainState
from diga_jax.storage import file_digests
from diga_jax.storage.file_digests import Damaged
from diga_jax.types import CheckpointTable, PyTree

FOLDER = 'checkpoints'  # of a stage
# Beside the only checkpoint of a stage whose training is over.
NETWORKS_ONLY = 'NETWORKS_ONLY'
LONGEST = 4095 - 140  # bytes of a folder's path (Linux): Orbax adds names of up to 140


class _WithDigests(atomicity.AtomicRenameTemporaryPath):
  """A checkpoint that is renamed to STEP when the digests of its files have been written."""

  async def finalize(self) -> None:
    final = self.get_final()
    if not final.name.isdigit():  # a part of the checkpoint
      await super().finalize()
      return
    self._final_path = final.with_name(f'{self.get().name}-whole')
    await super().finalize()  # renames it to that
    file_digests.write_sums(pathlib.Path(self._final_path))
    os.rename(self._final_path, final)
    self._final_path = final


# When a write fails, `_writing` raises why. Orbax's threads and tasks, and what TensorStore still
# calls of a loop that has ended, would print a traceback each before that.


def _tell_others(record: python_logging.LogRecord) -> bool:
  """Ends all of several processes when one's write fails: they would wait minutes for its part."""
  if record.threadName == 'async_save' and record.exc_info:  # Orbax's thread that writes
    processes.end(BadInput(_why_not_written(record.exc_info[1])))
  return True


def _is_no_echo(record: python_logging.LogRecord) -> bool:
  theirs = f'{os.sep}orbax{os.sep}' in record.pathname or record.name == 'asyncio'
  return not (theirs and record.exc_info)


def _why_not_written(error: BaseException | None) -> str:
  return f'a checkpoint cannot be written ({one_line(error)}); free space or give permission'


def _show_but_late_calls(hook: Callable[..., None], found: 'sys.UnraisableHookArgs') -> None:
  if not (found.exc_type is RuntimeError and str(found.exc_value) == 'Event loop is closed'):
    hook(found)


python_logging.getLogger('absl').addFilter(_tell_others)
for _name in ('absl', 'asyncio'):
  python_logging.getLogger(_name).addFilter(_is_no_echo)
sys.unraisablehook = functools.partial(_show_but_late_calls, sys.unraisablehook)


@contextlib.contextmanager
def open_manager(
  directory: pathlib.Path, *, criteria: Sequence[str] = (), newest: int | None = 2
) -> Iterator[ocp.CheckpointManager]:
  """Asynchronous checkpoints in a folder.

  Damaged ones are set aside (STEP.damaged), with a warning.

  Args:
    directory: the folder.
    criteria: by each of these the best one is kept as well; of equals the newest.
    newest: how many of the newest are kept; None: all.

  Raises:
    BadInput: if all of them are damaged, or the folder cannot be written.
  """
  keep = [checkpoint_managers.LatestN(newest)]
  scores = [functools.partial(_score, name) for name in criteria]
  for score in scores:
    keep.append(
      checkpoint_managers.BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False)
    )
  options = ocp.CheckpointManagerOptions(
    preservation_policy=checkpoint_managers.AnyPreservationPolicy(keep),
    best_fn=scores[0] if scores else None,
    cleanup_tmp_directories=True,
    temporary_path_class=_WithDigests,
  )
  if len(os.fsencode(directory.absolute())) > LONGEST:
    raise BadInput(f'{directory}: this path is too long for checkpoints: use a shorter --workdir')
  _set_aside_damaged(directory)
  with _writing(directory):
    manager = ocp.CheckpointManager(
      directory.absolute(), options=options, item_handlers=ocp.StandardCheckpointHandler()
    )
  try:
    yield manager
  finally:
    # What went wrong while a checkpoint was written has been raised by then.
    with contextlib.suppress(Exception):
      manager.close()


def _score(criterion: str, metrics: dict[str, PyTree]) -> float:
  """The score of a checkpoint; one that is no candidate has none, and is never the best."""
  return metrics['scores'].get(criterion, -math.inf)


def read_table(manager: ocp.CheckpointManager) -> CheckpointTable:
  """The scores of all candidates so far, which the newest checkpoint holds; [] without one.

  Raises:
    BadInput: if it was saved without them.
  """
  step = manager.latest_step()
  if step is None:
    return []
  metrics = manager.metrics(step)
  if not metrics or 'table' not in metrics:
    raise BadInput(
      f'{manager.directory}/{step}: was saved by an earlier version of this package, without the '
      'scores of the checkpoints before it: use another --workdir'
    )
  return metrics['table']


def save(
  manager: ocp.CheckpointManager, state: TrainState, step: int, table: CheckpointTable | None = None
) -> None:
  """Starts saving a state; training may go on while it is written.

  Args:
    manager: of its folder.
    state: after `step` steps.
    step: its number.
    table: the scores of all candidates so far; None if there are no criteria.

  Raises:
    BadInput: if there is no space for this one, or it or the last one cannot be written; those
      before it stay.
  """
  metrics = None
  if table is not None:
    own = [row for row in table if row['step'] == step]
    metrics = {'scores': own[0] if own else {}, 'table': table}
  finish(manager)  # the one before, as saving would: it tells how much space one takes
  directory = pathlib.Path(manager.directory)
  _check_space(directory, state)
  with _writing(directory):
    manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics)


def _check_space(directory: pathlib.Path, state: PyTree) -> None:
  """Raises BadInput if there is no space for a checkpoint, or for its number of files."""
  needed, files = sum(leaf.nbytes for leaf in jax.tree.leaves(state)), 64
  if before := steps_in(directory):  # names and indices need space as well
    there = list((directory / str(before[-1])).rglob('*'))
    needed = max(needed, sum(512 * file.stat().st_blocks for file in there))
    files = len(there)
  disk = os.statvfs(directory)
  free = disk.f_bavail * disk.f_frsize
  if free < needed:
    raise BadInput(
      f'{directory}: a checkpoint needs {needed:,} bytes and {free:,} are free; free space and run '
      f'again{_from_step(directory)}'
    )
  if disk.f_files and disk.f_favail < files:  # some file systems do not count them
    raise BadInput(
      f'{directory}: a checkpoint has {files} files and {disk.f_favail} more can be made there (no '
      f'inodes); free some and run again{_from_step(directory)}'
    )


def steps_in(directory: pathlib.Path) -> list[int]:
  """The steps whose checkpoints are complete, in order."""
  return sorted(int(found.name) for found in directory.glob('[0-9]*') if found.name.isdigit())


def _from_step(directory: pathlib.Path) -> str:
  steps = steps_in(directory)
  return f': it goes on from step {steps[-1]}' if steps else ''


def finish(manager: ocp.CheckpointManager) -> None:
  """Waits until the last checkpoint is on disk; raises BadInput if it cannot be written."""
  with _writing(pathlib.Path(manager.directory)):
    manager.wait_until_finished()


@contextlib.contextmanager
def _writing(directory: pathlib.Path) -> Iterator[None]:
  try:
    yield
  # A full disk, a folder without permission, a lost mount: Orbax raises many kinds of errors.
  except Exception as error:
    why = _why_not_written(error)
    raise BadInput(f'{directory}: {why} and run again{_from_step(directory)}') from error


def newest_on_disk(directory: pathlib.Path) -> str:
  """What is saved whole in a folder of checkpoints, for a message."""
  steps = steps_in(directory)
  return f'step {steps[-1]} is saved' if steps else 'nothing of it is saved yet'


def restore(manager: ocp.CheckpointManager, state: TrainState) -> TrainState:
  """The newest state, placed as `state` is; `state` if none has been saved.

  Raises:
    BadInput: if the checkpoint holds another network.
  """
  abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
  step = manager.latest_step()
  return state if step is None else _read(manager, step, ocp.args.StandardRestore(abstract))


def _set_aside_damaged(directory: pathlib.Path) -> None:
  """Renames damaged checkpoints, so that training goes on from the newest sound one."""
  steps, damaged = steps_in(directory), {}
  for step in steps:
    try:
      _check(directory, step)
    except Damaged as error:
      damaged[step] = error
  if steps and len(damaged) == len(steps):
    raise damaged[steps[-1]]
  for step, error in damaged.items():
    there = directory / str(step)
    aside = there.with_name(f'{step}.damaged')
    newest = max(set(steps) - damaged.keys())
    logging.warning('%s. Set aside as %s. Going on from step %d', error.what, aside.name, newest)
    if processes.is_main_process():
      shutil.rmtree(aside, ignore_errors=True)
      there.rename(aside)
  processes.barrier('damaged checkpoints are set aside')


def _check(directory: pathlib.Path, step: int) -> None:
  file_digests.check_sums(directory / str(step), redo=directory.parent)


def _reader(directory: pathlib.Path) -> ocp.CheckpointManager:
  options = ocp.CheckpointManagerOptions(create=False, lightweight_initialize=True)
  handler = ocp.PyTreeCheckpointHandler()
  return ocp.CheckpointManager(directory.absolute(), options=options, item_handlers=handler)


def read_network(
  directory: pathlib.Path, step: int, abstract: dict[str, PyTree]
) -> dict[str, PyTree]:
  """Parts of a finished stage's state, such as {'params': ..., 'batch_stats': ...}.

  Args:
    directory: the stage's checkpoints.
    step: which one.
    abstract: the wanted fields of `TrainState` as trees of arrays or shapes with shardings.

  Raises:
    BadInput: if the checkpoint is missing, damaged or of another network.
  """
  _check(directory, step)
  abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, abstract)
  arguments = ocp.args.PyTreeRestore(
    item=abstract,
    restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
    partial_restore=True,
  )
  with _reader(directory) as manager:
    return _read(manager, step, arguments)


def read_arrays(directory: pathlib.Path, step: int) -> dict[str, PyTree]:
  """All of a finished stage's state as NumPy arrays, whatever network it is of.

  Raises:
    BadInput: if the checkpoint is missing or damaged.
  """
  _check(directory, step)
  with _reader(directory) as manager:
    return _read(manager, step)


def write_arrays(directory: pathlib.Path, step: int, tree: dict[str, PyTree]) -> None:
  """Writes a tree as `read_arrays` and `read_network` read it, beside those of other steps."""
  with open_manager(directory, newest=None) as manager:
    _check_space(directory, tree)
    with _writing(directory):
      manager.save(step, args=ocp.args.StandardSave(tree))
      manager.wait_until_finished()


# A stage that is trained.


def keep_networks(stage: pathlib.Path, steps: Collection[int]) -> None:
  """Replaces the checkpoints of a stage by what is read of some: networks and statistics.

  It may be killed at any moment: either all checkpoints are there, or `networks_kept` completes it.

  Args:
    stage: the folder.
    steps: of the checkpoints to keep, in no order; one may be named twice.

  Raises:
    BadInput: if one of these checkpoints is damaged, or there is no space.
  """
  place, new = stage / FOLDER, stage / 'networks'
  for step in {*steps}:
    _check(place, step)
  processes.barrier('the networks are sound')
  if processes.is_main_process():
    needed = {*steps, steps_in(place)[-1]}  # the last one says that the training is over
    for other in place.iterdir():
      if other.name not in map(str, needed) and other.is_dir():
        shutil.rmtree(other)
    shutil.rmtree(new, ignore_errors=True)  # that a kill left
  processes.barrier('there is space for the networks')
  for step in sorted({*steps}):
    state = read_arrays(place, step)
    read_later = {name: state.get(name) for name in (*NETWORKS.values(), 'batch_stats')}
    write_arrays(new, step, {name: tree for name, tree in read_later.items() if tree is not None})
  if processes.is_main_process():
    text = 'student, teacher and their statistics at the steps to use\n'
    atomic.write_text(new / NETWORKS_ONLY, text)
  networks_kept(stage)


def networks_kept(stage: pathlib.Path) -> list[int]:
  """The steps that a stage keeps whose training is over (`keep_networks`); [] if it may go on."""
  place, new = stage / FOLDER, stage / 'networks'
  processes.barrier('the networks are written')
  half_done = (new / NETWORKS_ONLY).exists() and _are_sound(new, or_else=place)
  processes.barrier('the networks are looked for')
  if half_done and processes.is_main_process():
    shutil.rmtree(place, ignore_errors=True)
    new.rename(place)
  processes.barrier('the networks are kept')
  return steps_in(place) if (place / NETWORKS_ONLY).exists() else []


def _are_sound(new: pathlib.Path, or_else: pathlib.Path) -> bool:
  """Whether checkpoints may take the place of others; raises Damaged if there are no others."""
  try:
    for step in steps_in(new):
      _check(new, step)
  except Damaged:
    if not steps_in(or_else):
      raise
    return False
  return True


def _read(
  manager: ocp.CheckpointManager, step: int, arguments: ocp.args.CheckpointArgs | None = None
) -> PyTree:
  """What the arguments ask for, of the shapes that they have; without them all, as NumPy arrays."""
  where = pathlib.Path(manager.directory) / str(step)
  try:
    saved = manager.item_metadata(step).tree
    if arguments is None:
      wanted = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
      arguments = ocp.args.PyTreeRestore(restore_args=wanted)
    else:
      _check_shapes(where, saved, arguments.item)
    return manager.restore(step, args=arguments)
  except BadInput:
    raise
  # It is as it was written: the memory is full, or Orbax is another version.
  except Exception as error:
    raise BadInput(f'{where}: the checkpoint cannot be read ({one_line(error)})') from error


def _check_shapes(where: pathlib.Path, saved: PyTree, wanted: PyTree) -> None:
  """Refuses a checkpoint in which a wanted array is absent or of another shape."""
  name_of = functools.partial(jax.tree_util.keystr, simple=True, separator='/')
  there = {name_of(path): tuple(leaf.shape) for path, leaf in jax.tree.leaves_with_path(saved)}
  for path, leaf in jax.tree.leaves_with_path(wanted):
    name = name_of(path)
    if there.get(name) != tuple(leaf.shape):
      raise BadInput(
        f'{where}: the checkpoint is of another network: {name} is {there.get(name, "absent")} '
        f'there and {tuple(leaf.shape)} by this config'
      )
