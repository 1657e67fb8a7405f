"""How much of the pseudo-labels is kept and how right it is, against counting in NumPy."""

import functools
import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.errors import BadInput
from diga_jax import pixels, selection
from diga_jax.inference import label_quality
from diga_jax.inference.feature_centroids import image_means, running_mean
from diga_jax.inference.forward import Predictor
from tests.support.tiny import Source, tiny


class Pseudo(Source):
  """The images of Source with labels that are right on about two thirds of the pixels."""

  def read(self, index):
    image, truth = super().read(index)
    other = Source(0).read(index + 1000)[1]
    return image, np.where(np.indices(truth.shape)[1] % 3 > 0, truth, other).astype(np.uint8)


def _centroids():
  means = image_means(Predictor(*tiny()), Source(5), minimum=1, progress=False)
  return running_mean([means] * 5)[0]


@functools.cache
def _consensus(batch_size=1, with_truth=True):
  model, variables = tiny()
  return label_quality.measure(
    Pseudo(5),
    'abcd',
    select=functools.partial(
      label_quality.consensus_labels, variables, centroids=_centroids(), model=model
    ),
    truth=Source(5) if with_truth else None,
    batch_size=batch_size,
    progress=False,
  )


def test_consensus_rates_are_those_of_the_pixels():
  model, variables = tiny()
  centroids = _centroids()
  pseudo, truth, kept = [], [], []
  for i in range(5):
    image, labels = Pseudo(5).read(i)
    out = model.apply(variables, pixels.normalise(jnp.asarray(image)[None]))
    nearest = selection.nearest_centroid(out['feature'], centroids, labels.shape)
    pseudo.append(labels)
    truth.append(Source(5).read(i)[1])
    kept.append(np.asarray(nearest[0]) == labels)
  pseudo, truth, kept = map(np.stack, (pseudo, truth, kept))
  found, labelled = _consensus(), pseudo != 255
  assert found['pixels'] == labelled.sum()
  assert found['kept'] == pytest.approx((kept & labelled).mean())
  assert found['coverage'] == pytest.approx((kept & labelled)[truth != 255].mean())
  known = labelled & (truth != 255)
  assert found['accuracy_kept'] == pytest.approx((pseudo == truth)[known & kept].mean())
  assert found['accuracy_rejected'] == pytest.approx((pseudo == truth)[known & ~kept].mean())
  assert found['accuracy'] == pytest.approx((pseudo == truth)[known].mean())
  one = pseudo == 1
  assert found['per_class']['b']['coverage'] == pytest.approx((kept & labelled)[truth == 1].mean())
  assert found['per_class']['b']['kept'] == pytest.approx(kept[one].mean())
  assert found['per_class']['b']['accuracy_kept'] == pytest.approx(
    (pseudo == truth)[known & kept & one].mean()
  )


def test_consensus_does_not_depend_on_the_batch_size():
  assert _consensus(1) == _consensus(3)


def test_consensus_without_truth_knows_the_shares_only():
  found = _consensus(1, False)
  assert found['kept'] == _consensus()['kept'] and found['accuracy_kept'] is None


def test_the_truth_of_other_images_or_sizes_is_refused():
  with pytest.raises(BadInput, match='same images'):
    label_quality.measure(Pseudo(5), '0123', truth=Source(4), progress=False)
  with pytest.raises(BadInput, match='size'):
    label_quality.measure(Pseudo(2), '0123', truth=Source(2, size=(8, 8)), progress=False)


def test_without_a_selector_what_was_written_is_measured():
  found = label_quality.measure(Pseudo(5), '0123', truth=Source(5), batch_size=2, progress=False)
  pseudo, truth = (np.stack([s(5).read(i)[1] for i in range(5)]) for s in (Pseudo, Source))
  labelled, known = pseudo != 255, truth != 255
  assert found['kept'] == pytest.approx(labelled.mean())
  assert found['coverage'] == pytest.approx(labelled[known].mean())
  assert found['accuracy_kept'] == pytest.approx((pseudo == truth)[labelled & known].mean())
  assert found['accuracy_rejected'] is None


def test_consensus_labels_are_the_label_or_ignored():
  model, variables = tiny()
  image, labels = Pseudo(1).read(0)
  found = label_quality.consensus_labels(
    variables,
    jnp.asarray(image)[None],
    jnp.asarray(labels)[None],
    _centroids(),
    model=model,
  )
  assert ((found[0] == labels) | (found[0] == 255)).all()
  assert 0 < (found[0] == 255).mean() < 1


def test_a_higher_rank_keeps_more():
  model, variables = tiny()
  centroids = _centroids()
  image, labels = (jnp.asarray(x)[None] for x in Pseudo(1).read(0))
  kept = [
    label_quality.consensus_labels(variables, image, labels, centroids, model=model, rank=rank)
    != 255
    for rank in (1, 2, 4)
  ]
  assert all((a <= b).all() for a, b in itertools.pairwise(kept))
  assert kept[0].sum() < kept[1].sum() and (kept[2] == (labels != 255)).all()
