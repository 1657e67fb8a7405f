"""Resizing as the published networks do it: bilinear, as two matrix products, and nearest.

Most of them align the corner pixels (PyTorch's `align_corners=True`), which `jax.image.resize` does
not offer; the transformers' heads place pixel centres at half-integers, as it does.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diga_jax.types import Size

Positions = Callable[[int, int], np.ndarray]  # (output size, input size) -> where outputs lie


def _align(size: int, source: int) -> np.ndarray:
  """Where the `size` outputs lie among the sources: from the first one to the last."""
  return np.arange(size) * ((source - 1) / (size - 1) if size > 1 else 0.0)


def _centre(size: int, source: int) -> np.ndarray:
  """The same where a pixel's centre is half a pixel from its border, none outside the sources."""
  return np.clip((np.arange(size) + 0.5) * (source / size) - 0.5, 0, source - 1)


@functools.cache
def _interpolation(size: int, source: int, positions: Positions) -> np.ndarray:
  """Weights [size, source]: row i takes the two sources beside its position."""
  position = positions(size, source)
  low = np.minimum(position.astype(np.int64), source - 1)
  high = np.minimum(low + 1, source - 1)
  fraction = position - low
  weights = np.zeros((size, source))
  np.add.at(weights, (np.arange(size), low), 1 - fraction)
  np.add.at(weights, (np.arange(size), high), fraction)
  return weights.astype(np.float32)


def align_corners(x: jax.Array, size: Size) -> jax.Array:
  """Bilinear resize whose corner pixels stay where they are.

  Equal to PyTorch's `interpolate(mode='bilinear', align_corners=True)`: an output of one row (or
  column) takes the first one.

  Args:
    x: [B, h, w, C], any float type; computed and returned in it.
    size: (H, W) of the result.

  Returns:
    [B, H, W, C].
  """
  return _bilinear(x, size, _align)


def half_pixel(x: jax.Array, size: Size) -> jax.Array:
  """Bilinear resize that aligns the outer borders of the corner pixels, not their centres.

  Equal to PyTorch's `interpolate(mode='bilinear', align_corners=False)`, which does not average
  when it shrinks. Arguments and result as `align_corners`'s.
  """
  return _bilinear(x, size, _centre)


def _bilinear(x: jax.Array, size: Size, positions: Positions) -> jax.Array:
  rows = _interpolation(size[0], x.shape[1], positions)
  columns = _interpolation(size[1], x.shape[2], positions)
  # The weights must not be rounded to bfloat16 on TPU: positions would move by parts of a pixel.
  product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
  if size[0] != x.shape[1]:
    x = product('Hh,bhwc->bHwc', jnp.asarray(rows, x.dtype), x)
  if size[1] != x.shape[2]:
    x = product('Ww,bhwc->bhWc', jnp.asarray(columns, x.dtype), x)
  return x


def nearest(x: jax.Array, size: Size) -> jax.Array:
  """Nearest-pixel resize: row i of H takes row floor(i * h / H), columns alike.

  Args:
    x: [B, h, w] labels or [B, h, w, C] features, any type.
    size: (H, W) of the result.

  Returns:
    [B, H, W] or [B, H, W, C], of the same type.
  """
  rows = np.arange(size[0]) * x.shape[1] // size[0]
  columns = np.arange(size[1]) * x.shape[2] // size[1]
  return x[:, rows][:, :, columns]
