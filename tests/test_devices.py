"""Steps on four devices against the same steps on one."""

import jax
import numpy as np
import pytest

from benchmarks import steps
from diga_jax import sharding
from tests import small


def one_step(setup: steps.Setup, batch: dict[str, np.ndarray], devices: int):
  """(state, metrics) after a step, on the host."""
  mesh = sharding.make_mesh(devices)
  state, frozen = sharding.replicate((setup.state, setup.frozen), mesh)
  with jax.set_mesh(mesh):
    args = state, sharding.put_batch(batch, mesh), frozen
    assert len(args[1]['source_image'].addressable_shards) == devices
    step = jax.jit(setup.step).lower(*args).compile(compiler_options=steps.QUICK)
    state, metrics = step(*args)
  return jax.device_get((state.replace(key=()), metrics))


def check_equal(found, wanted) -> None:
  """Every array equal within 1e-5 of its largest value.

  The biases in front of a normalisation have no gradient but rounding errors, hence the 1e-8.
  """
  wanted = jax.tree.leaves_with_path(wanted)
  for x, (path, y) in zip(jax.tree.leaves(found), wanted, strict=True):
    tolerance = 1e-5 * np.abs(y).max() + 1e-8
    np.testing.assert_allclose(x, y, rtol=0, atol=tolerance, err_msg=jax.tree_util.keystr(path))


@pytest.mark.slow
@pytest.mark.parametrize('stage', ('warmup', 'self_training_1'))
def test_a_step_does_not_depend_on_the_number_of_devices(stage):
  setup, batch = small.set_up(stage, 8, steps.run_compiled), small.batch(4, 32, 32)
  state, metrics = one_step(setup, batch, devices=4)
  alone, alone_metrics = one_step(setup, batch, devices=1)
  check_equal(metrics, alone_metrics)
  check_equal(state, alone)  # the optimizer's part of it: the gradients
  moved = jax.tree.map(lambda x, y: np.abs(x - y).max(), state.params, setup.state.params)
  assert max(jax.tree.leaves(moved)) > 0
