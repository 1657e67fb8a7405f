"""The criteria without labels against plain NumPy, written differently, and what must hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diga_jax import criteria, selection

SEEDS = st.integers(0, 2**32 - 1)
DENSITY = jax.jit(criteria.density, static_argnames='temperature')
CONSENSUS = jax.jit(criteria.consensus, static_argnames='rank')


def labels_of(seed, classes=4, shape=(3, 5, 7)):
  return np.random.default_rng(seed).integers(0, classes, shape, np.uint8)


def probabilities_of(seed, images=2, pixels=9, classes=4, sharpness=2.0):
  logits = sharpness * np.random.default_rng(seed).normal(size=(images, pixels, classes))
  return np.asarray(jax.nn.softmax(logits), np.float32)


def density_by_hand(probabilities, temperature):
  """Pixel by pixel, in float64: the entropy of one pixel's similarities to all others."""
  found = []
  for image in np.asarray(probabilities, np.float64):
    entropies = []
    for i, pixel in enumerate(image):
      others = [other for j, other in enumerate(image) if j != i]
      cosines = [
        sum(a * b for a, b in zip(pixel, other, strict=True))
        / (sum(pixel**2) * sum(other**2)) ** 0.5
        for other in others
      ]
      weights = [np.exp((cosine - 1) / temperature) for cosine in cosines]
      shares = [weight / sum(weights) for weight in weights]
      entropies.append(sum(-share * np.log(share) for share in shares if share > 0))
    found.append(sum(entropies) / len(entropies))
  return found


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.sampled_from([0.05, 0.5, 2.0]), st.sampled_from([0.5, 5.0, 40.0]))
def test_the_density_is_that_of_a_drawing_pixel_by_pixel(seed, temperature, sharpness):
  given_ = probabilities_of(seed, sharpness=sharpness)
  wanted = density_by_hand(given_, temperature)
  np.testing.assert_allclose(DENSITY(given_, temperature), wanted, rtol=1e-4, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.sampled_from([0.1, 10.0, 1000.0]))
def test_the_density_is_bounded_and_knows_no_order(seed, sharpness):
  given_ = probabilities_of(seed, sharpness=sharpness)
  found, random = np.asarray(DENSITY(given_)), np.random.default_rng(seed)
  assert ((found >= 0) & (found <= np.log(8) + 1e-5)).all()
  pixels, classes = random.permutation(9), random.permutation(4)
  np.testing.assert_allclose(DENSITY(given_[:, pixels]), found, atol=1e-5)
  np.testing.assert_allclose(DENSITY(given_[..., classes]), found, atol=1e-5)


def test_the_density_of_equal_pixels_is_the_largest_and_of_pairs_the_smallest():
  equal = np.full((1, 9, 4), 0.25, np.float32)
  np.testing.assert_allclose(DENSITY(equal), np.log(8), rtol=1e-6)
  pairs = np.repeat(np.eye(4, dtype=np.float32), 2, 0)[None]  # each has one neighbour
  np.testing.assert_allclose(DENSITY(pairs), 0, atol=1e-5)
  clusters = np.repeat(np.eye(2, dtype=np.float32), 4, 0)[None]  # each has three
  np.testing.assert_allclose(DENSITY(clusters), np.log(3), rtol=1e-5)


def test_certain_and_far_apart_pixels_have_a_finite_density():
  one = np.eye(4, dtype=np.float32)[None]
  assert np.isfinite(DENSITY(one)).all() and np.isfinite(DENSITY(one[:, :2])).all()


@settings(max_examples=30, deadline=None)
@given(SEEDS, SEEDS)
def test_agreement_is_the_share_of_equal_pixels(first, second):
  ours, theirs = labels_of(first), labels_of(second)
  found = np.asarray(criteria.agreement(jnp.asarray(ours), jnp.asarray(theirs)))
  wanted = [sum(map(int, (a == b).ravel())) / 35 for a, b in zip(ours, theirs, strict=True)]
  np.testing.assert_allclose(found, wanted, rtol=1e-6)
  np.testing.assert_array_equal(criteria.agreement(theirs, ours), found)
  renamed = np.random.default_rng(first).permutation(4)
  np.testing.assert_array_equal(criteria.agreement(renamed[ours], renamed[theirs]), found)
  assert (np.asarray(criteria.agreement(ours, ours)) == 1).all()


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 4))
def test_consensus_is_the_share_of_labels_among_the_nearest_centroids(seed, rank):
  labels, random = labels_of(seed), np.random.default_rng(seed)
  weights = random.random((*labels.shape, 4), np.float32)
  own = np.take_along_axis(weights, labels[..., None].astype(int), -1)
  passing = (weights > own).sum(-1) < rank
  wanted = [image.mean() for image in passing]
  np.testing.assert_allclose(CONSENSUS(labels, weights, rank=rank), wanted, rtol=1e-6)
  classes = random.permutation(4)  # new id -> old one
  renamed = np.argsort(classes)[labels].astype(np.uint8)
  np.testing.assert_allclose(
    CONSENSUS(renamed, weights[..., classes], rank=rank), wanted, rtol=1e-6
  )
  assert rank < 4 or wanted == [1, 1, 1]


def test_consensus_is_the_coverage_of_the_labels_that_training_keeps():
  labels, features = labels_of(0), np.random.default_rng(0).normal(size=(3, 2, 3, 6))
  centroids = np.random.default_rng(1).normal(size=(4, 6))
  features, centroids = features.astype(np.float32), centroids.astype(np.float32)
  weights = selection.centroid_weights(features, centroids, (5, 7))
  kept = selection.bilateral_consensus(
    labels, selection.nearest_centroid(features, centroids, (5, 7))
  )
  found = np.mean(criteria.consensus(labels, weights))
  np.testing.assert_allclose(found, selection.coverage(kept), rtol=1e-6)
  assert 0 < found < 1


@pytest.mark.parametrize('size', [(4096, 8192)])
def test_shares_of_large_images_are_counted_exactly(size):
  """In float32, sums of ones stop at 2^24."""
  ours = jnp.zeros((1, *size), jnp.uint8)
  assert criteria.agreement(ours, ours.at[0, 0, 0].set(1))[0] == np.float32(1 - 1 / 2**25)
