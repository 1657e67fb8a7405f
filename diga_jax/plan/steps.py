"""The training steps of a recipe as shapes."""

import functools
import math

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diga_jax.recipe import training
from diga_jax.recipe.experiment import Experiment
from diga_jax.stages.kinds import inputs
from diga_jax.types import PyTree


def batch_rows(stage: ConfigDict, chips: int) -> int:
  """The rows of a stage's batch, rounded up to what divides over the chips."""
  return math.ceil((stage.batch.low_rows + stage.batch.full_rows) / chips) * chips


def abstract_step(experiment: Experiment, name: str, rows: int) -> tuple[PyTree, ...]:
  """(step, state, batch, frozen) of a training stage, the last three as shapes."""
  config, stage = experiment.config, experiment.stage(name)
  arrays = jax.eval_shape(functools.partial(training.random_arrays, experiment, stage))
  step, state = training.start(experiment, name, arrays, make=jax.eval_shape)
  reads = inputs(stage, config)
  image = jax.ShapeDtypeStruct((rows, *config.data.crop, 3), jnp.uint8)
  label = jax.ShapeDtypeStruct(image.shape[:3], jnp.uint8)
  batch = {}
  if reads.source:
    batch |= {'source_image': image, 'source_label': label}
  if reads.target:
    batch['target_image'] = image
  if reads.labels:
    batch['target_label'] = label
  return step, state, batch, arrays.frozen


def make_step(config: ConfigDict, name: str, rows: int) -> tuple[PyTree, ...]:
  """`abstract_step` for another process."""
  return abstract_step(Experiment(config), name, rows)


def program_key(stage: ConfigDict) -> str:
  """Equal for stages whose steps are one program but for constants and what they start from."""
  settings = stage.to_dict()
  del settings['steps'], settings['optimizer']['learning_rate']
  return str({k: v for k, v in settings.items() if k not in ('start', 'labels')})
