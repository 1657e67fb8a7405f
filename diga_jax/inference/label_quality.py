"""How many of the pseudo-labels a selector keeps, and how many are right. For reports only.

The true target labels serve these measurements and nothing else: no weight, centroid, pseudo-label
or choice of a model may depend on what comes out.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.errors import BadInput
from data_pipelines.label_tables import IGNORE
from diga_jax import metrics, pixels, selection
from diga_jax.inference.image_batches import Batch, Dataset, for_each_batch, labels_of, pad
from diga_jax.parallel import processes
from diga_jax.types import LabelScores, LabelShares, SegmentationNet, Variables


@functools.partial(jax.jit, static_argnames=('model', 'rank'))
def consensus_labels(
  variables: Variables,
  images: jax.Array,
  labels: jax.Array,
  centroids: jax.Array,
  *,
  model: SegmentationNet,
  rank: int = 1,
) -> jax.Array:
  """Pseudo-labels [B, h, w] that the nearest centroids bear out, else 255; running statistics.

  Args:
    images: uint8 RGB [B, H, W, 3].
    labels: pseudo-labels [B, h, w]; the distances are upsampled to their size.
    centroids: [C, D].
    rank: among how many nearest centroids the label's must be; 1 is bilateral consensus.
  """
  feature = model.apply(variables, pixels.normalise(images), train=False)['feature']
  _, height, width = labels.shape
  weights = selection.centroid_weights(feature, centroids, (height, width))
  return selection.ranked_consensus(labels, weights, rank)


@functools.partial(jax.jit, static_argnames='classes')
def _counts(
  labels: jax.Array, selected: jax.Array, truth: jax.Array, *, classes: int
) -> dict[str, jax.Array]:
  """Pixels of a batch, all [B, h, w] with 255 for none.

  Returns:
    'kept' and 'rejected' by (truth, label) [C, C]; 'truth', 'labels' and 'selected' by class [C].
  """
  rejected = (selected == IGNORE) & (labels != IGNORE)

  def by_truth(chosen: jax.Array) -> jax.Array:
    return metrics.confusion_matrix(labels, jnp.where(chosen, truth, IGNORE), classes)

  def by_class(shown: jax.Array) -> jax.Array:
    return jnp.diagonal(metrics.confusion_matrix(shown, shown, classes))

  return {
    'kept': by_truth(selected != IGNORE),
    'rejected': by_truth(rejected),
    'truth': by_class(truth),
    'labels': by_class(labels),
    'selected': by_class(selected),
  }


def _truth_of(truth: Dataset | None, batch: Batch, labels: np.ndarray) -> np.ndarray:
  """True labels for a batch, all 255 if there are none. Raises BadInput if sizes differ."""
  if truth is None:
    return np.full_like(labels, IGNORE)
  rows = []
  for index in batch.indices:
    _, row = truth.read(index)
    if row is None or row.shape != labels.shape[1:]:
      raise BadInput(
        f'{truth.ids[index]}: a pseudo-label is measured by a true label of its own size'
      )
    rows.append(row)
  return pad(rows, len(labels), IGNORE)


def measure(
  dataset: Dataset,
  names: Sequence[str],
  *,
  select: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
  truth: Dataset | None = None,
  batch_size: int = 1,
  place: Callable[[np.ndarray], jax.Array] = jnp.asarray,
  progress: bool = True,
) -> LabelScores:
  """How many of the pseudo-labels a selector keeps, and how many of those are right.

  Args:
    dataset: target images whose labels are the pseudo-labels.
    names: the C class names.
    select: (images [B, H, W, 3], labels [B, h, w]) -> the labels that are kept, such as
      `consensus_labels`; None: all that were written.
    truth: the same images with their true labels, of the same size; None: only shares are known.
    batch_size, place, progress: as of `forward.Predictor` and `evaluate.evaluate`.

  Returns:
    {'kept': share of the pixels (of a class: of those labelled so), 'accuracy', 'accuracy_kept',
    'accuracy_rejected': share of right labels where the truth is known (of a class: of the pixels
    labelled so, its precision), 'coverage': share of the pixels whose truth is known (of a class:
    that are of the class) that keep a label, 'pixels': all labelled ones, 'per_class': {name: the
    same}, 'images'}. None stands for the share of an empty set.

  Raises:
    BadInput: no images, no pseudo-labels, true labels missing or of another size, a damaged file.
  """
  if truth is not None and list(truth.ids) != list(dataset.ids):
    raise BadInput('the true labels are not those of the same images: use one list')

  def step(batch: Batch) -> dict[str, jax.Array | int]:
    stored = labels_of(batch, dataset, len(names))
    labels, true_labels = place(stored), place(_truth_of(truth, batch, stored))
    selected = labels if select is None else select(place(batch.images), labels)
    found = _counts(labels, selected, true_labels, classes=len(names))
    return {**found, 'size': stored[: len(batch.indices)].size}

  found: list[dict[str, np.ndarray]] = []
  for _, counts in for_each_batch(step, dataset, 'label quality', progress, batch_size=batch_size):
    counts = {name: np.asarray(value).astype(np.int64) for name, value in counts.items()}
    found = [_add([*found, counts])]
  total = _add([one for everyone in processes.exchange(found) for one in everyone])
  per_class = {name: _rates(total, column) for column, name in enumerate(names)}
  return {'kind': 'labels', **_rates(total), 'per_class': per_class, 'images': len(dataset)}


def _add(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
  return {name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]}


def _ratio(part: int, whole: int) -> float | None:
  return float(part) / float(whole) if whole else None


def _rates(total: dict[str, np.ndarray], column: int | None = None) -> LabelShares:
  """The numbers that `measure` returns of all classes or of one, from its summed counts."""
  kept, rejected = total['kept'], total['rejected']

  def count(counts: np.ndarray) -> int:
    return int(counts.sum() if column is None else counts[column])

  def right(counts: np.ndarray) -> float | None:
    return _ratio(count(np.diagonal(counts)), count(counts.sum(0)))

  whole = int(total['size']) if column is None else count(total['labels'])
  return {
    'pixels': count(total['labels']),
    'kept': _ratio(count(total['selected']), whole),
    'coverage': _ratio(count(kept.sum(1)), count(total['truth'])),
    'accuracy': right(kept + rejected),
    'accuracy_kept': right(kept),
    'accuracy_rejected': right(rejected),
  }
