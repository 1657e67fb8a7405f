"""Transforms of an image and its label together, of which only the wanted window is computed.

A crop of 512x896 pixels shows a quarter of a full-size image: resizing all of it first, as the
published loaders do, is most of their work. A `Picture` therefore knows how to compute any window
of itself, and a transform makes a new picture of one: nothing is computed until the crop is known.
The kernels and the order of the axes are Pillow's, the code is several times faster than Pillow's.

What is drawn follows docs/diga.md section 2 (DiGA, arXiv 2304.02222). Sizes are (height, width).
"""

import functools
import math
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from data_pipelines import resampling
from data_pipelines.label_tables import IGNORE, translate
from data_pipelines.resampling import BICUBIC, BILINEAR, SUPPORT, Span

Size = tuple[int, ...]
Window = tuple[int, ...]  # top, left, height, width

DRAWS = 5
REDRAW_SHARE = 0.02
SIZED_CROP_RANGE = (0.7, 1.0)
ROWS_AT_A_TIME = 32  # of `sample`: what it works on stays in the processor's cache


class Picture(NamedTuple):
  """An image or a label, of which each window is computed when it is asked for."""

  size: Size
  at: Callable[[Window], np.ndarray]  # its pixels, uint8 [height, width, 3] or [height, width]

  def whole(self) -> np.ndarray:
    """All of its pixels."""
    return self.at((0, 0, *self.size))


Pair = tuple[Picture, Picture | None]  # an image, and its label if there is one
Cut = Callable[[Pair, Size, np.random.Generator], Pair]
Positions = Callable[[int, int], np.ndarray]  # (old, new) -> source positions [new] along an axis


def generator(seed: int, *place: str | int) -> np.random.Generator:
  """A generator of its own for each place: names, whose checksums count, and numbers from 0."""
  # zlib's checksum is the same on every machine.
  numbers = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in place]
  return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed % 2**64, *numbers])))


def picture(pixels: np.ndarray, table: np.ndarray | None = None) -> Picture:
  """Pixels that are there: uint8 [h, w, 3] or [h, w]; a `label_tables.lut` translates them."""

  def at(window: Window) -> np.ndarray:
    top, left, height, width = window
    part = pixels[top : top + height, left : left + width]
    return part if table is None else translate(part, table)

  return Picture(pixels.shape[:2], at)


def resize(pair: Pair, size: Size, kind: str = BICUBIC) -> Pair:
  """The image resized by `kind` with antialiasing, the label by nearest neighbour."""
  image, label = pair
  return resample(image, size, kind), None if label is None else nearest(label, size)


def resample(image: Picture, size: Size, kind: str) -> Picture:
  """An image resized with antialiasing as Pillow does it: the columns, rounded, then the rows.

  Coefficients have fewer bits than Pillow's: one value in 750 of a photograph differs, by 1 grey
  level (of white noise one in 50, and one in a million by 2).
  (Pillow 13 may begin with the rows, by how much each axis shrinks; earlier versions never do.)
  """
  if size == image.size:
    return image

  def at(window: Window) -> np.ndarray:
    spans = []
    for first, count, old, new in zip(window[:2], window[2:], image.size, size, strict=True):
      scale = old / new
      reach = SUPPORT[kind] * max(scale, 1) + 1
      low = max(math.floor(first * scale - reach), 0)
      high = min(math.ceil((first + count) * scale + reach), old)
      begin = first * scale - low
      length = min((first + count) * scale, old) - low - begin
      spans.append((low, high - low, Span(begin, length, count)))
    (top, height, rows), (left, width, columns) = spans
    return resampling.resize(image.at((top, left, height, width)), rows, columns, kind)

  return Picture(size, at)


def sample(image: Picture, size: Size) -> Picture:
  """An image resized bilinearly without antialiasing, as OpenCV does it (INTER_LINEAR).

  HIAST's way (docs/hiast.md); its 8-bit arithmetic is kept, which rounds down a little.
  """
  if size == image.size:
    return image
  taps = [linear_taps(old, new) for old, new in zip(image.size, size, strict=True)]

  def at(window: Window) -> np.ndarray:
    rows, columns = (
      part[:, first : first + count]
      for part, first, count in zip(taps, window[:2], window[2:], strict=True)
    )
    top, left = int(rows[0, 0]), int(columns[0, 0])
    pixels = image.at((top, left, int(rows[1, -1]) - top + 1, int(columns[1, -1]) - left + 1))
    return _interpolate(pixels, rows - [[top], [top], [0]], columns - [[left], [left], [0]])

  return Picture(size, at)


@functools.lru_cache(maxsize=256)
def linear_taps(old: int, new: int) -> np.ndarray:
  """For `new` positions along an axis of `old` pixels: int [3, new].

  The pixel before, the one after, and the weight of the latter in 2048ths.
  """
  position = (np.arange(new) + 0.5) * (old / new) - 0.5
  before = np.floor(position).astype(int)
  weight = np.rint((position - before) * 2048).astype(int)
  return np.stack([*np.clip([before, before + 1], 0, old - 1), weight])


