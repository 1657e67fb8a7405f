"""resize.py against its definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diga_jax import resize


def reference(x, size):
  """Bilinear interpolation, corner pixels aligned, one output at a time."""
  _, h, w, _ = x.shape
  out = np.zeros((x.shape[0], *size, x.shape[3]))
  for i in range(size[0]):
    for j in range(size[1]):
      y = i * (h - 1) / (size[0] - 1) if size[0] > 1 else 0
      z = j * (w - 1) / (size[1] - 1) if size[1] > 1 else 0
      a, b = min(int(y), h - 1), min(int(z), w - 1)
      c, d = min(a + 1, h - 1), min(b + 1, w - 1)
      top = x[:, a, b] * (1 - z + b) + x[:, a, d] * (z - b)
      bottom = x[:, c, b] * (1 - z + b) + x[:, c, d] * (z - b)
      out[:, i, j] = top * (1 - y + a) + bottom * (y - a)
  return out


SIZE = st.integers(1, 9)


@settings(max_examples=20, deadline=None)
@given(SIZE, SIZE, SIZE, SIZE)
def test_align_corners_is_bilinear(h, w, height, width):
  x = np.random.default_rng(0).normal(size=(2, h, w, 3)).astype(np.float32)
  out = resize.align_corners(jnp.asarray(x), (height, width))
  assert out.dtype == jnp.float32
  np.testing.assert_allclose(out, reference(x, (height, width)), atol=1e-5)


def test_align_corners_keeps_the_corners_and_the_type():
  x = jnp.arange(24, dtype=jnp.bfloat16).reshape(1, 4, 6, 1)
  out = resize.align_corners(x, (9, 13))
  assert out.dtype == jnp.bfloat16
  corners = np.asarray(out, np.float32)[0, ::8, ::12, 0]
  np.testing.assert_array_equal(corners, [[0, 5], [18, 23]])


@pytest.mark.parametrize('size', [(3, 5), (14, 30), (7, 17), (1, 1)])
def test_half_pixel_is_jaxs_without_antialiasing(size):
  x = np.random.default_rng(0).normal(size=(2, 7, 10, 3)).astype(np.float32)
  want = jax.image.resize(x, (2, *size, 3), 'linear', antialias=False)
  np.testing.assert_allclose(resize.half_pixel(jnp.asarray(x), size), want, atol=1e-5)


@pytest.mark.parametrize('size', [(3, 5), (14, 10), (7, 7)])
def test_nearest_takes_the_floor(size):
  x = np.arange(70).reshape(1, 7, 10)
  out = np.asarray(resize.nearest(jnp.asarray(x), size))
  for i in range(size[0]):
    for j in range(size[1]):
      assert out[0, i, j] == x[0, i * 7 // size[0], j * 10 // size[1]]
