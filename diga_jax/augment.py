"""The photometric view of DiGA (arXiv 2304.02222): kornia 0.5.8's operations, keyed per image.

They are applied to normalised BGR values, as the published code does, although each operation
means RGB in [0, 1]: values lie in about [-1, 1], brightness and contrast clamp to [0, 1], and
channel order matters to grayscale. docs/diga.md section 5.

Images are float32 [B, H, W, 3]; a factor is one number or one per image, [B].
"""

import math

import jax
import jax.numpy as jnp

# (least, largest) factor of brightness, contrast, saturation, hue (parts of a turn) and sharpness.
RANGES = ((0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1), (0.0, 0.5))
_GRAY = (0.299, 0.587, 0.114)
_EPSILON = 1e-6  # kornia's, in the saturation; it shows where the value is near 0


def _per_image(factor: float | jax.Array, dimensions: int = 4) -> jax.Array:
  """A factor that broadcasts against images [B, H, W, 3] or one channel [B, H, W]."""
  return jnp.asarray(factor, jnp.float32).reshape((-1,) + (1,) * (dimensions - 1))


def brightness(image: jax.Array, factor: float | jax.Array) -> jax.Array:
  """Adds factor - 1 and clamps to [0, 1]."""
  return jnp.clip(image + (_per_image(factor) - 1), 0, 1)


def contrast(image: jax.Array, factor: float | jax.Array) -> jax.Array:
  """Multiplies by the factor and clamps to [0, 1]."""
  return jnp.clip(image * _per_image(factor), 0, 1)


