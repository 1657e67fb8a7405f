"""A training stage before its first step: networks, optimizers, and how its state begins."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from diga_jax import optimizer, state
from diga_jax.types import PyTree, SegmentationNet, StepConfig, Variables


class Setup(NamedTuple):
  """What a step is called with, and the state that it starts from.

  Attributes:
    model, tx: the network and its optimizer, or dicts of them, as the kind's step takes them.
    create: (root key, variables, centroids [C, D] or ()) -> the state at step 0; traceable.
  """

  model: PyTree
  tx: PyTree
  create: Callable[[jax.Array, Variables, PyTree], state.TrainState]


def schedule(settings: ConfigDict, steps: int) -> dict[str, PyTree]:
  """An optimizer's settings with the length of the decay filled in."""
  filled_in = settings.to_dict()
  return filled_in | {'decay_steps': filled_in['decay_steps'] or steps}


def segmentation(model: SegmentationNet, config: StepConfig, variables: Variables) -> Setup:
  """The setup of a stage that trains a segmentation network, from its variables or their shapes.

  Raises:
    ValueError: a pattern of the optimizer matches no parameter.
  """
  stage = config.stage
  tx = optimizer.build(schedule(stage.optimizer, stage.steps), variables['params'])

  def create(key: jax.Array, variables: Variables, centroids: PyTree) -> state.TrainState:
    params, batch_stats = variables['params'], variables.get('batch_stats', {})
    return state.create(key, params, tx, batch_stats=batch_stats, centroids=centroids)

  return Setup(model, tx, create)
