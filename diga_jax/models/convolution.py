"""Two-dimensional convolution, NHWC, in the form that is fast where it runs.

TPU and GPU have hardware for the plain operation. XLA's CPU back end does not: it runs matrix
products and element-wise loops well, and depthwise convolutions, dilated ones and most gradients
badly. `for_cpu` writes those as products and sums of shifted slices; the values are equal to
rounding. benchmarks/ has the times.
"""

import functools
import itertools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Pair = tuple[int, int]  # of rows and columns
Padding = tuple[Pair, Pair]  # zeros (before, after)
Saved = tuple[jax.Array, jax.Array]  # x and kernel, or their gradients


class Window(NamedTuple):
  """Where the taps of a kernel look."""

  strides: Pair = (1, 1)
  padding: Padding = ((0, 0), (0, 0))
  dilation: Pair = (1, 1)  # distance of neighbouring taps in the input
  groups: int = 1  # input and output channels are split into this many independent parts

  def output_size(self, x: jax.Array, kernel: jax.Array) -> tuple[int, ...]:
    """(H', W') of `conv2d`."""
    sizes = (x.shape[1:3], kernel.shape[:2], self.strides, self.padding, self.dilation)
    return tuple(
      (length + sum(pad) - (taps - 1) * rate - 1) // stride + 1
      for length, taps, stride, pad, rate in zip(*sizes, strict=True)
    )


