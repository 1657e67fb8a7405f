"""Metrics of self-training by class: what is labelled, kept and predicted on the target."""

import jax
import jax.numpy as jnp

from diga_jax import resize, selection
from diga_jax.types import Metrics


def metrics(
  pseudo_labels: jax.Array, selected: jax.Array, logits: jax.Array, mask: jax.Array | None
) -> Metrics:
  """Shares of the target's pixels, [C] each; they are watched by `class_watch`.

  Args:
    pseudo_labels, selected: [B, H, W], as stored and as the stage's selector keeps them.
    logits: the student's on the target at its stride, [B, h, w, C].
    mask: where its view shows the source instead, [B, H, W]; None: nowhere.

  Returns:
    'labels_by_class' and 'kept_by_class'; 'predictions_by_class', and 'confidence_by_class', the
    summed largest probability of those pixels instead of their number.
  """
  logits, classes = jax.lax.stop_gradient(logits), logits.shape[-1]
  predicted, confidence = jnp.argmax(logits, -1), jnp.max(jax.nn.softmax(logits), -1)
  if mask is not None:
    hidden = resize.nearest(mask.astype(jnp.int32), logits.shape[1:3]) > 0
    predicted = jnp.where(hidden, classes, predicted)
  return {
    'labels_by_class': selection.class_coverage(pseudo_labels, classes),
    'kept_by_class': selection.class_coverage(selected, classes),
    'predictions_by_class': selection.class_coverage(predicted, classes),
    'confidence_by_class': selection.class_coverage(predicted, classes, confidence),
  }
