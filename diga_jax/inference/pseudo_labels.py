"""The pass over the target before self-training that writes its pseudo-labels.

Sources: DiGA (arXiv 2304.02222), docs/method.md section 7; HIAST (arXiv 2302.06992), section 10.
The network always runs with its running statistics here, and nothing is trained.
"""

import functools
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines import atomic
from data_pipelines.errors import BadInput
from diga_jax import selection
from diga_jax.inference.forward import Predictor
from diga_jax.inference.image_batches import Batch, Dataset, for_each_batch, resize_to
from diga_jax.parallel.processes import exchange, in_order
from diga_jax.types import Size


class Selector(NamedTuple):
  """Which pseudo-labels are written; the others are 255 (docs/method.md section 10).

  Attributes:
    kind: 'none' (all of them) | 'constant' (one confidence) | 'cbst' (the most confident share of
      each class over the data set) | 'ias' (thresholds that each batch moves).
    threshold: of 'constant', and where those of 'ias' start.
    share: of 'cbst'.
    alpha, beta, gamma: of 'ias', see `selection.instance_adaptive`.
    batch: images between two moves of the thresholds, and of the mean confidences.
  """

  kind: str = 'none'
  threshold: float = 0.9
  share: float = 0.2
  alpha: float = 0.5
  beta: float = 0.9
  gamma: float = 8.0
  batch: int = 1


KEEP_ALL = Selector()


# How much of the moving mean confidence a batch leaves in place.
CONFIDENCE_DECAY = 0.99


class Statistics(NamedTuple):
  """What a pass of pseudo-labels wrote, by image and class.

  Attributes:
    counts: int64 [N, C], pixels of each class in each image, in the data set's order.
    confidence: float64 [C], moving mean over batches of the confidence of the written labels; 0 for
      a class without any.
    thresholds: float32 [C], those at the end.
  """

  counts: np.ndarray
  confidence: np.ndarray
  thresholds: np.ndarray


class Prediction(NamedTuple):
  """The network's classes for one image; arrays [h, w] at the size that labels are selected at."""

  index: int
  stored_size: Size
  confidence: np.ndarray
  predicted: np.ndarray


class Selection(NamedTuple):
  """The labels [h, w] selected from a prediction, and the thresholds [C] that selected them."""

  prediction: Prediction
  labels: np.ndarray
  thresholds: np.ndarray


def pseudo_labels(
  predictor: Predictor,
  dataset: Dataset,
  directory: str | os.PathLike,
  classes: int,
  *,
  selector: Selector = KEEP_ALL,
  order: Sequence[int] | None = None,
  size: Size | None = None,
  progress: bool = True,
) -> Statistics:
  """Labels every image with the forward pass of the evaluation (two scales, maximum, argmax).

  Writes `directory`/ID.png, uint8 train ids of the image's own size, for every id of the data set
  ('/' in an id makes a sub-folder). Each file appears whole, under its name, or not at all. Several
  processes share the images; thresholds that move see all of them, in the given order.

  Args:
    predictor: the network that labels.
    dataset: images; their labels are not read.
    directory: for the label files.
    classes: C.
    selector: which labels to keep.
    order: the images' positions in the order in which thresholds see them; None: as they are.
    size: (h, w) of the images that the network gets, and of the labels when they are
      selected, before they are brought to the image's own size (nearest); None: as stored.
    progress: whether to show a progress bar on stderr.

  Raises:
    BadInput: no images, or a damaged file; images of one batch of 'ias' differ in size.
  """
  order = range(len(dataset)) if order is None else order
  predictions = functools.partial(
    predict_each, predictor, dataset, order=order, size=size, progress=progress
  )
  thresholds = _initial_thresholds(selector, classes, predictions)
  select = _select_adaptively if selector.kind == 'ias' else _select_by_threshold
  found = []
  for each in select(predictions('pseudo-labels'), thresholds, selector, len(dataset)):
    thresholds = each.thresholds
    stored = resize_to(each.labels, each.prediction.stored_size, label=True)
    atomic.write_png(pathlib.Path(directory, f'{dataset.ids[each.prediction.index]}.png'), stored)
    found.append((_per_class(stored, classes).astype(np.int64), *_confidence_sums(each, classes)))
  # With 'ias' a process without an image in the last round lacks its thresholds; the first has one.
  thresholds = exchange(thresholds)[0]
  counts, *seen = map(np.stack, zip(*in_order(exchange(found)), strict=True))
  by_image = np.empty_like(counts)
  by_image[np.asarray(order)] = counts
  return Statistics(by_image, _mean_confidence(*seen, selector.batch), thresholds)


