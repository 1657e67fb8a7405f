"""How much of the pseudo-labels a selector keeps, and how right that is. For reports only.

The true target labels serve these measurements and nothing else: no weight, centroid, pseudo-label
or choice of a model may depend on what comes out.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.errors import BadInput
from diga_jax import metrics, pixels, selection
from diga_jax.inference import evaluate, forward, image_batches
from diga_jax.parallel import processes
from diga_jax.progress import bar


@functools.partial(jax.jit, static_argnames=('model', 'rank'))
def consensus_labels(
  variables: Any,
  images: jax.Array,
  labels: jax.Array,
  centroids: jax.Array,
  *,
  model: Any,
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
  weights = selection.centroid_weights(feature, centroids, labels.shape[1:3])
  return selection.ranked_consensus(labels, weights, rank)


@functools.partial(jax.jit, static_argnames='classes')
def _counts(
  labels: jax.Array, selected: jax.Array, truth: jax.Array, *, classes: int
) -> dict[str, jax.Array]:
  """Pixels of a batch, all [B, h, w] with 255 for none.

  Returns:
    'kept' and 'rejected' by (truth, label) [C, C]; 'truth', 'labels' and 'selected' by class [C].
  """
  ignore = image_batches.IGNORE
  rejected = (selected == ignore) & (labels != ignore)

  def by_truth(chosen: jax.Array) -> jax.Array:
    return metrics.confusion_matrix(labels, jnp.where(chosen, truth, ignore), classes)

  def by_class(shown: jax.Array) -> jax.Array:
    return jnp.diagonal(metrics.confusion_matrix(shown, shown, classes))

  return {
    'kept': by_truth(selected != ignore),
    'rejected': by_truth(rejected),
    'truth': by_class(truth),
    'labels': by_class(labels),
    'selected': by_class(selected),
  }


def _truth_of(truth: image_batches.Source | None, batch: image_batches.Batch) -> np.ndarray:
  """True labels for a batch, all 255 if there are none. Raises BadInput if sizes differ."""
  if truth is None:
    return np.full_like(batch.labels, image_batches.IGNORE)
  rows = [truth.read(index)[1] for index in batch.indices]
  for index, row in zip(batch.indices, rows, strict=True):
    if row is None or row.shape != batch.labels.shape[1:]:
      raise BadInput(
        f'{truth.ids[index]}: a pseudo-label is measured by a true label of its own size'
      )
  return image_batches.pad(rows, len(batch.labels), image_batches.IGNORE)


def measure(
  source: image_batches.Source,
  classes: int,
  *,
  select: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
  truth: image_batches.Source | None = None,
  names: Sequence[str] | None = None,
  image_size: tuple[int, int] | None = None,
  batch_size: int = 1,
  progress: bool = True,
  put: forward.Put = jnp.asarray,
) -> dict[str, Any]:
  """What is left of the pseudo-labels, and how right it is.

  Args:
    source: target images whose labels are the pseudo-labels.
    classes: C.
    select: (images [B, H, W, 3], labels [B, h, w]) -> the labels that are kept, such as
      `consensus_labels`; None: all that were written.
    truth: the same images with their true labels, of the same size; None: only shares are known.
    names: C class names; None: the numbers.
    image_size: (h, w) at which `select` looks; None: as stored.

  Returns:
    {'kept': share of the pixels (of a class: of those labelled so), 'accuracy', 'accuracy_kept',
    'accuracy_rejected': share of right labels where the truth is known (of a class: of the pixels
    labelled so, its precision), 'coverage': share of the pixels whose truth is known (of a class:
    that are of the class) that keep a label, 'pixels': all labelled ones, 'per_class': {name: the
    same}, 'images'}. None stands for the share of an empty set.

  Raises:
    BadInput: no images, no pseudo-labels, true labels missing or of another size, a damaged file.
  """
  if truth is not None and list(truth.ids) != list(source.ids):
    raise BadInput('the true labels are not those of the same images: use one list')

  def step(batch: image_batches.Batch) -> dict[str, jax.Array]:
    evaluate.check_labels(batch, source, classes)
    labels = put(batch.labels)
    selected = labels if select is None else select(put(batch.images), labels)
    found = _counts(labels, selected, put(_truth_of(truth, batch)), classes=classes)
    return found | {'size': batch.labels[: len(batch.indices)].size}

  total = {}
  batches = image_batches.batches(source, batch_size=batch_size, image_size=image_size)
  with bar(len(processes.local_share(len(source))), 'kept labels', progress) as shown:
    for batch, counts in image_batches.computed(batches, step):
      for name, value in counts.items():
        total[name] = total.get(name, 0) + np.asarray(value).astype(np.int64)
      shown.update(len(batch.indices))
  everyone = processes.exchange(total)
  total = {name: sum(found[name] for found in everyone if found) for name in everyone[0]}
  return {**_rates(total, names or list(map(str, range(classes)))), 'images': len(source)}


def _ratio(part: Any, whole: Any) -> float | None:
  return float(part) / float(whole) if whole else None


def _accuracy(counts: np.ndarray, column: int | None = None) -> float | None:
  """Share of right labels in counts [C, C] (rows: truth), of all or of one label."""
  if column is None:
    return _ratio(np.trace(counts), counts.sum())
  return _ratio(counts[column, column], counts[:, column].sum())


def _rates(total: dict[str, np.ndarray], names: Sequence[str]) -> dict[str, Any]:
  """What `measure` returns, from its summed counts."""
  kept, rejected = total['kept'], total['rejected']

  def rates(column: int | None = None) -> dict[str, Any]:
    def of(counts: np.ndarray) -> Any:
      return counts.sum() if column is None else counts[column]

    whole = total['size'] if column is None else of(total['labels'])
    return {
      'pixels': int(of(total['labels'])),
      'kept': _ratio(of(total['selected']), whole),
      'coverage': _ratio(of(kept.sum(1)), of(total['truth'])),
      'accuracy': _accuracy(kept + rejected, column),
      'accuracy_kept': _accuracy(kept, column),
      'accuracy_rejected': _accuracy(rejected, column),
    }

  return {**rates(), 'per_class': {name: rates(i) for i, name in enumerate(names)}}
