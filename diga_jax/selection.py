"""Which pseudo-labels to keep: by consensus with class centroids, by confidence, or all.

Labels are [B, H, W] and keep the dtype they were given, 255 where one is dropped. The selectors by
confidence share one rule, a threshold for each class (`by_threshold`), and differ in where it comes
from: fixed, from the whole data set (`class_balanced_thresholds`) or moved by each
batch (`instance_adaptive`). All have static shapes and sort or count over whatever batch they are
given: under `jax.jit` over the global one.

Sources: DiGA (arXiv 2304.02222), bilateral consensus, docs/diga.md section 7; HIAST (arXiv
2302.06992), docs/hiast.md.
"""

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.label_tables import IGNORE
from diga_jax import resize
from diga_jax.centroids import distance_weight
from diga_jax.types import Size


def centroid_weights(features: jax.Array, centroids: jax.Array, size: Size) -> jax.Array:
  """Softmax over classes of minus the distance to each centroid, upsampled: [B, H, W, C].

  The weights, not the distances, are interpolated (bilinear, align_corners).
  """
  return resize.align_corners(distance_weight(features, centroids), size)


def nearest_centroid(features: jax.Array, centroids: jax.Array, size: Size) -> jax.Array:
  """The class whose centroid is nearest, per pixel: int32 [B, H, W].

  Args:
    features: float [B, h, w, D].
    centroids: float [C, D].
    size: (H, W) of the result.
  """
  return jnp.argmax(centroid_weights(features, centroids, size), -1).astype(jnp.int32)


def _keep(labels: jax.Array, kept: jax.Array) -> jax.Array:
  return jnp.where(kept, labels, jnp.asarray(IGNORE, labels.dtype))


def bilateral_consensus(labels: jax.Array, nearest: jax.Array) -> jax.Array:
  """Keeps a label where it is the class of the nearest centroid; no threshold.

  Args:
    labels: integer [B, H, W], the stored pseudo-labels.
    nearest: integer [B, H, W], see `nearest_centroid`.
  """
  return _keep(labels, labels.astype(nearest.dtype) == nearest)


def ranked_consensus(labels: jax.Array, weights: jax.Array, rank: int = 1) -> jax.Array:
  """Keeps a label where its centroid is among the `rank` nearest; 1 is bilateral consensus.

  Args:
    labels: integer [B, H, W].
    weights: float [B, H, W, C], see `centroid_weights`.
    rank: 1 (DiGA) to C (all labels kept).
  """
  if rank == 1:
    return bilateral_consensus(labels, jnp.argmax(weights, -1).astype(jnp.int32))
  classes = weights.shape[-1]
  own = jax.nn.one_hot(labels.astype(jnp.int32), classes, dtype=bool)
  weight = jnp.sum(jnp.where(own, weights, 0), -1, keepdims=True)
  nearer = jnp.sum(weights > weight, -1)
  return _keep(labels, (nearer < rank) & (labels < classes))


def in_float16(confidence: jax.Array) -> jax.Array:
  """float32 rounded to what float16 can hold, 0 below its normal numbers (6e-5).

  There and back by `astype` a compiler may leave out, and XLA cannot compile it for a CPU without
  instructions for float16.
  """
  return jax.lax.reduce_precision(confidence, exponent_bits=5, mantissa_bits=10)


def by_threshold(confidence: jax.Array, predicted: jax.Array, thresholds: jax.Array) -> jax.Array:
  """Keeps a label where the confidence reaches the threshold of its class.

  Args:
    confidence: float [B, H, W], the largest softmax probability.
    predicted: integer [B, H, W], the class that has it; 255 stays 255.
    thresholds: float [C].
  """
  own = jax.nn.one_hot(predicted, len(thresholds), dtype=bool)
  threshold = jnp.sum(jnp.where(own, thresholds, 0), -1)
  return _keep(predicted, confidence >= threshold)


