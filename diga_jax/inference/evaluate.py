"""Multi-scale evaluation: images in, one confusion matrix and the table's numbers out.

Published protocol (DiGA, arXiv 2304.02222; docs/diga.md section 8): logits of the image and of
the image at half size, both upsampled to the label's size with aligned corners, elementwise
maximum, argmax, one confusion matrix over all images.
"""

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from data_pipelines import atomic
from diga_jax import metrics
from diga_jax.inference import shapes
from diga_jax.inference.forward import Predictor, check_classes
from diga_jax.inference.image_batches import (
  Batch,
  BatchOptions,
  Dataset,
  for_each_batch,
  labels_of,
  pad,
)
from diga_jax.inference.label_images import by_windows
from diga_jax.metrics import Means
from diga_jax.parallel import processes
from diga_jax.report.pictures import comparison_panels
from diga_jax.types import NetworkScores, PyTree, Size


@functools.partial(jax.jit, static_argnames='classes')
def _confusion_matrices(prediction: jax.Array, labels: jax.Array, classes: int) -> jax.Array:
  """[images, C, C]: of each image of a batch."""
  return jax.vmap(functools.partial(metrics.confusion_matrix, classes=classes))(prediction, labels)


# Of the rows of a batch: confusion matrices [B, C, C], and classes [B, h, w].
Counted = tuple[jax.Array | np.ndarray, jax.Array | np.ndarray]


class Pictures(NamedTuple):
  """Where to write ID.png of `count` images, evenly spread; the palette is uint8 [C, 3] RGB."""

  directory: pathlib.Path
  palette: np.ndarray
  count: int = 8


def evenly_spread(count: int, total: int) -> list[int]:
  """`count` of `total` positions, evenly spread, the first and the last among them."""
  return np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()


def evaluate(
  predictor: Predictor,
  dataset: Dataset,
  names: Sequence[str],
  *,
  means: Means | None = None,
  protocol: Mapping[str, PyTree] | None = None,
  size: Size | None = None,
  planned: shapes.Plan | None = None,
  pictures: Pictures | None = None,
  each: Callable[[str, np.ndarray], None] | None = None,
  progress: bool = True,
) -> NetworkScores:
  """Evaluates a network on a labelled data set, holding a few images in memory at a time.

  Several processes share the images, and each gets the result of all.

  Args:
    predictor: the network; its logits go to the size of the labels.
    dataset: labelled images, e.g. `data_pipelines.folder.Folder`.
    names: the C class names; labels are 0..C-1, and 255 is not counted.
    means: which means over parts of the classes; None: over all classes alone.
    protocol: what only the caller knows of the number: data set and split, class set, network
      (student or teacher), step, seed, chosen_by (last, agreement or oracle).
    size: (h, w) that images and labels are resized to on the host (bicubic / nearest); None: as
      stored.
    planned: the shapes that images are computed in where they are not resized (`shapes.plan`):
      padded, and what is predicted beyond an image is not counted, or by windows; None: each in its
      own.
    pictures: which images to draw (image, truth, prediction); None: none.
    each: called with the id and the confusion matrix [C, C] of every image of this process.
    progress: whether to show a progress bar on stderr.

  Returns:
    See `summarise`; the protocol also holds what was measured here: scales, fusion, flip, sizes.

  Raises:
    BadInput: no images, no labels, label ids >= C, a damaged file, or logits that are not finite.
  """
  total = np.zeros((len(names), len(names)), np.int64)
  sizes: set[tuple[tuple[int, ...], ...]] = set()  # of images and of their labels
  step = functools.partial(_count, predictor, dataset, len(names), planned)
  options: BatchOptions = {'batch_size': predictor.batch_size, 'size': size, 'planned': planned}
  for batch, (counts, prediction) in for_each_batch(step, dataset, 'evaluate', progress, **options):
    check_classes(np.asarray(prediction), [dataset.ids[index] for index in batch.indices])
    counted = np.asarray(counts, np.int64)
    total += counted.sum(0)
    if each is not None:
      for row, index in enumerate(batch.indices):
        each(dataset.ids[index], counted[row])
    measured = (batch.images.shape[1:3], prediction.shape[1:3])
    sizes |= {(own, own) for own in batch.stored_sizes} if batch.is_padded else {measured}
    if pictures is not None:
      _draw(batch, prediction, dataset, names, pictures)
  totals, everyones_sizes = zip(*processes.exchange((total, sizes)), strict=True)
  protocol = {**(protocol or {}), **_own_protocol(predictor, set().union(*everyones_sizes))}
  confusion = np.sum(totals, axis=0)
  return summarise(confusion, names=names, means=means, images=len(dataset), protocol=protocol)


