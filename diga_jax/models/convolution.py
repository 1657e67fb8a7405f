"""Two-dimensional convolution, NHWC, in the form that is fast where it runs.

TPU and GPU have hardware for the plain operation. XLA's CPU back end does not: it runs matrix
products and element-wise loops well, and depthwise convolutions, dilated ones and most gradients
badly. `for_cpu` writes those as products and sums of shifted slices; the values are equal to
rounding. benchmarks/ has the times.
"""

import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]
Saved = tuple[jax.Array, jax.Array]  # x and kernel, or their gradients


@functools.partial(jax.jit, static_argnames=('strides', 'padding', 'dilation', 'groups'))
def conv2d(
  x: jax.Array,
  kernel: jax.Array,
  strides: Pair = (1, 1),
  padding: Padding = ((0, 0), (0, 0)),
  dilation: Pair = (1, 1),
  groups: int = 1,
) -> jax.Array:
  """Cross-correlates `x` with `kernel` as PyTorch does, choosing the form when it is lowered.

  Args:
    x: [B, H, W, I].
    kernel: [kh, kw, I // groups, O], of the same type.
    strides: of rows and columns, as are the next two.
    padding: zeros (before, after).
    dilation: distance of neighbouring taps in the input.
    groups: input and output channels are split into this many independent parts.

  Returns:
    [B, H', W', O], H' = (H + before + after - (kh - 1) * dilation - 1) // stride + 1.
  """
  # Of the network that is traced.
  precision = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
  return _conv2d(x, kernel, precision, strides, padding, dilation, groups)


# With its own derivative: left to itself, JAX saves for the backward pass what *either* form
# would want, and the CPU's backward pass takes several times as long. The derivative is traced when
# the network's precision is no longer the default one: it is told.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5, 6))
def _conv2d(x: jax.Array, kernel: jax.Array, precision: str | None, *static: Any) -> jax.Array:
  with jax.default_matmul_precision(precision):
    return jax.lax.platform_dependent(
      x,
      kernel,
      cpu=lambda *args: for_cpu(*args, *static),
      default=lambda *args: plain(*args, *static),
    )


def _conv2d_forward(x: jax.Array, kernel: jax.Array, *static: Any) -> tuple[jax.Array, Saved]:
  return _conv2d(x, kernel, *static), (x, kernel)


def _conv2d_backward(precision: str | None, *args: Any) -> Saved:
  *static, saved, grad = args

  def backward(form: Callable[..., jax.Array]) -> Callable[..., Saved]:
    return lambda x, kernel, grad: jax.vjp(lambda *a: form(*a, *static), x, kernel)[1](grad)

  with jax.default_matmul_precision(precision):
    return jax.lax.platform_dependent(*saved, grad, cpu=backward(for_cpu), default=backward(plain))


_conv2d.defvjp(_conv2d_forward, _conv2d_backward)