def instance_adaptive(
  confidence: jax.Array,
  predicted: jax.Array,
  thresholds: jax.Array,
  alpha: float = 0.5,
  beta: float = 0.9,
  gamma: float = 8.0,
) -> tuple[jax.Array, jax.Array]:
  """Moves every class's threshold towards a quantile of the batch, then selects by it (IAS).

  The quantile of class c, at 1 - alpha * threshold_c ** gamma with linear interpolation, is that of
  the confidences of the pixels predicted as c, rounded to float16 as published, and of threshold_c
  itself; then threshold_c <- beta * threshold_c + (1 - beta) * quantile, 0.999 if that reaches 1.

  Args:
    confidence: float [B, H, W].
    predicted: integer [B, H, W]; pixels of no class (255) take no part.
    thresholds: float [C]; published to start at 0.9.
    alpha: share of the pixels to keep, where the threshold is 1.
    beta: share of the old threshold.
    gamma: how much less is kept of a class with a low threshold.

  Returns:
    (labels [B, H, W], thresholds float32 [C]).
  """
  thresholds = jnp.asarray(thresholds, jnp.float32)
  classes = len(thresholds)
  # One sort, by class and then by confidence, puts each class's values in a row of their own.
  values = jnp.concatenate([in_float16(confidence).ravel(), thresholds])
  owners = jnp.concatenate([predicted.ravel().astype(jnp.int32), jnp.arange(classes)])
  owners, values = jax.lax.sort((owners, values), num_keys=2)
  first = jnp.searchsorted(owners, jnp.arange(classes + 1))
  last = first[1:] - first[:-1] - 1
  position = (1 - alpha * thresholds**gamma) * last
  # float32 may round the last of more than 2^24 positions up, to the next class's first value.
  below = jnp.minimum(jnp.floor(position).astype(jnp.int32), last)
  above = jnp.minimum(below + 1, last)
  low, high = values[first[:-1] + below], values[first[:-1] + above]
  quantile = low + (high - low) * (position - below)
  moved = beta * thresholds + (1 - beta) * quantile
  moved = jnp.where(moved >= 1, 0.999, moved)
  return by_threshold(confidence, predicted, moved), moved


# Confidences are counted by their float16 bit patterns, which are ordered as the values are; 1.0 is
# the last one. So the counts of a data set, however large, hold all of it.
_PATTERNS = 0x3C00 + 1
# float32's exponents start this much lower than float16's, counted in float16's bit patterns.
_BIAS = (127 - 15) << 10


def confidence_counts(
  confidence: jax.Array, predicted: jax.Array, classes: int, every: int = 4
) -> jax.Array:
  """How often each confidence occurs in each class: int32 [C, 15361], by float16 bit pattern.

  Args:
    confidence, predicted: [B, H, W], as for by_threshold.
    classes: C.
    every: only every n-th pixel of each class is counted, in their order; published 4.
  """
  owners, values = jax.lax.sort(
    (predicted.ravel().astype(jnp.int32), in_float16(confidence).ravel()), num_keys=1
  )
  first = jnp.searchsorted(owners, jnp.arange(256))
  sampled = (jnp.arange(owners.size) - first[owners]) % every == 0
  patterns = jnp.maximum((jax.lax.bitcast_convert_type(values, jnp.int32) >> 13) - _BIAS, 0)
  counts = jnp.zeros((classes, _PATTERNS), jnp.int32)
  # Pixels of no class point outside of the array, where nothing is added.
  return counts.at[owners, patterns].add(sampled.astype(jnp.int32), mode='drop')


def class_balanced_thresholds(counts: np.ndarray, share: float = 0.2) -> np.ndarray:
  """The thresholds that keep the most confident `share` of each class (CBST): float32 [C].

  Args:
    counts: integer [C, 15361], the summed `confidence_counts` of a data set.
    share: of each class's pixels; published 0.2.

  Returns:
    The quantiles at 1 - share, with linear interpolation; 1 for a class that does not occur.

  Source: CBST (arXiv 1810.07911) as HIAST's code offers it; docs/hiast.md.
  """
  values = np.arange(_PATTERNS, dtype=np.uint16).view(np.float16).astype(np.float64)
  thresholds = np.ones(len(counts), np.float32)
  for row, found in enumerate(np.cumsum(np.asarray(counts, np.int64), -1)):
    if found[-1]:
      position = (1 - share) * (found[-1] - 1)
      below = int(position)
      low, high = values[np.searchsorted(found, [below, min(below + 1, found[-1] - 1)], 'right')]
      thresholds[row] = low + (high - low) * (position - below)
  return thresholds


def coverage(labels: jax.Array) -> jax.Array:
  """The share of the pixels of [B, H, W] that have a label, float32.

  Shares of images are averaged: a float32 count of all pixels would be exact to 2^24 only.
  """
  return jnp.mean(jnp.mean(labels != IGNORE, (1, 2)))


def class_coverage(labels: jax.Array, classes: int, weights: jax.Array | None = None) -> jax.Array:
  """The share of the pixels of [B, H, W] that each label has, float32 [C]; means as `coverage`.

  `weights`, [B, H, W], are what a pixel counts; None: 1.
  """
  counted = jax.nn.one_hot(labels, classes, dtype=jnp.float32)
  if weights is not None:
    counted = counted * weights[..., None]
  return jnp.mean(jnp.mean(counted, (1, 2)), 0)


def none(labels: jax.Array) -> jax.Array:
  """Keeps every label: no selection."""
  return labels
