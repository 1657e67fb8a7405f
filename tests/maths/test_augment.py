import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diga_jax import augment

FACTORED = ('brightness', 'contrast', 'saturation', 'hue', 'sharpness')
JITTER = jax.jit(augment.colour_jitter)
OFF = {'jitter': 0.0, 'grayscale': 0.0, 'blur': 0.0, 'sharpness': 0.0}


def close(got, want, tolerance=1e-5):
  want = np.asarray(want, np.float64)
  np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max())


def images(seed, count=4, low=-1.0, high=1.0):
  values = np.random.default_rng(seed).uniform(low, high, (count, 17, 23, 3))
  return values.astype(np.float32)


def keys_of(seed, count=4):
  return jax.random.split(jax.random.key(seed), count)


# Probabilities and beta are traced here, so that the tests compile the view once for each shape.
VIEW = jax.jit(lambda keys, x, order, o: augment.photometric_view(keys, x, order_key=order, **o))
DEFAULTS = {'jitter': 0.5, 'grayscale': 0.3, 'blur': 0.8, 'sharpness': 0.3, 'beta': 0.4}


def view(seed, x, order=0, **options):
  keys = keys_of(seed, len(x))
  return np.asarray(VIEW(keys, x, jax.random.key(order), DEFAULTS | options))


@pytest.mark.parametrize('name', FACTORED)
def test_operations_are_the_published_ones(golden, name):
  z = golden('augment')
  close(getattr(augment, name)(z['image'], z[f'{name}_factor']), z[name])


def test_operations_without_a_factor_are_the_published_ones(golden):
  z = golden('augment')
  close(augment.grayscale(z['image']), z['gray'])
  close(augment.blur(z['image'], sigma=2.0), z['blur'])


def test_jitter_and_blend_are_the_published_ones(golden):
  z = golden('augment')
  factors = jnp.stack([jnp.asarray(z[f'{name}_factor']) for name in FACTORED[:4]], 1)
  jittered = JITTER(z['image'], factors, jnp.arange(4))
  close(jittered, z['jitter_bcsh'])
  close(0.4 * (jittered - 0.5) / 0.5 + 0.6 * z['image'], z['blend_0.4'])


@given(st.permutations(range(4)), st.integers(0, 1000))
@settings(max_examples=6, deadline=None)
def test_jitter_follows_its_order(order, seed):
  x = images(seed)
  factors = np.random.default_rng(seed).uniform(0.5, 1.5, (4, 4)).astype(np.float32)
  want = x
  for i in order:
    want = getattr(augment, FACTORED[i])(want, factors[:, i])
  close(JITTER(x, factors, jnp.asarray(order)), want)


@given(st.integers(0, 2**31), st.floats(-0.5, 0.5), st.floats(0, 1.3))
@settings(max_examples=10, deadline=None)
def test_inside_the_unit_range_hsv_is_the_textbook_one(seed, turn, factor):
  x = images(seed, 1, 0.05, 1.0)
  turned, saturated = np.array(augment.hue(x, turn)), np.array(augment.saturation(x, factor))
  for row, column in ((0, 0), (5, 7), (16, 22)):
    h, s, v = colorsys.rgb_to_hsv(*x[0, row, column].tolist())
    close(turned[0, row, column], colorsys.hsv_to_rgb((h + turn) % 1, s, v), 5e-4)
    want = colorsys.hsv_to_rgb(h, min(max(s * factor, 0), 1), v)
    close(saturated[0, row, column], want, 5e-4)


def test_neutral_factors():
  x = images(0)
  close(augment.sharpness(x, 1.0), x)
  x[..., 1] = np.abs(x[..., 1]) + 0.1  # an epsilon beside the largest channel is part of hue
  close(augment.hue(x, 0.0), x, 1e-4)
  inside = images(1, low=0.1)
  for name in ('brightness', 'contrast', 'saturation'):
    close(getattr(augment, name)(inside, 1.0), inside, 1e-4)


def test_gray_pixels_have_no_hue_to_turn():
  gray = np.repeat(images(3)[..., :1], 3, -1)
  assert np.isfinite(augment.hue(gray, 0.3)).all()
  close(augment.hue(gray, 0.3), gray)


def test_blur_keeps_constants_and_reflects_borders():
  close(augment.blur(np.full((1, 5, 6, 3), 0.3, np.float32)), np.full((1, 5, 6, 3), 0.3))
  x = np.zeros((1, 4, 5, 3), np.float32)
  x[:, 1] = 1.0  # the row above the border counts twice for the border
  side = np.exp(-1 / 8) / (1 + 2 * np.exp(-1 / 8))
  close(augment.blur(x)[0, :, 2, 0], [2 * side, 1 - 2 * side, side, 0])


