"""Two-dimensional convolution, NHWC, in the form that is fast where it runs."""

import functools

import jax

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]


@functools.partial(jax.jit, static_argnames=('strides', 'padding', 'dilation', 'groups'))
def conv2d(
    x: jax.Array,
    kernel: jax.Array,
    strides: Pair = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> jax.Array:
  """Cross-correlates `x` [B, H, W, I] with `kernel` [kh, kw, I // groups, O], as PyTorch does."""
  return plain(x, kernel, strides, padding, dilation, groups)


def plain(x, kernel, strides, padding, dilation, groups):
  return jax.lax.conv_general_dilated(
      x, kernel, strides, padding, rhs_dilation=dilation, feature_group_count=groups,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def same_padding(size: Pair, kernel: Pair, strides: Pair, dilation: Pair) -> Padding:
  """TensorFlow's 'SAME' padding: ceil(size / stride) outputs, an odd pixel goes after the image."""
  pairs = []
  for length, k, stride, rate in zip(size, kernel, strides, dilation, strict=True):
    total = max((-(-length // stride) - 1) * stride + (k - 1) * rate + 1 - length, 0)
    pairs.append((total // 2, total - total // 2))
  return tuple(pairs)
