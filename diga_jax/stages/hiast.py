"""HIAST's self-training (arXiv 2302.06992): target only, a regularization for each region.

Source: docs/method.md section 10.
"""

from typing import Any

import jax
import jax.numpy as jnp

from diga_jax import ema, losses, mixing, resize
from diga_jax.parallel import collectives
from diga_jax.parallel.example_keys import example_keys
from diga_jax.pixels import normalise
from diga_jax.stages import consensus, forward, objective, views
from diga_jax.state import TrainState, descend
from diga_jax.strong_augment import strong_view


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
  """One step: the student learns on the strong view, the EMA teacher judges the weak one.

  The teacher uses the student's running statistics and follows the student after the step, both as
  published.

  Args:
    state: the state after i steps; `centroids` [C, D] are part of it if the selector is
      'consensus'.
    batch: target_image uint8 [B, H, W, 3] and target_label [B, H, W] (pseudo-labels); with
      `target_mixing = 'class'` also source_image and source_label.
    frozen: not used.
    model, tx: the network and its optimizer.
    config: `stage` (this stage's settings).
    axis_name: under `jax.pmap`, the axis over which the batch is spread.

  Returns:
    The state after i + 1 steps and the losses, with the share of target pixels kept.
  """
  stage, image = config.stage, batch['target_image']
  keys = example_keys(state.key, state.step, 'strong_view', len(image), axis_name)
  weak, strong = normalise(image), normalise(strong_view(keys, image, count=stage.strong))
  labels = batch['target_label'].astype(jnp.int32)
  mask, source = views.target_mask(state, batch, stage, axis_name), None
  if stage.target_mixing == 'class':
    source = normalise(batch['source_image']), batch['source_label'].astype(jnp.int32)
  options = {'model': model, 'tx': tx, 'config': config, 'axis_name': axis_name}
  return update(state, weak, strong, labels, mask, source, **options)


def update(
  state: TrainState,
  weak: jax.Array,
  strong: jax.Array,
  pseudo: jax.Array,
  mask: jax.Array,
  source: tuple[jax.Array, jax.Array] | None,
  *,
  model,
  tx,
  config,
  axis_name: str | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """The gradient step on given views.

  Args:
    weak, strong: normalised target images [B, H, W, 3].
    pseudo: stored pseudo-labels [B, H, W].
    mask: where both views and the labels are the source's, bool [B, H, W].
    source: (normalised images, labels), None if the mask is empty.
  """
  stage = config.stage
  if source is not None:
    weak, strong = (mixing.paste(mask, source[0], view) for view in (weak, strong))
  teacher = {'params': state.teacher, 'batch_stats': state.batch_stats}
  judged = model.apply(teacher, weak, train=False)
  soft = jax.nn.softmax(resize.align_corners(judged['logits'], weak.shape[1:3]))
  kept = consensus.select(state, judged['feature'], pseudo, stage)
  labels = kept if source is None else mixing.paste(mask, source[1], kept)
  keys = example_keys(state.key, state.step, 'student_dropout', len(strong), axis_name)

  def loss_fn(params):
    logits, _, batch_stats = forward.forward(model, params, state.batch_stats, strong, keys)
    terms = {
      'cross_entropy': objective.supervised_loss(logits, labels, stage, axis_name),
      'smoothing': losses.smooth_confident(logits, labels, axis_name=axis_name),
      'sharpening': losses.entropy_ignored(logits, labels, axis_name=axis_name),
      'consistency': losses.consistency_ignored(logits, soft, labels, axis_name=axis_name),
    }
    loss = terms['cross_entropy'] + sum(
      stage[name] * terms[name] for name in ('smoothing', 'sharpening', 'consistency')
    )
    return loss, (batch_stats, {'loss': loss, **terms})

  grads, (batch_stats, metrics) = jax.grad(loss_fn, has_aux=True)(state.params)
  metrics['kept'] = jnp.mean(kept != 255)
  if stage.selector == 'consensus':
    shown = ((judged, labels),)
    moved = consensus.move_centroids(state.centroids, shown, stage.centroid_momentum, axis_name)
    state = state.replace(centroids=moved)
  state = descend(state, grads, tx, axis_name, batch_stats=batch_stats)
  state = state.replace(teacher=ema.update(state.teacher, state.params, stage.ema_decay))
  return state, collectives.mean(metrics, axis_name)
