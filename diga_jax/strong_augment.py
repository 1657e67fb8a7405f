"""HIAST's strong view (arXiv 2302.06992): a few of eight colour operations, in a drawn order.

The operations are those of the published code's library (albumentations on OpenCV), on bytes: what
it does by a table of 256 truncates, the rest rounds. docs/hiast.md.

Images are float32 RGB [B, H, W, 3] of whole numbers 0..255; a factor is one number per image, [B].
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

_LARGEST = 41  # pixels, the largest kernel of the blur


def _rounded(x: jax.Array) -> jax.Array:
  return jnp.round(jnp.clip(x, 0, 255))


def _truncated(x: jax.Array) -> jax.Array:
  return jnp.floor(jnp.clip(x, 0, 255))


def _per_image(factor: jax.Array, dimensions: int = 4) -> jax.Array:
  return factor.reshape(-1, *(1,) * (dimensions - 1))


def gray(image: jax.Array) -> jax.Array:
  """OpenCV's grey value, 0.299 R + 0.587 G + 0.114 B in 15 bits: [B, H, W, 1]."""
  red, green, blue = jnp.unstack(image, axis=-1)
  return jnp.floor((9798 * red + 19235 * green + 3735 * blue) / 2**15 + 0.5)[..., None]


def to_gray(image: jax.Array) -> jax.Array:
  """The grey value on all channels."""
  return jnp.broadcast_to(gray(image), image.shape)


def jitter_brightness(image: jax.Array, factor: jax.Array) -> jax.Array:
  """Multiplies by the factor, as `contrast` does."""
  return _truncated(image * _per_image(factor))


def jitter_contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
  """Blends with the mean grey value, of which there is 1 - factor."""
  factor = _per_image(factor)
  mean = jnp.mean(gray(image), (1, 2, 3), keepdims=True)
  return _truncated(image * factor + mean * (1 - factor))


def jitter_saturation(image: jax.Array, factor: jax.Array) -> jax.Array:
  """Blends with the grey image, of which there is 1 - factor."""
  factor = _per_image(factor)
  return _rounded(image * factor + gray(image) * (1 - factor))


def jitter_hue(image: jax.Array, turn: jax.Array) -> jax.Array:
  """Turns the hue by parts of a full turn, in OpenCV's 8-bit HSV: hues are 0..179.

  Back to RGB everything truncates, as OpenCV's vector instructions do; what is left of a row whose
  width is no multiple of 32 it rounds.
  """
  red, green, blue = jnp.unstack(image, axis=-1)
  value = jnp.maximum(jnp.maximum(red, green), blue)
  spread = value - jnp.minimum(jnp.minimum(red, green), blue)

  def divide(x: jax.Array, whole: int, by: jax.Array) -> jax.Array:
    return jnp.floor(x * jnp.round(whole * 4096 / jnp.maximum(by, 1)) / 4096 + 0.5)

  saturation = divide(spread, 255, value)
  rest = jnp.where(value == green, blue - red + 2 * spread, red - green + 4 * spread)
  hue = divide(jnp.where(value == red, green - blue, rest), 30, spread)
  hue = jnp.floor((hue + 180 * _per_image(turn, 3)) % 180)

  def channel(offset: int) -> jax.Array:
    position = (hue / 30 + offset) % 6
    share = jnp.clip(jnp.minimum(position, 4 - position), 0, 1)
    return _truncated(value * (1 - saturation / 255 * share))

  return jnp.stack([channel(5), channel(3), channel(1)], -1)


