"""The strong view's operations against NumPy and Pillow, and how they are drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageOps

from diga_jax import strong_augment
from diga_jax.parallel.mesh import AXIS, make_mesh


def noise(batch=2, height=24, width=30, seed=0):
  rng = np.random.default_rng(seed)
  return np.clip(rng.normal(120, 50, (batch, height, width, 3)), 0, 255).astype(np.uint8)


def run(operation, images, *factors):
  return np.asarray(operation(jnp.asarray(images, jnp.float32), *map(jnp.float32, factors)))


def pillow(images, operation):
  return np.stack([np.asarray(operation(Image.fromarray(image))) for image in images])


@pytest.mark.parametrize(
  ('mine', 'theirs'),
  [
    (strong_augment.posterize, lambda image: ImageOps.posterize(image, 4)),
    (strong_augment.solarize, lambda image: ImageOps.solarize(image, 128)),
  ],
)
def test_bit_operations_are_pillows(mine, theirs):
  images = noise()
  np.testing.assert_array_equal(run(mine, images), pillow(images, theirs))


def test_gray_is_pillows_to_rounding():
  images = noise()
  want = pillow(images, lambda image: image.convert('L').convert('RGB'))
  assert np.abs(run(strong_augment.to_gray, images) - want).max() <= 1


def test_half_a_turn_of_the_hue_swaps_red_and_cyan():
  red = np.full((1, 2, 2, 3), (200, 20, 20), np.uint8)
  turned = run(strong_augment.jitter_hue, red, [0.5])
  np.testing.assert_allclose(turned[0, 0, 0], (20, 200, 200), atol=1)


def test_equalize_is_the_published_librarys():
  images = noise()
  images[1, :, :, 2] = 77  # a channel with a single value stays

  def table(channel):
    counts = np.bincount(channel.ravel(), minlength=256)
    first = np.flatnonzero(counts)[0]
    if counts[first] == channel.size:
      return channel
    scale = 255 / (channel.size - counts[first])
    found = np.round((np.cumsum(counts) - counts[first]) * np.float32(scale))
    return np.clip(found, 0, 255)[channel]

  want = np.stack([np.stack([table(c) for c in np.moveaxis(x, -1, 0)], -1) for x in images])
  np.testing.assert_allclose(run(strong_augment.equalize, images), want, atol=1)


@pytest.mark.parametrize('kernel', [3, 9, 41])
def test_blur_is_a_reflected_gaussian_of_each_image(kernel):
  images, radius = noise(2), kernel // 2
  half = strong_augment._gaussian(radius)[: radius + 1]
  exact = np.exp(-0.5 * (np.arange(radius + 1) / (0.3 * (radius - 1) + 0.8)) ** 2)
  np.testing.assert_allclose(half / 256, exact / (2 * exact.sum() - 1), atol=0.025)
  taps = np.concatenate([half[:0:-1], half]) / 256
  assert taps.sum() == 1
  want = np.pad(images, ((0, 0), (radius, radius), (radius, radius), (0, 0)), mode='reflect')
  for axis in (1, 2):
    want = np.apply_along_axis(np.convolve, axis, want.astype(float), taps, mode='valid')
  found = run(strong_augment.blur, images, [kernel, kernel])
  np.testing.assert_array_equal(found, np.floor(want + 0.5))
  other = run(strong_augment.blur, images, [kernel - 1, 3])  # an even one is one larger
  np.testing.assert_array_equal(
    other[0], run(strong_augment.blur, images, [max(kernel - 1, 3)] * 2)[0]
  )


def test_contrast_and_brightness_clip():
  image = np.array([[[[0, 100, 200]]]])
  np.testing.assert_array_equal(run(strong_augment.contrast, image, [2.0])[0, 0, 0], [0, 200, 255])
  np.testing.assert_array_equal(run(strong_augment.brightness, image, [-0.5])[0, 0, 0], [0, 0, 72])


@jax.debug_key_reuse(False)  # on purpose
def test_views_belong_to_the_example_and_not_to_the_device():
  images = noise(8, 48, 64)
  keys = jax.random.split(jax.random.key(1), 8)
  view = jax.jit(strong_augment.strong_view)
  whole = np.asarray(view(keys, images))
  assert whole.min() >= 0 and whole.max() <= 255
  np.testing.assert_array_equal(whole, np.round(whole))
  changed = [i for i in range(8) if (whole[i] != images[i]).any()]
  assert len(changed) >= 4
  np.testing.assert_allclose(view(keys[3:5], images[3:5]), whole[3:5], atol=1)
  rows = jax.sharding.NamedSharding(make_mesh(4), jax.sharding.PartitionSpec(AXIS))
  spread = view(jax.device_put(keys, rows), jax.device_put(images, rows))
  np.testing.assert_allclose(spread, whole, atol=1)
  np.testing.assert_array_equal(strong_augment.strong_view(keys, images, count=0), images)
