"""Multi-scale evaluation: images in, one confusion matrix and the table's numbers out.

Published protocol (DiGA, arXiv 2304.02222; docs/method.md section 8): logits of the image and of
the image at half size, both upsampled to the label's size with aligned corners, elementwise
maximum, argmax, one confusion matrix over all images.
"""

import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines import atomic
from data_pipelines.errors import BadInput
from diga_jax import metrics
from diga_jax.inference import image_batches
from diga_jax.inference.forward import SCALES, Put, _checked, _predicted
from diga_jax.parallel import processes
from diga_jax.progress import bar
from diga_jax.report.pictures import comparison_panels


@functools.partial(jax.jit, static_argnames=('model', 'scales', 'flip', 'classes'))
def _scored(
  variables: Any, images: jax.Array, labels: jax.Array, *, classes: int, **options
) -> tuple[jax.Array, jax.Array]:
  """(confusion matrix [C, C] of the batch, prediction uint8 [B, h, w]); 255 is not counted."""
  prediction = _predicted(variables, images, labels.shape[1:3], **options)
  return metrics.confusion_matrix(prediction, labels, classes), prediction


def check_labels(batch: image_batches.Batch, source: image_batches.Source, classes: int) -> None:
  """Raises BadInput if a batch has no labels or ids that C classes do not have."""
  name = source.ids[batch.indices[0]]
  if batch.labels is None:
    raise BadInput(f'{name}: labels are needed here, and this data set has none')
  worst = int(np.max(batch.labels, where=batch.labels != image_batches.IGNORE, initial=0))
  if worst >= classes:
    raise BadInput(
      f'{name}: label {worst} for a network with {classes} classes: choose another label table'
    )


def _shared_size(sizes: set[tuple[int, int]]) -> list[int] | str:
  """What the protocol says of sizes: [h, w] when all images agree."""
  return list(*sizes) if len(sizes) == 1 else 'various'


def _to_draw(count: int, total: int) -> set[int]:
  """`count` of `total` images, evenly spread, the first and the last among them."""
  return set(np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist())


def _draw(
  batch: image_batches.Batch,
  prediction: jax.Array,
  source: image_batches.Source,
  wanted: set[int],
  directory: pathlib.Path,
  **colours,
) -> None:
  for row, index in enumerate(batch.indices):
    if index in wanted:
      picture = comparison_panels(
        batch.images[row],
        truth=batch.labels[row],
        prediction=np.asarray(prediction[row]),
        **colours,
      )
      atomic.write_png(directory / f'{source.ids[index]}.png', picture)


