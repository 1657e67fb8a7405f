"""Transforms against Pillow and against what docs/diga.md section 2 says of their draws."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipelines import resampling, transforms
from data_pipelines.scenes import render

SIDES = st.integers(1, 90)
DRAWS = 200


def rng(seed: int = 0) -> np.random.Generator:
  return np.random.default_rng([3, seed])


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def pair(image: np.ndarray, label: np.ndarray | None = None) -> transforms.Pair:
  return transforms.picture(image), None if label is None else transforms.picture(label)


def pixels(made: transforms.Pair) -> list[np.ndarray]:
  return [part.whole() for part in made if part is not None]


def coordinates(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
  """An image and label that tell where each pixel was: row, column in the image, both in the label.

  Heights and widths up to 15, so that label = 16 * row + column.
  """
  row, column = np.mgrid[:height, :width].astype(np.uint8)
  return np.stack([row, column, row * 0], -1), row * 16 + column


def joint(image: np.ndarray, label: np.ndarray) -> bool:
  return (image[..., 0] * 16 + image[..., 1] == label).all()


KINDS = [resampling.BICUBIC, resampling.BILINEAR]
PILLOW = {
  resampling.BICUBIC: Image.Resampling.BICUBIC,
  resampling.BILINEAR: Image.Resampling.BILINEAR,
}


def by_pillow(image: np.ndarray, size: tuple[int, int], kind) -> np.ndarray:
  """The columns first, which Pillow 13 does not always do."""
  columns = Image.fromarray(image).resize((size[1], image.shape[0]), PILLOW[kind])
  return np.asarray(columns.resize(size[::-1], PILLOW[kind])).astype(int)


def assert_rounded_otherwise(
  got: np.ndarray, expected: np.ndarray, largest: int = 2, share: float = 0.01
) -> None:
  """Equal, but for a few values by 1 grey level, and in white noise one in a million by 2."""
  apart = np.abs(got - expected)
  assert apart.max() <= largest and (apart > 1).mean() < 1e-5 and (apart > 0).mean() < share


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('size', [(240, 320), (200, 400), (400, 200), (361, 479), (540, 720)])
def test_images_are_resized_as_pillow_does(kind, size):
  image = noise(360, 480)
  got = transforms.resample(transforms.picture(image), size, kind)
  assert got.size == size
  assert_rounded_otherwise(got.whole(), by_pillow(image, size, kind))


@pytest.mark.parametrize('kind', KINDS)
def test_a_scene_is_resized_as_pillow_does(kind):
  image, _ = render.render(3, 'camera', (256, 512))
  got = transforms.resample(transforms.picture(image), (170, 340), kind).whole()
  assert_rounded_otherwise(got, by_pillow(image, (170, 340), kind), largest=1, share=0.004)


@settings(max_examples=150, deadline=None)
@given(st.data(), SIDES, SIDES, SIDES, SIDES, st.sampled_from(KINDS))
def test_a_window_of_a_resized_image_is_that_of_the_whole(data, height, width, new_h, new_w, kind):
  image = noise(height, width)
  got = transforms.resample(transforms.picture(image), (new_h, new_w), kind)
  whole = got.whole().astype(int)
  top, left = data.draw(st.integers(0, new_h - 1)), data.draw(st.integers(0, new_w - 1))
  rows, columns = data.draw(st.integers(1, new_h - top)), data.draw(st.integers(1, new_w - left))
  part = got.at((top, left, rows, columns))
  assert part.shape == (rows, columns, 3)
  assert np.abs(part - whole[top : top + rows, left : left + columns]).max() <= 1


@pytest.mark.parametrize('kind', KINDS)
def test_a_large_window_is_that_of_the_whole(kind):
  image = noise(1052, 1914)
  got = transforms.resample(transforms.picture(image), (720, 1280), kind)
  whole = got.whole().astype(int)
  assert_rounded_otherwise(whole, by_pillow(image, (720, 1280), kind))
  part = got.at((101, 333, 512, 896))
  assert_rounded_otherwise(part, whole[101:613, 333:1229], share=1e-4)


@settings(max_examples=150, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES)
def test_labels_are_resized_exactly_as_pillow_does(height, width, new_height, new_width):
  label = noise(height, width)[..., 0]
  expected = Image.fromarray(label).resize((new_width, new_height), Image.Resampling.NEAREST)
  got = transforms.nearest(transforms.picture(label), (new_height, new_width))
  np.testing.assert_array_equal(got.whole(), expected)


@pytest.mark.parametrize(('old', 'new'), [((1052, 1914), (720, 1280)), ((480, 1024), (336, 716))])
def test_large_labels_are_resized_exactly_as_pillow_does(old, new):
  label = noise(*old)[..., 0]
  expected = np.asarray(Image.fromarray(label).resize(new[::-1], Image.Resampling.NEAREST))
  got = transforms.nearest(transforms.picture(label), new)
  np.testing.assert_array_equal(got.whole(), expected)
  np.testing.assert_array_equal(got.at((7, 9, 50, 60)), expected[7:57, 9:69])


def test_what_is_not_looked_at_is_not_computed():
  looked = []

  def at(window):
    looked.append(window)
    return np.zeros((window[2], window[3], 3), np.uint8)

  large = transforms.Picture((1000, 2000), at)
  made = transforms.sized_crop(transforms.resize((large, None), (800, 1600)), (100, 200), rng())
  assert not looked
  assert made[0].whole().shape == (100, 200, 3)
  assert len(looked) == 1 and looked[0][2] < 200 and looked[0][3] < 400


def test_flip_mirrors_both_half_of_the_time():
  image, label = coordinates(5, 7)
  flips = 0
  for seed in range(DRAWS):
    got_image, got_label = pixels(transforms.flip(pair(image, label), rng(seed)))
    assert joint(got_image, got_label)
    mirrored = int(got_label[0, 0]) == 6
    np.testing.assert_array_equal(got_label, label[:, ::-1] if mirrored else label)
    flips += mirrored
  assert 0.35 < flips / DRAWS < 0.65


def test_a_window_of_the_mirror_image():
  image, _ = coordinates(5, 7)
  mirrored = next(
    made
    for made in (transforms.flip(pair(image), rng(seed))[0] for seed in range(20))
    if made.whole()[0, 0, 1] == 6
  )
  np.testing.assert_array_equal(mirrored.at((1, 2, 3, 4)), image[:, ::-1][1:4, 2:6])


def test_crop_reaches_every_place_equally():
  image, label = coordinates(6, 9)
  corners = []
  for seed in range(DRAWS):
    got_image, got_label = pixels(transforms.crop(pair(image, label), (4, 8), rng(seed)))
    assert joint(got_image, got_label)
    top, left = divmod(int(got_label[0, 0]), 16)
    np.testing.assert_array_equal(got_label, label[top : top + 4, left : left + 8])
    corners.append((top, left))
  places, counts = np.unique(corners, axis=0, return_counts=True)
  assert len(places) == 3 * 2
  assert counts.min() > DRAWS / 6 / 2


def test_crop_of_the_images_own_size_changes_nothing():
  image, label = coordinates(6, 9)
  got_image, got_label = pixels(transforms.crop(pair(image, label), (6, 9), rng()))
  np.testing.assert_array_equal(got_image, image)
  np.testing.assert_array_equal(got_label, label)


@pytest.mark.parametrize('old', [(20, 90), (90, 20), (20, 20)])
def test_an_image_smaller_than_the_crop_is_resized_to_it(old):
  image = noise(*old)
  label = image[..., 0]
  got_image, got_label = pixels(transforms.crop(pair(image, label), (30, 40), rng()))
  assert_rounded_otherwise(got_image, by_pillow(image, (30, 40), resampling.BILINEAR))
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
  for seed in range(DRAWS):
    got_image, got = pixels(transforms.sized_crop(pair(image, label), (112, 112), rng(seed)))
    apart = np.abs(got_image[..., :2].astype(int) - np.stack([got // 16, got % 16], -1))
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
    transforms, 'resize', lambda one, size, kind: sizes.append(np.array(size)) or one
  )
  image = np.zeros((1000, 2000, 3), np.uint8)
  for seed in range(DRAWS):
    transforms.sized_crop(pair(image), (10, 10), rng(seed))
  scales = np.array(sizes) / [1000, 2000]
  assert scales.min() >= 0.699 and scales.max() <= 1
  np.testing.assert_allclose(scales.mean(0), 0.85, atol=0.02)
  np.testing.assert_allclose(scales.std(0), 0.3 / 12**0.5, atol=0.01)


def test_sized_crop_of_a_small_image_is_resized_to_the_crop():
  image, label = pixels(
    transforms.sized_crop(pair(noise(40, 40), noise(40, 40)[..., 0]), (40, 40), rng())
  )
  assert image.shape == (40, 40, 3) and label.shape == (40, 40)


def with_shares(**shares: int) -> np.ndarray:
  """A label of 1000 pixels: share of label `_n` in pixels, the rest is label 0."""
  flat = np.array([int(name[1:]) for name, count in shares.items() for _ in range(count)])
  return np.pad(flat, (0, 1000 - flat.size)).reshape(20, 50).astype(np.uint8)


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
  assert transforms.acceptable(with_shares(**shares)) is expected


def test_redraw_takes_the_first_acceptable_draw(monkeypatch):
  monkeypatch.setattr(transforms, 'acceptable', lambda label: label[0, 0] >= 9)
  image, label = coordinates(1, 15)
  for seed in range(60):
    draws = rng(seed)
    places = [
      int(transforms.crop(pair(image, label), (1, 1), draws)[1].whole()[0, 0])
      for _ in range(transforms.DRAWS)
    ]
    expected = next((place for place in places if place >= 9), places[-1])
    got_image, got_label = pixels(
      transforms.redraw(transforms.crop, pair(image, label), (1, 1), rng(seed))
    )
    assert int(got_label[0, 0]) == expected
    assert joint(got_image, got_label)


def test_redraw_takes_the_fifth_as_it_is_and_looks_at_one_image(monkeypatch):
  image, label = coordinates(6, 9)
  looked, cuts = [], itertools.count()
  seen = transforms.Picture((6, 9), lambda w: looked.append(w) or transforms.picture(image).at(w))

  def cut(both, size, draws):
    next(cuts)
    return transforms.crop(both, size, draws)

  monkeypatch.setattr(transforms, 'acceptable', lambda label: False)
  _, got = pixels(transforms.redraw(cut, (seen, transforms.picture(label)), (4, 4), rng()))
  assert next(cuts) == transforms.DRAWS and len(looked) == 1
  draws = rng()
  *_, last = (transforms.crop(pair(image, label), (4, 4), draws)[1].whole() for _ in range(5))
  np.testing.assert_array_equal(got, last)


@pytest.mark.parametrize('cut', [transforms.crop, transforms.sized_crop, transforms.flip])
def test_the_same_draws_give_the_same_result_with_and_without_a_label(cut):
  image, label = noise(50, 60), noise(50, 60)[..., 0]
  size = () if cut is transforms.flip else ((24, 32),)
  first, again = (pixels(cut(pair(image, label), *size, rng(1))) for _ in range(2))
  alone = cut(pair(image), *size, rng(1))
  np.testing.assert_array_equal(first[0], again[0])
  np.testing.assert_array_equal(first[1], again[1])
  np.testing.assert_array_equal(first[0], alone[0].whole())
  assert alone[1] is None


def test_zoom_takes_a_window_of_the_crops_shape_and_a_drawn_height():
  image, label = coordinates(100, 160)
  heights = set()
  for seed in range(40):
    made = transforms.zoom(pair(image, label), (32, 64), rng(seed), heights=(20, 70))
    got, truth = pixels(made)
    assert got.shape == (32, 64, 3) and truth.shape == (32, 64)
    rows, columns = (np.ptp(got[..., i].astype(int)) + 1 for i in (0, 1))
    assert 18 <= rows <= 71 and abs(columns - 2 * rows) <= 8
    heights.add(rows)
  assert min(heights) < 30 and max(heights) > 60


def test_zoom_stays_inside_of_a_small_image():
  image, label = coordinates(20, 30)
  made = transforms.zoom(pair(image, label), (8, 16), rng(), heights=(341, 1000))
  got, truth = pixels(made)
  assert got.shape == (8, 16, 3) and truth.shape == (8, 16)
  assert np.ptp(got[..., 1].astype(int)) >= 27  # all of the width, and half of it high
