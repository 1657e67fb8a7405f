"""HIAST's self-training (arXiv 2302.06992): target only, a regularization for each region.

Source: docs/hiast.md.
"""

from collections.abc import Callable

import jax
import optax

from diga_jax import ema, losses, selection
from diga_jax.parallel import collectives
from diga_jax.parallel.example_keys import example_keys
from diga_jax.stages import by_class
from diga_jax.stages.consensus import move_centroids, select_labels
from diga_jax.stages.forward import forward
from diga_jax.stages.objective import supervised_loss
from diga_jax.stages.views import paste_source, weak_and_strong
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
  view_fn: Callable[..., tuple[jax.Array, jax.Array, jax.Array | None]] = weak_and_strong,
) -> tuple[TrainState, Metrics]:
  """One step: the student learns on the strong view, guided by the EMA teacher on the weak one.

  The teacher uses the student's running statistics and follows the student after the step, both as
  published. See `types.TrainStep`.

  Args:
    state: with `centroids` [C, D] if the selector is 'consensus'.
    batch: target_image and, as target_label, pseudo-labels; with `target_mixing = 'class'` also
      source_image and source_label.
    view_fn: makes the views; tests against the published code give their own.

  Returns:
    Among the metrics `coverage`, the share of target pixels that keep their pseudo-label, and
    those of `by_class`.
  """
  stage, stats = config.stage, state.batch_stats
  weak, strong, mask = view_fn(state, batch, stage, axis_name)  # 10, views
  teacher = forward(model, state.teacher, stats, weak, train=False)  # 10, step
  soft = jax.nn.softmax(teacher.heads[0])
  selected_labels = select_labels(state, teacher, batch['target_label'], stage)
  labels = paste_source(mask, batch.get('source_label'), selected_labels)
  keys = example_keys(state.key, state.step, 'student_dropout', len(strong), axis_name)

  def loss_fn(params: Params) -> tuple[jax.Array, tuple[PyTree, Metrics]]:
    student = forward(model, params, stats, strong, keys)
    logits = student.heads[0]
    loss = supervised_loss(logits, labels, stage, axis_name)  # 10, losses
    regularizers = {
      'smoothing': losses.smooth_confident(logits, labels, axis_name=axis_name),
      'sharpening': losses.entropy_ignored(logits, labels, axis_name=axis_name),
      'consistency': losses.consistency_ignored(logits, soft, labels, axis_name=axis_name),
    }
    total = loss + sum(stage[name] * term for name, term in regularizers.items())
    shares = by_class.metrics(batch['target_label'], selected_labels, student.logits, mask)
    metrics = {'loss': total, 'cross_entropy': loss, **regularizers, **shares}
    return total, (student.batch_stats, metrics)

  grads, (stats, metrics) = jax.grad(loss_fn, has_aux=True)(state.params)
  metrics['coverage'] = selection.coverage(selected_labels)
  centroids = move_centroids(state.centroids, teacher, labels, stage, axis_name)
  moved = {'batch_stats': stats, 'centroids': centroids}
  state = apply_gradients(state, grads, tx, axis_name, **moved)
  state = state.replace(teacher=ema.update(state.teacher, state.params, stage.ema_decay))
  return state, collectives.mean(metrics, axis_name)