def predict_each(
  predictor: Predictor,
  dataset: Dataset,
  title: str,
  *,
  order: Sequence[int],
  size: Size | None,
  progress: bool,
) -> Iterator[Prediction]:
  """The predictions for this process's images, one by one in the given order."""

  def step(batch: Batch) -> tuple[jax.Array, jax.Array]:
    images = predictor.place(batch.images)
    return most_confident(predictor.logits(images, size or batch.stored_size))

  for batch, result in for_each_batch(
    step,
    dataset,
    title,
    progress,
    batch_size=predictor.batch_size,
    size=size,
    labelled=False,
    order=order,
  ):
    for index, *maps in zip(batch.indices, *jax.device_get(result), strict=False):
      yield Prediction(index, batch.stored_size, *maps)


@jax.jit
def most_confident(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The largest softmax probability, float32, and its class, uint8, of logits [B, h, w, C]."""
  largest = jnp.max(logits, -1, keepdims=True)
  confidence = 1 / jnp.sum(jnp.exp(logits - largest), -1)
  return confidence, jnp.argmax(logits, -1).astype(jnp.uint8)


def _per_class(labels: np.ndarray, classes: int, weights: np.ndarray | None = None) -> np.ndarray:
  return np.bincount(labels.ravel(), weights, minlength=256)[:classes]


def _confidence_sums(chosen: Selection, classes: int) -> tuple[np.ndarray, np.ndarray]:
  """(pixels of each class [C], their summed confidence [C]) of the selected labels."""
  confidence = chosen.prediction.confidence.astype(np.float64).ravel()
  counts = _per_class(chosen.labels, classes).astype(np.int64)
  return counts, _per_class(chosen.labels, classes, confidence)


_confidence_counts = jax.jit(selection.confidence_counts, static_argnames='classes')
_by_threshold = jax.jit(selection.by_threshold)
_instance_adaptive = jax.jit(
  selection.instance_adaptive, static_argnames=('alpha', 'beta', 'gamma')
)


def _initial_thresholds(
  selector: Selector, classes: int, predictions: Callable[[str], Iterator[Prediction]]
) -> np.ndarray:
  """The thresholds [C] that the first image is selected by; those of 'cbst' take all images."""
  if selector.kind == 'cbst':
    counts = sum(
      np.asarray(_confidence_counts(each.confidence, each.predicted, classes=classes), np.int64)
      for each in predictions('confidences')
    )
    counts = sum(exchange(np.asarray(counts)))
    return selection.class_balanced_thresholds(counts, selector.share)
  return np.full(classes, 0.0 if selector.kind == 'none' else selector.threshold, np.float32)


def _select_by_threshold(
  predictions: Iterator[Prediction], thresholds: np.ndarray, selector: Selector, count: int
) -> Iterator[Selection]:
  """Selects from each image with the same thresholds."""
  for each in predictions:
    labels = each.predicted
    if selector.kind != 'none':
      labels = np.asarray(_by_threshold(each.confidence, labels, thresholds))
    yield Selection(each, labels, thresholds)


def _select_adaptively(
  predictions: Iterator[Prediction], thresholds: np.ndarray, selector: Selector, count: int
) -> Iterator[Selection]:
  """Selects with thresholds that every batch of images moves first ('ias').

  The network's work is shared among the processes, but the thresholds need all `count` images in
  order: in each round every process predicts a batch of its own, and they exchange the results.
  """
  processes, size = jax.process_count(), selector.batch
  for _ in range(-(-count // (processes * size))):
    own = list(itertools.islice(predictions, size))
    everyone = in_order(exchange([(each.confidence, each.predicted) for each in own]))
    labels = []
    for start in range(0, len(everyone), size):
      selected, thresholds = _move_and_select(everyone[start : start + size], thresholds, selector)
      labels += list(selected)
    for each, chosen in zip(own, labels[jax.process_index() :: processes], strict=False):
      yield Selection(each, chosen, thresholds)


def _move_and_select(
  maps: Sequence[tuple[np.ndarray, np.ndarray]], thresholds: np.ndarray, selector: Selector
) -> tuple[np.ndarray, np.ndarray]:
  """(labels [B, h, w], moved thresholds [C]) from the (confidence, predicted) of B images."""
  confidence, predicted = zip(*maps, strict=True)
  sizes = {f'{x.shape[1]}x{x.shape[0]}' for x in confidence}
  if len(sizes) > 1:
    raise BadInput(
      f'images that are selected from together differ in size ({", ".join(sorted(sizes))}): '
      "set the label stage's image_size"
    )
  labels, thresholds = _instance_adaptive(
    np.stack(confidence),
    np.stack(predicted),
    thresholds,
    alpha=selector.alpha,
    beta=selector.beta,
    gamma=selector.gamma,
  )
  return np.asarray(labels), np.asarray(thresholds)


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
