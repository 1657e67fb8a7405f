"""Self-training with threshold-free bilateral consensus (docs/method.md section 7)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diga_jax import ema, losses, mixing
from diga_jax.parallel import collectives
from diga_jax.parallel.example_keys import example_keys
from diga_jax.pixels import normalise
from diga_jax.stages import forward, views
from diga_jax.stages.consensus import move_centroids, select
from diga_jax.stages.objective import objective
from diga_jax.state import TrainState, descend


class Views(NamedTuple):
  """What one step looks at; normalised images [B, H, W, 3], labels [B, H, W], masks bool."""

  plain: jax.Array  # source as it is
  mixed: jax.Array  # source's cross-domain mixture
  target: jax.Array  # target as it is
  target_mixed: jax.Array  # source under `mask`, augmented target elsewhere
  mask: jax.Array  # nowhere, unless `target_mixing` is 'class'
  labels: jax.Array  # true, source
  pseudo: jax.Array  # stored pseudo-labels, target


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
  """One step of self-training.

  Args:
    state: the state after i steps; `centroids` [C, D] are part of it.
    batch: source_image, target_image uint8 [B, H, W, 3]; source_label, target_label
      (pseudo-labels) [B, H, W].
    frozen: the translator's variables (kind 'network').
    model, tx: the network and its optimizer.
    config: `stage` (this stage's settings) and `translator`.
    axis_name: under `jax.pmap`, the axis over which the batch is spread.

  Returns:
    The state after i + 1 steps and the losses, with the share of target pixels kept.
  """
  plain, mixed = views.source_views(state, batch, frozen, config, axis_name)
  target = normalise(batch['target_image'])
  augmented = views.photometric(state, target, 'target_view', config.stage.view, axis_name)
  mask = views.target_mask(state, batch, config.stage, axis_name)
  seen = Views(
    plain,
    mixed,
    target,
    mixing.paste(mask, plain, augmented),
    mask,
    batch['source_label'].astype(jnp.int32),
    batch['target_label'].astype(jnp.int32),
  )
  return update(state, seen, model=model, tx=tx, config=config, axis_name=axis_name)


def update(
  state: TrainState, seen: Views, *, model, tx, config, axis_name: str | None = None
) -> tuple[TrainState, dict[str, jax.Array]]:
  """The gradient step on given views."""
  stage, batch = config.stage, len(seen.plain)
  teacher = ema.update(state.teacher, state.params, ema.decay(state.step, stage.ema_decay_max))
  pair = forward.interleave(seen.plain, seen.mixed)
  keys = {
    name: example_keys(state.key, state.step, f'{name}_dropout', size, axis_name)
    for name, size in (
      ('student', 2 * batch),
      ('teacher', 2 * batch),
      ('target', batch),
      ('mixed', batch),
    )
  }

  soft, on_pair, _ = forward.forward(model, teacher, state.batch_stats, pair, keys['teacher'])
  size = pair.shape[1:3]
  soft_auxiliary = forward.auxiliary_logits(on_pair, size)
  on_mixed = {name: forward.deinterleave(x)[1] for name, x in on_pair.items()}
  _, on_target, _ = forward.forward(model, teacher, state.batch_stats, seen.target, keys['target'])
  kept = select(state, on_target['feature'], seen.pseudo, stage)
  mixed_labels = mixing.paste(seen.mask, seen.labels, kept)

  def head_loss(logits, on_target_mixed, soft):
    loss, terms = objective(logits, soft, seen.labels, stage, axis_name)
    terms['target'] = losses.cross_entropy(on_target_mixed, mixed_labels)
    return loss + terms['target'], terms

  def loss_fn(params):
    logits, first, batch_stats = forward.forward(
      model, params, state.batch_stats, pair, keys['student']
    )
    on_target_mixed, second, batch_stats = forward.forward(
      model, params, batch_stats, seen.target_mixed, keys['mixed']
    )
    loss, terms = head_loss(logits, on_target_mixed, soft)
    if soft_auxiliary is not None:
      auxiliary = (forward.auxiliary_logits(outputs, size) for outputs in (first, second))
      terms['auxiliary'], _ = head_loss(*auxiliary, soft_auxiliary)
      loss = loss + stage.auxiliary * terms['auxiliary']
    return loss, (batch_stats, {'loss': loss, **terms})

  grads, (batch_stats, metrics) = jax.grad(loss_fn, has_aux=True)(state.params)
  centroids = state.centroids
  if stage.selector == 'consensus':
    # First by the target, then by the source's mixed view.
    shown = (on_target, kept), (on_mixed, seen.labels)
    centroids = move_centroids(centroids, shown, stage.centroid_momentum, axis_name)
  metrics['kept'] = jnp.mean(kept != 255)
  state = descend(
    state, grads, tx, axis_name, batch_stats=batch_stats, teacher=teacher, centroids=centroids
  )
  return state, collectives.mean(metrics, axis_name)
