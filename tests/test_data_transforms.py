"""Transforms against Pillow and against what docs/method.md section 2 says of their draws."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipelines import transforms

SIDES = st.integers(1, 90)
SEEDS = [tf.constant([3, i]) for i in range(200)]


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def coordinates(height: int, width: int):
  """An image and label that tell where each pixel was: row, column in the image, both in the label.

  Heights and widths up to 15, so that label = 16 * row + column.
  """
  row, column = np.mgrid[:height, :width].astype(np.uint8)
  return tf.constant(np.stack([row, column, row * 0], -1)), tf.constant(row * 16 + column)


def joint(image, label) -> bool:
  image = image.numpy()
  return (image[..., 0] * 16 + image[..., 1] == label.numpy()).all()


@pytest.mark.parametrize(
  ('function', 'method'),
  [
    (transforms.resize_bicubic, Image.Resampling.BICUBIC),
    (transforms.resize_bilinear, Image.Resampling.BILINEAR),
  ],
)
@pytest.mark.parametrize('size', [(240, 320), (200, 400), (400, 200), (361, 479), (540, 720)])
def test_images_are_resized_as_pillow_does(function, method, size):
  image = noise(360, 480)
  expected = np.asarray(Image.fromarray(image).resize(size[::-1], method), int)
  got = function(tf.constant(image), size)
  assert got.dtype == tf.uint8
  apart = np.abs(got.numpy() - expected)
  assert (apart <= 1).mean() > 0.999
  assert apart.max() <= 3


@settings(max_examples=150, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES)
def test_labels_are_resized_exactly_as_pillow_does(height, width, new_height, new_width):
  label = noise(height, width)[..., 0]
  expected = Image.fromarray(label).resize((new_width, new_height), Image.Resampling.NEAREST)
  got = transforms.resize_nearest(tf.constant(label), (new_height, new_width))
  np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(('old', 'new'), [((1052, 1914), (720, 1280)), ((480, 1024), (336, 716))])
def test_large_labels_are_resized_exactly_as_pillow_does(old, new):
  label = noise(*old)[..., 0]
  expected = Image.fromarray(label).resize(new[::-1], Image.Resampling.NEAREST)
  np.testing.assert_array_equal(transforms.resize_nearest(tf.constant(label), new), expected)


def test_resize_takes_image_and_label():
  pair = tf.zeros([4, 6, 3], tf.uint8), tf.zeros([4, 6], tf.uint8)
  image, label = transforms.resize(*pair, (2, 3))
  assert image.shape == (2, 3, 3) and label.shape == (2, 3)
  assert transforms.resize(pair[0], None, (2, 3))[1] is None


def test_flip_mirrors_both_half_of_the_time():
  image, label = coordinates(5, 7)
  flips = 0
  for seed in SEEDS:
    got_image, got_label = transforms.flip(image, label, seed)
    assert joint(got_image, got_label)
    mirrored = int(got_label[0, 0]) == 6
    np.testing.assert_array_equal(got_label, label[:, ::-1] if mirrored else label)
    flips += mirrored
  assert 0.35 < flips / len(SEEDS) < 0.65


def test_crop_reaches_every_place_equally():
  image, label = coordinates(6, 9)
  corners = []
  for seed in SEEDS:
    got_image, got_label = transforms.crop(image, label, (4, 8), seed)
    assert joint(got_image, got_label)
    top, left = divmod(int(got_label[0, 0]), 16)
    np.testing.assert_array_equal(got_label, label[top : top + 4, left : left + 8])
    corners.append((top, left))
  places, counts = np.unique(corners, axis=0, return_counts=True)
  assert len(places) == 3 * 2
  assert counts.min() > len(SEEDS) / 6 / 2


def test_crop_of_the_images_own_size_changes_nothing():
  image, label = coordinates(6, 9)
  got_image, got_label = transforms.crop(image, label, (6, 9), SEEDS[0])
  np.testing.assert_array_equal(got_image, image)
  np.testing.assert_array_equal(got_label, label)


@pytest.mark.parametrize('old', [(20, 90), (90, 20), (20, 20)])
def test_an_image_smaller_than_the_crop_is_resized_to_it(old):
  image = noise(*old)
  label = image[..., 0]
  got_image, got_label = transforms.crop(tf.constant(image), tf.constant(label), (30, 40), SEEDS[0])
  expected = np.asarray(Image.fromarray(image).resize((40, 30), Image.Resampling.BILINEAR), int)
  assert (np.abs(got_image.numpy() - expected) <= 1).mean() > 0.999
  np.testing.assert_array_equal(
    got_label, Image.fromarray(label).resize((40, 30), Image.Resampling.NEAREST)
  )


def test_sized_crop_scales_each_axis_on_its_own():
  # The window is 0.7 of the image, so that it always fits, and what it shows tells the scale: 11 of
  # the 16 steps along an axis at scale 1, all of them at 0.7.
  row, column = np.mgrid[:160, :160] // 10
  label = (row * 16 + column).astype(np.uint8)
  image = np.stack([row, column, row], -1).astype(np.uint8)
  shown = []
  for seed in SEEDS:
    got_image, got_label = transforms.sized_crop(
      tf.constant(image), tf.constant(label), (112, 112), seed
    )
    got = got_label.numpy()
    apart = np.abs(got_image.numpy()[..., :2].astype(int) - np.stack([got // 16, got % 16], -1))
    assert apart.max() <= 1
    shown.append([np.ptp(got[:, 0] // 16), np.ptp(got[0] % 16)])
  shown = np.array(shown)
  assert shown.min() >= 10 and shown.max() == 15
  for axis in shown.T:
    assert set(axis) == set(range(axis.min(), 16))
  assert abs(np.corrcoef(shown.T)[0, 1]) < 0.25


def test_sized_crop_draws_both_scales_from_the_range(monkeypatch):
  sizes = []
  monkeypatch.setattr(
    transforms, 'resize_nearest', lambda label, size: sizes.append(np.array(size)) or label
  )
  label = tf.zeros([1000, 2000], tf.uint8)
  for seed in SEEDS:
    transforms.sized_crop(None, label, (10, 10), seed)
  scales = np.array(sizes) / [1000, 2000]
  assert scales.min() >= 0.699 and scales.max() <= 1
  np.testing.assert_allclose(scales.mean(0), 0.85, atol=0.02)
  np.testing.assert_allclose(scales.std(0), 0.3 / 12**0.5, atol=0.01)


def test_sized_crop_of_a_small_image_is_resized_to_the_crop():
  image, label = transforms.sized_crop(
    tf.constant(noise(40, 40)), tf.constant(noise(40, 40)[..., 0]), (40, 40), SEEDS[0]
  )
  assert image.shape == (40, 40, 3) and label.shape == (40, 40)


def with_shares(**shares: int) -> tf.Tensor:
  """A label of 1000 pixels: share of label `_n` in pixels, the rest is label 0."""
  flat = np.array([int(name[1:]) for name, count in shares.items() for _ in range(count)])
  return tf.constant(np.pad(flat, (0, 1000 - flat.size)).reshape(20, 50).astype(np.uint8))


@pytest.mark.parametrize(
  ('shares', 'expected'),
  [
    # Three labels over 2%: taken, and 255 counts as one of them.
    ({'_1': 21, '_2': 21}, True),
    ({'_1': 21, '_255': 900}, True),
    # 2% exactly is not more than 2%; two are left, the highest is no 255.
    ({'_1': 20, '_2': 500}, True),
    # One label is never enough, however many small ones there are.
    ({}, False),
    ({'_1': 20, '_2': 20, '_3': 20, '_4': 20}, False),
    ({'_255': 1000}, False),
    # Two labels: refused when one is 255, unless that 255 is small.
    ({'_1': 400}, True),
    ({'_255': 400}, False),
    ({'_255': 21}, False),
    ({'_1': 400, '_255': 20}, True),
    ({'_255': 20}, False),
    ({'_1': 20, '_255': 500}, False),
  ],
)
def test_which_crops_are_acceptable(shares, expected):
  assert bool(transforms.acceptable(with_shares(**shares))) is expected


def test_redraw_takes_the_first_acceptable_draw(monkeypatch):
  monkeypatch.setattr(transforms, 'acceptable', lambda label: label[0, 0] >= 9)
  image, label = coordinates(1, 15)
  for seed in SEEDS[:60]:
    draws = [
      transforms.crop(image, label, (1, 1), tf.random.fold_in(seed, attempt))
      for attempt in range(transforms.REDRAWS + 1)
    ]
    places = [int(draw[1][0, 0]) for draw in draws]
    expected = next((place for place in places if place >= 9), places[-1])
    got_image, got_label = transforms.redraw(transforms.crop, image, label, (1, 1), seed)
    assert int(got_label[0, 0]) == expected
    assert joint(got_image, got_label)


def test_redraw_gives_up_after_five(monkeypatch):
  calls = []
  image, label = coordinates(6, 9)

  def cut(image, label, size, seed):
    calls.append(image is not None)
    return transforms.crop(image, label, size, seed)

  monkeypatch.setattr(transforms, 'acceptable', lambda label: tf.constant(False))
  _, got = transforms.redraw(cut, image, label, (4, 4), SEEDS[0])
  last = transforms.crop(image, label, (4, 4), tf.random.fold_in(SEEDS[0], 5))[1]
  np.testing.assert_array_equal(got, last)
  assert calls.count(True) == 1


@pytest.mark.parametrize('cut', [transforms.crop, transforms.sized_crop, transforms.flip])
def test_the_same_seed_gives_the_same_result_with_and_without_a_label(cut):
  image, label = tf.constant(noise(50, 60)), tf.constant(noise(50, 60)[..., 0])
  size = () if cut is transforms.flip else ((24, 32),)
  cut = tf.function(cut)
  first = cut(image, label, *size, SEEDS[1])
  again = cut(image, label, *size, SEEDS[1])
  alone = cut(image, None, *size, SEEDS[1])
  np.testing.assert_array_equal(first[0], again[0])
  np.testing.assert_array_equal(first[1], again[1])
  np.testing.assert_array_equal(first[0], alone[0])
  assert alone[1] is None


def test_zoom_takes_a_window_of_the_crops_shape_and_a_drawn_height():
  image, label = coordinates(100, 160)
  heights = set()
  for seed in range(40):
    got, truth = transforms.zoom(image, label, (32, 64), tf.constant([seed, 1]), heights=(20, 70))
    assert got.shape == (32, 64, 3) and truth.shape == (32, 64)
    rows, columns = (np.ptp(got.numpy()[..., i].astype(int)) + 1 for i in (0, 1))
    assert 18 <= rows <= 71 and abs(columns - 2 * rows) <= 8
    heights.add(rows)
  assert min(heights) < 30 and max(heights) > 60


def test_zoom_stays_inside_of_a_small_image():
  image, label = coordinates(20, 30)
  got, truth = transforms.zoom(image, label, (8, 16), tf.constant([0, 1]), heights=(341, 1000))
  assert got.shape == (8, 16, 3) and truth.shape == (8, 16)
  assert np.ptp(got.numpy()[..., 1].astype(int)) >= 27  # all of the width, and half of it high
