"""Warm-up: symmetric distillation on labelled source images (docs/method.md section 6)."""

from typing import Any

import jax

from diga_jax import ema, losses
from diga_jax.images import normalise
from diga_jax.stages import views
from diga_jax.state import TrainState, descend


def train_step(
  state: TrainState, batch: dict[str, jax.Array], frozen: Any = None, *, model, tx, config
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One step i of the warm-up.

  Args:
    state: the state after i steps.
    batch: source_image uint8 [B, H, W, 3], source_label [B, H, W] and, where the translator or
      `target_statistics` wants it, target_image uint8 [B, H, W, 3].
    frozen: the translator's variables (kind 'network').
    model, tx: the network and its optimizer.
    config: `stage` (this stage's settings) and `translator`.

  Returns:
    The state after i + 1 steps and the losses.
  """
  if config.stage.method == 'source_only':
    plain, mixed = normalise(batch['source_image']), None
  else:
    plain, mixed = views.source_views(state, batch, frozen, config)
  state, metrics = update(
    state, plain, mixed, batch['source_label'], model=model, tx=tx, config=config
  )
  if config.stage.target_statistics:
    state = adapt_statistics(state, normalise(batch['target_image']), model=model)
  return state, metrics


def update(
  state: TrainState,
  plain: jax.Array,
  mixed: jax.Array | None,
  labels: jax.Array,
  *,
  model,
  tx,
  config,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """The gradient step on two given views [B, H, W, 3]; without `mixed`, on labels alone."""
  stage = config.stage
  teacher = ema.update(state.teacher, state.params, ema.decay(state.step, stage.ema))
  images = plain if mixed is None else views.interleave(plain, mixed)
  student_keys = views.example_keys(state.key, state.step, 'student_dropout', len(images))
  if mixed is not None:
    teacher_keys = views.example_keys(state.key, state.step, 'teacher_dropout', len(images))
    soft, _, _ = views.forward(model, teacher, state.batch_stats, images, teacher_keys)
    soft_plain, soft_mixed = views.deinterleave(soft)

  def loss_fn(params):
    logits, _, batch_stats = views.forward(model, params, state.batch_stats, images, student_keys)
    terms = {}
    if mixed is not None:
      logits, logits_mixed = views.deinterleave(logits)
      terms['distillation'] = losses.symmetric_distillation(
        soft_plain, soft_mixed, logits, logits_mixed, scale=stage.reverse
      )
    terms['cross_entropy'] = views.supervised_loss(logits, labels, stage)
    loss = terms['cross_entropy'] + stage.distillation * terms.get('distillation', 0.0)
    return loss, (batch_stats, {'loss': loss, **terms})

  grads, (batch_stats, metrics) = jax.grad(loss_fn, has_aux=True)(state.params)
  state = descend(state, grads, tx, batch_stats=batch_stats, teacher=teacher)
  return state, metrics


def adapt_statistics(state: TrainState, target: jax.Array, *, model) -> TrainState:
  """Moves the BatchNorm running statistics by a target batch.

  The published warm-up runs the student on target images for pictures only, but in training
  mode: a hidden adaptation of the statistics that evaluation uses (docs/method.md section 6.6).
  """
  _, _, batch_stats = views.forward(model, state.params, state.batch_stats, target, None)
  return state.replace(batch_stats=batch_stats)
