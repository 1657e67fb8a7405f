"""The tiny recipe with criteria of its checkpoints, on target images of their own."""

from diga_jax.configs import datasets
from tests.configs import tiny


def get_config():
  config = tiny.get_config()
  config.recipe = ('warmup', 'label_1', 'self_training_1')
  config.translator.kind = 'fourier'
  config.data.sets.held_out = datasets.dataset(
    kind='scenes', look='camera', first=50, count=3, size=(48, 96), low_size=(40, 80)
  )
  config.criteria.set = 'held_out'
  config.criteria.record = ('agreement', 'consensus', 'density', 'oracle')
  return config