def _interpolate(pixels: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
  """Pixels [h, w, 3] at `linear_taps` of each axis; some rows at a time, to stay in the cache."""
  made = np.empty((rows.shape[1], columns.shape[1], 3), np.uint8)
  before, after, weight = columns
  weight = weight[:, None].astype(np.int32)
  for start in range(0, len(made), ROWS_AT_A_TIME):
    above, below, share = rows[:, start : start + ROWS_AT_A_TIME]
    share = share[:, None, None].astype(np.int32)
    part = pixels[above[0] : below[-1] + 1]
    wide = part.take(before, 1) * (2048 - weight)
    wide += part.take(after, 1) * weight
    wide >>= 4  # the bits that OpenCV drops, here and below
    high = (wide[above - above[0]] * (2048 - share)) >> 16
    high += (wide[below - above[0]] * share) >> 16
    made[start : start + ROWS_AT_A_TIME] = (high + 2) >> 2
  return made


def nearest(label: Picture, size: Size, positions: Positions | None = None) -> Picture:
  """A label resized by nearest neighbour: at `positions`, by default exactly Pillow's pixels."""
  if size == label.size:
    return label
  rows_of, columns_of = map(positions or nearest_positions, label.size, size)

  def at(window: Window) -> np.ndarray:
    top, left, height, width = window
    rows, columns = rows_of[top : top + height], columns_of[left : left + width]
    first, begin = rows[0], columns[0]
    part = label.at((first, begin, rows[-1] - first + 1, columns[-1] - begin + 1))
    return part[rows - first].take(columns - begin, axis=1)

  return Picture(size, at)


@functools.lru_cache(maxsize=256)
def nearest_positions(old: int, new: int) -> np.ndarray:
  """The `new` source positions along an axis of `old` pixels: floor((i + 0.5) * old / new).

  Pillow adds up the step instead of multiplying; the running sum rounds differently where a
  position falls on a pixel's border, so the sum is what is done here.
  """
  steps = np.full(new, old / new)
  steps[0] /= 2
  return np.minimum(np.cumsum(steps).astype(int), old - 1)


def floor_positions(old: int, new: int) -> np.ndarray:
  """OpenCV's `new` source positions along an axis of `old` pixels: floor(i * old / new)."""
  return np.arange(new) * old // new


def flip(pair: Pair, rng: np.random.Generator) -> Pair:
  """Mirrors left and right with probability 0.5."""
  if rng.random() >= 0.5:
    return pair

  def mirror(one: Picture) -> Picture:
    return Picture(one.size, lambda w: one.at((w[0], one.size[1] - w[1] - w[3], *w[2:]))[:, ::-1])

  return _each(pair, mirror)


def crop(pair: Pair, size: Size, rng: np.random.Generator) -> Pair:
  """Cuts out a window of `size` at a place drawn uniformly.

  An image that is smaller than the window in height or width is resized to the window's size
  instead, whole (bilinear / nearest).
  """
  place = rng.random(2)
  slack = np.subtract(pair[0].size, size)
  if (slack < 0).any():
    return resize(pair, size, BILINEAR)
  return _window(pair, place * (slack + 1), size)


def sized_crop(pair: Pair, size: Size, rng: np.random.Generator) -> Pair:
  """Scales height and width by U(0.7, 1), drawn for each (bilinear / nearest), then does `crop`."""
  scales = rng.uniform(*SIZED_CROP_RANGE, 2)
  height, width = np.maximum((scales * pair[0].size).astype(int), 1).tolist()
  return crop(resize(pair, (height, width), BILINEAR), size, rng)


def zoom(pair: Pair, size: Size, rng: np.random.Generator, *, heights: tuple[int, int]) -> Pair:
  """Cuts out a window of the shape of `size` and of a height drawn from `heights`; resizes it.

  The height is a uniform integer, both ends included, but at most what fits into the image; the
  place is uniform. Images are resized by `sample`, labels at `floor_positions`, and nothing beyond
  the window is seen: HIAST's geometric view (docs/hiast.md).
  """
  full, ratio = pair[0].size, size[1] / size[0]
  height = min(int(rng.integers(heights[0], heights[1] + 1)), full[0], int(full[1] / ratio))
  height = max(height, 1)
  window = height, min(max(int(height * ratio), 1), full[1])
  place = rng.random(2) * np.subtract(full, window)
  image, label = _window(pair, place, window)
  return sample(image, size), None if label is None else nearest(label, size, floor_positions)


def _window(pair: Pair, place: np.ndarray, size: Size) -> Pair:
  """The part of `size` whose upper left corner is at `place` (rounded down)."""
  top, left = place.astype(int).tolist()

  def cut(one: Picture) -> Picture:
    return Picture(size, lambda w: one.at((top + w[0], left + w[1], *w[2:])))

  return _each(pair, cut)


def _each(pair: Pair, transform: Callable[[Picture], Picture]) -> Pair:
  image, label = pair
  return transform(image), None if label is None else transform(label)


def redraw(cut: Cut, pair: Pair, size: Size, rng: np.random.Generator) -> Pair:
  """Draws `cut` (crop or sized_crop) up to 5 times, until `acceptable`; the fifth is used as it is.

  Only labels are computed until one is accepted.
  """
  image, label = cut(pair, size, rng)
  for _ in range(DRAWS - 1):
    if label is None or acceptable(label.whole()):
      break
    image, label = cut(pair, size, rng)
  return image, label


def acceptable(label: np.ndarray) -> bool:
  """Whether a crop's label shows enough classes.

  True when at least 3 labels (255 counts as one) cover more than 2% of the pixels each; or exactly
  2 do and the highest label present is not a 255 with more than 2%.
  """
  large = np.array(Image.fromarray(label).histogram()) > REDRAW_SHARE * label.size
  number = np.count_nonzero(large)
  # 255 is the highest id there is, so "the highest is a large 255" is "255 is large".
  return bool(number >= 3 or (number == 2 and not large[IGNORE]))
