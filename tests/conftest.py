"""Shared fixtures. Four virtual CPU devices, so that sharded code is really sharded."""

import os
import pathlib

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import jax  # noqa: E402  (the platform is chosen before jax is imported)
import numpy as np  # noqa: E402
import pytest  # noqa: E402

jax.config.update('jax_num_cpu_devices', 4)

GOLDEN = pathlib.Path(__file__).parent / 'golden'


@pytest.fixture(scope='session')
def golden():
  """golden('losses') -> the arrays of tests/golden/losses.npz."""
  return lambda name: dict(np.load(GOLDEN / f'{name}.npz'))