def test_sharpness_leaves_the_border_and_clamps_above_one():
  x = images(2)
  soft, sharp = np.array(augment.sharpness(x, 0.0)), np.array(augment.sharpness(x, 3.0))
  np.testing.assert_array_equal(soft[:, 0], x[:, 0])
  np.testing.assert_array_equal(soft[:, :, -1], x[:, :, -1])
  assert soft[:, 1:-1, 1:-1].min() >= 0 and soft[:, 1:-1, 1:-1].max() <= 1
  assert sharp.min() == 0 and sharp.max() == 1


@pytest.mark.parametrize('name', FACTORED)
def test_one_factor_serves_all_images(name):
  x, operation = images(4), getattr(augment, name)
  np.testing.assert_array_equal(operation(x, 0.3), operation(x, np.full(4, 0.3)))


def test_with_every_probability_zero_only_the_blend_remains():
  x = images(5)
  close(view(0, x, beta=0.4, **OFF), 0.4 * (x - 0.5) / 0.5 + 0.6 * x)
  close(view(0, x, beta=0.0), x)


@pytest.mark.parametrize('name', ['grayscale', 'blur'])
def test_a_sure_operation_is_applied_to_every_image(name):
  x = images(6)
  want = 0.3 * (getattr(augment, name)(x) - 0.5) / 0.5 + 0.7 * x
  close(view(0, x, beta=0.3, **OFF | {name: 1.0}), want)


@pytest.mark.parametrize('name', OFF)
def test_operations_happen_as_often_as_asked(name):
  x = np.repeat(images(7, 1)[:, :5, :5], 2000, 0)
  plain = view(0, x[:1], **OFF)
  changed = np.abs(view(1, x, **OFF | {name: 0.3}) - plain).max((1, 2, 3)) > 1e-3
  assert 0.26 < changed.mean() < 0.34


def test_factors_cover_their_ranges(monkeypatch):
  seen = {}

  def jitter(x, factors, order):
    seen['jitter'] = np.asarray(factors)
    assert sorted(np.asarray(order).tolist()) == [0, 1, 2, 3]
    return x + 1

  def sharpness(x, factor):
    seen['sharpness'] = np.asarray(factor)[:, None]
    return x

  monkeypatch.setattr(augment, 'colour_jitter', jitter)
  monkeypatch.setattr(augment, 'sharpness', sharpness)
  x = np.zeros((3000, 3, 3, 3), np.float32)
  off = OFF | {'jitter': 0.5}
  got = augment.photometric_view(keys_of(2, 3000), x, order_key=jax.random.key(0), **off)
  factors = np.concatenate([seen['jitter'], seen['sharpness']], 1)
  ranges = np.array([(0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1), (0.0, 0.5)])
  width = ranges[:, 1] - ranges[:, 0]
  assert (factors >= ranges[:, 0]).all() and (factors <= ranges[:, 1]).all()
  assert (factors.min(0) < ranges[:, 0] + 0.01 * width).all()
  assert (factors.max(0) > ranges[:, 1] - 0.01 * width).all()
  # Drawn independently of each other and of whether they are used.
  chosen = np.asarray(got)[:, 0, 0, 0] > 0
  together = np.corrcoef(np.concatenate([factors, chosen[:, None]], 1).T)
  assert np.abs(together - np.eye(6)).max() < 0.08


def test_the_view_belongs_to_the_example():
  x = images(8)
  keys, order = keys_of(3), jax.random.key(9)
  with jax.debug_key_reuse(False):  # the same keys on purpose
    whole = VIEW(keys, x, order, DEFAULTS)
    for i in range(4):
      close(VIEW(keys[i : i + 1], x[i : i + 1], order, DEFAULTS)[0], whole[i], 1e-6)


def test_the_order_is_drawn_from_its_own_key():
  x = images(9)
  views = [view(0, x, order, **OFF | {'jitter': 1.0}) for order in range(6)]
  assert len({v.tobytes() for v in views}) > 2
  np.testing.assert_array_equal(views[0], view(0, x, 0, **OFF | {'jitter': 1.0}))


def test_the_view_compiles_once_for_all_orders():
  traced = jax.jit(lambda k, x, o: augment.photometric_view(k, x, order_key=o))
  x = images(10)
  for order in range(3):
    close(traced(keys_of(0), x, jax.random.key(order)), view(0, x, order))
  assert traced._cache_size() == 1
