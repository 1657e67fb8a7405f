"""How much room stages take on disk, computed from the shapes of their arrays."""

import math
import pathlib
from collections.abc import Iterable

import jax
from rich import filesize

from diga_jax.recipe import training
from diga_jax.recipe.experiment import Experiment
from diga_jax.stages.kinds import criteria_of, kind_of
from diga_jax.state import NETWORKS, TrainState
from diga_jax.types import PyTree

NEWEST = 2  # whole checkpoints that a stage in training keeps, beside the best ones


def to_keep(experiment: Experiment, name: str) -> int | None:
  """The bytes that a complete training stage keeps; None for a label pass: labels compress."""
  stage, config = experiment.stage(name), experiment.config
  if kind_of(stage).train_step is None:
    return None
  if config.keep_checkpoints == 'all':
    return to_train(experiment, name)
  state, choices = training.abstract_state(experiment, name), criteria_of(stage, config)
  networks = [getattr(state, field) for field in (*NETWORKS.values(), 'batch_stats')]
  return size_of(networks) * (1 + len(choices) if config.criteria.record else 1)


def to_train(experiment: Experiment, name: str) -> int:
  """The bytes of the checkpoints of a stage while it is trained; 0 for a label pass."""
  stage, config = experiment.stage(name), experiment.config
  if kind_of(stage).train_step is None:
    return 0
  state: TrainState = training.abstract_state(experiment, name)
  saves = max(1, -(-stage.steps // config.save_every))
  return size_of(state) * min(saves, NEWEST + len(criteria_of(stage, config)))


def needed(experiment: Experiment, names: Iterable[str]) -> tuple[int, int]:
  """Bytes that checkpoints of stages need one after the other: in the end, and besides for a time.

  The second is of the stage that takes most while it is trained.
  """
  kept = {name: to_keep(experiment, name) or 0 for name in names}
  whole = experiment.config.keep_checkpoints == 'all'  # the checkpoints of the training stay
  besides = [] if whole else [to_train(experiment, name) for name in kept]
  return sum(kept.values()), max(besides, default=0)


def size_of(tree: PyTree) -> int:
  """The bytes of the arrays of a tree, or of their shapes."""
  return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def used(directory: pathlib.Path) -> int:
  """The bytes of the files of a folder that is there."""
  return sum(path.stat().st_size for path in directory.rglob('*') if path.is_file())


def in_words(size: int) -> str:
  """Bytes as people read them, such as '92.0 MB'."""
  return filesize.decimal(size)
