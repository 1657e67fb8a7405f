"""The passes over the target before self-training: pseudo-labels and class centroids.

Sources: DiGA (arXiv 2304.02222), docs/method.md section 7; HIAST (arXiv 2302.06992), section 10.
The network always runs with its running statistics here, and nothing is trained.
"""

import functools
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines import atomic
from data_pipelines.errors import BadInput
from diga_jax import selection
from diga_jax.inference import forward, image_batches
from diga_jax.parallel.processes import exchange, in_order, local_share
from diga_jax.progress import bar


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


class Labelled(NamedTuple):
  """What a pass of pseudo-labels wrote, by image and class.

  Attributes:
    counts: int64 [N, C], pixels of each class in each image, in the source's order.
    confidence: float64 [C], moving mean over batches of the confidence of the written labels; 0 for
      a class without any.
    thresholds: float32 [C], those at the end.
  """

  counts: np.ndarray
  confidence: np.ndarray
  thresholds: np.ndarray


class Looked(NamedTuple):
  """What the network thinks of one image; arrays [h, w] at the size that it looked at."""

  index: int
  stored_size: tuple[int, int]
  confidence: Any
  predicted: Any


# How much of the moving mean confidence a batch leaves in place.
CONFIDENCE_DECAY = 0.99


def pseudo_labels(
  model: Any,
  variables: Any,
  source: image_batches.Source,
  directory: str | os.PathLike,
  *,
  classes: int,
  selector: Selector = KEEP_ALL,
  order: Sequence[int] | None = None,
  scales: Sequence[float] = forward.SCALES,
  fusion: str = 'max',
  flip: bool = False,
  image_size: tuple[int, int] | None = None,
  batch_size: int = 1,
  progress: bool = True,
  put: forward.Put = jnp.asarray,
) -> Labelled:
  """Labels every image with the forward pass of the evaluation (two scales, maximum, argmax).

  Writes `directory`/ID.png, uint8 train ids of the image's own size, for every id of the source
  ('/' in an id makes a sub-folder). Each file appears whole, under its name, or not at all. Several
  processes share the images; thresholds that move see all of them, in the given order.

  Args:
    model, variables: the network that labels.
    source: images; labels are not looked at.
    selector: which labels to keep.
    order: the images' positions in the order in which they are looked at; None: as they are.
    image_size: (h, w) at which the network looks and labels are selected, before they are brought
      to the image's own size (nearest); None: as stored.
    The rest as in `evaluate.evaluate`.

  Raises:
    BadInput: no images, a damaged file, wrong scales or fusion; images of one batch of 'ias' differ
      in size.
  """
  order = range(len(source)) if order is None else order
  look = functools.partial(
    _looked,
    forward.forward(model, scales, fusion, flip),
    variables,
    source,
    order,
    image_size=image_size,
    batch_size=batch_size,
    progress=progress,
    put=put,
  )
  thresholds = _first_thresholds(selector, classes, look)
  select = _adapted if selector.kind == 'ias' else _thresholded
  found = []
  for seen, labels, last in select(look('pseudo-labels'), thresholds, selector, len(source)):
    thresholds = last
    kept = np.asarray(labels)
    stored = image_batches.resized(kept, seen.stored_size, label=True)
    atomic.write_png(pathlib.Path(directory, f'{source.ids[seen.index]}.png'), stored)
    confidence = np.asarray(seen.confidence, np.float64).ravel()
    found.append(
      (
        _per_class(stored, classes).astype(np.int64),
        _per_class(kept, classes).astype(np.int64),
        _per_class(kept, classes, confidence),
      )
    )
  # With 'ias' a process without an image in the last round lacks its thresholds; the first has one.
  thresholds = exchange(thresholds)[0]
  everyone = in_order(exchange(found))
  counts, pixels_, sums = (np.stack(part) for part in zip(*everyone, strict=True))
  by_image = np.empty_like(counts)
  by_image[np.asarray(order)] = counts
  return Labelled(by_image, _mean_confidence(pixels_, sums, selector.batch), thresholds)


def _first_thresholds(
  selector: Selector, classes: int, look: Callable[[str], Iterator[Looked]]
) -> np.ndarray:
  """The thresholds [C] before the first image is selected from; 'cbst' looks at all for them."""
  if selector.kind == 'cbst':
    counts = sum(_counted(seen, classes) for seen in look('confidences'))
    counts = sum(exchange(np.asarray(counts)))
    return selection.class_balanced_thresholds(counts, selector.share)
  return np.full(classes, 0.0 if selector.kind == 'none' else selector.threshold, np.float32)


