"""Resizing as the published networks do it.

`jax.image.resize` places pixel centres at half-integers; the published networks align the corner
pixels instead (PyTorch's `align_corners=True`), so that is written here, as two matrix products.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np


@functools.cache
def _interpolation(size: int, source: int) -> np.ndarray:
  """Weights [size, source]: row i takes the two sources beside i * (source - 1) / (size - 1)."""
  position = np.arange(size) * ((source - 1) / (size - 1) if size > 1 else 0.0)
  low = np.minimum(position.astype(np.int64), source - 1)
  high = np.minimum(low + 1, source - 1)
  fraction = position - low
  weights = np.zeros((size, source))
  np.add.at(weights, (np.arange(size), low), 1 - fraction)
  np.add.at(weights, (np.arange(size), high), fraction)
  return weights.astype(np.float32)


def align_corners(x: jax.Array, size: tuple[int, int]) -> jax.Array:
  """Bilinear resize whose corner pixels stay where they are.

  Equal to PyTorch's `interpolate(mode='bilinear', align_corners=True)`: an output of one row (or
  column) takes the first one.

  Args:
    x: [B, h, w, C], any float type; computed and returned in it.
    size: (H, W) of the result.

  Returns:
    [B, H, W, C].
  """
  rows, columns = _interpolation(size[0], x.shape[1]), _interpolation(size[1], x.shape[2])
  # The weights must not be rounded to bfloat16 on TPU: positions would move by parts of a pixel.
  product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
  if size[0] != x.shape[1]:
    x = product('Hh,bhwc->bHwc', jnp.asarray(rows, x.dtype), x)
  if size[1] != x.shape[2]:
    x = product('Ww,bhwc->bhWc', jnp.asarray(columns, x.dtype), x)
  return x


def nearest(x: jax.Array, size: tuple[int, int]) -> jax.Array:
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
