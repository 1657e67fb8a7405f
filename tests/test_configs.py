"""The published configs: they build, and their steps trace and lower (shapes only)."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from configs import gta5_generalization, gta5_to_cityscapes, synthia_to_cityscapes
from diga_jax import build, models, optimizer, state
from diga_jax.stages import translator

CONFIGS = (gta5_to_cityscapes, synthia_to_cityscapes, gta5_generalization)


def shapes_of(config, stage, target: bool):
  """(abstract batch, batch size) of a stage."""
  size = stage.batch.low + stage.batch.full
  height, width = config.data.crop
  image = jax.ShapeDtypeStruct((size, height, width, 3), jnp.uint8)
  label = jax.ShapeDtypeStruct((size, height, width), jnp.uint8)
  batch = {'source_image': image, 'source_label': label}
  if target:
    batch |= {'target_image': image, 'target_label': label}
  return batch


def abstract_start(config, stage):
  """(model, tx, abstract state, abstract frozen variables) of a stage."""
  settings = config.translator
  generators = jax.eval_shape(
    lambda key: translator.initial_params(key, settings, (64, 64)), jax.random.key(0)
  )
  if stage.kind == 'translator':
    tx = {half: optimizer.build(build.schedule(stage), tree) for half, tree in generators.items()}

    nets = {'vgg': models.build('vgg19_features')} | translator.networks(settings)
    return (
      nets,
      tx,
      jax.eval_shape(lambda p: translator.create_state(jax.random.key(0), p, tx), generators),
      None,
    )
  model = models.build(
    config.model.name, classes=config.data.classes, **config.model.options.to_dict()
  )
  variables = models.shapes(model)
  tx = optimizer.build(build.schedule(stage), variables['params'])
  centroids = jax.ShapeDtypeStruct((config.data.classes, 256), jnp.float32)
  initial = functools.partial(state.create, tx=tx)
  abstract = jax.eval_shape(
    lambda v, c: initial(jax.random.key(0), v['params'], batch_stats=v['batch_stats'], centroids=c),
    variables,
    centroids,
  )
  return model, tx, abstract, generators['generators']


@pytest.mark.slow
@pytest.mark.parametrize('module', CONFIGS, ids=lambda m: m.__name__.split('.')[-1])
def test_every_step_lowers(module):
  config = module.get_config()
  kinds = {}
  for name in config.recipe:
    kinds.setdefault(config.stages[name].kind, config.stages[name])
  for kind, stage in kinds.items():
    if kind == 'label':
      continue
    model, tx, initial, frozen = abstract_start(config, stage)
    step = functools.partial(
      build.STEPS[kind],
      model=model,
      tx=tx,
      config=SimpleNamespace(stage=stage, translator=config.translator),
    )
    batch = shapes_of(config, stage, target=kind != 'warmup' or stage.target_statistics)
    lowered = jax.jit(step).lower(initial, batch, frozen)
    after, metrics = lowered.out_info
    assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, initial)
    assert metrics['loss'].shape == ()


def test_published_values():
  gta5, synthia, general = (module.get_config() for module in CONFIGS)
  assert gta5.stages.warmup.steps == gta5.stages.self_training_2.steps == 80_000
  assert gta5.stages.translator.steps == 50_000
  assert gta5.stages.self_training_1.view.beta == 0.3
  assert (gta5.stages.self_training_1.batch.low, gta5.stages.self_training_1.batch.full) == (2, 1)
  assert synthia.stages.warmup.optimizer.warmup == 1000
  assert synthia.stages.warmup.loss == 'ohem'
  assert general.stages.warmup.view.sharpness == 0
  assert not general.stages.warmup.target_statistics
