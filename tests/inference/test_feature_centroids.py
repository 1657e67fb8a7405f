"""Centroids from random crops, against the released script of the semi-supervised benchmark."""

import functools

import jax
import numpy as np
import pytest

from data_pipelines.folder import Folder
from data_pipelines.random_crops import RandomCrops
from diga_jax import models, weights
from diga_jax.centroids import accumulate, class_means
from diga_jax.inference.feature_centroids import running_mean
from tests.support import golden_formula
from tests.support.golden_steps import state_dict

HRNET = 'hrnet_w48_ocr'


class Coordinates(Folder):
  """Images whose pixels tell their place and number, and labels that tell their column."""

  def read(self, index):
    rows, columns = np.indices((40, 60)).astype(np.uint8)
    return np.stack([rows, columns, np.full_like(rows, index)], -1), columns


def crops(root=(0, 'label_1', 'centroids', 0), **changes):
  folder = Coordinates('{id}', labels='{id}', ids=['a', 'b', 'c'], classes=255)
  options = {'sizes': ((20, 30), None), 'crop': (8, 12), 'root': root} | changes
  return RandomCrops(folder, **options)


def test_every_image_gives_a_low_and_a_full_crop():
  made = crops()
  assert len(made) == 6 and made.ids == ['a', 'a', 'b', 'b', 'c', 'c']
  for index in range(len(made)):
    image, label = made.read(index)
    assert image.shape == (8, 12, 3) and (image[..., 2] == index // 2).all()
    steps = np.diff(image[4, 2:-2, 1].astype(int))
    assert steps.sum() in ((7,) if index % 2 else range(12, 17))  # half the size: twice the step
    if index % 2:
      np.testing.assert_array_equal(label, image[..., 1])


def test_crops_depend_on_their_root_alone():
  again, other = crops(), crops((0, 'label_1', 'centroids', 1))
  for index, same in ((1, True), (3, True)):
    image = crops().read(index)[0]
    assert (image == again.read(index)[0]).all() == same
  assert any((crops().read(i)[0] != other.read(i)[0]).any() for i in range(6))
  assert (crops().read(1)[0][..., 0] != crops().read(3)[0][..., 0]).any()


@pytest.mark.exhaustive
def test_the_semi_supervised_centroids_are_the_released_ones(golden):
  wanted, arrays = golden('semi_centroids'), golden('hrnet_ocr')
  keys = [f'{part}.{key}' for part in ('hrnet', 'ocrnet') for key in arrays[f'{part}_keys']]
  model, variables = models.build(HRNET, pixels='rgb'), weights.from_torch(HRNET, state_dict(keys))
  shape = tuple(map(int, wanted['shape']))

  @jax.jit
  def means(image):
    output = model.apply(variables, image, train=False)
    return class_means(output['feature'], output['logits'])

  def one_pass(number):
    found = []
    for i in range(int(wanted['images'])):
      for size in ('low', 'full'):
        made = means(golden_formula.image(f'centroid_{size}{number}_{i}', shape))
        found.append(tuple(np.asarray(x[0]) for x in made))
    return found

  passes = [one_pass(number) for number in range(int(wanted['passes']))]
  check = functools.partial(
    np.testing.assert_allclose, atol=1e-5 * np.abs(wanted['centroids']).max()
  )
  first, counts = running_mean(passes[:1])
  check(first, wanted['centroids_after_pass_1'])
  np.testing.assert_array_equal(counts, wanted['counts_after_pass_1'])
  centroids, counts = running_mean(passes)
  check(centroids, wanted['centroids'])
  np.testing.assert_array_equal(counts, wanted['counts'])
  means_of_one, valid = (x[None] for x in passes[0][0])
  capped, counts = accumulate(centroids, wanted['capped_counts'], means_of_one, valid)
  moved = np.abs(wanted['capped_after_low0_0'] - wanted['centroids']).max()
  check(capped - centroids, wanted['capped_after_low0_0'] - wanted['centroids'], atol=2e-2 * moved)