def _gaussian(radius: int) -> np.ndarray:
  """OpenCV's 8-bit kernel by distance from its middle, in 256ths: whole numbers [21]."""
  tabulated = {1: (128, 64), 2: (96, 64, 16), 3: (72, 56, 28, 8), 4: (60, 51, 30, 13, 4)}
  taps, error = np.zeros(_LARGEST // 2 + 1), 0.0
  if radius in tabulated:
    taps[: radius + 1] = tabulated[radius]
    return taps
  exact = np.exp(-0.5 * (np.arange(radius + 1) / (0.3 * (radius - 1) + 0.8)) ** 2)
  exact *= 256 / (2 * exact.sum() - 1)
  for distance in range(radius, 0, -1):  # from the outside, each taking the rounding of the last
    taps[distance] = np.rint(exact[distance] + error)
    error += exact[distance] - taps[distance]
  taps[0] = 256 - 2 * taps.sum()
  return taps


def blur(image: jax.Array, kernel: jax.Array) -> jax.Array:
  """Gaussian blur, borders reflected, with OpenCV's 8-bit kernels: bit for bit.

  A kernel has `kernel` pixels, 3 to 41, one more if that is even; its deviation follows from it.
  An image has more pixels a side than half of that.
  """
  radius = jnp.floor(kernel / 2).astype(jnp.int32)
  table = np.stack([_gaussian(max(r, 1)) for r in range(_LARGEST // 2 + 1)]) / 256
  taps = jnp.asarray(table, jnp.float32)[radius][:, None, None]

  def weights(size: int) -> jax.Array:
    # A matrix [B, size, size] instead of taps: each image has its own kernel, in one product.
    out, into = jnp.arange(size)[:, None, None], jnp.arange(size)[None, :, None]
    reach = jnp.arange(_LARGEST // 2 + 1)[None, None]
    before = (out + into == reach) & (into > 0)
    after = (2 * (size - 1) - out - into == reach) & (into < size - 1)
    times = (jnp.abs(out - into) == reach).astype(jnp.float32) + before + after
    return jnp.sum(times[None] * taps, -1)

  product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
  image = product('bij,bjwc->biwc', weights(image.shape[1]), image)
  return jnp.floor(product('bij,bhjc->bhic', weights(image.shape[2]), image) + 0.5)


def contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
  """Multiplies by the factor."""
  return _truncated(image * _per_image(factor))


def brightness(image: jax.Array, shift: jax.Array) -> jax.Array:
  """Adds a share of 255."""
  return _truncated(image + 255 * _per_image(shift))


def posterize(image: jax.Array) -> jax.Array:
  """Keeps the upper four bits of each byte."""
  return 16 * jnp.floor(image / 16)


def equalize(image: jax.Array) -> jax.Array:
  """Spreads each channel's values so that all are as frequent; one of a single value stays."""
  batch, height, width, channels = image.shape
  values = jnp.moveaxis(image, -1, 1).reshape(batch, channels, -1).astype(jnp.int32)
  # Counting and looking up by halves of a byte are matrix products, which every device is good at.
  upper, lower = (jax.nn.one_hot(half, 16) for half in (values // 16, values % 16))
  counts = jnp.einsum('bcpu,bcpl->bcul', upper, lower, precision='highest').reshape(
    batch, channels, 256
  )
  reached = jnp.cumsum(counts, -1)
  # The darkest value that occurs maps to 0.
  darkest = jnp.min(jnp.where(counts > 0, reached, jnp.inf), -1, keepdims=True)
  rest = height * width - darkest
  table = _rounded((reached - darkest) * 255 / jnp.maximum(rest, 1))
  table = jnp.where(rest > 0, table, jnp.arange(256.0)).reshape(batch, channels, 16, 16)
  rows = jnp.einsum('bcpu,bcul->bcpl', upper, table, precision='highest')
  found = jnp.sum(rows * lower, -1).reshape(batch, channels, height, width)
  return jnp.moveaxis(found, 1, -1)


def solarize(image: jax.Array) -> jax.Array:
  """Inverts the values from 128 on."""
  return jnp.where(image >= 128, 255 - image, image)


# name -> ((image, factor) -> image, and the range of the factor). The first four are the parts of
# one operation, the colour jitter: applied one after the other, in an order of their own.
JITTER = 4
OPERATIONS = {
  'jitter_brightness': (jitter_brightness, 0.8, 1.2),
  'jitter_contrast': (jitter_contrast, 0.8, 1.2),
  'jitter_saturation': (jitter_saturation, 0.8, 1.2),
  'jitter_hue': (jitter_hue, -0.2, 0.2),
  'blur': (blur, 3, 42),  # a whole number below 42: the kernel 3 comes half as often as others
  'contrast': (contrast, 1, 4),
  'brightness': (brightness, -0.5, 0.5),
  'posterize': (lambda image, _: posterize(image), 0, 0),
  'equalize': (lambda image, _: equalize(image), 0, 0),
  'solarize': (lambda image, _: solarize(image), 0, 0),
  'to_gray': (lambda image, _: to_gray(image), 0, 0),
}
CHOICES = len(OPERATIONS) - JITTER + 1  # what is chosen among, the jitter as one
NOTHING = len(OPERATIONS)


def draw_operations(key: jax.Array, count: int, probability: float) -> jax.Array:
  """Which operations an image gets, in order: `count` are chosen, each applied with a probability.

  Returns:
    int32 [4 * count], positions in `OPERATIONS`, or `NOTHING`: four for each that is chosen.
  """
  chosen, happens, parts = jax.random.split(key, 3)
  # 0 is the jitter, then come the others.
  choice = jax.random.permutation(chosen, CHOICES)[:count, None]
  other = jnp.where(jnp.arange(JITTER)[None] == 0, choice + JITTER - 1, NOTHING)
  each = jnp.where(choice == 0, jax.random.permutation(parts, JITTER)[None], other)
  applied = jax.random.bernoulli(happens, probability, choice.shape)
  return jnp.where(applied, each, NOTHING).ravel()


def apply_in_order(images: jax.Array, order: jax.Array, factors: jax.Array) -> jax.Array:
  """Images [B, H, W, 3] after the operations of each, one after the other.

  An operation is computed for the whole batch or, where no image has it at that place, not at all.

  Args:
    order: integer [B, N], for each image positions in `OPERATIONS`, or `NOTHING`.
    factors: float32 [B, 11], of each operation.
  """
  wanted = jax.nn.one_hot(order.T, len(OPERATIONS), dtype=bool)  # [N, B, 11]
  occurs = jnp.any(wanted, 1)

  def apply(place: int, image: jax.Array) -> jax.Array:
    for i, (operation, *_) in enumerate(OPERATIONS.values()):
      image = jax.lax.cond(
        occurs[place, i],
        lambda x, i=i, of=operation: jnp.where(
          _per_image(wanted[place, :, i]), of(x, factors[:, i]), x
        ),
        lambda x: x,
        image,
      )
    return image

  return jax.lax.fori_loop(0, order.shape[1], apply, images)


def strong_view(
  keys: jax.Array, images: jax.Array, *, count: int = 3, probability: float = 0.5
) -> jax.Array:
  """The strong view of uint8 RGB images [B, H, W, 3]: float32 RGB, whole numbers 0..255.

  Args:
    keys: typed keys [B], one per image.
    images: uint8, or float32 of whole numbers.
    count: operations chosen for an image, without replacement; 0 leaves it alone.
    probability: that a chosen one is applied.
  """
  image = images.astype(jnp.float32)
  if not count:
    return image
  pairs = jax.vmap(jax.random.split)(keys)
  low, high = jnp.array([ends for _, *ends in OPERATIONS.values()]).T[:, None]
  factors = jax.vmap(lambda key: jax.random.uniform(key, (len(OPERATIONS),)))(pairs[:, 0])
  order = jax.vmap(lambda key: draw_operations(key, count, probability))(pairs[:, 1])
  return apply_in_order(image, order, low + (high - low) * factors)
