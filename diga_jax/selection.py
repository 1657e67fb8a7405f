"""Which pseudo-labels to keep: by consensus with class centroids, by confidence, or all.

Every function returns labels [B, H, W] of the dtype it was given, 255 where the label is dropped.
Source: DiGA (arXiv 2304.02222), bilateral consensus; docs/method.md section 7.
"""

import jax
import jax.numpy as jnp

from diga_jax import centroids as centroid_distance
from diga_jax import resize

IGNORE = 255


def centroid_weights(features: jax.Array, centroids: jax.Array, size: tuple[int, int]) -> jax.Array:
  """Softmax over classes of minus the distance to each centroid, upsampled: [B, H, W, C].

  The weights, not the distances, are interpolated (bilinear, align_corners).
  """
  return resize.align_corners(centroid_distance.distance_weight(features, centroids), size)


def nearest_centroid(features: jax.Array, centroids: jax.Array, size: tuple[int, int]) -> jax.Array:
  """The class whose centroid is nearest, per pixel.

  Args:
    features: float [B, h, w, D].
    centroids: float [C, D].
    size: (H, W) of the result.

  Returns:
    int32 [B, H, W].
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
  own = labels.astype(jnp.int32)[..., None] == jnp.arange(classes)
  weight = jnp.sum(jnp.where(own, weights, 0), -1, keepdims=True)
  nearer = jnp.sum(weights > weight, -1)
  return _keep(labels, (nearer < rank) & (labels < classes))


def constant(confidence: jax.Array, predicted: jax.Array, threshold: float = 0.9) -> jax.Array:
  """Keeps a label where the network's confidence [B, H, W] reaches one fixed threshold."""
  return _keep(predicted, confidence >= threshold)


def none(labels: jax.Array) -> jax.Array:
  """Keeps every label: no selection."""
  return labels
