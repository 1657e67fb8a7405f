"""A DeepLabV2-ResNet101 with few and narrow layers, its settings and a batch for it."""

from collections.abc import Callable

import numpy as np

from benchmarks import steps
from diga_jax.configs import default
from diga_jax.recipe.experiment import Experiment

SIZES = {'blocks': (1, 1), 'width': 8, 'feature': 16}
TRANSLATOR = {
  'kind': 'network',
  'width': 16,
  'blocks': 1,
  'discriminator_width': 4,
  'discriminator_layers': 1,
  'discriminator_scales': 1,
}


def experiment(stage: str, width: int, changes=(), parallel='jit', dtype='float32', **options):
  """The published recipe with a small network; `changes` are settings of a stage that differ."""
  config = default.get_config()
  config.parallel, config.model.dtype = parallel, dtype
  config.model.options.update({'blocks': (1, 1), 'width': width, 'feature': 2 * width} | options)
  config.translator.update(TRANSLATOR | {'width': width})
  found = config.stages[stage]
  found.steps = 4
  if found.kind == 'warmup':
    found.target_statistics = False  # a pass of its own, over target images
  found.update(dict(changes))
  return Experiment(config)


def set_up(stage: str, width: int, make: Callable, changes=(), **options) -> steps.Setup:
  """The step of a stage of the published recipe ('warmup', 'self_training_1'); see steps.set_up."""
  return steps.set_up(experiment(stage, width, changes, **options), stage, make)


def batch(rows: int, height: int, width: int, seed: int = 0) -> dict[str, np.ndarray]:
  """Random images, and labels in blocks of 8 pixels with some of them ignored."""
  rng = np.random.default_rng(seed)
  found = {}
  for domain in ('source', 'target'):
    found[f'{domain}_image'] = rng.integers(0, 256, (rows, height, width, 3), np.uint8)
    blocks = rng.integers(0, 20, (rows, height // 8, width // 8), np.uint8)
    blocks[blocks == 19] = 255
    found[f'{domain}_label'] = blocks.repeat(8, 1).repeat(8, 2)
  return found
