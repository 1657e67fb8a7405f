"""Orbax checkpoints: the whole state while a stage trains, its network for the next one."""

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from data_pipelines.errors import BadInput
from diga_jax.state import TrainState


def open_manager(directory: pathlib.Path, *, scored: bool = False) -> ocp.CheckpointManager:
  """Asynchronous checkpoints in a folder: the newest two, and the best one if they are scored."""
  keep = [policies.LatestN(2)]
  if scored:
    keep.append(policies.BestN(get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False))
  options = ocp.CheckpointManagerOptions(
    preservation_policy=policies.AnyPreservationPolicy(keep),
    best_fn=_score if scored else None,
    cleanup_tmp_directories=True,
  )
  return ocp.CheckpointManager(
    directory.absolute(), options=options, item_handlers=ocp.StandardCheckpointHandler()
  )


def _score(metrics: dict[str, float]) -> float:
  return metrics['score']


def save(manager: ocp.CheckpointManager, state: TrainState, step: int, score: float | None) -> None:
  """Starts saving a state; training may go on while it is written."""
  metrics = None if score is None else {'score': score}
  manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics)


def restore(manager: ocp.CheckpointManager, like: TrainState) -> TrainState:
  """The newest state, placed as `like` is, or `like` itself if there is none.

  Raises:
    BadInput: if the checkpoint holds another network or cannot be read.
  """
  step = manager.latest_step()
  if step is None:
    return like
  abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
  return _read(manager, step, ocp.args.StandardRestore(abstract))


def read_network(directory: pathlib.Path, step: int, like: dict[str, Any]) -> dict[str, Any]:
  """Parts of a finished stage's state, such as {'params': ..., 'batch_stats': ...}.

  Args:
    directory: the stage's checkpoints.
    step: which one.
    like: the wanted fields of `TrainState` as trees of arrays or shapes with shardings.

  Raises:
    BadInput: if the checkpoint is missing, holds another network or cannot be read.
  """
  abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
  arguments = ocp.args.PyTreeRestore(
    item=abstract,
    restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
    partial_restore=True,
  )
  handler = ocp.PyTreeCheckpointHandler()
  with ocp.CheckpointManager(directory.absolute(), item_handlers=handler) as manager:
    return _read(manager, step, arguments)


def _read(manager: ocp.CheckpointManager, step: int, arguments: Any) -> Any:
  where = pathlib.Path(manager.directory) / str(step)
  try:
    saved = manager.item_metadata(step)
    _check_shapes(where, saved.tree, arguments.item)
    return manager.restore(step, args=arguments)
  except BadInput:
    raise
  # Orbax and TensorStore raise many kinds of errors for damaged files.
  except Exception as error:
    reason = ' '.join(str(error).split())[:200]
    raise BadInput(
      f'{where}: the checkpoint cannot be read ({reason}); delete that folder to go on from the '
      'one before, or the stage to start it again'
    ) from error


def _check_shapes(where: pathlib.Path, saved: Any, wanted: Any) -> None:
  """Refuses a checkpoint in which a wanted array is absent or of another shape."""
  there = {_name(path): tuple(leaf.shape) for path, leaf in jax.tree.leaves_with_path(saved)}
  for path, leaf in jax.tree.leaves_with_path(wanted):
    name = _name(path)
    if there.get(name) != tuple(leaf.shape):
      raise BadInput(
        f'{where}: the checkpoint is of another network: {name} is {there.get(name, "absent")} '
        f'there and {tuple(leaf.shape)} by this config'
      )


def _name(path: tuple) -> str:
  return '/'.join(str(getattr(p, 'key', getattr(p, 'name', getattr(p, 'idx', p)))) for p in path)
