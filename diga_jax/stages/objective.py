"""The loss on one output of the network (docs/method.md section 6.5)."""

from typing import Any

import jax

from diga_jax import losses
from diga_jax.stages import forward


def supervised_loss(
  logits: jax.Array, labels: jax.Array, stage: Any, axis_name: str | None = None
) -> jax.Array:
  """The loss on true labels that the stage names (docs/method.md section 6.5)."""
  if stage.loss == 'ohem':
    return losses.ohem_cross_entropy(
      logits,
      labels,
      threshold=stage.ohem_threshold,
      min_kept=stage.ohem_min_kept,
      axis_name=axis_name,
    )
  per_labelled = stage.loss == 'labelled_cross_entropy'
  return losses.cross_entropy(logits, labels, per_labelled=per_labelled, axis_name=axis_name)


def objective(
  logits: jax.Array, soft: jax.Array | None, labels: jax.Array, stage: Any, axis_name: str | None
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The loss on one output of the network, and its terms (docs/method.md section 6.5).

  Args:
    logits: the student's on both views, interleaved [2B, H, W, C]; without `soft` on the plain one.
    soft: the teacher's logits on both views; None for the labels alone.
    labels: true, [B, H, W].
  """
  if soft is None:
    loss = supervised_loss(logits, labels, stage, axis_name)
    return loss, {'cross_entropy': loss}
  (logits, logits_mixed), teachers = forward.deinterleave(logits), forward.deinterleave(soft)
  terms = {
    'cross_entropy': supervised_loss(logits, labels, stage, axis_name),
    'distillation': losses.symmetric_distillation(
      *teachers, logits, logits_mixed, scale=stage.reverse
    ),
  }
  return terms['cross_entropy'] + stage.distillation * terms['distillation'], terms
