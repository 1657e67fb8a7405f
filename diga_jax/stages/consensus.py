"""The pseudo-labels that self-training keeps, and its centroids (docs/method.md section 7)."""

from collections.abc import Sequence
from typing import Any

import jax

from diga_jax import centroids as centroid
from diga_jax import selection
from diga_jax.parallel import collectives
from diga_jax.state import TrainState


def select(state: TrainState, features: jax.Array, pseudo: jax.Array, stage: Any) -> jax.Array:
  """The pseudo-labels [B, H, W] that the stage's selector keeps; the others become 255."""
  if stage.selector == 'none':
    return selection.none(pseudo)
  weights = selection.centroid_weights(features, state.centroids, pseudo.shape[1:])
  return selection.ranked_consensus(pseudo, weights, stage.rank)


def move_centroids(
  centroids: jax.Array,
  seen: Sequence[tuple[dict, jax.Array]],
  momentum: float,
  axis_name: str | None,
) -> jax.Array:
  """Moves the centroids by (outputs, labels [B, H, W]) of one view after another."""
  for outputs, truth in seen:
    small = centroid.labels_at(truth, outputs['feature'].shape[1:3])
    means, valid = centroid.class_means(outputs['feature'], outputs['logits'], small)
    means, valid = (collectives.gather(x, axis_name) for x in (means, valid))
    centroids = centroid.update(centroids, means, valid, momentum=momentum)
  return centroids