def evaluate(
  model: Any,
  variables: Any,
  source: image_batches.Source,
  *,
  classes: int,
  names: Sequence[str] | None = None,
  scales: Sequence[float] = SCALES,
  fusion: str = 'max',
  flip: bool = False,
  image_size: tuple[int, int] | None = None,
  label_size: tuple[int, int] | None = None,
  batch_size: int = 1,
  subsets: Mapping[str, Sequence[int]] | None = None,
  protocol: Mapping[str, Any] | None = None,
  pictures: str | os.PathLike | None = None,
  count: int = 8,
  palette: Any = None,
  progress: bool = True,
  put: Put = jnp.asarray,
) -> dict[str, Any]:
  """Evaluates a network on a labelled data set, holding a few images in memory at a time.

  Several processes share the images, and each gets the result of all.

  Args:
    model, variables: see `forward`.
    source: labelled images, e.g. `data_pipelines.folder.Folder`.
    classes: C; labels are 0..C-1, and 255 is not counted.
    names: C class names for the result; None: the numbers.
    scales, fusion, flip: see `forward`.
    image_size, label_size: (h, w) to resize to on the host (bicubic / nearest); None: as stored.
      They may differ: logits go to the size of the labels.
    batch_size: images of one size computed together, filled up with blank ones that do not count;
      the result does not depend on it.
    subsets: name -> class ids, for means over parts of the classes; None: all classes.
    protocol: what only the caller knows of the number: data set and split, class set, network
      (student or teacher), step, seed, chosen_by (last, agreement or oracle).
    pictures: a directory for `count` evenly spread pictures (image, truth, prediction) in the
      colours of `palette`; None: no pictures.
    progress: whether to show a progress bar on stderr.
    put: places a host array on the devices.

  Returns:
    A dict for JSON, numbers as fractions: 'mean_iou' over all classes, 'mean_iou_subsets' {name:
    number}, 'pixel_accuracy', 'mean_accuracy', 'fw_accuracy', 'iou' {class name: number},
    'confusion' (rows: truth), 'images', 'pixels', 'protocol' (with what was measured here: scales,
    fusion, flip, sizes, images). None stands for a class that neither labels nor predictions hold,
    and means leave it out.

  Raises:
    BadInput: no images, no labels, label ids >= C, a damaged file, wrong scales or fusion.
  """
  options = {'model': model, 'scales': _checked(scales, fusion), 'flip': bool(flip)}
  total, sizes, label_sizes = np.zeros((classes, classes), np.int64), set(), set()
  wanted = _to_draw(count, len(source)) if pictures is not None else set()

  def step(batch: image_batches.Batch) -> tuple[jax.Array, jax.Array]:
    check_labels(batch, source, classes)
    return _scored(variables, put(batch.images), put(batch.labels), classes=classes, **options)

  batches = image_batches.batches(
    source, batch_size=batch_size, image_size=image_size, label_size=label_size
  )
  with bar(len(processes.local_share(len(source))), 'evaluate', progress) as shown:
    for batch, (confusion, prediction) in image_batches.computed(batches, step):
      # A batch has fewer pixels than int32 holds, a data set has not: the sum is kept here.
      total += np.asarray(confusion).astype(np.int64)
      sizes.add(batch.images.shape[1:3])
      label_sizes.add(batch.labels.shape[1:3])
      if wanted:
        _draw(
          batch, prediction, source, wanted, pathlib.Path(pictures), palette=palette, names=names
        )
      shown.update(len(batch.indices))
  everyone = processes.exchange((total, sizes, label_sizes))
  total = sum(found[0] for found in everyone)
  sizes, label_sizes = (set().union(*(found[i] for found in everyone)) for i in (1, 2))
  measured = {
    'scales': list(options['scales']),
    'fusion': fusion,
    'flip': bool(flip),
    'image_size': _shared_size(sizes),
    'label_size': _shared_size(label_sizes),
  }
  return summarise(
    total,
    names=names,
    subsets=subsets,
    images=len(source),
    protocol={**(protocol or {}), **measured},
  )


def _number(value: float) -> float | None:
  """A float for JSON, which has no nan."""
  return None if np.isnan(value) else float(value)


def summarise(
  confusion: np.ndarray,
  *,
  images: int,
  protocol: Mapping[str, Any],
  names: Sequence[str] | None = None,
  subsets: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Any]:
  """The dict that `evaluate` returns, from a confusion matrix [C, C] (rows: truth)."""
  names = list(names) if names is not None else [str(i) for i in range(len(confusion))]
  subsets = subsets or {str(len(confusion)): range(len(confusion))}
  scores = metrics.summary(confusion, subsets)
  return {
    'mean_iou': _number(scores['mean_iou']),
    'mean_iou_subsets': {name: _number(scores[f'mean_iou_{name}']) for name in subsets},
    'pixel_accuracy': _number(scores['accuracy']),
    'mean_accuracy': _number(scores['mean_accuracy']),
    'fw_accuracy': _number(scores['fw_accuracy']),
    'iou': {name: _number(value) for name, value in zip(names, scores['iou'], strict=True)},
    'images': images,
    'pixels': int(np.sum(confusion)),
    'confusion': np.asarray(confusion).tolist(),
    'protocol': {**protocol, 'images': images},
  }
