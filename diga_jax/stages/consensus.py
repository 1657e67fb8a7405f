"""Which pseudo-labels are kept, and how the centroids move (docs/diga.md section 7)."""

import jax
from ml_collections import ConfigDict

from diga_jax import centroids, resize, selection
from diga_jax.parallel import collectives
from diga_jax.stages.forward import Output
from diga_jax.state import TrainState


def select_labels(
  state: TrainState, teacher: Output, pseudo_labels: jax.Array, stage: ConfigDict
) -> jax.Array:
  """The stored pseudo-labels [B, H, W] that the stage's selector keeps; the others become 255.

  `teacher` is its output on the target images (docs/diga.md section 7.4).
  """
  return SELECTORS[stage.selector](state, teacher, pseudo_labels, stage)


def _consensus(
  state: TrainState, teacher: Output, pseudo_labels: jax.Array, stage: ConfigDict
) -> jax.Array:
  """Keeps labels that the nearest class centroid agrees with (DiGA)."""
  weights = selection.centroid_weights(teacher.feature, state.centroids, pseudo_labels.shape[1:])
  return selection.ranked_consensus(pseudo_labels, weights, stage.rank)


# (state, teacher, pseudo_labels, stage) -> labels: what `selector` may be in self-training.
SELECTORS = {
  'consensus': _consensus,
  'none': lambda state, teacher, pseudo_labels, stage: selection.none(pseudo_labels),
}


def move_centroids(
  current: jax.Array, teacher: Output, labels: jax.Array, stage: ConfigDict, axis_name: str | None
) -> jax.Array:
  """The centroids [C, D] moved by one view; as they are unless the selector is 'consensus'.

  `teacher` is its output on the view; pixels count where it agrees with the view's `labels`
  [B, H, W] (docs/diga.md section 7.6).
  """
  if stage.selector != 'consensus':
    return current
  small = resize.nearest(labels, teacher.feature.shape[1:3])
  means, valid = centroids.class_means(teacher.feature, teacher.logits, small)
  means, valid = (collectives.gather(x, axis_name) for x in (means, valid))
  return centroids.update(current, means, valid, momentum=stage.centroid_momentum)
