"""The layers that the networks share. All compute in `dtype` and keep float32 parameters.

A layer's name is its name in the PyTorch state dict (dots included), so that diga_jax/weights needs
no table: '.'.join(path) is the PyTorch name.
"""

import functools
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from diga_jax.models import convolution
from diga_jax.parallel import collectives
from diga_jax.types import Keys

HE = nn.initializers.variance_scaling(2.0, 'fan_in', 'normal')
# What heads start from.
SMALL = nn.initializers.normal(0.01)
# What PyTorch gives a linear layer: uniform in +-1/sqrt(fan in).
LINEAR = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


Call = TypeVar('Call', bound=Callable[..., Any])


def in_precision(call: Call) -> Call:
  """A network's `__call__` whose products, whatever layer makes them, are of its `precision`.

  Those that ask for a precision of their own (resizing) keep theirs.
  """

  @functools.wraps(call)
  def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
    with jax.default_matmul_precision(self.precision):
      return call(self, *args, **kwargs)

  return wrapped  # pyright: ignore[reportReturnType]


class Settings(NamedTuple):
  """What the layers of a network share."""

  batch_statistics: bool = False  # BatchNorm uses the batch's statistics and moves the running ones
  axis_name: str | None = None  # under `jax.pmap`, the axis over which a batch is spread
  dtype: DTypeLike = jnp.float32  # the type computed in


class Network(nn.Module, kw_only=True):
  """What all segmentation networks have in common.

  They map normalised BGR images [B, H, W, 3] to `types.Outputs`, float32, at their output stride.
  `keys` [B] is one typed key per example for dropout in training; without keys nothing is dropped.
  The feature is what the classifier sees, after dropout.

  Attributes:
    classes: channels of the logits.
    batch_norm: 'batch' normalises with batch statistics in training and moves the running ones (as
      published); 'running' keeps to the running ones.
    remat: whether the backward pass recomputes the inside of each block instead of keeping it: less
      memory, about a third more arithmetic.
    axis_name, dtype: see `Settings`.
    precision: of the products of float32 values: 'default' (the device's fastest: bfloat16 on TPU,
      TF32 on GPU) | 'high' (three bfloat16 passes; TF32) | 'highest' (float32).
  """

  classes: int = 19
  batch_norm: str = 'batch'
  remat: bool = False
  axis_name: str | None = None
  dtype: DTypeLike = jnp.float32
  precision: str = 'default'
  body: ClassVar[str] = ''  # whose published weights it starts from; '' = nobody's

  def settings(self, train: bool) -> Settings:
    """What the network's layers share, in training and in evaluation."""
    return Settings(train and self.batch_norm == 'batch', self.axis_name, self.dtype)


