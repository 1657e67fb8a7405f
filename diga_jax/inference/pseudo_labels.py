"""The pass over the target before self-training that writes its pseudo-labels.

Sources: DiGA (arXiv 2304.02222), docs/diga.md section 7; HIAST (arXiv 2302.06992), docs/hiast.md.
The network always runs with its running statistics here, and nothing is trained.
"""

import functools
import itertools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from data_pipelines import atomic
from data_pipelines.errors import BadInput
from diga_jax import class_balance, selection
from diga_jax.inference import shapes
from diga_jax.inference.forward import Predictor, check_classes, classes_of
from diga_jax.inference.image_batches import Batch, Dataset, for_each_batch, resize_to
from diga_jax.inference.label_images import by_windows
from diga_jax.inference.selectors import SELECTORS
from diga_jax.parallel.processes import exchange, in_order
from diga_jax.types import Size

KEEP_ALL = ConfigDict({'selector': 'none', 'selector_batch': 1, 'resizing': 'bicubic'})
# How much of the moving mean confidence a batch leaves in place.
CONFIDENCE_DECAY = 0.99


class Statistics(NamedTuple):
  """What a pass of pseudo-labels wrote, by image and class.

  Attributes:
    counts: int64 [N, C], pixels of each class in each image, in the data set's order, at the size
      that labels are selected at.
    confidence: float64 [C], moving mean over batches of the confidence of the written labels; 0 for
      a class without any.
    thresholds: float32 [C], those at the end.
    predicted: int64 [C], pixels of each class before labels are selected.
    predicted_confidence, label_confidence: float64 [C], the mean confidence of these pixels, and of
      those that are labelled; 0 for a class without any.
    confidences: int64 [C, class_balance.BINS], the histograms of the confidence of these pixels.
    kept: float64 [N, C], which share of these pixels is labelled in each image; nan without any.
  """

  counts: np.ndarray
  confidence: np.ndarray
  thresholds: np.ndarray
  predicted: np.ndarray
  predicted_confidence: np.ndarray
  label_confidence: np.ndarray
  confidences: np.ndarray
  kept: np.ndarray


class Prediction(NamedTuple):
  """The network's classes for one image; arrays [h, w] at the size that labels are selected at."""

  index: int
  stored_size: Size
  confidence: np.ndarray
  predicted: np.ndarray


Maps = tuple[jax.Array | np.ndarray, jax.Array | np.ndarray]  # confidence and classes [B, h, w]
# A prediction, the labels [h, w] selected from it, and the thresholds [C] that selected them.
Selection = tuple[Prediction, np.ndarray, np.ndarray]


def pseudo_labels(
  predictor: Predictor,
  dataset: Dataset,
  directory: str | os.PathLike,
  classes: int,
  *,
  settings: ConfigDict = KEEP_ALL,
  order: Sequence[int] | None = None,
  size: Size | None = None,
  planned: shapes.Plan | None = None,
  progress: bool = True,
) -> Statistics:
  """Labels every image with the forward pass of the evaluation (two scales, maximum, argmax).

  Writes `directory`/ID.png, uint8 train ids of the image's own size and 255 where a label is not
  selected, for every id of the data set ('/' in an id makes a sub-folder). Each file appears whole,
  under its name, or not at all. Several processes share the images; thresholds that move see all of
  them, in the given order.

  Args:
    predictor, progress: as of `evaluate.evaluate`.
    dataset: images; their labels are not read.
    directory: for the label files.
    classes: C.
    settings: of the label stage: `selector`, `selector_batch` (images between two moves of the
      thresholds, and of the mean confidences), `resizing` (to `size` and back: see `resize_to`)
      and the fields that this one of `selectors.SELECTORS` reads.
    order: the images' positions in the order in which thresholds see them; None: as they are.
    size: (h, w) of the images that the network gets, and of the labels when they are
      selected, before they are brought to the image's own size (nearest); None: as stored.
    planned: as of `evaluate.evaluate`.

  Raises:
    BadInput: no images, or a damaged file; images of one batch of 'ias' differ in size.
  """
  order = range(len(dataset)) if order is None else order
  predictions = functools.partial(
    predict_each,
    predictor,
    dataset,
    order=order,
    size=size,
    resizing=settings.resizing,
    planned=planned,
    progress=progress,
  )
  found, thresholds = [], np.zeros(classes, np.float32)
  confidences = np.zeros((classes, class_balance.BINS), np.int64)
  for each, labels, used in _select(predictions, classes, settings, len(dataset)):
    thresholds = used
    stored = resize_to(labels, each.stored_size, True, settings.resizing)
    atomic.write_png(pathlib.Path(directory, f'{dataset.ids[each.index]}.png'), stored)
    confidence = each.confidence.astype(np.float64)
    confidences += _histograms(each, classes)
    found.append(
      (*_count(labels, classes, confidence), *_count(each.predicted, classes, confidence))
    )
  # A process without an image in the last round lacks its thresholds; the first has one.
  everywhere = functools.reduce(np.add, exchange(confidences))
  counted = _statistics(found, order, exchange(thresholds)[0], settings.selector_batch)
  return counted._replace(confidences=everywhere)


