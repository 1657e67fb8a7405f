"""What holds for the whole program of every kind of step: precision, and counts that fit."""

import jax
import pytest

from diga_jax.configs import default, hiast_gta5
from diga_jax.plan import roofline
from tests.models.test_precision import precisions
from tests.support import small
from tests.support.number_ranges import overflows

STAGES = {
  'translator': (default, 'translator'),
  'warmup': (default, 'warmup'),
  'self_training': (default, 'self_training_1'),
  'adversarial': (hiast_gta5, 'warmup'),
  'hiast': (hiast_gta5, 'hiast_1'),
}


def abstract_step(kind, rows, crop, **model):
  """(step, shapes) of a stage of a published config, with small networks."""
  file, stage = STAGES[kind]
  config = file.get_config()
  options = {k: v for k, v in small.SIZES.items() if k in config.model.options}
  config.model.options.update(options)
  config.model.update(model)
  config.translator.update(small.TRANSLATOR | {'width': 8, 'vgg': 'given'})
  config.data.crop = crop
  step, *shapes = roofline.abstract_step(config, stage, rows)
  return step, shapes


@pytest.mark.parametrize('kind', STAGES)
def test_every_product_is_of_the_precision(kind):
  found = {}
  for precision in ('default', 'highest'):
    step, shapes = abstract_step(kind, 2, (64, 64), precision=precision)
    text = jax.jit(step).trace(*shapes).lower(lowering_platforms=('tpu',)).as_text()
    found[precision] = precisions(text)
  assert set(found['highest']) == {'HIGHEST'}
  # Resizing and the like have a precision of their own; the networks are most of a step.
  assert found['default'].count('DEFAULT') > len(found['default']) / 2


@pytest.mark.parametrize('kind', STAGES)
def test_counts_of_a_large_batch_fit(kind):
  step, shapes = abstract_step(kind, 256, (512, 1024))
  assert not overflows(step, *shapes)
