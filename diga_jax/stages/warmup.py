"""Warm-up: symmetric distillation on labelled source images (docs/diga.md section 6)."""

import functools
from collections.abc import Callable

import jax
import optax

from diga_jax import ema
from diga_jax.parallel import collectives
from diga_jax.parallel.example_keys import example_keys
from diga_jax.stages.forward import forward
from diga_jax.stages.objective import objective
from diga_jax.stages.views import normalise_images, two_views
from diga_jax.state import TrainState, apply_gradients
from diga_jax.types import Batch, Metrics, Params, PyTree, SegmentationNet, StepConfig

METHODS = DISTILL, SOURCE_ONLY = 'distill', 'source_only'  # the latter: the source's loss alone


def train_step(
  state: TrainState,
  batch: Batch,
  frozen: Params | None = None,
  *,
  model: SegmentationNet,
  tx: optax.GradientTransformation,
  config: StepConfig,
  axis_name: str | None = None,
  view_fn: Callable[..., jax.Array] = two_views,
) -> tuple[TrainState, Metrics]:
  """One step of the warm-up; see `types.TrainStep`. Numbers: items of docs/diga.md section 6.

  Args:
    batch: source_image, source_label and, where the translator or `target_statistics` needs it,
      target_image.
    view_fn: makes the two views, interleaved; tests against the published code give their own.
  """
  stage, batch = config.stage, normalise_images(batch)
  keys = functools.partial(example_keys, state.key, state.step, axis_name=axis_name)
  decay = ema.decay(state.step, stage.ema_decay_max)
  teacher = ema.update(state.teacher, state.params, decay)  # 6.1
  if stage.method == SOURCE_ONLY:
    views, soft = batch['source_image'], None
  else:
    views = view_fn(state, batch, frozen, config, axis_name)  # 6.3
    dropout = keys('teacher_dropout', len(views))
    soft = forward(model, teacher, state.batch_stats, views, dropout).heads  # 6.4

  def loss_fn(params: Params) -> tuple[jax.Array, tuple[PyTree, Metrics]]:
    dropout = keys('student_dropout', len(views))
    student = forward(model, params, state.batch_stats, views, dropout)  # 6.4
    labels = batch['source_label']
    loss, metrics = objective(student.heads, labels, stage, axis_name, soft=soft)  # 6.5
    return loss, (student.batch_stats, metrics)

  grads, (stats, metrics) = jax.grad(loss_fn, has_aux=True)(state.params)
  if stage.target_statistics:
    stats = move_statistics(model, state.params, stats, batch['target_image'])  # 6.6
  state = apply_gradients(state, grads, tx, axis_name, batch_stats=stats, teacher=teacher)  # 6.2
  return state, collectives.mean(metrics, axis_name)


def move_statistics(
  model: SegmentationNet, params: Params, batch_stats: PyTree, target: jax.Array
) -> PyTree:
  """The BatchNorm running statistics moved by normalised target images [B, H, W, 3].

  The published warm-up runs the student on target images for pictures only, but in training
  mode: a hidden adaptation of the statistics that evaluation uses (docs/diga.md section 6.6).
  """
  return forward(model, params, batch_stats, target).batch_stats
