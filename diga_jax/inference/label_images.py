"""Labels and probabilities for images of one size, whole or by windows."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import jax
import numpy as np
from jax.typing import DTypeLike

from diga_jax.inference.forward import Predictor
from diga_jax.inference.image_batches import one_ahead, pad
from diga_jax.inference.shapes import WINDOW, Cut, crop, cuts, pad_to
from diga_jax.types import Size

T = TypeVar('T')
Result = tuple[jax.Array, jax.Array | None]


class Labelled(NamedTuple):
  """An image's classes, uint8 [h, w], and their probabilities [h, w, C], if they are wanted."""

  classes: np.ndarray
  probabilities: np.ndarray | None


def label_each(
  predictor: Predictor,
  images: Iterable[np.ndarray],
  shape: Size | None,
  *,
  window: int = WINDOW,
  probabilities: DTypeLike | None = None,
) -> Iterator[tuple[np.ndarray, Labelled]]:
  """(image, what it is labelled as) for each of images of one size, which may be an endless stream.

  Args:
    predictor: the network; images of a batch are computed together.
    images: uint8 RGB [h, w, 3].
    shape: that they are padded to; None: they are cut into windows. See `shapes.plan`.
    window: the side of a window.
    probabilities: the type that they are wanted in; None: they are not.
  """
  if shape is None:
    for image in images:
      yield image, _by_windows(predictor, image, window, probabilities)
    return

  def step(rows: list[np.ndarray]) -> Result:
    stacked = pad([pad_to(row, shape) for row in rows], predictor.batch_size, 0)
    return start(predictor, stacked, probabilities is not None)

  for rows, result in one_ahead(step, _chunks(images, predictor.batch_size)):
    yield from zip(rows, fetch(result, [row.shape for row in rows], probabilities), strict=True)


def start(predictor: Predictor, images: np.ndarray, probabilities: bool) -> Result:
  """Starts the computation for a batch uint8 RGB [B, h, w, 3] at its own size."""
  placed, size = predictor.place(images), (images.shape[1], images.shape[2])
  if probabilities:
    return predictor.probabilities(placed, size)
  return predictor.classes(placed, size), None


def fetch(
  result: Result, sizes: Sequence[Size], probabilities: DTypeLike | None
) -> Iterator[Labelled]:
  """What `start` computed for the first images of a batch, cut back to their (h, w, ...)."""
  classes, scores = jax.device_get(result)
  for row, size in enumerate(sizes):
    likely = None if scores is None else crop(scores[row], size).astype(probabilities)
    yield Labelled(crop(classes[row], size), likely)


def _by_windows(
  predictor: Predictor, image: np.ndarray, window: int, probabilities: DTypeLike | None
) -> Labelled:
  padded = pad_to(image, (max(len(image), window), max(image.shape[1], window)))
  size = padded.shape[:2]
  classes, scores = np.empty(size, np.uint8), None
  if probabilities is not None:
    scores = np.empty((*size, predictor.model.classes), probabilities)

  def step(group: list[Cut]) -> Result:
    rows = [padded[c.top : c.top + window, c.left : c.left + window] for c in group]
    return start(predictor, pad(rows, predictor.batch_size, 0), scores is not None)

  for group, result in one_ahead(step, _chunks(cuts(size, window), predictor.batch_size)):
    found, likely = jax.device_get(result)
    for row, cut in enumerate(group):
      part = cut.rows, cut.columns
      inside = _within(cut.rows, cut.top), _within(cut.columns, cut.left)
      classes[part] = found[row][inside]
      if scores is not None and likely is not None:
        scores[part] = likely[row][inside]
  likely = None if scores is None else crop(scores, image.shape)
  return Labelled(crop(classes, image.shape), likely)


def _within(part: slice, start: int) -> slice:
  """A part of an image's side, counted from where a window starts."""
  return slice(part.start - start, part.stop - start)


def _chunks(items: Iterable[T], count: int) -> Iterator[list[T]]:
  items = iter(items)
  while chunk := list(itertools.islice(items, count)):
    yield chunk
