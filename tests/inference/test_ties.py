"""What exact comparisons of decisions rest on: no decision of theirs is within rounding.

Classes, kept labels and counts of pixels are compared exactly between programs that differ in
batch, devices or form. Where the two largest scores, or a confidence and its threshold, are equal
to rounding, each program and each CPU may decide for itself. The images and the network of those
tests are the same everywhere: they are to hold no such place.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from diga_jax import pixels, selection
from diga_jax.inference.feature_centroids import image_means, running_mean
from diga_jax.inference.forward import Predictor
from diga_jax.inference.pseudo_labels import most_confident
from tests.devices.test_devices import IAS
from tests.support.tiny import Source, tiny

# Of the largest value. What float32 rounds off in these few layers is a tenth of it.
ROUNDING = 2e-6
TWO_SIZES = ((24, 32), (24, 32), (28, 20))


def lead(scores) -> float:
  """How far the first of [..., C] leads the second where it does least, of the largest score."""
  ordered = np.sort(np.asarray(scores, np.float64), -1)
  return (ordered[..., -1] - ordered[..., -2]).min() / np.abs(ordered).max()


def outputs(image):
  model, variables = tiny()
  return model.apply(variables, pixels.normalise(jnp.asarray(image)[None]))


def fused(image, *options):
  return Predictor(*tiny(), *options).logits(jnp.asarray(image)[None], image.shape[:2])


@pytest.mark.parametrize(
  ('source', 'options'),
  [
    (Source(7), ()),
    (Source(7), ((1.0,),)),
    (Source(7, sizes=TWO_SIZES), ()),
    (Source(1, size=(30, 40)), ()),
    (Source(5, size=(27, 35)), ()),
    (Source(5, size=(27, 35)), ((1.0,),)),
    (Source(5, size=(27, 35)), ((0.5, 0.75, 1.5),)),
    (Source(5, size=(27, 35)), ((1.0, 0.5), True)),
  ],
)
def test_every_pixel_has_one_class(source, options):
  assert min(lead(fused(source.read(i)[0], *options)) for i in range(len(source))) > ROUNDING


def test_every_feature_has_one_class():
  assert min(lead(outputs(Source(9).read(i)[0])['logits']) for i in range(9)) > ROUNDING


def test_every_pixel_has_one_nearest_centroid():
  predictor = Predictor(*tiny())
  means, _ = running_mean([image_means(predictor, Source(5), minimum=1, progress=False)])
  for i in range(5):
    weights = selection.centroid_weights(outputs(Source(5).read(i)[0])['feature'], means, (24, 32))
    assert lead(weights) > ROUNDING


def test_no_confidence_is_at_its_threshold():
  scores = np.stack([fused(Source(5).read(i)[0])[0] for i in range(5)])
  confidence, predicted = map(np.asarray, most_confident(scores))
  draws = np.random.default_rng(0)

  def select(noise):
    labels, thresholds = [], jnp.full(4, IAS.threshold)
    for start in range(0, 5, IAS.selector_batch):
      rows = slice(start, start + IAS.selector_batch)
      seen = confidence[rows] * (1 + noise * draws.choice([-1, 1], confidence[rows].shape))
      kept, thresholds = selection.instance_adaptive(
        seen.astype(np.float32), predicted[rows], thresholds, IAS.alpha, IAS.beta, IAS.gamma
      )
      labels.append(kept)
    return np.concatenate(labels), np.asarray(thresholds)

  labels, thresholds = select(0)
  assert 0.2 < (labels != 255).mean() < 0.8 and (thresholds != np.float32(IAS.threshold)).all()
  for _ in range(10):
    found, moved = select(ROUNDING)
    np.testing.assert_array_equal(found, labels)
    np.testing.assert_array_equal(moved, thresholds)