class Conv(nn.Module):
  """A square convolution. `padding` is a number of pixels per side, or 'SAME' as in TensorFlow."""

  features: int
  size: int
  stride: int = 1
  padding: int | Literal['SAME'] = 0
  dilation: int = 1
  groups: int = 1
  bias: bool = False
  kernel_init: nn.initializers.Initializer = HE
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, H, W, I] -> [B, H', W', features]."""
    shape = (self.size, self.size, x.shape[-1] // self.groups, self.features)
    kernel = self.param('kernel', self.kernel_init, shape)
    strides, dilation = (self.stride, self.stride), (self.dilation, self.dilation)
    if self.padding == 'SAME':
      sizes = (self.size, self.stride, self.dilation)
      rows, columns = (convolution.same_padding(length, *sizes) for length in x.shape[1:3])
    else:
      rows = columns = (self.padding, self.padding)
    window = convolution.Window(strides, (rows, columns), dilation, self.groups)
    x = convolution.conv2d(x.astype(self.dtype), kernel.astype(self.dtype), window)
    if self.bias:
      bias = self.param('bias', nn.initializers.zeros, (self.features,))
      x = x + bias.astype(self.dtype)[None, None, None]
    return x


class BatchNorm(nn.Module):
  """Batch normalisation as PyTorch's: normalises by the biased variance, stores the unbiased one.

  The statistics are float32 and span the whole batch given: under `jax.jit` with a sharded batch
  that is the global batch, whatever the number of devices; under `jax.pmap` they are averaged over
  the axis of the settings.
  """

  settings: Settings = Settings()
  epsilon: float = 1e-5
  momentum: float = 0.1

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[..., C] -> [..., C]; moves the running statistics when 'batch_stats' is mutable."""
    batch_statistics, axis_name, dtype = self.settings
    channels = (x.shape[-1],)
    scale = self.param('scale', nn.initializers.ones, channels)
    bias = self.param('bias', nn.initializers.zeros, channels)
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, channels)
    running_var = self.variable('batch_stats', 'var', jnp.ones, channels)
    mean, var = running_mean.value, running_var.value
    axes = tuple(range(x.ndim - 1))
    if batch_statistics:
      mean = collectives.mean(jnp.mean(x, axes, dtype=jnp.float32), axis_name)
      squares = jnp.square(x.astype(jnp.float32) - jnp.expand_dims(mean, axes))
      var = collectives.mean(jnp.mean(squares, axes), axis_name)
      if self.is_mutable_collection('batch_stats') and not self.is_initializing():
        count = x.size // x.shape[-1] * collectives.devices(axis_name)
        self._move(running_mean, mean)
        self._move(running_var, var * (count / max(count - 1, 1)))
    factor = scale * jax.lax.rsqrt(var + self.epsilon)
    shift = (bias - mean * factor).astype(dtype)
    return x * jnp.expand_dims(factor.astype(dtype), axes) + jnp.expand_dims(shift, axes)

  def _move(self, running: nn.Variable, value: jax.Array) -> None:
    running.value = (1 - self.momentum) * running.value + self.momentum * value


def conv_norm(
  x: jax.Array,
  features: int,
  size: int,
  names: tuple[str, str],
  settings: Settings,
  *,
  epsilon: float = 1e-5,
  activation: Callable[[jax.Array], jax.Array] | None = nn.relu,
  **conv: Any,
) -> jax.Array:
  """Convolution - BatchNorm - activation inside the calling module, the first two named so.

  [B, H, W, I] -> [B, H', W', features]; `conv` are further attributes of `Conv`.
  """
  x = Conv(features, size, dtype=settings.dtype, name=names[0], **conv)(x)
  x = BatchNorm(settings, epsilon, name=names[1])(x)
  return x if activation is None else activation(x)


def instance_norm(x: jax.Array, epsilon: float = 1e-5) -> jax.Array:
  """Each channel of each image [B, H, W, C] to mean 0 and variance 1 (biased), in float32."""
  wide = x.astype(jnp.float32)
  mean = jnp.mean(wide, (1, 2), keepdims=True)
  centred = wide - mean
  var = jnp.mean(jnp.square(centred), (1, 2), keepdims=True)
  return (centred * jax.lax.rsqrt(var + epsilon)).astype(x.dtype)


def dropout(x: jax.Array, rate: float, keys: Keys, *, whole: bool = False) -> jax.Array:
  """Zeroes channels of [B, H, W, C] with probability `rate` and scales up the others.

  Args:
    x: of any float type.
    rate: below 1; at 0 nothing is dropped.
    keys: [B], one typed key per example, so that the draw does not depend on how the batch is
      spread over devices; without keys nothing is dropped.
    whole: zero whole examples: on the inside of a residual block, stochastic depth (arXiv
      1603.09382).
  """
  if keys is None or rate == 0:
    return x
  shape = () if whole else (x.shape[-1],)
  keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, shape))(keys)
  keep = keep.reshape(len(x), 1, 1, -1)
  return jnp.where(keep, x / (1 - rate), jnp.zeros_like(x))


def fold_in(keys: Keys, number: int) -> Keys:
  """The examples' keys [B] for the `number`-th of several uses; no keys, no draws."""
  return None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, number)
