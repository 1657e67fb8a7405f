"""HIAST's strong view (arXiv 2302.06992): a few of eight colour operations, drawn per image.

The operations are those of the published code's library (albumentations), on pixel values 0..255,
rounded after each as bytes are. Published, those drawn are applied in random order; here they are
applied in the order of `OPERATIONS`, so that one program serves every image. docs/method.md
section 10.

Images are float32 RGB [B, H, W, 3]; a factor is one number per image, [B].
"""

import functools

import jax
import jax.numpy as jnp

from diga_jax import augment


def _bytes(x: jax.Array) -> jax.Array:
  return jnp.round(jnp.clip(x, 0, 255))


def to_gray(image: jax.Array) -> jax.Array:
  """0.299 R + 0.587 G + 0.114 B on all channels."""
  return _bytes(augment.grayscale(image))


def colour_jitter(image: jax.Array, factors: jax.Array) -> jax.Array:
  """Brightness, contrast, saturation (each a blend with black, the mean grey or grey) and hue.

  Args:
    factors: [B, 4]: three factors about 1, then parts of a full turn.
  """
  bright, contrast, saturation, hue = jnp.unstack(factors[:, None, None, None], axis=-1)
  image = _bytes(image * bright)
  mean = jnp.mean(to_gray(image), (1, 2, 3), keepdims=True)
  image = _bytes(mean + (image - mean) * contrast)
  gray = to_gray(image)
  image = _bytes(gray + (image - gray) * saturation)
  return _bytes(255 * augment.hue(image / 255, hue))


def blur(image: jax.Array, radius: jax.Array) -> jax.Array:
  """Gaussian blur with a kernel of 2 * radius + 1 pixels (1 to 20) per image; borders reflected.

  Its deviation follows from the kernel as OpenCV has it: 0.3 * (radius - 1) + 0.8.
  """

  def weights(size: int) -> jax.Array:
    # A matrix [B, size, size] instead of taps: each image has its own kernel, in one product.
    out, into = jnp.arange(size)[None, :, None], jnp.arange(size)[None, None]
    reach = radius[:, None, None]

    def tap(distance: jax.Array) -> jax.Array:
      sigma = 0.3 * (reach - 1) + 0.8
      return jnp.where(jnp.abs(distance) <= reach, jnp.exp(-0.5 * (distance / sigma) ** 2), 0.0)

    reflected = tap(out + into) * (into > 0) + tap(2 * (size - 1) - out - into) * (into < size - 1)
    matrix = tap(out - into) + reflected
    return matrix / jnp.sum(matrix, -1, keepdims=True)

  product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
  image = product('bij,bjwc->biwc', weights(image.shape[1]), image)
  return _bytes(product('bij,bhjc->bhic', weights(image.shape[2]), image))


def contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
  """Multiplies by the factor."""
  return _bytes(image * factor[:, None, None, None])


def brightness(image: jax.Array, shift: jax.Array) -> jax.Array:
  """Adds a share of 255."""
  return _bytes(image + 255 * shift[:, None, None, None])


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
  table = _bytes((reached - darkest) * 255 / jnp.maximum(rest, 1))
  table = jnp.where(rest > 0, table, jnp.arange(256.0)).reshape(batch, channels, 16, 16)
  rows = jnp.einsum('bcpu,bcul->bcpl', upper, table, precision='highest')
  found = jnp.sum(rows * lower, -1).reshape(batch, channels, height, width)
  return jnp.moveaxis(found, 1, -1)


def solarize(image: jax.Array) -> jax.Array:
  """Inverts the values from 128 on."""
  return jnp.where(image >= 128, 255 - image, image)


def _between(draws: jax.Array, low: float, high: float) -> jax.Array:
  return low + (high - low) * draws


# (image, uniform draws [B, 6]) -> image, in the order of application.
OPERATIONS = {
  'colour_jitter': lambda x, u: colour_jitter(
    x, jnp.concatenate([_between(u[:, :3], 0.8, 1.2), _between(u[:, 3:4], -0.2, 0.2)], 1)
  ),
  'blur': lambda x, u: blur(x, 1 + jnp.floor(u[:, 4] * 20)),  # kernels of 3 to 41 pixels
  'contrast': lambda x, u: contrast(x, _between(u[:, 5], 1, 4)),
  'brightness': lambda x, u: brightness(x, _between(u[:, 5], -0.5, 0.5)),
  'posterize': lambda x, u: posterize(x),
  'equalize': lambda x, u: equalize(x),
  'solarize': lambda x, u: solarize(x),
  'to_gray': lambda x, u: to_gray(x),
}


def draw_operations(key: jax.Array, count: int, probability: float) -> jax.Array:
  """Which operations an image gets, bool [8]: `count`, each applied with a probability."""
  chosen, happens = jax.random.split(key)
  rank = jax.random.permutation(chosen, len(OPERATIONS))
  return (rank < count) & jax.random.bernoulli(happens, probability, rank.shape)


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
  pairs = jax.vmap(jax.random.split)(keys)
  draws = jax.vmap(lambda key: jax.random.uniform(key, (len(OPERATIONS), 6)))(pairs[:, 0])
  which = jax.vmap(lambda key: draw_operations(key, count, probability))(pairs[:, 1])
  image = images.astype(jnp.float32)
  for i, operation in enumerate(OPERATIONS.values()):
    image = jnp.where(which[:, i, None, None, None], operation(image, draws[:, i]), image)
  return image
