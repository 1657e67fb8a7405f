"""Every network goes through every stage: shapes only, nothing is compiled."""

import functools

import jax
import pytest
from ml_collections import ConfigDict

from diga_jax.configs import optimizers
from diga_jax.plan import roofline
from tests.configs import tiny, tiny_hiast

SMALL = {
  'hrnet_w48_ocr': {
    'width': 4, 'stem': 4, 'modules': (1, 1, 1), 'depths': (1, 1, 1, 1), 'feature': 16, 'key': 4,
    'dropout': 0.1, 'batch_norm': 'batch', 'pixels': 'rgb',
  },
  **{
    f'mit_b2_{head}': {
      'widths': (8, 8, 8, 8), 'depths': (1, 1, 1, 1), 'heads': (1, 1, 2, 2), 'feature': 16,
      'dropout': 0.1, 'drop_path': 0.1, 'batch_norm': 'batch', 'pixels': 'imagenet',
    }
    for head in ('segformer', 'daformer')
  },
}  # fmt: skip
STAGES = {'warmup': tiny, 'self_training_1': tiny, 'hiast_1': tiny_hiast}


@pytest.mark.parametrize('stage', STAGES)
@pytest.mark.parametrize('name', SMALL)
def test_a_step_keeps_the_shapes_of_its_state(name, stage):
  config = STAGES[stage].get_config()
  config.data.crop = (64, 96)
  config.model.name = name
  config.model.options = ConfigDict(SMALL[name])
  head = 'ocrnet' if name.startswith('hrnet') else 'decode_head'
  config.stages[stage].optimizer = optimizers.transformer(head_pattern=f'^{head}')
  step, *shapes = roofline.abstract_step(config, stage, 2)
  after, metrics = jax.eval_shape(step, *shapes)
  sizes = functools.partial(jax.tree.map, lambda x: (x.shape, x.dtype))
  assert sizes(after) == sizes(shapes[0])
  assert metrics['loss'].shape == ()
  auxiliary = name.startswith('hrnet') and stage != 'hiast_1'  # HIAST has no such losses
  assert ('auxiliary' in metrics) == auxiliary
