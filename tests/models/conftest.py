"""Tests of networks give the same keys twice on purpose: equal keys must drop equal parts."""

import jax
import pytest


@pytest.fixture(autouse=True)
def reuse_keys():
  with jax.debug_key_reuse(False):
    yield
