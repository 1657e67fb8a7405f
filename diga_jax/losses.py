"""Losses of DiGA (arXiv 2304.02222), of its translator, and of HIAST (arXiv 2302.06992).

Logits are float [B, H, W, C], labels integer [B, H, W], and a loss is a float32 scalar. A pixel is
labelled if its value is in 0..C-1; every other value (255 by convention) is ignored.
"""

import functools
import math
import operator
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp

from diga_jax.parallel import collectives

# L1 weights of VGG-19's relu1_1, 2_1, 3_1, 4_1, 5_1 (docs/diga.md section 4).
PERCEPTUAL_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
# A 5x5 Laplacian whose kernel is divided by the sum of its absolute values, 24 + 24.
_LAPLACIAN_NORM = 48


def _sum(arrays: Iterable[jax.Array]) -> jax.Array:
  return functools.reduce(operator.add, arrays)


def _has_label(labels: jax.Array, classes: int) -> jax.Array:
  return (labels >= 0) & (labels < classes)


def _count(chosen: jax.Array) -> jax.Array:
  """How many of booleans [B, ...] are true, float32.

  int32 holds the terms of one image, and wraps over a large batch; float32 adds up the images: to
  2^24 it is exact, and then right to its last digit.
  """
  return jnp.sum(jnp.sum(chosen, range(1, chosen.ndim)).astype(jnp.float32))


def _mean(x: jax.Array) -> jax.Array:
  """The mean over all of x; jnp.mean refuses as many values as int32 does not hold."""
  return jnp.sum(x) / float(x.size)


