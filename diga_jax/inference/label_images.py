"""Labels and probabilities for images of one size, whole or by windows."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import jax
import numpy as np
from jax.typing import DTypeLike

from diga_jax.inference.forward import Predictor
from diga_jax.inference.image_batches import one_ahead, pad
from diga_jax.inference.shapes import WINDOW, Cut, crop, cuts, pad_to, shape_of
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
  def compute(rows: np.ndarray) -> Result:
    return start(predictor, rows, probabilities is not None)

  padded = pad_to(image, shape_of(image.shape[:2], {}, window))
  found = by_windows(compute, padded, window, predictor.batch_size, (np.uint8, probabilities))
  classes, scores = (None if part is None else crop(part, image.shape) for part in found)
  assert classes is not None
  return Labelled(classes, scores)


def by_windows(
  compute: Callable[[np.ndarray], Sequence[jax.Array | None]],
  image: np.ndarray,
  window: int,
  batch_size: int,
  dtypes: Sequence[DTypeLike | None],
) -> list[np.ndarray | None]:
  """What is computed of an image window by window, each pixel from the one that it is deepest in.

  Args:
    compute: of windows [B, w, w, 3], arrays [B, w, w, ...], some perhaps None.
    image: uint8 RGB [h, w, 3], no side of which is shorter than a window's.
    window: the side of a window.
    batch_size: B.
    dtypes: of what is returned, on the host.

  Returns:
    The arrays [h, w, ...].
  """
  made: list[np.ndarray | None] = [None] * len(dtypes)
  size = image.shape[:2]

  def step(group: list[Cut]) -> Sequence[jax.Array | None]:
    rows = [image[c.top : c.top + window, c.left : c.left + window] for c in group]
    return compute(pad(rows, batch_size, 0))

  for group, result in one_ahead(step, _chunks(cuts(size, window), batch_size)):
    for place, (found, dtype) in enumerate(zip(jax.device_get(result), dtypes, strict=True)):
      if found is None:
        continue
      whole = made[place]
      if whole is None:
        whole = made[place] = np.empty((*size, *found.shape[3:]), dtype)
      for row, cut in enumerate(group):
        inside = _within(cut.rows, cut.top), _within(cut.columns, cut.left)
        whole[cut.rows, cut.columns] = found[row][inside]
  return made


def _within(part: slice, start: int) -> slice:
  """A part of an image's side, counted from where a window starts."""
  return slice(part.start - start, part.stop - start)


def _chunks(items: Iterable[T], count: int) -> Iterator[list[T]]:
  items = iter(items)
  while chunk := list(itertools.islice(items, count)):
    yield chunk