def _per_class(labels: np.ndarray, classes: int, weights: np.ndarray | None = None) -> np.ndarray:
  return np.bincount(labels.ravel(), weights, minlength=256)[:classes]


@jax.jit
def _confidence(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The largest softmax probability, float32, and its class, uint8, of logits [B, h, w, C]."""
  largest = jnp.max(logits, -1, keepdims=True)
  confidence = 1 / jnp.sum(jnp.exp(logits - largest), -1)
  return confidence, jnp.argmax(logits, -1).astype(jnp.uint8)


def _looked(
  forward: Any,
  variables: Any,
  source: image_batches.Source,
  order: Sequence[int],
  title: str,
  *,
  image_size: tuple[int, int] | None,
  batch_size: int,
  progress: bool,
  put: forward.Put,
) -> Iterator[Looked]:
  """What the network thinks of this process's images, one by one in the given order."""

  def step(batch: image_batches.Batch) -> tuple[jax.Array, jax.Array]:
    return _confidence(forward(variables, put(batch.images), image_size or batch.stored_size))

  batches = image_batches.batches(
    source, batch_size=batch_size, image_size=image_size, labelled=False, order=order
  )
  with bar(len(local_share(len(source))), title, progress) as shown:
    for batch, result in image_batches.computed(batches, step):
      rows = zip(batch.indices, *jax.device_get(result), strict=False)
      for index, confidence, predicted in rows:
        shown.update()
        yield Looked(index, batch.stored_size, confidence, predicted)


@functools.partial(jax.jit, static_argnames='classes')
def _counts(confidence: jax.Array, predicted: jax.Array, classes: int) -> jax.Array:
  return selection.confidence_counts(confidence, predicted, classes)


def _counted(seen: Looked, classes: int) -> np.ndarray:
  return np.asarray(_counts(seen.confidence, seen.predicted, classes), np.int64)


_by_threshold = jax.jit(selection.by_threshold)
_instance_adaptive = jax.jit(
  selection.instance_adaptive, static_argnames=('alpha', 'beta', 'gamma')
)
Selected = tuple[Looked, Any, np.ndarray]


def _thresholded(
  images: Iterator[Looked], thresholds: np.ndarray, selector: Selector, count: int
) -> Iterator[Selected]:
  """(image, labels [h, w], thresholds) with the same thresholds for all images."""
  for seen in images:
    labels = seen.predicted
    if selector.kind != 'none':
      labels = _by_threshold(seen.confidence, labels, thresholds)
    yield seen, labels, thresholds


def _adapted(
  images: Iterator[Looked], thresholds: np.ndarray, selector: Selector, count: int
) -> Iterator[Selected]:
  """The same with thresholds that every batch of images moves before they select from it.

  The network's work is shared among the processes, but the thresholds need all images in order: in
  each round every process looks at a batch of its own, and they tell each other what they saw.
  """
  processes, size = jax.process_count(), selector.batch
  for _ in range(-(-count // (processes * size))):
    own = list(itertools.islice(images, size))
    everyone = in_order(exchange([seen[2:] for seen in own]))
    labels = []
    for start in range(0, len(everyone), size):
      confidence, predicted = zip(*everyone[start : start + size], strict=True)
      sizes = {f'{x.shape[1]}x{x.shape[0]}' for x in confidence}
      if len(sizes) > 1:
        raise BadInput(
          f'images that are selected from together differ in size ({", ".join(sorted(sizes))}): '
          "set the label stage's image_size"
        )
      chosen, thresholds = _instance_adaptive(
        np.stack(confidence),
        np.stack(predicted),
        thresholds,
        alpha=selector.alpha,
        beta=selector.beta,
        gamma=selector.gamma,
      )
      labels += list(np.asarray(chosen))
    for position, seen in enumerate(own):
      yield seen, labels[position * processes + jax.process_index()], np.asarray(thresholds)


def _mean_confidence(counts: np.ndarray, sums: np.ndarray, batch: int) -> np.ndarray:
  """The moving mean over batches of images of the mean confidence of each class: [C].

  Args:
    counts, sums: [N, C], pixels and their summed confidence, in the order of looking.
    batch: images in a batch; one without a class leaves its mean alone, the first one sets it.
  """
  mean = np.zeros(counts.shape[1])
  for start in range(0, len(counts), batch):
    pixels_, total = (x[start : start + batch].sum(0) for x in (counts, sums))
    now = total / np.maximum(pixels_, 1)
    moved = np.where(mean > 0, CONFIDENCE_DECAY * mean + (1 - CONFIDENCE_DECAY) * now, now)
    mean = np.where(pixels_ > 0, moved, mean)
  return mean
