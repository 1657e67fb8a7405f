"""Warm-up: symmetric distillation on labelled source images (docs/method.md section 6)."""

import functools
from typing import Any

import jax

from diga_jax import ema
from diga_jax.parallel import collectives
from diga_jax.parallel.example_keys import example_keys
from diga_jax.pixels import normalise
from diga_jax.stages import forward, views
from diga_jax.stages.objective import objective
from diga_jax.state import TrainState, descend


def train_step(
  state: TrainState,
  batch: dict[str, jax.Array],
  frozen: Any = None,
  *,
  model,
  tx,
  config,
  axis_name: str | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One step i of the warm-up.

  Args:
    state: the state after i steps.
    batch: source_image uint8 [B, H, W, 3], source_label [B, H, W] and, where the translator or
      `target_statistics` wants it, target_image uint8 [B, H, W, 3].
    frozen: the translator's variables (kind 'network').
    model, tx: the network and its optimizer.
    config: `stage` (this stage's settings) and `translator`.
    axis_name: under `jax.pmap`, the axis over which the batch is spread.

  Returns:
    The state after i + 1 steps and the losses.
  """
  if config.stage.method == 'source_only':
    plain, mixed = normalise(batch['source_image']), None
  else:
    plain, mixed = views.source_views(state, batch, frozen, config, axis_name)
  state, metrics = update(
    state,
    plain,
    mixed,
    batch['source_label'],
    model=model,
    tx=tx,
    config=config,
    axis_name=axis_name,
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
  axis_name: str | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """The gradient step on two given views [B, H, W, 3]; without `mixed`, on labels alone."""
  stage = config.stage
  teacher = ema.update(state.teacher, state.params, ema.decay(state.step, stage.ema_decay_max))
  images = plain if mixed is None else forward.interleave(plain, mixed)
  keys = functools.partial(
    example_keys, state.key, state.step, batch=len(images), axis_name=axis_name
  )
  student_keys = keys('student_dropout')
  size, soft, soft_auxiliary = images.shape[1:3], None, None
  if mixed is not None:
    dropout = keys('teacher_dropout')
    soft, outputs, _ = forward.forward(model, teacher, state.batch_stats, images, dropout)
    soft_auxiliary = forward.auxiliary_logits(outputs, size)

  def loss_fn(params):
    logits, outputs, batch_stats = forward.forward(
      model, params, state.batch_stats, images, student_keys
    )
    loss, terms = objective(logits, soft, labels, stage, axis_name)
    auxiliary = forward.auxiliary_logits(outputs, size)
    if auxiliary is not None:
      terms['auxiliary'], _ = objective(auxiliary, soft_auxiliary, labels, stage, axis_name)
      loss = loss + stage.auxiliary * terms['auxiliary']
    return loss, (batch_stats, {'loss': loss, **terms})

  grads, (batch_stats, metrics) = jax.grad(loss_fn, has_aux=True)(state.params)
  state = descend(state, grads, tx, axis_name, batch_stats=batch_stats, teacher=teacher)
  return state, collectives.mean(metrics, axis_name)


def adapt_statistics(state: TrainState, target: jax.Array, *, model) -> TrainState:
  """Moves the BatchNorm running statistics by a target batch.

  The published warm-up runs the student on target images for pictures only, but in training
  mode: a hidden adaptation of the statistics that evaluation uses (docs/method.md section 6.6).
  """
  _, _, batch_stats = forward.forward(model, state.params, state.batch_stats, target, None)
  return state.replace(batch_stats=batch_stats)
