import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diga_jax import mixing
from tests.support import golden_formula


def keys_of(seed, count):
  return jax.random.split(jax.random.key(seed), count)


@given(st.integers(0, 2**31), st.integers(1, 19), st.sampled_from([0.0, 0.3]))
@settings(max_examples=25, deadline=None)
def test_half_of_the_labels_and_all_ignored_pixels(seed, classes, ignore):
  labels = golden_formula.labels(f'mix{seed}', (3, 32, 40), classes, ignore=ignore)
  mask = np.asarray(mixing.class_mask(jax.random.key(seed), labels))
  assert mask.shape == labels.shape and mask.dtype == bool
  for image, chosen in zip(labels, mask, strict=True):
    drawn = np.unique(image[chosen])
    # Whole classes only: no label is on both sides.
    assert not np.intersect1d(drawn, image[~chosen]).size
    present = np.unique(image)
    # 255 may be one of the floor(n / 2) drawn, or come on top of them.
    has_void = 255 in present
    assert len(drawn) in {len(present) // 2, len(present) // 2 + has_void}
    assert (255 in drawn) == has_void


def test_every_subset_is_equally_likely():
  labels = jnp.asarray([3, 7, 9, 12, 255], jnp.uint8)[None, None]
  count = 6000
  draw = jax.vmap(lambda key: mixing.draw_half(key, mixing.present_labels(labels)[0]))
  drawn = np.asarray(draw(keys_of(0, count)))
  assert (drawn.sum(1) == 2).all()
  pairs = list(itertools.combinations([3, 7, 9, 12, 255], 2))
  seen = np.array([drawn[:, list(pair)].all(1).sum() for pair in pairs])
  assert seen.sum() == count
  # Chi-square with 9 degrees of freedom: 27.9 is its 99.9% point.
  assert ((seen - count / 10) ** 2 / (count / 10)).sum() < 27.9


def test_an_image_without_labels_stays_whole():
  labels = np.full((2, 8, 8), 255, np.uint8)
  labels[1, :4] = 3
  mask = np.asarray(mixing.class_mask(jax.random.key(0), labels))
  assert mask[0].all()
  over, under = np.ones((2, 8, 8, 3)), np.zeros((2, 8, 8, 3))
  assert np.asarray(mixing.paste(mask, over, under))[0].all()


def test_one_present_label_is_never_drawn():
  labels = np.full((1, 8, 8), 4, np.int32)
  assert not np.any(mixing.class_mask(jax.random.key(0), labels))


@jax.debug_key_reuse(False)  # on purpose
def test_the_draw_belongs_to_the_example():
  labels = golden_formula.labels('own', (4, 32, 40))
  whole = mixing.class_mask(keys_of(5, 4), labels)
  for i in range(4):
    np.testing.assert_array_equal(
      mixing.class_mask(keys_of(5, 4)[i : i + 1], labels[i : i + 1])[0], whole[i]
    )
  root = jax.random.key(5)
  folded = jnp.stack([jax.random.fold_in(root, i) for i in range(4)])
  np.testing.assert_array_equal(mixing.class_mask(root, labels), mixing.class_mask(folded, labels))
  assert not np.array_equal(mixing.class_mask(jax.random.key(6), labels), whole)


def test_given_labels_are_masked_and_255_with_them():
  labels = np.array([[[0, 1, 2], [255, 1, 0]]], np.uint8)
  drawn = np.zeros((1, 256), bool)
  drawn[0, 1] = True
  want = [[[False, True, False], [True, True, False]]]
  np.testing.assert_array_equal(mixing.drawn_mask(jnp.asarray(drawn), labels), want)
  np.testing.assert_array_equal(mixing.drawn_mask(drawn, labels.astype(np.int32)), want)


@pytest.mark.parametrize('dtype', ['uint8', 'int32'])
def test_paste_takes_images_and_labels(dtype):
  mask = np.array([[[True, False]]])
  labels = mixing.paste(mask, jnp.full((1, 1, 2), 3, dtype), jnp.full((1, 1, 2), 255, dtype))
  assert labels.dtype == dtype
  np.testing.assert_array_equal(labels, [[[3, 255]]])
  image = mixing.paste(mask, np.ones((1, 1, 2, 3)), np.zeros((1, 1, 2, 3)))
  np.testing.assert_array_equal(image, [[[[1, 1, 1], [0, 0, 0]]]])
