"""HIAST's strong view against what the published code computes, and how it is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diga_jax import strong_augment

NAMES = list(strong_augment.OPERATIONS)
PARTS = {letter: f'jitter_{name}' for letter, name in zip(
  'bcsh', ('brightness', 'contrast', 'saturation', 'hue'), strict=True
)}  # fmt: skip
# OpenCV's vector instructions take 32 pixels of a row at a time; in what is left of its 80 it
# rounds the turned hue instead of truncating it. At published widths nothing is left.
VECTOR = 64
apply = jax.jit(strong_augment.apply_in_order)


@pytest.fixture
def wanted(golden):
  return golden('hiast_strong_view')


def run(images, names, **factors):
  """The operations of these names, in order, with factors by name."""
  order = [NAMES.index(name) for name in names]
  order += [strong_augment.NOTHING] * (4 - len(order))
  values = np.zeros(len(NAMES), np.float32)
  for name, factor in factors.items():
    values[NAMES.index(name)] = factor
  found = apply(
    jnp.asarray(images, jnp.float32),
    jnp.asarray([order] * len(images)),
    jnp.asarray([values] * len(images)),
  )
  return np.asarray(found)


def errors(found, wanted):
  """(the largest difference in levels, the share of values that differ)."""
  error = np.abs(found - wanted.astype(int))
  return error.max(), np.mean(error > 0)


def jitter(wanted, which):
  """The factors of the jitter's parts by name."""
  own, hue = wanted['jitter_factors'], np.float32(wanted['jitter_hues'][which])
  if which == 0:
    # -0.15 turns by -27 hues exactly: the float32 beside it that does not fall below.
    hue = np.nextafter(hue, np.float32(0))
  factors = {'brightness': own[which], 'contrast': own[1 - which], 'saturation': own[which]}
  return {f'jitter_{name}': factor for name, factor in (factors | {'hue': hue}).items()}


def undecided(wanted, images, which):
  """Where the brightness makes a whole number, which the rounding of a double may not reach."""
  product = images * wanted['jitter_factors'][which]
  return np.abs(product - np.round(product)) < 1e-4


@pytest.mark.parametrize('which', [0, 1])
def test_the_jitters_parts(wanted, which):
  images, factors = wanted['image'], jitter(wanted, which)
  found = run(images, ['jitter_brightness'], **factors)
  clear = ~undecided(wanted, images, which)
  np.testing.assert_array_equal(found[clear], wanted[f'jitter_brightness_{which}'][clear])
  assert clear.mean() > 0.9
  # The file's own contrast is by the factor of its number, the orders' by the other.
  own = factors | {'jitter_contrast': wanted['jitter_factors'][which]}
  found = run(images, ['jitter_contrast'], **own)
  np.testing.assert_array_equal(found, wanted[f'jitter_contrast_{which}'])
  found = run(images, ['jitter_saturation'], **factors)
  largest, share = errors(found, wanted[f'jitter_saturation_{which}'])
  assert largest <= 1 and share <= 0.01
  found, hue = run(images, ['jitter_hue'], **factors), wanted[f'jitter_hue_{which}']
  assert errors(found, hue)[0] <= 1
  assert errors(found[:, :, :VECTOR], hue[:, :, :VECTOR])[1] <= 0.01


@pytest.mark.parametrize('which', [0, 1])
@pytest.mark.parametrize('order', ['bcsh', 'hscb'])
def test_the_jitters_orders(wanted, which, order):
  names, factors = [PARTS[part] for part in order], jitter(wanted, which)
  found, published = run(wanted['image'], names, **factors), wanted[f'jitter_{order}_{which}']
  assert errors(found, published)[0] <= 10
  if order == 'bcsh':
    assert errors(found[:, :, :VECTOR], published[:, :, :VECTOR])[1] <= 0.03
    return
  # The mean grey value of the contrast depends on all columns: those beside the vectors as given.
  images = run(wanted['image'], names[:1], **factors).copy()
  images[:, :, VECTOR:] = wanted[f'jitter_hue_{which}'][:, :, VECTOR:]
  before = run(images, names[1:3], **factors)
  clear = ~undecided(wanted, before, which)
  assert errors(run(before, names[3:], **factors)[clear], published[clear])[1] <= 0.03


def test_the_other_operations(wanted):
  images = wanted['image']
  for kernel in wanted['blur_kernels']:
    np.testing.assert_array_equal(run(images, ['blur'], blur=kernel), wanted[f'blur_{kernel}'])
  for name, field in (('contrast', 'contrast_alpha'), ('brightness', 'brightness_beta')):
    for i, factor in enumerate(wanted[field]):
      found = run(images, [name], **{name: factor})
      np.testing.assert_array_equal(found, wanted[f'{name}_{i}'])
  for name in ('posterize', 'equalize', 'solarize', 'to_gray'):
    published = wanted[name.removeprefix('to_')]
    np.testing.assert_array_equal(run(images, [name]), published, err_msg=name)
  found = run(wanted['one_value'], ['equalize'])
  np.testing.assert_array_equal(found, wanted['equalize_one_value'])


@pytest.mark.parametrize('names', ['contrast_equalize_blur7', 'blur7_equalize_contrast'])
def test_operations_go_in_order(wanted, names):
  order = names.replace('7', '').split('_')
  found = run(wanted['image'], order, contrast=wanted['contrast_alpha'][1], blur=7)
  np.testing.assert_array_equal(found, wanted[f'chain_{names}'])


def test_how_it_is_drawn(wanted):
  keys = jax.random.split(jax.random.key(0), 20_000)
  orders = np.asarray(
    jax.jit(jax.vmap(lambda key: strong_augment.draw_operations(key, 3, 0.5)))(keys)
  ).reshape(-1, 3, 4)
  applied = (orders != strong_augment.NOTHING).any(-1)
  numbers = np.bincount(applied.sum(-1), minlength=4) / len(keys)
  np.testing.assert_allclose(
    numbers, wanted['number_applied_of_2000'] / 2000, atol=0.04
  )  # fmt: skip
  counts = [(orders == NAMES.index('jitter_hue')).any((1, 2)).sum()]
  counts += [(orders == i).any((1, 2)).sum() for i in range(4, len(NAMES))]
  np.testing.assert_allclose(
    np.array(counts) / len(keys), wanted['operations_applied_of_2000'] / 2000, atol=0.03
  )
  # The parts of the jitter come together, in one of 24 orders.
  jitters = orders[(orders < 4).all(-1)]
  assert (np.sort(jitters, -1) == np.arange(4)).all()
  assert len({tuple(row) for row in jitters}) == 24
  _, low, high = strong_augment.OPERATIONS['blur']
  drawn = np.random.default_rng(0).uniform(low, high, 200_000)
  sizes, counts = np.unique(2 * np.floor(drawn / 2) + 1, return_counts=True)
  np.testing.assert_array_equal(sizes, wanted['blur_kernel_sizes'])
  exact = np.where(sizes == 3, 1, 2) / 39
  np.testing.assert_allclose(counts / len(drawn), exact, atol=2e-3)
  published = wanted['blur_kernel_counts_of_20000'] / 20_000
  np.testing.assert_allclose(exact, published, atol=4 * np.sqrt(exact.max() / 20_000))
