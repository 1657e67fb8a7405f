import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diga_jax import selection
from diga_jax.parallel.mesh import AXIS, make_mesh


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


def test_one_threshold_and_none():
  predicted = np.array([[[3, 4, 5]]], np.uint8)
  confidence = np.array([[[0.95, 0.9, 0.89]]], np.float32)
  for threshold, kept in (0.9, [[[3, 4, 255]]]), (0.5, predicted):
    labels = selection.by_threshold(confidence, predicted, np.full(6, threshold, np.float32))
    np.testing.assert_array_equal(labels, kept)
  np.testing.assert_array_equal(selection.none(predicted), predicted)


def test_instance_adaptive_is_the_published_one(golden):
  z = golden('ias')
  settings = {name: float(z[name]) for name in ('alpha', 'beta', 'gamma')}
  thresholds = jnp.full(19, 0.9)
  for i, (confidence, predicted) in enumerate(zip(z['confidence'], z['predicted'], strict=True)):
    labels, thresholds = selection.instance_adaptive(confidence, predicted, thresholds, **settings)
    np.testing.assert_allclose(thresholds, z['thresholds'][i], rtol=1e-5)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, z['selected'][i])


def numpy_quantiles(confidence, predicted, thresholds, alpha, gamma):
  found = []
  for c, threshold in enumerate(thresholds):
    values = confidence[predicted == c].astype(np.float16).astype(np.float64)
    found.append(np.quantile([*values, threshold], 1 - alpha * threshold**gamma))
  return np.array(found)


@hypothesis.given(seed=st.integers(0, 10**6), alpha=st.floats(0.05, 1), gamma=st.floats(0, 9))
@hypothesis.settings(max_examples=25, deadline=None)
def test_instance_adaptive_is_numpys_quantile(seed, alpha, gamma):
  rng = np.random.default_rng(seed)
  confidence = rng.beta(3, 1, (2, 5, 7)).astype(np.float32)
  predicted = rng.choice([0, 1, 3, 255], confidence.shape).astype(np.uint8)  # never 2
  thresholds = rng.uniform(0.3, 0.999, 4).astype(np.float32)
  labels, moved = selection.instance_adaptive(
    confidence, predicted, thresholds, alpha=alpha, beta=0.25, gamma=gamma
  )
  quantiles = numpy_quantiles(confidence, predicted, thresholds, alpha, gamma)
  expected = 0.25 * thresholds + 0.75 * quantiles
  np.testing.assert_allclose(moved, np.where(expected >= 1, 0.999, expected), atol=2e-6)
  kept = (predicted != 255) & (confidence >= np.asarray(moved)[np.minimum(predicted, 3)])
  np.testing.assert_array_equal(labels, np.where(kept, predicted, 255))


def test_thresholds_stay_below_one():
  ones = jnp.ones((1, 4, 4))
  _, moved = selection.instance_adaptive(ones, jnp.zeros((1, 4, 4), jnp.uint8), jnp.ones(2))
  np.testing.assert_allclose(moved, 0.999)


@pytest.mark.parametrize('devices', [2, 8])
def test_selectors_see_the_global_batch(devices):
  rng = np.random.default_rng(3)
  confidence = rng.beta(3, 1, (8, 6, 5)).astype(np.float32)
  predicted = rng.integers(0, 4, confidence.shape).astype(np.uint8)
  rows = jax.sharding.NamedSharding(make_mesh(devices), jax.sharding.PartitionSpec(AXIS))
  spread = [jax.device_put(x, rows) for x in (confidence, predicted)]
  select = jax.jit(selection.instance_adaptive)
  found = select(*spread, jnp.full(4, 0.9))
  wanted = select(confidence, predicted, jnp.full(4, 0.9))
  np.testing.assert_array_equal(found[0], wanted[0])
  np.testing.assert_allclose(found[1], wanted[1], rtol=1e-6)  # two programs: to rounding
  count = jax.jit(selection.confidence_counts, static_argnames='classes')
  np.testing.assert_array_equal(
    count(*spread, classes=4), selection.confidence_counts(confidence, predicted, 4)
  )


def test_class_balanced_thresholds_are_quantiles_of_all_batches():
  rng = np.random.default_rng(0)
  batches = [(rng.beta(2, 1, (2, 16, 20)), rng.choice([0, 2, 255], (2, 16, 20))) for _ in range(3)]
  counts = sum(
    selection.confidence_counts(c.astype(np.float32), p.astype(np.uint8), 3) for c, p in batches
  )
  found = selection.class_balanced_thresholds(counts, 0.2)
  for c in (0, 2):  # of each batch every fourth pixel of the class
    values = np.concatenate([confidence[predicted == c][::4] for confidence, predicted in batches])
    values = values.astype(np.float32).astype(np.float16).astype(np.float64)
    np.testing.assert_allclose(found[c], np.quantile(values, 0.8), rtol=1e-6)
  assert found[1] == 1  # nothing to choose from
  labels = selection.by_threshold(jnp.asarray([[[0.999]]]), jnp.asarray([[[1]]], jnp.uint8), found)
  assert labels[0, 0, 0] == 255
