"""The training steps of a recipe as shapes."""

import functools
import math
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diga_jax import models, optimizer
from diga_jax.models import translator
from diga_jax.recipe import training
from diga_jax.recipe.experiment import Experiment
from diga_jax.stages.kinds import STEPS, train_step
from diga_jax.stages.translator import create_state


def batch_rows(stage: ConfigDict, chips: int) -> int:
  """The rows of a stage's batch, rounded up to what divides over the chips."""
  return math.ceil((stage.batch.low_rows + stage.batch.full_rows) / chips) * chips


def abstract_step(experiment: Experiment, name: str, rows: int) -> tuple[Any, Any, Any, Any]:
  """(step, state, batch, frozen) of a training stage, the last three as shapes."""
  config, stage = experiment.config, experiment.stage(name)
  start = abstract_translator if stage.kind == 'translator' else abstract_network
  model, tx, initial, frozen = start(experiment, stage)
  settings = SimpleNamespace(stage=stage, translator=config.translator)
  step = functools.partial(train_step(stage), model=model, tx=tx, config=settings)
  image = jax.ShapeDtypeStruct((rows, *config.data.crop, 3), jnp.uint8)
  label = jax.ShapeDtypeStruct(image.shape[:3], jnp.uint8)
  batch = {}
  if experiment.uses_source(stage):
    batch |= {'source_image': image, 'source_label': label}
  if experiment.uses_target(stage):
    batch['target_image'] = image
  if experiment.uses_labels(stage):
    batch['target_label'] = label
  return step, initial, batch, frozen


def abstract_translator(experiment: Experiment, stage: ConfigDict) -> tuple[Any, Any, Any, Any]:
  """(networks, optimizers, state, VGG-19's parameters or None)."""
  settings, vgg = experiment.config.translator, models.build('vgg19_features')
  params = generator_shapes(experiment)
  decay = training.schedule(stage.optimizer, stage.steps)
  tx = {half: optimizer.build(decay, tree) for half, tree in params.items()}
  initial = jax.eval_shape(lambda p: create_state(jax.random.key(0), p, tx), params)
  frozen = models.shapes(vgg)['params'] if settings.vgg else None
  return {'vgg': vgg} | translator.networks(settings), tx, initial, frozen


def abstract_network(experiment: Experiment, stage: ConfigDict) -> tuple[Any, Any, Any, Any]:
  """(network, optimizer, state, the translator's parameters or None)."""
  config = experiment.config
  variables = experiment.shapes
  centroids = ()
  if experiment.uses_centroids(stage):
    image = jax.ShapeDtypeStruct((1, 65, 65, 3), jnp.float32)
    depth = jax.eval_shape(experiment.model.apply, variables, image)['feature'].shape[-1]
    centroids = jax.ShapeDtypeStruct((config.data.classes, depth), jnp.float32)
  model, tx, create = training.segmentation(experiment, stage, variables['params'])
  frozen = None
  if config.translator.kind == 'network' and experiment.uses_translation(stage):
    frozen = generator_shapes(experiment)['generators']
  return model, tx, jax.eval_shape(create, variables, centroids), frozen


def generator_shapes(experiment: Experiment) -> Any:
  """The translator's parameters as shapes."""
  settings = experiment.config.translator
  return jax.eval_shape(
    lambda key: translator.initial_params(key, settings, (64, 64)), jax.random.key(0)
  )


def make_step(config: ConfigDict, name: str, rows: int) -> tuple[Any, Any, Any, Any]:
  """`abstract_step` for another process."""
  return abstract_step(Experiment(config, None), name, rows)


def program_key(stage: ConfigDict) -> str:
  """Equal for stages whose steps are one program but for constants and what they start from."""
  settings = stage.to_dict()
  del settings['steps'], settings['optimizer']['learning_rate']
  return str({k: v for k, v in settings.items() if k not in ('start', 'labels')})


def trained_stages(experiment: Experiment) -> list[str]:
  """The recipe's stages that have a step: no label passes, no translator that is not trained."""
  config = experiment.config
  kinds = set(STEPS) - (set() if config.translator.kind == 'network' else {'translator'})
  return [name for name in config.recipe if experiment.stage(name).kind in kinds]
