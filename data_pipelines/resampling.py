"""Images resized by a kernel with antialiasing, in the 16-bit arithmetic of cykooz-resizer.

Where that library has no wheel (64-bit ARM under Linux), NumPy computes the same pixels, ten times
slower.
"""

import importlib.util
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
  from cykooz_resizer import ImageData

HAS_LIBRARY = importlib.util.find_spec('cykooz_resizer') is not None

BICUBIC, BILINEAR = 'catmull_rom', 'bilinear'  # Pillow's bicubic kernel is theirs (a = -1/2)
SUPPORT = {BICUBIC: 2.0, BILINEAR: 1.0}  # how far the kernels reach, in pixels of the larger grid
BITS = 22  # of a coefficient's fraction at most: 8 of a value and 2 of a sum leave no more of 32


class Span(NamedTuple):
  """The part of an axis that is resized, in pixels, and how many it becomes."""

  first: float
  length: float
  size: int


def resize(pixels: np.ndarray, rows: Span, columns: Span, kind: str) -> np.ndarray:
  """uint8 [h, w, 3] -> [rows.size, columns.size, 3]: the columns, rounded, then the rows.

  Pixels beside the spans count where the kernel reaches them.
  """
  return (by_library if HAS_LIBRARY else by_numpy)(pixels, rows, columns, kind)


def by_library(pixels: np.ndarray, rows: Span, columns: Span, kind: str) -> np.ndarray:
  """As `resize`; both ways are public for their comparison alone."""
  import cykooz_resizer

  (height, width), rgb = pixels.shape[:2], cykooz_resizer.PixelType.U8x3
  kernel = cykooz_resizer.ResizeAlg.convolution(getattr(cykooz_resizer.FilterType, kind))

  def part(source: 'ImageData', size: tuple[int, int], *box: float) -> 'ImageData':
    options = cykooz_resizer.ResizeOptions(resize_alg=kernel, crop_box=cykooz_resizer.CropBox(*box))
    made = cykooz_resizer.ImageData(*size, rgb)
    cykooz_resizer.Resizer().resize(source, made, options)
    return made

  source = cykooz_resizer.ImageData(width, height, rgb, pixels.tobytes())
  wide = part(source, (columns.size, height), columns.first, 0, columns.length, height)
  size = columns.size, rows.size
  made = part(wide, size, 0, rows.first, columns.size, rows.length)
  return np.frombuffer(made.get_buffer(), np.uint8).reshape(rows.size, columns.size, 3)


def by_numpy(pixels: np.ndarray, rows: Span, columns: Span, kind: str) -> np.ndarray:
  """As `resize`."""
  wide = _resize_columns(pixels, columns, kind)
  return _resize_columns(wide.swapaxes(0, 1), rows, kind).swapaxes(0, 1)


def _resize_columns(pixels: np.ndarray, span: Span, kind: str) -> np.ndarray:
  positions, coefficients, bits = taps(pixels.shape[1], span, kind)
  total = np.full((len(pixels), span.size, 3), 1 << (bits - 1), np.int32)  # a half, to round
  for at, factor in zip(positions.T, coefficients.T, strict=True):
    total += pixels[:, at] * factor[:, None]
  return np.clip(total >> bits, 0, 255).astype(np.uint8)


def taps(old: int, span: Span, kind: str) -> tuple[np.ndarray, np.ndarray, int]:
  """What each new pixel of an axis is the sum of.

  Returns:
    Positions among the `old` pixels, and coefficients, both [span.size, taps]; and the bits of the
    coefficients' fraction: as many as leave the largest one 16 with its sign.
  """
  scale = span.length / span.size
  reach = SUPPORT[kind] * max(scale, 1.0)
  centres = span.first + (np.arange(span.size) + 0.5) * scale
  low = np.maximum(np.floor(centres - reach), 0).astype(int)
  high = np.minimum(np.ceil(centres + reach), old).astype(int)
  positions = low[:, None] + np.arange((high - low).max())
  distances = (positions + 0.5 - centres[:, None]) / max(scale, 1.0)
  weights = np.where(positions < high[:, None], _kernel(distances, kind), 0.0)
  weights /= weights.sum(1, keepdims=True)
  bits = min(math.ceil(math.log2((2**15 - 0.5) / weights.max())) - 1, BITS)
  fixed = np.rint(weights * 2**bits).astype(np.int32)
  return np.minimum(positions, old - 1), fixed, bits


def _kernel(distance: np.ndarray, kind: str) -> np.ndarray:
  x = np.abs(distance)
  if kind == BILINEAR:
    return np.maximum(1 - x, 0)
  near, far = (1.5 * x - 2.5) * x * x + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
  return np.where(x < 1, near, np.where(x < 2, far, 0.0))