def _shift(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Logits minus their largest, [B, H, W, C], and the log of their partition sum, [B, H, W].

  log_softmax is their difference. Kept apart, the gradient of a cross-entropy is softmax - target
  in one pass, without the sum over classes that log_softmax's own gradient takes.
  """
  shifted = logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))
  return shifted, jnp.log(jnp.sum(jnp.exp(shifted), -1))


def _label_log_probability(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """log_softmax at the label, [B, H, W]; 0 where there is no label."""
  shifted, log_sum = _shift(logits)
  # A comparison instead of a gather: its gradient is elementwise, where a gather's is a scatter.
  own = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
  picked = jnp.sum(jnp.where(own, shifted, 0), -1)
  return picked - jnp.where(_has_label(labels, logits.shape[-1]), log_sum, 0)


def _kth_smallest(values: jax.Array, k: jax.Array, axis_name: str | None = None) -> jax.Array:
  """The k-th smallest (from 0) of non-negative float32 values, exactly, without a sort.

  Non-negative floats are ordered as their bit patterns are, so 31 halvings of the integers find
  it. Each halving only counts, so that a batch spread over devices exchanges one number a time,
  where a sort would gather everything; on a CPU it is 20 times faster as well.
  """
  bits = jax.lax.bitcast_convert_type(values.astype(jnp.float32), jnp.int32)
  low, high = jnp.int32(0), jnp.int32(0x7F800000)  # infinity
  # Not a loop of the compiler's: under pmap, XLA's CPU runtime does not keep an exchange inside
  # one apart from those outside of it, and may abort.
  for _ in range(31):
    middle = low + (high - low) // 2
    enough = collectives.total(_count(bits <= middle), axis_name) > k
    low, high = jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)
  return jax.lax.bitcast_convert_type(high, jnp.float32)


def _batch_mean(total: jax.Array, count: jax.Array, axis_name: str | None) -> jax.Array:
  """`total` over `count`, both summed over the whole batch; 0 where nothing is counted."""
  total, count = (collectives.total(x, axis_name) for x in (total, count))
  return total / jnp.maximum(count, 1)


def _pixel_entropy(logits: jax.Array) -> jax.Array:
  """The entropy of each pixel's softmax, [B, H, W]."""
  shifted, log_sum = _shift(logits)
  log_probability = shifted - log_sum[..., None]
  return -jnp.sum(jnp.exp(log_probability) * log_probability, -1)


def cross_entropy(
  logits: jax.Array,
  labels: jax.Array,
  *,
  per_labelled: bool = False,
  axis_name: str | None = None,
) -> jax.Array:
  """Cross-entropy summed over labelled pixels and divided by the number of all pixels.

  Args:
    logits, labels: float [B, H, W, C], integer [B, H, W]; the loss is 0 if nothing is labelled.
    per_labelled: divide by the number of labelled pixels instead. The published DiGA divides by
      all pixels, ignored ones included, so images with much void count for less.
    axis_name: see ohem_cross_entropy; only `per_labelled` needs it.

  Source: docs/diga.md section 6.5.
  """
  total = -jnp.sum(_label_log_probability(logits, labels))
  if not per_labelled:
    return total / float(labels.size)
  return _batch_mean(total, _count(_has_label(labels, logits.shape[-1])), axis_name)


def ohem_cross_entropy(
  logits: jax.Array,
  labels: jax.Array,
  threshold: float = 0.7,
  min_kept: int = 100_000,
  *,
  axis_name: str | None = None,
) -> jax.Array:
  """Mean cross-entropy over hard pixels: those whose true class is least probable.

  Kept are the pixels whose true-class probability is below max(threshold, q), with q the
  probability that exactly `min_kept` labelled pixels lie below (ties apart). With no more than
  `min_kept` labelled pixels, q is the largest probability.

  Args:
    logits, labels: float [B, H, W, C], integer [B, H, W]; the loss is 0 if no pixel is kept.
    threshold: probability under which a pixel is always hard.
    min_kept: how many pixels to keep at least, over the whole batch.
    axis_name: under `jax.pmap`, the axis over which the batch is spread; the loss is then the one
      of the whole batch on every device, and the mean of the devices' gradients is its gradient.

  Source: DiGA's SYNTHIA warm-up; docs/diga.md section 6.5.
  """
  log_probability = _label_log_probability(logits, labels)
  labelled = _has_label(labels, logits.shape[-1])
  probability = jnp.where(labelled, jnp.exp(jax.lax.stop_gradient(log_probability)), jnp.inf)
  # Ignored pixels rank last, so static shapes hold whatever the number of labelled ones.
  last = jnp.maximum(collectives.total(_count(labelled), axis_name) - 1, 0)
  kth = _kth_smallest(probability, jnp.minimum(float(max(1, min_kept)), last), axis_name)
  kept = probability < jnp.maximum(kth, threshold)
  return -_batch_mean(jnp.sum(jnp.where(kept, log_probability, 0)), _count(kept), axis_name)


def soft_cross_entropy(teacher: jax.Array, student: jax.Array) -> jax.Array:
  """Mean over pixels of -sum_c softmax(teacher)_c log_softmax(student)_c, the teacher constant."""
  probabilities = jax.nn.softmax(jax.lax.stop_gradient(teacher))
  shifted, log_sum = _shift(student)
  return _mean(log_sum - jnp.sum(probabilities * shifted, -1))


def symmetric_distillation(
  teacher_plain: jax.Array,
  teacher_mixed: jax.Array,
  student_plain: jax.Array,
  student_mixed: jax.Array,
  scale: float = 0.5,
) -> jax.Array:
  """Each view of the teacher supervises the other view of the student.

  H(teacher_plain, student_mixed) + scale * H(teacher_mixed, student_plain), with H the soft
  cross-entropy. All arguments are logits [B, H, W, C]; no gradient reaches the teacher's.

  Source: DiGA's symmetric distillation; docs/diga.md section 6.5.
  """
  outward = soft_cross_entropy(teacher_plain, student_mixed)
  return outward + scale * soft_cross_entropy(teacher_mixed, student_plain)


def smooth_confident(
  logits: jax.Array, labels: jax.Array, *, axis_name: str | None = None
) -> jax.Array:
  """-(1/C) sum_c log_softmax on labelled pixels, over (labelled pixels * C): smooths them.

  Args:
    logits: float [B, H, W, C].
    labels: integer [B, H, W]; pseudo-labels, ignored where the selector dropped them.
      The loss is 0 if nothing is labelled.
    axis_name: under `jax.pmap`, the axis over which the batch is spread (see ohem_cross_entropy).

  Source: HIAST's region-adaptive regularization; docs/hiast.md.
  """
  classes = logits.shape[-1]
  labelled = _has_label(labels, classes)
  shifted, log_sum = _shift(logits)
  terms = jnp.where(labelled, log_sum - jnp.mean(shifted, -1), 0)
  return _batch_mean(jnp.sum(terms), _count(labelled) * classes, axis_name)


def entropy_ignored(
  logits: jax.Array, labels: jax.Array, *, axis_name: str | None = None
) -> jax.Array:
  """Entropy on the pixels without a label, over (those pixels * C): sharpens them.

  Arguments, result and source as smooth_confident's.
  """
  classes = logits.shape[-1]
  ignored = ~_has_label(labels, classes)
  total = jnp.sum(jnp.where(ignored, _pixel_entropy(logits), 0))
  return _batch_mean(total, _count(ignored) * classes, axis_name)


def consistency_ignored(
  logits: jax.Array, probabilities: jax.Array, labels: jax.Array, *, axis_name: str | None = None
) -> jax.Array:
  """Cross-entropy to a teacher's probabilities on the pixels without a label.

  As published it is divided by the number of terms that are not exactly zero: pixels * C, unless a
  probability underflows.

  Args:
    logits: float [B, H, W, C], the student's.
    probabilities: float [B, H, W, C], the teacher's; no gradient reaches them.
    labels, axis_name, and the result: as smooth_confident's.
  """
  ignored = ~_has_label(labels, logits.shape[-1])
  shifted, log_sum = _shift(logits)
  constant = jax.lax.stop_gradient(probabilities)
  terms = jnp.where(ignored[..., None], constant * (log_sum[..., None] - shifted), 0)
  return _batch_mean(jnp.sum(terms), _count(terms != 0), axis_name)


def entropy(logits: jax.Array) -> jax.Array:
  """Mean entropy over pixels as a share of the largest possible, log C.

  Source: the adversarial warm-up's entropy term (base 2 logarithms over log2 C, which is the same);
  docs/hiast.md.
  """
  return _mean(_pixel_entropy(logits)) / math.log(logits.shape[-1])


def edges(labels: jax.Array) -> jax.Array:
  """1 where the 5x5 Laplacian of the label map exceeds 0.1 in absolute value: [B, H, W] float32.

  The label ids are taken as numbers (255 too), and borders are reflected: the published quirk is
  that a border between two ids far apart is wider than one between neighbouring ids.

  Source: docs/diga.md section 4.
  """
  height, width = labels.shape[1:]
  values = labels.astype(jnp.int32)
  padded = jnp.pad(values, ((0, 0), (2, 2), (2, 2)), mode='reflect')
  rows = _sum(padded[:, i : i + height] for i in range(5))
  box = _sum(rows[:, :, j : j + width] for j in range(5))
  return (jnp.abs(box - 25 * values) > 0.1 * _LAPLACIAN_NORM).astype(jnp.float32)


def edge(rgb_out: jax.Array, rgb_in: jax.Array, labels: jax.Array) -> jax.Array:
  """L1 between two images [B, H, W, 3] on the edges of the label map [B, H, W].

  The mean is over all values of the image, those off the edges being zero.
  """
  return _mean(jnp.abs(rgb_in - rgb_out) * edges(labels)[..., None])


def adversarial_discriminator(
  real_maps: Sequence[jax.Array], fake_maps: Sequence[jax.Array]
) -> jax.Array:
  """Least-squares loss of a multi-scale discriminator: real maps towards 1, fake maps towards 0.

  Both are one map of scores [B, h, w, 1] per scale. Detach the fakes.
  """
  pairs = zip(real_maps, fake_maps, strict=True)
  return _sum(_mean((real - 1) ** 2) + _mean(fake**2) for real, fake in pairs)


def adversarial_generator(fake_maps: Sequence[jax.Array]) -> jax.Array:
  """Least-squares loss of a generator: its maps, one [B, h, w, 1] per scale, towards 1."""
  return _sum(_mean((fake - 1) ** 2) for fake in fake_maps)


def l1(a: jax.Array, b: jax.Array) -> jax.Array:
  """Mean absolute difference of two arrays of the same shape."""
  return _mean(jnp.abs(a - b))


def perceptual(
  features_a: Sequence[jax.Array],
  features_b: Sequence[jax.Array],
  weights: Sequence[float] = PERCEPTUAL_WEIGHTS,
) -> jax.Array:
  """Weighted sum of the L1 between two lists of features, one [B, h, w, D] and weight per depth.

  `features_a` are of the image under training, `features_b` of the image to resemble; no gradient
  reaches the latter.
  """
  triples = zip(weights, features_a, features_b, strict=True)
  return _sum(weight * l1(a, jax.lax.stop_gradient(b)) for weight, a, b in triples)