def _statistics(
  found: list[tuple[np.ndarray, ...]],
  order: Sequence[int],
  thresholds: np.ndarray,
  selector_batch: int,
) -> Statistics:
  """Those of all processes' images; `found` are the counts of this one's, as `_count` gives them.

  For each image those of its labels, then those of its predictions. The histograms are left out.
  """
  pixels, sums, all_pixels, all_sums = map(np.stack, zip(*in_order(exchange(found)), strict=True))
  by_image, kept = np.empty_like(pixels), np.empty(pixels.shape)
  by_image[np.asarray(order)] = pixels
  shares = np.where(all_pixels > 0, pixels / np.maximum(all_pixels, 1), np.nan)
  kept[np.asarray(order)] = shares
  return Statistics(
    by_image,
    _mean_confidence(pixels, sums, selector_batch),
    thresholds,
    predicted=all_pixels.sum(0),
    predicted_confidence=all_sums.sum(0) / np.maximum(all_pixels.sum(0), 1),
    label_confidence=sums.sum(0) / np.maximum(pixels.sum(0), 1),
    confidences=np.zeros((0, 0), np.int64),
    kept=kept,
  )


def _histograms(each: Prediction, classes: int) -> np.ndarray:
  """The histogram of the confidence of every predicted class: int64 [C, BINS]."""
  bins = class_balance.BINS
  cells = each.predicted.astype(int) * bins + class_balance.bin_of(each.confidence)
  return np.bincount(cells.ravel(), minlength=256 * bins)[: classes * bins].reshape(classes, bins)