def _to_hsv(image: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Hue in sixths of a turn (0..6), saturation and value, each [B, H, W].

  Saturation is negative or above 1 for values outside [0, 1].
  """
  first, second, third = image[..., 0], image[..., 1], image[..., 2]
  value = jnp.maximum(jnp.maximum(first, second), third)
  spread = value - jnp.minimum(jnp.minimum(first, second), third)
  per_spread = 1 / jnp.where(spread == 0, 1, spread)
  hue = jnp.where(
    value == first,
    (second - third) * per_spread,
    jnp.where(value == second, (third - first) * per_spread + 2, (first - second) * per_spread + 4),
  )
  return jnp.where(hue < 0, hue + 6, hue), spread / (value + _EPSILON), value


def _from_hsv(hue: jax.Array, saturation: jax.Array, value: jax.Array) -> jax.Array:
  """The inverse of `_to_hsv` for any hue within a turn of 0..6; not clamped."""
  chroma = value * saturation

  def channel(offset: int) -> jax.Array:
    # Distance along the colour wheel instead of six cases: nothing to gather, and it vectorises.
    position = hue + offset
    position = position - 6 * jnp.floor(position * (1 / 6))
    return value - chroma * jnp.clip(jnp.minimum(position, 4 - position), 0, 1)

  return jnp.stack([channel(5), channel(3), channel(1)], -1)


def saturation(image: jax.Array, factor: float | jax.Array) -> jax.Array:
  """Multiplies the saturation (HSV) by the factor and clamps it to [0, 1]."""
  hue, saturation_, value = _to_hsv(image)
  return _from_hsv(hue, jnp.clip(saturation_ * _per_image(factor, 3), 0, 1), value)


def hue(image: jax.Array, factor: float | jax.Array) -> jax.Array:
  """Turns the hue by the factor, in full turns (0.5 is the opposite colour)."""
  hue_, saturation_, value = _to_hsv(image)
  return _from_hsv(hue_ + 6 * _per_image(factor, 3), saturation_, value)


def grayscale(image: jax.Array) -> jax.Array:
  """0.299, 0.587, 0.114 of the channels in their order, on all three channels."""
  red, green, blue = (weight * image[..., i] for i, weight in enumerate(_GRAY))
  gray = red + green + blue
  return jnp.broadcast_to(gray[..., None], image.shape)


def _three_taps(image: jax.Array, side: float, middle: float) -> jax.Array:
  """A separable symmetric 3x3 filter; borders are reflected."""
  for axis in (1, 2):
    pads = [(1, 1) if i == axis else (0, 0) for i in range(image.ndim)]
    # Without the barrier XLA's CPU back end computes what made the image anew for every tap.
    padded = jax.lax.optimization_barrier(jnp.pad(image, pads, mode='reflect'))
    size = image.shape[axis]
    before = jax.lax.slice_in_dim(padded, 0, size, axis=axis)
    after = jax.lax.slice_in_dim(padded, 2, size + 2, axis=axis)
    image = middle * image + side * (before + after)
  return image


def blur(image: jax.Array, sigma: float = 2.0) -> jax.Array:
  """Gaussian blur 3x3; borders are reflected. sigma in pixels."""
  side = math.exp(-0.5 / sigma**2)
  total = 1 + 2 * side
  return _three_taps(image, side / total, 1 / total)


def sharpness(image: jax.Array, factor: float | jax.Array) -> jax.Array:
  """Blends with a smoothed copy: 0 gives that copy, 1 the image, above 1 sharpens (clamped).

  The copy is smoothed by [[1, 1, 1], [1, 5, 1], [1, 1, 1]] / 13 and clamped to [0, 1] inside;
  its one-pixel border is the image's, unclamped, as in PIL.
  """
  smooth = jnp.clip((_three_taps(image, 1, 1) + 4 * image) / 13, 0, 1)
  rows, columns = (jnp.pad(jnp.ones(n - 2, bool), 1) for n in image.shape[1:3])
  smooth = jnp.where((rows[:, None] & columns[None])[..., None], smooth, image)
  factor = _per_image(factor)
  blended = smooth + (image - smooth) * factor
  return jnp.where((factor >= 0) & (factor <= 1), blended, jnp.clip(blended, 0, 1))


def colour_jitter(image: jax.Array, factors: jax.Array, order: jax.Array) -> jax.Array:
  """Brightness, contrast, saturation and hue in the given order.

  Args:
    image: float32 [B, H, W, 3].
    factors: float32 [B, 4], in the order of the line above.
    order: integer [4], a permutation of 0..3; may be traced.
  """
  operations = (brightness, contrast, saturation, hue)
  branches = [lambda x, f, i=i, op=op: op(x, f[:, i]) for i, op in enumerate(operations)]
  for position in range(len(operations)):
    image = jax.lax.switch(order[position], branches, image, factors)
  return image


def _augment(
  draws: jax.Array, image: jax.Array, probabilities: tuple[float, ...], order: jax.Array
) -> jax.Array:
  """aug(x): jitter, grayscale, blur, sharpness, each for the images it was drawn for."""
  ranges = jnp.asarray(RANGES)
  low, high = ranges[None, :, 0], ranges[None, :, 1]
  factors = low + draws[:, 4:] * (high - low)
  chosen = [draws[:, i, None, None, None] < p for i, p in enumerate(probabilities)]
  image = jnp.where(chosen[0], colour_jitter(image, factors[:, :4], order), image)
  image = jnp.where(chosen[1], grayscale(image), image)
  image = jnp.where(chosen[2], blur(image), image)
  return jnp.where(chosen[3], sharpness(image, factors[:, 4]), image)


def photometric_view(
  keys: jax.Array,
  images: jax.Array,
  *,
  jitter: float = 0.5,
  grayscale: float = 0.3,
  blur: float = 0.8,
  sharpness: float = 0.3,
  beta: float = 0.4,
  order_key: jax.Array,
) -> jax.Array:
  """x_aug = beta * (aug(x) - 0.5) / 0.5 + (1 - beta) * x, float32, with aug drawn per image.

  The order of the four jitter operations is one per batch, a quirk of the published code (its
  factors are per image): it comes from `order_key`, which must depend on seed and step only, so
  that an example's view does not depend on the number of devices.

  Args:
    keys: typed keys [B], one per image; they decide which operations and with which factors.
    images: normalised float32 [B, H, W, 3].
    jitter, grayscale, blur, sharpness: probability of each operation.
    beta: weight of the augmented image.
    order_key: one typed key.
  """
  draws = jax.vmap(lambda key: jax.random.uniform(key, (9,)))(keys)
  order = jax.random.permutation(order_key, 4)
  view = _augment(draws, images, (jitter, grayscale, blur, sharpness), order)
  return beta * (view - 0.5) / 0.5 + (1 - beta) * images
