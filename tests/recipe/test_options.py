"""What pods need: less memory, narrower arithmetic, programs kept, traces."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.errors import BadInput
from diga_jax import models
from diga_jax.commands import start
from diga_jax.configs import default
from diga_jax.recipe.experiment import Experiment
from tests.support import small

NETWORKS = {
  'deeplab_resnet101': {'blocks': (1, 1), 'width': 4, 'feature': 8},
  'deeplab_efficientnet_lite0': {'feature': 8, 'output_stride': 16},
}


def gradient(name: str, remat: bool):
  """(d sum(logits^2) / d parameters as a function, its argument)."""
  model = models.build(name, classes=3, remat=remat, **NETWORKS[name])
  images = jax.random.normal(jax.random.key(0), (2, 33, 33, 3))
  variables = jax.jit(model.init)(jax.random.key(1), images)

  def loss(params):
    outputs, _ = model.apply(
      variables | {'params': params}, images, train=True, mutable=['batch_stats']
    )
    return jnp.sum(outputs['logits'] ** 2)

  return jax.grad(loss), variables['params']


@pytest.mark.slow
@pytest.mark.parametrize('name', NETWORKS)
def test_remat_changes_no_number(name):
  (kept, params), (again, _) = gradient(name, False), gradient(name, True)
  assert 'remat' in str(jax.make_jaxpr(again)(params))
  assert 'remat' not in str(jax.make_jaxpr(kept)(params))
  if name != 'deeplab_resnet101':  # The blocks are wrapped alike, and this one compiles slowly.
    return
  wanted, found = jax.jit(kept)(params), jax.jit(again)(params)
  largest = max(np.abs(x).max() for x in jax.tree.leaves(wanted))
  for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
    np.testing.assert_allclose(x, y, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize('stage', ['warmup', 'self_training_1'])
def test_bfloat16_stays_inside_the_network(stage):
  setup = small.set_up(stage, 4, jax.eval_shape, dtype='bfloat16')
  batch = small.batch(2, 32, 32)
  state, metrics = jax.eval_shape(setup.step, setup.state, batch, setup.frozen)
  floats = [x for x in jax.tree.leaves((state, metrics)) if jnp.issubdtype(x.dtype, jnp.floating)]
  assert {x.dtype for x in floats} == {jnp.dtype('float32')}
  text = jax.jit(setup.step).lower(setup.state, batch, setup.frozen).as_text()
  convolutions = [line for line in text.splitlines() if 'stablehlo.convolution' in line]
  products = [line for line in text.splitlines() if 'stablehlo.dot_general' in line]
  assert any('bf16' in line for line in convolutions + products)


def test_the_config_reaches_the_network():
  config = default.get_config()
  config.translator.kind = 'none'
  config.update_from_flattened_dict({'remat': True, 'model.dtype': 'bfloat16', 'parallel': 'pmap'})
  model = Experiment(config).model
  assert model.remat and model.dtype == jnp.bfloat16 and model.axis_name == 'data'


def test_compiled_programs_are_kept_where_the_config_says(tmp_path):
  config, before = default.get_config(), jax.config.jax_compilation_cache_dir
  config.compilation_cache = str(tmp_path)
  try:
    start.set_up(argparse.Namespace(), config)
    [made] = tmp_path.iterdir()
    assert jax.config.jax_compilation_cache_dir == str(made)
  finally:
    jax.config.update('jax_compilation_cache_dir', before)


def test_profile_steps_are_a_pair():
  config = default.get_config()
  with config.unlocked():
    config.profile_steps = (3,)
  with pytest.raises(BadInput, match='profile_steps'):
    Experiment(config)
