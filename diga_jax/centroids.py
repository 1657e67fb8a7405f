"""Class centroids of a network's feature, and distances to them.

Source: DiGA (arXiv 2304.02222), bilateral consensus; docs/diga.md section 7.
C = classes, D = feature channels, h x w = feature resolution.
"""

import jax
import jax.numpy as jnp


def distance_weight(features: jax.Array, centroids: jax.Array) -> jax.Array:
  """Softmax over classes of minus the Euclidean distance to each centroid: float32 [B, h, w, C].

  Args:
    features: float [B, h, w, D].
    centroids: float [C, D].
  """
  # Differences, not |f|^2 - 2fc + |c|^2: that loses the small distances that decide, and on an
  # accelerator would do so in the matrix unit's low precision.
  offsets = features[..., None, :] - centroids[None, None, None]
  return jax.nn.softmax(-jnp.sqrt(jnp.sum(offsets**2, -1)))


def class_means(
  features: jax.Array, logits: jax.Array, labels: jax.Array | None = None, minimum: int = 5
) -> tuple[jax.Array, jax.Array]:
  """Mean feature per image and class over the pixels predicted as that class.

  Args:
    features: float [B, h, w, D].
    logits: float [B, h, w, C].
    labels: integer [B, h, w] or None. If given, only pixels count whose prediction is the label.
    minimum: a class with fewer pixels in an image gives no mean there.

  Returns:
    means: float32 [B, C, D], zeros where there is no pixel.
    valid: bool [B, C], false under `minimum` pixels or where the mean vector sums to 0.
  """
  batch, _, _, depth = features.shape
  classes = logits.shape[-1]
  predicted = jnp.argmax(logits, -1)
  members = jax.nn.one_hot(predicted, classes, dtype=bool)
  if labels is not None:
    members &= (predicted == labels.astype(predicted.dtype))[..., None]
  members = members.reshape(batch, -1, classes)
  flat = features.reshape(batch, -1, depth).astype(jnp.float32)
  sums = jnp.einsum(
    'bnc,bnd->bcd', members.astype(jnp.float32), flat, precision=jax.lax.Precision.HIGHEST
  )
  counts = members.sum(1)
  means = sums / jnp.maximum(counts, 1)[..., None]
  return means, (counts >= minimum) & (means.sum(-1) != 0)


def update(
  centroids: jax.Array, means: jax.Array, valid: jax.Array, momentum: float = 1e-4
) -> jax.Array:
  """Moves centroids towards the means, image by image in order: float32 [C, D].

  centroid <- (1 - momentum) * centroid + momentum * mean, where the image has that class.

  Args:
    centroids: float [C, D].
    means, valid: float [B, C, D] and bool [B, C] of the global batch, see `class_means`.
    momentum: step towards each mean.
  """

  def one_image(current: jax.Array, image: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
    mean, present = image
    moved = (1 - momentum) * current + momentum * mean
    return jnp.where(present[:, None], moved, current), None

  return jax.lax.scan(one_image, centroids, (means, valid))[0]


def accumulate(
  centroids: jax.Array, counts: jax.Array, means: jax.Array, valid: jax.Array, cap: int = 3000
) -> tuple[jax.Array, jax.Array]:
  """Running mean over images, in order, with a count that stops growing at `cap`.

  From then on it is a moving average with rate 1 / (cap + 1).

  Args:
    centroids, counts: float [C, D] and [C], zeros at the start; the new ones are returned.
    means, valid: float [B, C, D] and bool [B, C], see `class_means`.
    cap: the largest count.
  """

  def one_image(
    state: tuple[jax.Array, jax.Array], image: tuple[jax.Array, jax.Array]
  ) -> tuple[tuple[jax.Array, jax.Array], None]:
    current, count = state
    mean, present = image
    total = current * count[:, None] + mean
    moved = jnp.where(present[:, None], total / (count + 1)[:, None], current)
    return (moved, jnp.where(present, jnp.minimum(count + 1, cap), count)), None

  return jax.lax.scan(one_image, (centroids, counts), (means, valid))[0]