@functools.partial(jax.jit, static_argnames='window')
def conv2d(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
  """Cross-correlates `x` with `kernel` as PyTorch does, choosing the form when it is lowered.

  Args:
    x: [B, H, W, I].
    kernel: [kh, kw, I // groups, O], of the same type.
    window: strides, padding, dilation and groups.

  Returns:
    [B, H', W', O], H' = (H + before + after - (kh - 1) * dilation - 1) // stride + 1.
  """
  # Of the network that is traced.
  precision = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
  return _conv2d(x, kernel, precision, window)


def _save_operands(form: Callable[..., object]) -> Callable[..., tuple[object, Saved]]:
  """The forward pass of a form with a derivative of its own."""
  return lambda x, kernel, *static: (form(x, kernel, *static), (x, kernel))


# With its own derivative: left to itself, JAX saves for the backward pass what *either* form
# would want, and the CPU's backward pass takes several times as long. The derivative is traced when
# the network's precision is no longer the default one: it is told.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv2d(x: jax.Array, kernel: jax.Array, precision: str | None, window: Window) -> jax.Array:
  with jax.default_matmul_precision(precision):
    return jax.lax.platform_dependent(
      x,
      kernel,
      cpu=lambda x, kernel: for_cpu(x, kernel, window),
      default=lambda x, kernel: plain(x, kernel, window),
    )


def _conv2d_backward(precision: str | None, window: Window, saved: Saved, grad: jax.Array) -> Saved:
  def backward(form: Callable[..., jax.Array]) -> Callable[..., Saved]:
    return lambda x, kernel, grad: jax.vjp(lambda *a: form(*a, window), x, kernel)[1](grad)

  with jax.default_matmul_precision(precision):
    return jax.lax.platform_dependent(*saved, grad, cpu=backward(for_cpu), default=backward(plain))


_conv2d.defvjp(_save_operands(_conv2d), _conv2d_backward)


def same_padding(length: int, taps: int, stride: int, rate: int) -> Pair:
  """TensorFlow's 'SAME' padding of an axis: ceil(length / stride) outputs, an odd pixel goes after.

  `rate` is the dilation of the kernel's `taps`.
  """
  total = max((-(-length // stride) - 1) * stride + (taps - 1) * rate + 1 - length, 0)
  return total // 2, total - total // 2


def plain(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
  """`conv2d` as the one operation that accelerators have."""
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    window.strides,
    window.padding,
    rhs_dilation=window.dilation,
    feature_group_count=window.groups,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def for_cpu(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
  """`conv2d` in the form that is fastest on CPU, gradients included."""
  strides, padding, dilation, groups = window
  if groups == x.shape[-1] == kernel.shape[-1]:
    return _in_float32(_depthwise, x, kernel, window)
  if groups == 1 and kernel.shape[:2] == (1, 1) and padding == ((0, 0), (0, 0)):
    return _pointwise(x[:, :: strides[0], :: strides[1]], kernel[0, 0])
  if groups == 1 and strides == (1, 1) and dilation != (1, 1):
    return _in_float32(_by_taps, x, kernel, window)
  return plain(x, kernel, window)


def _in_float32(
  form: Callable[..., Any], x: jax.Array, kernel: jax.Array, window: Window
) -> jax.Array:
  """A sum over taps, and its gradients, rounded to bfloat16 once and not after every tap."""
  return form(x.astype(jnp.float32), kernel.astype(jnp.float32), window).astype(x.dtype)


@jax.custom_vjp
def _pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """[B, H, W, I] @ [I, O]."""
  return x @ kernel


def _pointwise_backward(saved: Saved, grad: jax.Array) -> Saved:
  # For the kernel's gradient XLA's CPU back end transposes the left operand, and computes it anew
  # inside that strided copy: the narrower one costs least there.
  x, kernel = saved
  rows, grads = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
  over_pixels = (((0,), (0,)), ((), ()))
  if rows.shape[1] <= grads.shape[1]:
    dkernel = jax.lax.dot_general(rows, grads, over_pixels)
  else:
    dkernel = jax.lax.dot_general(grads, rows, over_pixels).T
  return grad @ kernel.T, dkernel


_pointwise.defvjp(_save_operands(_pointwise), _pointwise_backward)


def _by_taps(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
  """One matrix product per tap, on the part of the image where the tap does not see padding.

  The wide taps of a DeepLab head on a small crop mostly or wholly see padding, and cost nothing.
  """
  _, ((before_h, _), (before_w, _)), dilation, _ = window
  height, width = window.output_size(x, kernel)
  total = jnp.zeros((x.shape[0], height, width, kernel.shape[-1]), x.dtype)
  for i, j in np.ndindex(kernel.shape[:2]):
    down, across = i * dilation[0] - before_h, j * dilation[1] - before_w
    top, bottom = max(0, -down), min(height, x.shape[1] - down)
    left, right = max(0, -across), min(width, x.shape[2] - across)
    if top < bottom and left < right:
      part = x[:, top + down : bottom + down, left + across : right + across] @ kernel[i, j]
      outside = ((0, 0), (top, height - bottom), (left, width - right), (0, 0))
      total = total + jnp.pad(part, outside)
  return total


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
  """One channel at a time: a sum of shifted images, each times its tap's weights."""
  strides, padding, dilation, _ = window
  height, width = window.output_size(x, kernel)
  x = jnp.pad(x, ((0, 0), *padding, (0, 0)))

  def product(i: int, j: int) -> jax.Array:
    top, left = i * dilation[0], j * dilation[1]
    bottom, right = top + (height - 1) * strides[0] + 1, left + (width - 1) * strides[1] + 1
    seen = x[:, top : bottom : strides[0], left : right : strides[1]]
    return seen * kernel[i, j][None, None]

  return functools.reduce(operator.add, itertools.starmap(product, np.ndindex(kernel.shape[:2])))


def _depthwise_backward(window: Window, saved: Saved, grad: jax.Array) -> tuple[object, jax.Array]:
  # Left to itself, the gradient of x is a sum of padded images: a loop full of conditions. It is
  # a depthwise convolution with the flipped kernel, of the gradient with its strides undone.
  x, kernel = saved
  edges = [(0, 0, 0)]
  sizes = (x.shape[1:3], grad.shape[1:3], kernel.shape[:2])
  for length, count, taps, stride, (before, _), rate in zip(*sizes, *window[:3], strict=True):
    reach, spread = (taps - 1) * rate, (count - 1) * stride + 1
    edges.append((reach - before, length + before - spread, stride - 1))
  wide = jax.lax.pad(grad, jnp.zeros((), grad.dtype), [*edges, (0, 0, 0)])
  dx = _depthwise(wide, kernel[::-1, ::-1], Window(dilation=window.dilation))
  return dx, _depthwise_kernel_grad(x, kernel, grad, window)


def _depthwise_kernel_grad(
  x: jax.Array, kernel: jax.Array, grad: jax.Array, window: Window
) -> jax.Array:
  """Pixel by pixel, what each tap saw times the pixel's gradient.

  A sum over the image for every tap would pass over the image as many times, and XLA does not
  vectorise sums over leading axes on CPU; here all taps' sums stay in the cache (5 to 10 times
  faster at the sizes of the small benchmark).
  """
  strides, padding, dilation, _ = window
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


_depthwise.defvjp(_save_operands(_depthwise), _depthwise_backward)
