"""Metrics of self-training by class, against counts by NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diga_jax import selection
from diga_jax.stages import by_class

CLASSES = 5


def shares(labels):
  """[C]: the share of all pixels that each class has."""
  return [np.mean(labels == c) for c in range(CLASSES)]


@pytest.mark.parametrize('dtype', [np.uint8, np.int32])
def test_class_coverage_is_the_share_of_each_class(dtype):
  rng = np.random.default_rng(0)
  labels = rng.choice([*range(CLASSES), 255], (3, 16, 24)).astype(dtype)
  found = jax.jit(selection.class_coverage, static_argnums=1)(labels, CLASSES)
  np.testing.assert_allclose(found, shares(labels), rtol=1e-6)
  np.testing.assert_allclose(found.sum(), selection.coverage(jnp.asarray(labels)), rtol=1e-6)
  weights = rng.random(labels.shape).astype(np.float32)
  weighted = [np.mean(weights * (labels == c)) for c in range(CLASSES)]
  found = selection.class_coverage(jnp.asarray(labels), CLASSES, jnp.asarray(weights))
  np.testing.assert_allclose(found, weighted, rtol=1e-5)


@pytest.mark.parametrize('masked', [False, True])
def test_metrics_are_of_the_target_alone(masked):
  rng = np.random.default_rng(1)
  stored = rng.integers(0, CLASSES, (2, 16, 16)).astype(np.uint8)
  selected = np.where(rng.random(stored.shape) < 0.5, stored, 255).astype(np.uint8)
  logits = rng.normal(size=(2, 4, 4, CLASSES)).astype(np.float32)
  mask = np.zeros((2, 16, 16), bool)
  mask[:, :8] = True  # the upper half shows the source
  found = jax.jit(by_class.metrics)(stored, selected, logits, mask if masked else None)
  predicted = logits.argmax(-1)
  exp = np.exp(logits)
  confidence = (exp / exp.sum(-1, keepdims=True)).max(-1)
  if masked:
    predicted[:, :2] = 255
  np.testing.assert_allclose(found['labels_by_class'], shares(stored), rtol=1e-6)
  np.testing.assert_allclose(found['kept_by_class'], shares(selected), rtol=1e-6)
  np.testing.assert_allclose(found['predictions_by_class'], shares(predicted), rtol=1e-6)
  wanted = [np.mean(confidence * (predicted == c)) for c in range(CLASSES)]
  np.testing.assert_allclose(found['confidence_by_class'], wanted, rtol=1e-5)


def test_no_gradient_passes_through_them():
  logits = jnp.asarray(np.random.default_rng(2).normal(size=(1, 2, 2, CLASSES)), jnp.float32)
  labels = jnp.zeros((1, 8, 8), jnp.uint8)

  def total(x):
    return by_class.metrics(labels, labels, x, None)['confidence_by_class'].sum()

  assert not np.any(jax.grad(total)(logits))
