"""One step of the translator's training, on networks as small as they get."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diga_jax import models
from diga_jax.configs import default
from diga_jax.configs.stages import translator_stage
from diga_jax.models.translator import initial_params, networks, translate
from diga_jax.stages.translator import set_up, train_step
from diga_jax.types import StepConfig

SIZE = (32, 48)


@pytest.fixture(scope='module')
def settings():
  found = default.get_config().translator
  found.width, found.blocks, found.discriminator_width, found.discriminator_layers = 4, 1, 4, 2
  return found


def start(settings, learning_rate: float = 1e-4):
  params = initial_params(jax.random.key(0), settings, SIZE)
  stage = translator_stage(steps=10)
  stage.optimizer.learning_rate = learning_rate
  _, tx, create = set_up(None, StepConfig(stage, settings), {'params': params})
  return tx, create(jax.random.key(0), {'params': params}, ())


def batch() -> dict[str, np.ndarray]:
  random = np.random.default_rng(0)

  def image():
    return random.integers(0, 256, (2, *SIZE, 3), np.uint8)

  label = random.integers(0, 3, (2, 4, 6)).astype(np.uint8).repeat(8, 1).repeat(8, 2)
  return {'source_image': image(), 'target_image': image(), 'source_label': label}


def take_step(settings, frozen=None, vgg=None):
  tx, initial = start(settings)
  model = {'vgg': vgg} | networks(settings)
  config = StepConfig(translator_stage(), settings)
  step = jax.jit(lambda s, b, f: train_step(s, b, f, model=model, tx=tx, config=config))
  after, metrics = step(initial, batch(), frozen)
  return initial, after, {name: float(value) for name, value in metrics.items()}


def test_the_loss_is_the_weighted_sum_and_both_halves_move(settings):
  before, after, metrics = take_step(settings)
  terms = {'adversarial': 0.5, 'cycle': 10, 'edge': 20, 'reconstruction': 0.001}
  assert metrics.keys() == terms.keys() | {'loss', 'discriminator'}
  wanted = sum(weight * metrics[name] for name, weight in terms.items())
  np.testing.assert_allclose(metrics['loss'], wanted, rtol=1e-5)
  for name in networks(settings):
    half = 'discriminators' if name.startswith('dis') else 'generators'
    old, new = (s.params[half][name] for s in (before, after))
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), old, new)
    assert max(jax.tree.leaves(moved)) > 0, name
  assert int(after.step) == 1


def test_the_perceptual_term_is_there_with_weights_only(settings):
  vgg = models.build('vgg19_features')
  params = vgg.init(jax.random.key(1), jnp.zeros((1, *SIZE, 3)))['params']
  _, _, metrics = take_step(settings, frozen=params, vgg=vgg)
  assert metrics['perceptual'] > 0
  _, _, without = take_step(settings, frozen=None, vgg=vgg)
  assert 'perceptual' not in without
  np.testing.assert_allclose(
    metrics['loss'], without['loss'] + 0.1 * metrics['perceptual'], rtol=1e-5
  )


def test_translate_keeps_the_size(settings):
  params = initial_params(jax.random.key(0), settings, SIZE)['generators']
  images = jnp.zeros((1, *SIZE, 3))
  found = translate(params, images, settings)
  assert found.shape == images.shape
  assert float(jnp.abs(found).max()) <= 1
