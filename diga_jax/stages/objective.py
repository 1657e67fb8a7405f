"""The loss of a step: a sum over the network's heads (docs/diga.md sections 6.5 and 7.8)."""

from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from diga_jax import losses
from diga_jax.stages.forward import deinterleave
from diga_jax.types import Metrics


def objective(
  heads: Sequence[jax.Array],
  labels: jax.Array,
  stage: ConfigDict,
  axis_name: str | None = None,
  *,
  soft: Sequence[jax.Array] | None = None,
  target: tuple[Sequence[jax.Array], jax.Array] | None = None,
) -> tuple[jax.Array, Metrics]:
  """The main head's loss plus `stage.auxiliary` times that of an auxiliary one, if there is one.

  Args:
    heads: the student's logits on both source views, interleaved [2B, H, W, C], head by head;
      without `soft` on the plain view alone, [B, H, W, C].
    labels: the source's, [B, H, W].
    soft: the teacher's logits on both views; None: no distillation.
    target: the student's logits on the mixed target images [B, H, W, C], head by head, and their
      labels [B, H, W]; None in the warm-up.

  Returns:
    The loss, and the metrics: 'loss', the main head's terms, and 'auxiliary', not weighted.
  """
  none = (None,) * len(heads)
  target_heads, target_labels = target or (none, None)
  by_head = zip(heads, soft or none, target_heads, strict=True)
  parts = [head_loss(*head, labels, target_labels, stage, axis_name) for head in by_head]
  loss, terms = parts[0]
  for auxiliary, _ in parts[1:]:
    terms['auxiliary'] = auxiliary
    loss = loss + stage.auxiliary * auxiliary
  return loss, {'loss': loss, **terms}


def head_loss(
  logits: jax.Array,
  soft: jax.Array | None,
  on_target: jax.Array | None,
  labels: jax.Array,
  target_labels: jax.Array | None,
  stage: ConfigDict,
  axis_name: str | None,
) -> tuple[jax.Array, Metrics]:
  """The loss on one head and its terms; arguments as `objective`'s."""
  views = (logits,) if soft is None else deinterleave(logits)
  loss = supervised_loss(views[0], labels, stage, axis_name)
  terms = {'cross_entropy': loss}
  if soft is not None:
    teachers = deinterleave(soft)
    terms['distillation'] = losses.symmetric_distillation(*teachers, *views, scale=stage.reverse)
    loss = loss + stage.distillation * terms['distillation']
  if on_target is not None and target_labels is not None:
    terms['target'] = LOSSES[stage.target_loss](on_target, target_labels, stage, axis_name)
    loss = loss + terms['target']
  return loss, terms


def supervised_loss(
  logits: jax.Array, labels: jax.Array, stage: ConfigDict, axis_name: str | None = None
) -> jax.Array:
  """The loss on labels [B, H, W] that `stage.loss` names; logits [B, H, W, C]."""
  return LOSSES[stage.loss](logits, labels, stage, axis_name)


def _ohem(
  logits: jax.Array, labels: jax.Array, stage: ConfigDict, axis_name: str | None
) -> jax.Array:
  options = {'threshold': stage.ohem_threshold, 'min_kept': stage.ohem_min_kept}
  return losses.ohem_cross_entropy(logits, labels, **options, axis_name=axis_name)


# (logits, labels, stage, axis_name) -> loss: what `loss` of a stage may be.
LOSSES = {
  'cross_entropy': lambda logits, labels, stage, axis_name: losses.cross_entropy(logits, labels),
  'labelled_cross_entropy': lambda logits, labels, stage, axis_name: losses.cross_entropy(
    logits, labels, per_labelled=True, axis_name=axis_name
  ),
  'ohem': _ohem,
}
