"""Self-training with threshold-free bilateral consensus (docs/diga.md section 7)."""

import functools
from collections.abc import Callable

import jax
import optax

from diga_jax import ema, selection
from diga_jax.parallel import collectives
from diga_jax.parallel.example_keys import example_keys
from diga_jax.stages import by_class
from diga_jax.stages.consensus import move_centroids, select_labels
from diga_jax.stages.forward import forward, second_view
from diga_jax.stages.objective import objective
from diga_jax.stages.views import Views, four_views, normalise_images, paste_source
from diga_jax.state import TrainState, apply_gradients
from diga_jax.types import Batch, Metrics, Params, PyTree, SegmentationNet, StepConfig


def train_step(
  state: TrainState,
  batch: Batch,
  frozen: Params | None = None,
  *,
  model: SegmentationNet,
  tx: optax.GradientTransformation,
  config: StepConfig,
  axis_name: str | None = None,
  view_fn: Callable[..., Views] = four_views,
) -> tuple[TrainState, Metrics]:
  """One step of self-training; see `types.TrainStep`. Numbers: items of docs/diga.md section 7.

  Args:
    state: with `centroids` [C, D].
    batch: source_image, source_label, target_image and, as target_label, pseudo-labels.
    view_fn: makes the views; tests against the published code give their own.

  Returns:
    Among the metrics `coverage`, the share of target pixels that keep their pseudo-label, and
    those of `by_class`.
  """
  stage, batch = config.stage, normalise_images(batch)
  keys = functools.partial(example_keys, state.key, state.step, axis_name=axis_name)
  decay = ema.decay(state.step, stage.ema_decay_max)
  teacher = ema.update(state.teacher, state.params, decay)  # 7.1
  views = view_fn(state, batch, frozen, config, axis_name)  # 7.2, 7.5
  labels, stats = batch['source_label'], state.batch_stats
  one, two = len(views.target), len(views.pair)
  teacher_pair = forward(model, teacher, stats, views.pair, keys('teacher_dropout', two))  # 7.3
  teacher_target = forward(model, teacher, stats, views.target, keys('target_dropout', one))  # 7.3
  selected_labels = select_labels(state, teacher_target, batch['target_label'], stage)  # 7.4
  mixed_labels = paste_source(views.mask, labels, selected_labels)  # 7.5
  centroids = move_centroids(state.centroids, teacher_target, selected_labels, stage, axis_name)
  centroids = move_centroids(centroids, second_view(teacher_pair), labels, stage, axis_name)  # 7.6

  def loss_fn(params: Params) -> tuple[jax.Array, tuple[PyTree, Metrics]]:
    pair = forward(model, params, stats, views.pair, keys('student_dropout', two))  # 7.3
    dropout = keys('mixed_dropout', one)
    mixed = forward(model, params, pair.batch_stats, views.target_mixed, dropout)  # 7.7
    target = mixed.heads, mixed_labels
    loss, metrics = objective(
      pair.heads, labels, stage, axis_name, soft=teacher_pair.heads, target=target
    )  # 7.8
    stored = batch['target_label']
    metrics |= by_class.metrics(stored, selected_labels, mixed.logits, views.mask)
    return loss, (mixed.batch_stats, metrics)

  grads, (stats, metrics) = jax.grad(loss_fn, has_aux=True)(state.params)
  metrics['coverage'] = selection.coverage(selected_labels)
  moved = {'batch_stats': stats, 'teacher': teacher, 'centroids': centroids}
  state = apply_gradients(state, grads, tx, axis_name, **moved)  # 7.1
  return state, collectives.mean(metrics, axis_name)
