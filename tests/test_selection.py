import jax.numpy as jnp
import numpy as np
import pytest

from diga_jax import selection


def test_consensus_is_the_published_one(golden):
  z = golden('centroids')
  size = z['nearest'].shape[1:]
  nearest = selection.nearest_centroid(z['feature'], z['start'], size)
  weights = np.sort(selection.centroid_weights(z['feature'], z['start'], size), -1)
  tied = weights[..., -1] - weights[..., -2] < 1e-6
  assert tied.mean() < 1e-3
  np.testing.assert_array_equal(np.where(tied, z['nearest'], nearest), z['nearest'])
  selected = selection.bilateral_consensus(z['probability_label'], nearest)
  np.testing.assert_array_equal(np.where(tied, z['selected'], selected), z['selected'])


def test_weights_not_classes_are_interpolated():
  features = np.array([[[[0.0], [10.0]]]], np.float32)
  nearest = selection.nearest_centroid(features, np.array([[0.0], [10.0]], np.float32), (1, 5))
  np.testing.assert_array_equal(nearest[0, 0], [0, 0, 0, 1, 1])


@pytest.mark.parametrize('dtype', ['uint8', 'int32'])
def test_bilateral_consensus_drops_what_disagrees(dtype):
  labels = jnp.asarray([[[0, 1, 255, 2]]], dtype)
  kept = selection.bilateral_consensus(labels, jnp.asarray([[[0, 2, 1, 2]]], jnp.int32))
  assert kept.dtype == dtype
  np.testing.assert_array_equal(kept, [[[0, 255, 255, 2]]])


def test_rank_one_is_bilateral_and_the_last_rank_keeps_all():
  rng = np.random.default_rng(0)
  weights = rng.random((2, 6, 7, 5)).astype(np.float32)
  labels = rng.choice([0, 1, 2, 3, 4, 255], (2, 6, 7)).astype(np.uint8)
  nearest = jnp.asarray(weights.argmax(-1), jnp.int32)
  np.testing.assert_array_equal(
    selection.ranked_consensus(labels, weights, 1), selection.bilateral_consensus(labels, nearest)
  )
  np.testing.assert_array_equal(selection.ranked_consensus(labels, weights, 5), labels)
  order = np.argsort(-weights, -1)
  for rank in (2, 3):
    among = (order[..., :rank] == labels[..., None]).any(-1)
    want = np.where(among, labels, 255)
    np.testing.assert_array_equal(selection.ranked_consensus(labels, weights, rank), want)


def test_constant_threshold_and_none():
  predicted = np.array([[[3, 4, 5]]], np.uint8)
  confidence = np.array([[[0.95, 0.9, 0.89]]], np.float32)
  np.testing.assert_array_equal(selection.constant(confidence, predicted), [[[3, 4, 255]]])
  np.testing.assert_array_equal(selection.constant(confidence, predicted, 0.5), predicted)
  np.testing.assert_array_equal(selection.none(predicted), predicted)
