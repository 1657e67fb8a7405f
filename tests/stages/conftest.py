"""Compiled steps of whole networks take gigabytes: none is kept for another file's tests."""

import jax
import pytest


@pytest.fixture(autouse=True, scope='module')
def forget_compiled_steps():
  yield
  jax.clear_caches()
