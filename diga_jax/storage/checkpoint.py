"""Orbax checkpoints: the whole state while a stage trains, its network for the next one."""

import contextlib
import functools
import operator
import pathlib
import shutil
from collections.abc import Iterator

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from absl import logging
from orbax.checkpoint import checkpoint_managers

from data_pipelines.errors import BadInput, one_line
from diga_jax.parallel import processes
from diga_jax.state import TrainState
from diga_jax.types import PyTree

_score = operator.itemgetter('score')


class Damaged(BadInput):
  """A checkpoint that cannot be read."""


@contextlib.contextmanager
def open_manager(
  directory: pathlib.Path, *, scored: bool = False
) -> Iterator[ocp.CheckpointManager]:
  """Asynchronous checkpoints in a folder: the newest two, and the best one if they are scored."""
  keep = [checkpoint_managers.LatestN(2)]
  if scored:
    best = {'n': 1, 'keep_checkpoints_without_metrics': False}
    keep.append(checkpoint_managers.BestN(get_metric_fn=_score, **best))
  options = ocp.CheckpointManagerOptions(
    preservation_policy=checkpoint_managers.AnyPreservationPolicy(keep),
    best_fn=_score if scored else None,
    cleanup_tmp_directories=True,
  )
  manager = ocp.CheckpointManager(
    directory.absolute(), options=options, item_handlers=ocp.StandardCheckpointHandler()
  )
  try:
    yield manager
  finally:
    # What went wrong while a checkpoint was written has been raised by then.
    with contextlib.suppress(Exception):
      manager.close()


def save(manager: ocp.CheckpointManager, state: TrainState, step: int, score: float | None) -> None:
  """Starts saving a state; training may go on while it is written.

  Raises:
    BadInput: if there is no space for this one, or it or the last one cannot be written; those
      before it stay.
  """
  metrics = None if score is None else {'score': score}
  finish(manager)  # the one before, as saving would: it tells how much space one takes
  _check_space(manager, state)
  with _writing(manager):
    manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics)


def _check_space(manager: ocp.CheckpointManager, state: TrainState) -> None:
  """Checked before Orbax notices: its threads would print a traceback for every array."""
  needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  if before := manager.latest_step():  # names and indices need space as well
    files = (pathlib.Path(manager.directory) / str(before)).rglob('*')
    needed = max(needed, sum(512 * file.stat().st_blocks for file in files))
  free = shutil.disk_usage(manager.directory).free
  if free < needed:
    raise BadInput(
      f'{manager.directory}: a checkpoint needs {needed:,} bytes and {free:,} are free; free space '
      f'and run again: it goes on from step {manager.latest_step() or 0}'
    )


def finish(manager: ocp.CheckpointManager) -> None:
  """Waits until the last checkpoint is on disk; raises BadInput if it cannot be written."""
  with _writing(manager):
    manager.wait_until_finished()


@contextlib.contextmanager
def _writing(manager: ocp.CheckpointManager) -> Iterator[None]:
  try:
    yield
  # A full disk, a folder without permission, a lost mount: Orbax raises many kinds of errors.
  except Exception as error:
    raise BadInput(
      f'{manager.directory}: a checkpoint cannot be written ({one_line(error)}); free space or '
      f'give permission and run again: it goes on from step {manager.latest_step() or 0}'
    ) from error


def newest_on_disk(directory: pathlib.Path) -> str:
  """What is saved whole in a folder of checkpoints, for a message."""
  steps = [int(place.name) for place in directory.glob('[0-9]*') if place.name.isdecimal()]
  return f'step {max(steps)} is saved' if steps else 'nothing of it is saved yet'


def restore(manager: ocp.CheckpointManager, state: TrainState) -> TrainState:
  """The newest state that can be read, placed as `state` is; `state` if none has been saved.

  A damaged checkpoint is set aside (STEP.damaged), with a warning.

  Raises:
    BadInput: if the checkpoint holds another network, or all of them are damaged.
  """
  abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
  damaged = None
  for step in sorted(manager.all_steps(), reverse=True):
    try:
      found = _read(manager, step, ocp.args.StandardRestore(abstract))
    except Damaged as error:
      damaged = error
      continue
    if damaged:
      logging.warning('%s. Going on from step %d', damaged, step)
      _set_aside(manager, newer_than=step)
    return found
  if damaged:
    raise damaged
  return state


def _set_aside(manager: ocp.CheckpointManager, newer_than: int) -> None:
  """Renames the checkpoints after a step, so that these steps can be saved again."""
  if processes.is_main_process():
    for step in manager.all_steps():
      if step > newer_than:
        place = pathlib.Path(manager.directory) / str(step)
        aside = place.with_name(f'{step}.damaged')
        shutil.rmtree(aside, ignore_errors=True)
        place.rename(aside)
  processes.barrier('checkpoints set aside')
  manager.reload()


def read_network(
  directory: pathlib.Path, step: int, abstract: dict[str, PyTree]
) -> dict[str, PyTree]:
  """Parts of a finished stage's state, such as {'params': ..., 'batch_stats': ...}.

  Args:
    directory: the stage's checkpoints.
    step: which one.
    abstract: the wanted fields of `TrainState` as trees of arrays or shapes with shardings.

  Raises:
    BadInput: if the checkpoint is missing, holds another network or cannot be read.
  """
  abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, abstract)
  arguments = ocp.args.PyTreeRestore(
    item=abstract,
    restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
    partial_restore=True,
  )
  handler = ocp.PyTreeCheckpointHandler()
  with ocp.CheckpointManager(directory.absolute(), item_handlers=handler) as manager:
    return _read(manager, step, arguments)


def read_arrays(directory: pathlib.Path, step: int) -> dict[str, PyTree]:
  """All of a finished stage's state as NumPy arrays, whatever network it is of.

  Raises:
    BadInput: if the checkpoint is missing or cannot be read.
  """
  handler = ocp.PyTreeCheckpointHandler()
  with ocp.CheckpointManager(directory.absolute(), item_handlers=handler) as manager:
    return _read(manager, step)


def write_arrays(directory: pathlib.Path, step: int, tree: dict[str, PyTree]) -> None:
  """Writes a tree as `read_arrays` and `read_network` read it."""
  with open_manager(directory) as manager, _writing(manager):
    manager.save(step, args=ocp.args.StandardSave(tree))
    manager.wait_until_finished()


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
    _read_through(where)
    return manager.restore(step, args=arguments)
  except BadInput:
    raise
  # Orbax and TensorStore raise many kinds of errors for damaged files.
  except Exception as error:
    raise Damaged(
      f'{where}: the checkpoint cannot be read ({one_line(error)}); restore it, or delete the '
      'stage to start it again'
    ) from error


def _read_through(where: pathlib.Path) -> None:
  """Reads all of a checkpoint's arrays, one after another, and forgets them.

  Orbax reads them at once, and when one fails it leaves the others behind: a traceback for each
  of hundreds on the terminal. So a damaged checkpoint must not get that far.
  """
  base = {'driver': 'file', 'path': f'{where / "default"}/'}
  store = ts.KvStore.open({'driver': 'ocdbt', 'base': base}).result()
  for key in store.list().result():
    store.read(key).result()


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
