"""A DeepLabV2-ResNet101 with few and narrow layers, its settings and a batch for it."""

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks import steps
from configs import default
from diga_jax import models

TRANSLATOR = {
  'kind': 'network',
  'width': 16,
  'blocks': 1,
  'discriminator_width': 4,
  'discriminator_layers': 1,
  'discriminator_scales': 1,
}


def set_up(stage: str, width: int, make: steps.Make, changes=(), **options) -> steps.Setup:
  """The step of a stage of the published recipe ('warmup', 'self_training_1'); see steps.set_up.

  `changes` are settings of the stage that differ, `options` are the network's.
  """
  options = {'blocks': (1, 1), 'feature': 2 * width} | options
  model = models.build('deeplab_resnet101', width=width, **options)
  variables = make(model.init, jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32))
  found, translator = settings(stage, width)
  found.update(dict(changes))
  return steps.set_up(model, variables, found, translator, make)


def settings(stage: str, width: int) -> tuple[ConfigDict, ConfigDict]:
  """The published settings of a stage, and those of a small translator."""
  config = default.get_config()
  config.translator.update(TRANSLATOR | {'width': width})
  found = config.stages[stage]
  found.steps = 4
  if found.kind == 'warmup':
    found.target_statistics = False  # a pass of its own, over target images
  return found, config.translator


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
