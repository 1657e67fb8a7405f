"""Settings that change numbers are the program's, whatever the environment says."""

import os
import pathlib
import subprocess
import sys

import pytest

from diga_jax import numerics

# Other values than those that are set, as a shell may hold them.
ENVIRONMENT = {
  'JAX_ENABLE_X64': '1',
  'JAX_DEFAULT_PRNG_IMPL': 'rbg',
  'JAX_THREEFRY_PARTITIONABLE': '0',
  'JAX_DEFAULT_MATMUL_PRECISION': 'bfloat16',
  'JAX_NUMPY_DTYPE_PROMOTION': 'strict',
  'JAX_RANDOM_SEED_OFFSET': '7',
  'JAX_TRANSFER_GUARD': 'disallow',
  'JAX_DEFAULT_DEVICE': 'gpu',
  'JAX_DEBUG_NANS': '1',
  'JAX_DISABLE_JIT': '1',
}
DRAW = """
import jax, jax.numpy as jnp
from diga_jax import numerics
numerics.fix()
draw = jax.jit(lambda key: jax.random.normal(key, (3,)) @ jnp.arange(3) + 0.1)(jax.random.key(1))
print(draw.dtype, float(draw), jnp.float32(0) / 0)
"""


@pytest.mark.slow
def test_the_environment_changes_no_number():
  """Two processes, of 2 s each."""
  found = {
    subprocess.run(
      [sys.executable, '-c', DRAW],
      cwd=pathlib.Path(__file__).parents[2], env=os.environ | {'JAX_PLATFORMS': 'cpu', **more},
      capture_output=True, check=True, text=True,
    ).stdout
    for more in ({}, ENVIRONMENT)
  }  # fmt: skip
  assert len(found) == 1 and found.pop().startswith('float32')


@pytest.mark.slow
def test_a_variable_that_jax_refuses_is_one_line():
  """A process of 2 s."""
  ended = subprocess.run(
    [sys.executable, '-m', 'diga_jax', 'config', '--config=configs/default.py'],
    cwd=pathlib.Path(__file__).parents[2], env=os.environ | {'JAX_ENABLE_X64': 'maybe'},
    capture_output=True, text=True,
  )  # fmt: skip
  assert ended.returncode == 2 and 'JAX_ENABLE_X64' in ended.stderr
  assert ended.stderr.startswith('diga_jax: ') and ended.stderr.count('\n') == 1


def test_every_setting_is_named_as_jax_names_it():
  numerics.fix()