def same_padding(size: Pair, kernel: Pair, strides: Pair, dilation: Pair) -> Padding:
  """TensorFlow's 'SAME' padding: ceil(size / stride) outputs, an odd pixel goes after the image."""

  def pads(axis: int) -> Pair:
    length, stride, reach = size[axis], strides[axis], (kernel[axis] - 1) * dilation[axis] + 1
    total = max((-(-length // stride) - 1) * stride + reach - length, 0)
    return total // 2, total - total // 2

  return pads(0), pads(1)


def plain(
  x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding, dilation: Pair, groups: int
) -> jax.Array:
  """`conv2d` as the one operation that accelerators have."""
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    strides,
    padding,
    rhs_dilation=dilation,
    feature_group_count=groups,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def for_cpu(
  x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding, dilation: Pair, groups: int
) -> jax.Array:
  """`conv2d` in the form that is fastest on CPU, gradients included."""
  if groups == x.shape[-1] == kernel.shape[-1]:
    return _in_float32(_depthwise, x, kernel, strides, padding, dilation)
  if groups == 1 and kernel.shape[:2] == (1, 1) and padding == ((0, 0), (0, 0)):
    return _pointwise(x[:, :: strides[0], :: strides[1]], kernel[0, 0])
  if groups == 1 and strides == (1, 1) and dilation != (1, 1):
    return _in_float32(_by_taps, x, kernel, padding, dilation)
  return plain(x, kernel, strides, padding, dilation, groups)


def _in_float32(
  form: Callable[..., Any], x: jax.Array, kernel: jax.Array, *static: Any
) -> jax.Array:
  """A sum over taps, and its gradients, rounded to bfloat16 once and not after every tap."""
  return form(x.astype(jnp.float32), kernel.astype(jnp.float32), *static).astype(x.dtype)


@jax.custom_vjp
def _pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """[B, H, W, I] @ [I, O]."""
  return x @ kernel


def _pointwise_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, Saved]:
  return x @ kernel, (x, kernel)


def _pointwise_backward(saved: Saved, grad: jax.Array) -> Saved:
  # XLA's CPU back end transposes the left operand of the kernel's gradient, and fuses into that
  # copy all that computes the operand, against the grain of memory: the narrow one costs least.
  x, kernel = saved
  rows, grads = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
  over_pixels = (((0,), (0,)), ((), ()))
  if rows.shape[1] <= grads.shape[1]:
    dkernel = jax.lax.dot_general(rows, grads, over_pixels)
  else:
    dkernel = jax.lax.dot_general(grads, rows, over_pixels).T
  return grad @ kernel.T, dkernel


_pointwise.defvjp(_pointwise_forward, _pointwise_backward)


def _by_taps(x: jax.Array, kernel: jax.Array, padding: Padding, dilation: Pair) -> jax.Array:
  """One matrix product per tap, on the part of the image where the tap does not see padding.

  The wide taps of a DeepLab head on a small crop mostly or wholly see padding, and cost nothing.
  """
  height, width = _output_size(x, kernel, (1, 1), padding, dilation)
  total = jnp.zeros((x.shape[0], height, width, kernel.shape[-1]), x.dtype)
  for i, j in _taps(kernel):
    rows = _overlap(i * dilation[0] - padding[0][0], x.shape[1], height)
    columns = _overlap(j * dilation[1] - padding[1][0], x.shape[2], width)
    if rows is None or columns is None:
      continue
    (top, bottom, down), (left, right, across) = rows, columns
    part = x[:, top + down : bottom + down, left + across : right + across] @ kernel[i, j]
    outside = ((0, 0), (top, height - bottom), (left, width - right), (0, 0))
    total = total + jnp.pad(part, outside)
  return total


def _overlap(offset: int, source: int, size: int) -> tuple[int, int, int] | None:
  """Outputs [start, stop) whose input, `offset` further on, exists; None if there are none."""
  start, stop = max(0, -offset), min(size, source - offset)
  return (start, stop, offset) if start < stop else None


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _depthwise(
  x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding, dilation: Pair
) -> jax.Array:
  """One channel at a time: a sum of shifted images, each times its tap's weights."""
  shifted = _shift_by_taps(x, kernel, strides, padding, dilation)
  products = (image * kernel[i, j][None, None] for (i, j), image in shifted)
  return functools.reduce(operator.add, products)


def _depthwise_forward(x: jax.Array, kernel: jax.Array, *static: Any) -> tuple[jax.Array, Saved]:
  return _depthwise(x, kernel, *static), (x, kernel)


def _depthwise_backward(
  strides: Pair, padding: Padding, dilation: Pair, saved: Saved, grad: jax.Array
) -> tuple[Any, jax.Array]:
  # Left to itself, the gradient of x is a sum of padded images: a loop full of conditions. It is
  # a depthwise convolution with the flipped kernel, of the gradient with its strides undone.
  x, kernel = saved
  (before_h, _), (before_w, _) = padding
  reach = [(taps - 1) * rate for taps, rate in zip(kernel.shape, dilation, strict=False)]
  spread = [(n - 1) * s + 1 for n, s in zip(grad.shape[1:3], strides, strict=True)]
  low = (reach[0] - before_h, reach[1] - before_w)
  high = tuple(
    size + r - n - a for size, r, n, a in zip(x.shape[1:3], reach, spread, low, strict=True)
  )
  interior = [(0, 0, 0), *zip(low, high, (s - 1 for s in strides), strict=True), (0, 0, 0)]
  wide = jax.lax.pad(grad, jnp.zeros((), grad.dtype), interior)
  dx = _depthwise(wide, kernel[::-1, ::-1], (1, 1), ((0, 0), (0, 0)), dilation)
  return dx, _depthwise_kernel_grad(x, kernel, grad, strides, padding, dilation)


def _depthwise_kernel_grad(
  x: jax.Array, kernel: jax.Array, grad: jax.Array, strides: Pair, padding: Padding, dilation: Pair
) -> jax.Array:
  """Pixel by pixel, what each tap saw times the pixel's gradient.

  A sum over the image for every tap would pass over the image as many times, and XLA does not
  vectorise sums over leading axes on CPU; here all taps' sums stay in the cache (5 to 10 times
  faster at the sizes of the small benchmark).
  """
  x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  _, height, width, channels = grad.shape
  reach = [(taps - 1) * rate + 1 for taps, rate in zip(kernel.shape, dilation, strict=False)]

  def of_image(image: jax.Array, grad: jax.Array) -> jax.Array:
    flat = grad.reshape(-1, channels)

    def add_pixel(n: jax.Array, total: jax.Array) -> jax.Array:
      corner = (n // width * strides[0], n % width * strides[1], 0)
      seen = jax.lax.dynamic_slice(image, corner, (*reach, channels))
      return total + seen[:: dilation[0], :: dilation[1]] * flat[n][None, None]

    total = jnp.zeros((*kernel.shape[:2], channels), jnp.float32)
    return jax.lax.fori_loop(0, height * width, add_pixel, total)

  # The images go through the loop together: one after another, those of other devices would have
  # to be fetched.
  total = jax.vmap(of_image)(x, grad).sum(0)
  return total[:, :, None].astype(kernel.dtype)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _shift_by_taps(
  x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding, dilation: Pair
) -> Iterator[tuple[Pair, jax.Array]]:
  """((i, j), the padded image as tap (i, j) sees it) for every tap."""
  x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  height, width = _output_size(x, kernel, strides, ((0, 0), (0, 0)), dilation)
  for i, j in _taps(kernel):
    top, left = i * dilation[0], j * dilation[1]
    bottom, right = top + (height - 1) * strides[0] + 1, left + (width - 1) * strides[1] + 1
    yield (i, j), x[:, top : bottom : strides[0], left : right : strides[1]]


def _taps(kernel: jax.Array) -> list[Pair]:
  return [(i, j) for i in range(kernel.shape[0]) for j in range(kernel.shape[1])]


def _output_size(
  x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding, dilation: Pair
) -> Iterator[int]:
  return (
    (length + sum(pad) - (taps - 1) * rate - 1) // stride + 1
    for length, taps, stride, pad, rate in zip(
      x.shape[1:3], kernel.shape[:2], strides, padding, dilation, strict=True
    )
  )
