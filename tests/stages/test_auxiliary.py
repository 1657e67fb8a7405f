"""A network with an auxiliary output in DiGA's steps: the losses once more, at a tenth."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from diga_jax import losses, models, resize, state
from diga_jax.configs import cityscapes_semi, default, gta5_to_cityscapes_mit_b5
from diga_jax.configs.stages import self_training_stage, warmup_stage
from diga_jax.stages import self_training, warmup
from diga_jax.stages.forward import deinterleave, interleave
from diga_jax.types import StepConfig

SIZE = (32, 48)
CLASSES = 4


@pytest.fixture(scope='module')
def small():
  """(network, variables): HRNet-OCR, as small as it gets."""
  model = models.build(
    'hrnet_w48_ocr',
    classes=CLASSES,
    width=4,
    stem=4,
    modules=(1, 1, 1),
    depths=(1, 1, 1, 1),
    feature=8,
    key=4,
    dropout=0.0,
  )
  return model, jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *SIZE, 3)))


def start(model, variables, centroids=()):
  tx = optax.sgd(0.1)
  stats = variables['batch_stats']
  made = state.create(jax.random.key(1), variables['params'], tx, batch_stats=stats,
                      centroids=centroids)  # fmt: skip
  return made, tx


def images(seed: int):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=(2, *SIZE, 3)), jnp.float32)


@pytest.mark.slow
def test_the_warmups_losses_come_again_on_the_auxiliary_output(small):
  model, variables = small
  initial, tx = start(*small)
  stage = warmup_stage(auxiliary=0.1, target_statistics=False)
  config = StepConfig(stage, default.get_config().translator)
  plain, mixed = images(0), images(1)
  labels = jnp.asarray(np.random.default_rng(2).integers(0, CLASSES, (2, *SIZE)), jnp.int32)

  @jax.jit
  def step(current, views):
    batch = {'source_label': labels}
    return warmup.train_step(
      current, batch, model=model, tx=tx, config=config, view_fn=lambda *_: views
    )

  _, metrics = step(initial, interleave(plain, mixed))

  @jax.jit
  def auxiliary(both):
    outputs, _ = model.apply(variables, both, train=True, mutable=['batch_stats'])
    return resize.align_corners(outputs['auxiliary_logits'], SIZE)

  # At the first step the teacher is the student.
  one, other = deinterleave(auxiliary(interleave(plain, mixed)))
  distilled = losses.symmetric_distillation(one, other, one, other, scale=0.5)
  expected = losses.cross_entropy(one, labels) + 0.5 * distilled
  np.testing.assert_allclose(metrics['auxiliary'], expected, rtol=1e-4)
  main = metrics['cross_entropy'] + 0.5 * metrics['distillation']
  np.testing.assert_allclose(metrics['loss'], main + 0.1 * metrics['auxiliary'], rtol=1e-5)
  assert abs(float(main) - float(expected)) > 1e-4  # another output, other losses


def test_self_training_has_them_as_well(small):
  model, _ = small
  initial, tx = start(*small, centroids=jnp.zeros((CLASSES, 8)))
  stage = self_training_stage('warmup', 'label_1')
  config = StepConfig(stage, ConfigDict({'kind': 'none'}))
  image = jax.ShapeDtypeStruct((2, *SIZE, 3), jnp.uint8)
  label = jax.ShapeDtypeStruct((2, *SIZE), jnp.uint8)
  batch = {
    'source_image': image,
    'target_image': image,
    'source_label': label,
    'target_label': label,
  }
  step = functools.partial(self_training.train_step, model=model, tx=tx, config=config)
  after, metrics = jax.eval_shape(step, initial, batch)
  names = {'loss', 'cross_entropy', 'target', 'distillation', 'auxiliary', 'coverage'}
  shares = {f'{what}_by_class' for what in ('labels', 'kept', 'predictions', 'confidence')}
  assert set(metrics) == names | shares
  assert {metrics[name].shape for name in shares} == {(CLASSES,)}
  shapes = functools.partial(jax.tree.map, lambda x: x.shape)
  assert shapes(after.params) == shapes(initial.params)


def test_published_values():
  config = cityscapes_semi.get_config('1_8')
  assert config.data.sets.source.list == config.data.sets.target.without
  assert config.data.sets.source.list == 'cityscapes_labelled_1-8'
  warm, trained = config.stages.warmup, config.stages.self_training_2
  assert (warm.auxiliary, warm.optimizer.learning_rate, warm.optimizer.power) == (0.1, 1e-3, 1.0)
  assert (warm.optimizer.head_lr_multiplier, warm.optimizer.frozen) == (1.0, ())
  assert warm.target_statistics and warm.mixing == trained.mixing == 'none'
  assert (trained.distillation, trained.batch.target_crop, trained.view.beta) == (0.5, 'sized', 0.4)
  assert (trained.batch.low_rows, trained.batch.full_rows, trained.batch.redraw) == (1, 2, False)
  label = config.stages.label_1
  assert config.data.crop == (512, 1024) and label.centroids_from == 'target'
  assert label.centroid_crops and not config.data.sets[label.centroid_set].list
  assert 'translator' not in config.recipe
  with pytest.raises(ValueError, match='no part'):
    cityscapes_semi.get_config('1_3')
  mit = gta5_to_cityscapes_mit_b5.get_config()
  settings = mit.stages.self_training_1.optimizer
  assert (settings.kind, settings.learning_rate, settings.head_lr_multiplier) == (
    'adamw',
    6e-5,
    10.0,
  )
  assert (settings.weight_decay, settings.warmup, settings.power) == (0.01, 1500, 1.0)


@pytest.mark.parametrize('module', [cityscapes_semi, gta5_to_cityscapes_mit_b5])
def test_the_networks_and_optimizers_of_the_configs_fit(module):
  """Their options exist, and every pattern of the optimizer finds parameters."""
  from diga_jax.plan import roofline

  _, state, _, _ = roofline.abstract_step(module.get_config(), 'warmup', 2)
  assert jax.tree.leaves(state.opt_state)
