import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from diga_jax import centroids, resize
from tests.support import golden_formula

MEANS = jax.jit(centroids.class_means, static_argnames='minimum')
UPDATE = jax.jit(centroids.update)
ACCUMULATE = jax.jit(centroids.accumulate, static_argnames='cap')


def close(got, want, tolerance=1e-5):
  want = np.asarray(want, np.float64)
  np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max())


def classes_of(valid):
  return np.nonzero(np.asarray(valid))[1]


def test_distance_weights_are_the_published_ones(golden):
  z = golden('centroids')
  close(centroids.distance_weight(z['feature'], z['start']), z['distance_weight'])


def test_updates_by_target_then_source_are_the_published_ones(golden):
  z = golden('centroids')
  current = z['start']
  for labels, wanted, name in (
    ('selected', 'after_target', 'classes_updated_by_target'),
    ('ground_truth', 'after_source', 'classes_updated_by_source'),
  ):
    small = resize.nearest(z[labels], (20, 28))
    means, valid = MEANS(z['feature'], z['feature_logits'], small)
    np.testing.assert_array_equal(classes_of(valid), z[name])
    moved = UPDATE(current, means, valid)
    close(moved, z[wanted])
    # The steps are tiny beside the values: they are compared on their own, within rounding.
    rounding = 4 * np.spacing(np.abs(z['start']).max())
    np.testing.assert_allclose(moved - z['start'], z[wanted] - z['start'], atol=rounding)
    current = moved


def test_running_mean_is_the_published_one(golden):
  z = golden('centroids')
  current, counts = jnp.zeros((19, 256)), jnp.zeros(19)
  for b in range(3):
    features = golden_formula.image(f'mean{b}', (2, 20, 28, 256))
    logits = golden_formula.image(f'meanlogits{b}', (2, 20, 28, 19)) * 4
    means, valid = MEANS(features, logits)
    current, counts = ACCUMULATE(current, counts, means, valid)
  close(current, z['running_mean'])
  np.testing.assert_array_equal(counts, z['running_mean_count'])


@given(st.integers(0, 2**31), st.booleans(), st.sampled_from([1, 5]))
@settings(max_examples=15, deadline=None)
def test_class_means_are_the_loop_over_classes(seed, with_labels, minimum):
  rng = np.random.default_rng(seed)
  features = rng.normal(0, 1, (2, 6, 7, 5)).astype(np.float32)
  logits = rng.normal(0, 1, (2, 6, 7, 8)).astype(np.float32)
  labels = rng.choice([0, 1, 2, 3, 255], (2, 6, 7)).astype(np.uint8) if with_labels else None
  means, valid = MEANS(features, logits, labels, minimum=minimum)
  for b in range(2):
    for c in range(8):
      member = logits[b].argmax(-1) == c
      if with_labels:
        member &= labels[b] == c
      assert valid[b, c] == (member.sum() >= minimum)
      close(means[b, c], features[b][member].mean(0) if member.any() else np.zeros(5))


def test_a_mean_that_sums_to_zero_is_not_valid():
  logits = np.zeros((1, 2, 4, 2), np.float32)
  logits[..., 0] = 1
  features = np.zeros((1, 2, 4, 3), np.float32)
  assert not np.any(centroids.class_means(features, logits)[1])
  features[..., 0] = 2
  np.testing.assert_array_equal(centroids.class_means(features, logits)[1], [[True, False]])


def test_update_goes_image_by_image_where_valid():
  current = np.zeros((2, 1), np.float32)
  means = np.array([[[1.0], [9.0]], [[2.0], [9.0]]], np.float32)
  valid = np.array([[True, False], [True, False]])
  close(centroids.update(current, means, valid, momentum=0.5), [[1.25], [0]])


@given(st.integers(0, 2**31), st.sampled_from([1, 4, 40]))
@settings(max_examples=10, deadline=None)
def test_accumulate_is_the_mean_until_the_cap(seed, cap):
  rng = np.random.default_rng(seed)
  means = rng.normal(0, 1, (20, 3, 4)).astype(np.float32)
  valid = rng.random((20, 3)) < 0.7
  state = jnp.zeros((3, 4)), jnp.zeros(3)
  for part in range(0, 20, 5):  # in parts, as a pass over a data set does
    state = ACCUMULATE(*state, means[part : part + 5], valid[part : part + 5], cap)
  for c in range(3):
    mean, count = np.zeros(4), 0
    for x in means[:, c][valid[:, c]]:
      mean, count = (mean * count + x) / (count + 1), min(count + 1, cap)
    close(state[0][c], mean)
    assert state[1][c] == count
    if count < cap:
      close(state[0][c], means[:, c][valid[:, c]].mean(0))


def test_all_of_it_can_be_jitted(golden):
  z = golden('centroids')

  @jax.jit
  def step(current, features, logits, labels):
    small = resize.nearest(labels, features.shape[1:3])
    return centroids.update(current, *centroids.class_means(features, logits, small))

  moved = step(z['start'], z['feature'], z['feature_logits'], z['selected'])
  close(moved, z['after_target'])