def _count(
  labels: np.ndarray, classes: int, confidence: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """(pixels, their summed confidence) of each class: int64 and float64 [C]."""
  return _per_class(labels, classes).astype(np.int64), _per_class(labels, classes, confidence)


def predict_each(
  predictor: Predictor,
  dataset: Dataset,
  title: str,
  *,
  order: Sequence[int],
  size: Size | None,
  resizing: str,
  progress: bool,
  planned: shapes.Plan | None = None,
) -> Iterator[Prediction]:
  """The predictions for this process's images, one by one in the given order."""

  def compute(images: np.ndarray, wanted: Size | None = None) -> tuple[jax.Array, jax.Array]:
    wanted = wanted or images.shape[1:3]
    return most_confident(predictor.logits(predictor.place(images), wanted))

  def step(batch: Batch) -> Maps:
    if planned is None:
      return compute(batch.images, size or batch.stored_size)
    if not shapes.is_cut(batch.images.shape[1:3], planned):
      return compute(batch.images)
    types, rows = (np.float32, np.uint8), batch.images[: len(batch.indices)]
    options = (shapes.WINDOW, predictor.batch_size, types)
    confidence, labels = zip(*(by_windows(compute, row, *options) for row in rows), strict=True)
    return np.stack(confidence), np.stack(labels)

  for batch, result in for_each_batch(
    step,
    dataset,
    title,
    progress,
    batch_size=predictor.batch_size,
    size=size,
    resizing=resizing,
    labelled=False,
    order=order,
    planned=planned,
  ):
    confidence, labels = jax.device_get(result)
    check_classes(labels, [dataset.ids[index] for index in batch.indices])
    for row, (index, stored) in enumerate(zip(batch.indices, batch.stored_sizes, strict=True)):
      maps = (batch.own(row, part[row]) for part in (confidence, labels))
      yield Prediction(index, stored, *maps)


@jax.jit
def most_confident(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The largest softmax probability, float32, and its class, uint8, of logits [B, h, w, C]."""
  largest = jnp.max(logits, -1, keepdims=True)
  confidence = 1 / jnp.sum(jnp.exp(logits - largest), -1)
  return confidence, classes_of(logits)


def _per_class(labels: np.ndarray, classes: int, weights: np.ndarray | None = None) -> np.ndarray:
  """The number of pixels of each class, or the sum of their weights: [C]."""
  weights = None if weights is None else weights.ravel()
  return np.bincount(labels.ravel(), weights, minlength=256)[:classes]


_confidence_counts = jax.jit(selection.confidence_counts, static_argnames='classes')


def _count_confidences(predictions: Iterable[Prediction], classes: int) -> np.ndarray:
  """The summed `selection.confidence_counts` of the images of all processes: int64 [C, 15361]."""
  counts = np.zeros((), np.int64)
  for each in predictions:
    found = _confidence_counts(each.confidence, each.predicted, classes=classes)
    counts = np.add(counts, np.asarray(found, np.int64))
  return functools.reduce(np.add, exchange(counts))  # 0 from a process without an image


def _select(
  predictions: Callable[[str], Iterator[Prediction]],
  classes: int,
  settings: ConfigDict,
  count: int,
) -> Iterator[Selection]:
  """The labels that a label stage's selector takes from `predictions(title)`, in their order."""
  selector, counts = SELECTORS[settings.selector], None
  if selector.counts_first:
    counts = _count_confidences(predictions('confidences'), classes)
  thresholds = selector.start(settings, classes, counts)
  select = jax.jit(functools.partial(selector.select, settings))
  found = predictions('pseudo-labels')
  if selector.adapts:
    yield from _select_batches(found, select, thresholds, count, settings.selector_batch)
    return
  for each in found:
    labels, _ = select(each.confidence, each.predicted, thresholds)
    yield each, np.asarray(labels), thresholds


def _select_batches(
  predictions: Iterator[Prediction],
  select: Callable[..., tuple[jax.Array, jax.Array]],
  thresholds: np.ndarray,
  count: int,
  batch_size: int,
) -> Iterator[Selection]:
  """Selects with thresholds that every batch of images moves first.

  The network's work is shared among the processes, but the thresholds need all `count` images in
  order: in each round every process predicts a batch of its own, and they exchange the results.
  """
  processes = jax.process_count()
  for _ in range(-(-count // (processes * batch_size))):
    own = list(itertools.islice(predictions, batch_size))
    everyone = in_order(exchange([(each.confidence, each.predicted) for each in own]))
    labels = []
    for start in range(0, len(everyone), batch_size):
      maps = _stack(everyone[start : start + batch_size])
      selected, thresholds = map(np.asarray, select(*maps, thresholds))
      labels += list(selected)
    for each, chosen in zip(own, labels[jax.process_index() :: processes], strict=False):
      yield each, chosen, thresholds


def _stack(maps: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
  """(confidence, predicted) of B images -> both [B, h, w]; raises BadInput if sizes differ."""
  sizes = {f'{confidence.shape[0]}x{confidence.shape[1]}' for confidence, _ in maps}
  if len(sizes) > 1:
    raise BadInput(
      f'images that are selected from together differ in size ({", ".join(sorted(sizes))}): '
      "set the label stage's image_size"
    )
  confidence, predicted = zip(*maps, strict=True)
  return np.stack(confidence), np.stack(predicted)


def _mean_confidence(counts: np.ndarray, sums: np.ndarray, batch: int) -> np.ndarray:
  """The moving mean over batches of images of the mean confidence of each class: [C].

  Args:
    counts, sums: [N, C], pixels and their summed confidence, in the order of the pass.
    batch: images in a batch; one without a class leaves its mean alone, the first one sets it.
  """
  mean = np.zeros(counts.shape[1])
  for start in range(0, len(counts), batch):
    pixels, total = (x[start : start + batch].sum(0) for x in (counts, sums))
    now = total / np.maximum(pixels, 1)
    moved = np.where(mean > 0, CONFIDENCE_DECAY * mean + (1 - CONFIDENCE_DECAY) * now, now)
    mean = np.where(pixels > 0, moved, mean)
  return mean
