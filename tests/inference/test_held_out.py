"""The pass over held-out images: what it gives, however the images are batched and cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.errors import BadInput
from diga_jax import criteria, pixels, resize
from diga_jax.inference import held_out
from tests.support.tiny import Source, tiny

MODEL, STUDENT = tiny()
_, TEACHER = tiny(seed=1)
CENTROIDS = np.random.default_rng(3).normal(size=(4, 5)).astype(np.float32)
NETWORKS = held_out.Networks(STUDENT, TEACHER, jnp.asarray(CENTROIDS))
SIZES = ((24, 32), (24, 32), (20, 28))


def measure(dataset, wanted=criteria.UNLABELLED, networks=NETWORKS, **options):
  return held_out.measure(networks, dataset, wanted, model=MODEL, **options)


def predict(variables, image):
  """Softmax outputs [h * w, C] and feature of an image, without jit."""
  output = MODEL.apply(variables, pixels.normalise(image[None]))
  logits = np.asarray(resize.align_corners(output['logits'], image.shape[:2]), np.float64)[0]
  shares = np.exp(logits - logits.max(-1, keepdims=True))
  return shares / shares.sum(-1, keepdims=True), output['feature']


def by_hand(dataset):
  """The three criteria, image by image."""
  rows = []
  for index in range(len(dataset)):
    image, _ = dataset.read(index)
    height, width, _ = image.shape
    (ours, _), (theirs, feature) = predict(STUDENT, image), predict(TEACHER, image)
    offsets = np.asarray(feature, np.float64)[0, :, :, None] - CENTROIDS
    near = np.exp(-np.sqrt((offsets**2).sum(-1)))
    near = (near / near.sum(-1, keepdims=True)).astype(np.float32)
    nearest = np.asarray(resize.align_corners(near[None], (height, width)))[0].argmax(-1)
    flat = ours.reshape(height * width, -1)[held_out.sample(index, (height, width))]
    rows.append(
      {
        'agreement': (ours.argmax(-1) == theirs.argmax(-1)).mean(),
        'consensus': (ours.argmax(-1) == nearest).mean(),
        'density': float(criteria.density(jnp.asarray(flat[None], jnp.float32))[0]),
      }
    )
  return {name: np.mean([row[name] for row in rows]) for name in rows[0]}


def test_criteria_are_means_over_the_images():
  dataset = Source(5, sizes=SIZES)
  found, wanted = measure(dataset), by_hand(dataset)
  assert list(found) == ['agreement', 'consensus', 'density']
  for name, value in found.items():
    np.testing.assert_allclose(value, wanted[name], rtol=2e-3, err_msg=name)
  assert 0 < found['agreement'] < 1 and 0 < found['consensus'] < 1


@pytest.mark.parametrize('batch_size', [2, 4])
def test_they_do_not_depend_on_the_batches_or_on_labels(batch_size):
  wanted = measure(Source(5, sizes=SIZES))
  found = measure(Source(5, sizes=SIZES, labelled=False), batch_size=batch_size)
  np.testing.assert_allclose(list(found.values()), list(wanted.values()), rtol=1e-5)


def test_each_is_the_same_alone():
  dataset = Source(2)
  everything = measure(dataset)
  for name in criteria.UNLABELLED:
    (value,) = measure(dataset, (name,)).values()
    np.testing.assert_allclose(value, everything[name], rtol=1e-6)
  without = NETWORKS._replace(centroids=None)
  assert measure(dataset, ('agreement',), without)['agreement'] == everything['agreement']


def test_a_network_agrees_with_itself_and_every_label_is_among_all_centroids():
  same = NETWORKS._replace(teacher=STUDENT)
  found = measure(Source(2), ('agreement', 'consensus'), same, rank=4)
  assert found == {'agreement': 1.0, 'consensus': 1.0}


def test_images_are_resized_on_request():
  found = measure(Source(3, sizes=SIZES), size=(16, 16))
  assert found != measure(Source(3, sizes=SIZES)) and found == measure(
    Source(3, sizes=SIZES), size=(16, 16)
  )


def test_pixels_are_the_same_at_every_call_and_others_in_every_image():
  first = held_out.sample(0, (40, 50))
  np.testing.assert_array_equal(held_out.sample(0, (40, 50)), first)
  assert len(set(first.tolist())) == 100 and first.min() >= 0 and first.max() < 2000
  assert set(held_out.sample(1, (40, 50)).tolist()) != set(first.tolist())
  assert sorted(held_out.sample(0, (5, 8)).tolist()) == list(range(40))


@pytest.mark.parametrize('which', ['student', 'teacher'])
def test_numbers_that_are_not_finite_are_refused(which):
  variables = getattr(NETWORKS, which)
  params = jax.tree.map(lambda x: x * np.nan, variables['params'])
  broken = NETWORKS._replace(**{which: {**variables, 'params': params}})
  with pytest.raises(BadInput, match='city/000: the network computes numbers that are not finite'):
    measure(Source(1), ('agreement',), broken)


def test_no_images_are_refused():
  with pytest.raises(BadInput, match='holds no image'):
    measure(Source(0))
