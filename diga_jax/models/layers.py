"""The layers that the networks share. All compute in `dtype` and keep float32 parameters.

A layer's name is its name in the PyTorch state dict (dots included), so that weights.py needs no
table: '.'.join(path) is the PyTorch name.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diga_jax.models import convolution
from diga_jax.parallel import collectives

HE = nn.initializers.variance_scaling(2.0, 'fan_in', 'normal')
# What heads start from.
SMALL = nn.initializers.normal(0.01)
# What PyTorch gives a linear layer: uniform in +-1/sqrt(fan in).
LINEAR = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


class Conv(nn.Module):
  """A square convolution. `padding` is a number of pixels per side, or 'SAME' as in TensorFlow."""

  features: int
  size: int
  stride: int = 1
  padding: int | str = 0
  dilation: int = 1
  groups: int = 1
  bias: bool = False
  kernel_init: nn.initializers.Initializer = HE
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, H, W, I] -> [B, H', W', features]."""
    shape = (self.size, self.size, x.shape[-1] // self.groups, self.features)
    kernel = self.param('kernel', self.kernel_init, shape)
    strides, dilation = (self.stride, self.stride), (self.dilation, self.dilation)
    if self.padding == 'SAME':
      padding = convolution.same_padding(x.shape[1:3], shape[:2], strides, dilation)
    else:
      padding = ((self.padding, self.padding),) * 2
    x = convolution.conv2d(
      x.astype(self.dtype), kernel.astype(self.dtype), strides, padding, dilation, self.groups
    )
    if self.bias:
      bias = self.param('bias', nn.initializers.zeros, (self.features,))
      x = x + bias.astype(self.dtype)[None, None, None]
    return x


class BatchNorm(nn.Module):
  """Batch normalisation as PyTorch's: biased variance to normalise, unbiased in the moved one.

  The statistics are float32 and span the whole batch given: under `jax.jit` with a sharded batch
  that is the global batch, whatever the number of devices; under `jax.pmap`, `axis_name` names the
  axis to average them over.
  """

  epsilon: float = 1e-5
  momentum: float = 0.1
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, batch_statistics: bool) -> jax.Array:
    """[..., C] -> [..., C]; moves the running statistics when 'batch_stats' is mutable."""
    channels = (x.shape[-1],)
    scale = self.param('scale', nn.initializers.ones, channels)
    bias = self.param('bias', nn.initializers.zeros, channels)
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, channels)
    running_var = self.variable('batch_stats', 'var', jnp.ones, channels)
    mean, var = running_mean.value, running_var.value
    axes = tuple(range(x.ndim - 1))
    if batch_statistics:
      mean = collectives.mean(jnp.mean(x, axes, dtype=jnp.float32), self.axis_name)
      squares = jnp.square(x.astype(jnp.float32) - jnp.expand_dims(mean, axes))
      var = collectives.mean(jnp.mean(squares, axes), self.axis_name)
      if self.is_mutable_collection('batch_stats') and not self.is_initializing():
        count = x.size // x.shape[-1] * collectives.devices(self.axis_name)
        self._move(running_mean, mean)
        self._move(running_var, var * (count / max(count - 1, 1)))
    factor = scale * jax.lax.rsqrt(var + self.epsilon)
    shift = (bias - mean * factor).astype(self.dtype)
    return x * jnp.expand_dims(factor.astype(self.dtype), axes) + jnp.expand_dims(shift, axes)

  def _move(self, running, value):
    running.value = (1 - self.momentum) * running.value + self.momentum * value


def conv_norm(
  x: jax.Array,
  features: int,
  size: int,
  names: tuple[str, str],
  *,
  batch_statistics: bool,
  axis_name: str | None,
  dtype: Any,
  relu: bool = True,
  **conv,
) -> jax.Array:
  """Convolution - BatchNorm - ReLU inside the calling module, the first two under these names.

  [B, H, W, I] -> [B, H', W', features]; `conv` are further attributes of `Conv`.
  """
  x = Conv(features, size, dtype=dtype, name=names[0], **conv)(x)
  x = BatchNorm(axis_name=axis_name, dtype=dtype, name=names[1])(x, batch_statistics)
  return nn.relu(x) if relu else x


def instance_norm(x: jax.Array, epsilon: float = 1e-5) -> jax.Array:
  """Each channel of each image [B, H, W, C] to mean 0 and variance 1 (biased), in float32."""
  wide = x.astype(jnp.float32)
  mean = jnp.mean(wide, (1, 2), keepdims=True)
  centred = wide - mean
  var = jnp.mean(jnp.square(centred), (1, 2), keepdims=True)
  return (centred * jax.lax.rsqrt(var + epsilon)).astype(x.dtype)


def channel_dropout(x: jax.Array, rate: float, keys: jax.Array) -> jax.Array:
  """Zeroes whole channels of [B, H, W, C] with probability `rate` and scales up the others.

  `keys` [B] holds one typed key per example, so that the draw does not depend on how the batch
  is spread over devices.
  """

  def draw(key):
    return jax.random.bernoulli(key, 1 - rate, (x.shape[-1],))

  keep = jax.vmap(draw)(keys)[:, None, None, :]
  return jnp.where(keep, x / (1 - rate), jnp.zeros_like(x))


def example_dropout(x: jax.Array, rate: float, keys: jax.Array) -> jax.Array:
  """Zeroes whole examples of [B, H, W, C] with probability `rate` and scales up the others.

  On the inside of a residual block: stochastic depth (arXiv 1603.09382). `keys` [B] as above.
  """
  keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate))(keys)[:, None, None, None]
  return jnp.where(keep, x / (1 - rate), jnp.zeros_like(x))


def folded(keys: jax.Array | None, number: int) -> jax.Array | None:
  """The examples' keys [B] for the `number`-th of several uses; no keys, no draws."""
  return None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, number)
