"""Shared fixtures. Eight virtual CPU devices, so that sharded code is really sharded."""

import gc
import os
import pathlib
import tempfile

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Compiling is most of what the tests do; the workers, and the next run, share what was compiled.
os.environ.setdefault(
  'JAX_COMPILATION_CACHE_DIR', os.path.join(tempfile.gettempdir(), 'diga_jax_test_compilations')
)
# Machine code made in haste, by the older of two emitters: compiling is a quarter as long, and
# nothing here runs for long. XLA takes the later of two flags of one name: the caller's win.
# Workers inherit what is set here, and add nothing.
os.environ['XLA_FLAGS'] = ' '.join(
  dict.fromkeys(
    [
      '--xla_backend_optimization_level=0',
      '--xla_cpu_use_fusion_emitters=false',
      *os.environ.get('XLA_FLAGS', '').split(),
    ]
  )
)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.5')

import jax
import numpy as np
import pytest

from diga_jax import numerics

jax.config.update('jax_num_cpu_devices', 8)
numerics.fix()  # as the command line does
# Errors: broadcasting over a missing axis, and a random key that is used twice.
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_debug_key_reuse', True)
# The command line does this as well.
gc.freeze()
gc.set_threshold(50_000)

GOLDEN = pathlib.Path(__file__).parent / 'golden'


@pytest.fixture(scope='session')
def golden():
  """golden('losses') -> the arrays of tests/golden/losses.npz."""
  return lambda name: dict(np.load(GOLDEN / f'{name}.npz'))