def _count(
  predictor: Predictor, dataset: Dataset, classes: int, planned: shapes.Plan | None, batch: Batch
) -> Counted:
  """(confusion matrices [B, C, C], predictions [B, h, w]) of a batch."""
  labels = labels_of(batch, dataset, classes)
  if planned is not None and shapes.is_cut(batch.images.shape[1:3], planned):
    return _by_windows(predictor, batch, labels, classes)
  placed = predictor.place(labels)
  _, height, width = placed.shape
  prediction = predictor.classes(predictor.place(batch.images), (height, width))
  return _confusion_matrices(prediction, placed, classes=classes), prediction


def _by_windows(predictor: Predictor, batch: Batch, labels: np.ndarray, classes: int) -> Counted:
  """(confusion matrices [B, C, C], predictions [B, h, w]) of large images, on the host."""

  def compute(rows: np.ndarray) -> tuple[jax.Array]:
    return (predictor.classes(predictor.place(rows), rows.shape[1:3]),)

  counts = np.zeros((len(labels), classes, classes), np.int64)
  predictions = np.zeros(labels.shape, np.uint8)
  for row in range(len(batch.indices)):
    image = batch.images[row]
    (found,) = by_windows(compute, image, shapes.WINDOW, predictor.batch_size, (np.uint8,))
    assert found is not None
    predictions[row] = found
    known = (labels[row] < classes) & (found < classes)
    cells = labels[row][known].astype(np.int64) * classes + found[known]
    counts[row] = np.bincount(cells, minlength=classes**2).reshape(classes, classes)
  return counts, predictions


def draw(predictor: Predictor, dataset: Dataset, names: Sequence[str], pictures: Pictures) -> None:
  """Writes the pictures of a data set, labelled or not; by one process.

  Raises:
    BadInput: a damaged file, or logits that are not finite.
  """
  for index in evenly_spread(pictures.count, len(dataset)):
    image, truth = dataset.read(index)
    images = predictor.place(pad([image], predictor.batch_size, 0))
    prediction = np.asarray(predictor.classes(images, image.shape[:2]))[:1]
    check_classes(prediction, [dataset.ids[index]])
    labels = None if truth is None else truth[None]
    batch = Batch([index], image[None], labels, [image.shape[:2]])
    _draw(batch, prediction, dataset, names, pictures)


def _draw(
  batch: Batch,
  prediction: jax.Array | np.ndarray,
  dataset: Dataset,
  names: Sequence[str],
  pictures: Pictures,
) -> None:
  """Writes the pictures of the images of a batch that are to be drawn."""
  drawn = np.isin(batch.indices, evenly_spread(pictures.count, len(dataset)))
  for row in np.flatnonzero(drawn).tolist():
    panels = comparison_panels(
      batch.own(row, batch.images[row]),
      truth=None if batch.labels is None else batch.own(row, batch.labels[row]),
      predictions={'prediction': batch.own(row, np.asarray(prediction[row]))},
      palette=pictures.palette,
      names=names,
    )
    atomic.write_png(pictures.directory / f'{dataset.ids[batch.indices[row]]}.png', panels)


def _own_protocol(
  predictor: Predictor, sizes: set[tuple[tuple[int, ...], ...]]
) -> dict[str, PyTree]:
  """The part of the protocol that the evaluation itself knows; [h, w] where all images agree."""
  image_sizes, label_sizes = (list(dict.fromkeys(part)) for part in zip(*sizes, strict=True))
  return {
    'scales': list(predictor.scales),
    'fusion': 'max',
    'flip': predictor.flip,
    'image_size': list(*image_sizes) if len(image_sizes) == 1 else 'various',
    'label_size': list(*label_sizes) if len(label_sizes) == 1 else 'various',
  }


def _number(value: float) -> float | None:
  """A float for JSON, which has no nan."""
  return None if np.isnan(value) else float(value)


def summarise(
  confusion: np.ndarray,
  *,
  images: int,
  protocol: Mapping[str, PyTree],
  names: Sequence[str],
  means: Means | None = None,
) -> NetworkScores:
  """A network's results from its confusion matrix [C, C] (rows: truth), for JSON.

  Returns:
    Numbers are fractions: 'mean_iou' over all classes, 'mean_iou_subsets' {name: number},
    'pixel_accuracy', 'mean_accuracy', 'fw_accuracy', 'iou' {class name: number}, 'confusion',
    'images', 'pixels', 'protocol'. None stands for a class that neither labels nor predictions
    hold, and means leave it out unless they have divisors.
  """
  means = means or Means({str(len(confusion)): range(len(confusion))})
  scores = metrics.summary(confusion, means)
  return {
    'kind': 'network',
    'mean_iou': _number(scores['mean_iou']),
    'mean_iou_subsets': {name: _number(scores[f'mean_iou_{name}']) for name in means.subsets},
    'pixel_accuracy': _number(scores['accuracy']),
    'mean_accuracy': _number(scores['mean_accuracy']),
    'fw_accuracy': _number(scores['fw_accuracy']),
    'iou': {name: _number(value) for name, value in zip(names, scores['iou'], strict=True)},
    'images': images,
    'pixels': int(np.sum(confusion)),
    'confusion': np.asarray(confusion).tolist(),
    'protocol': {**protocol, 'images': images},
  }
