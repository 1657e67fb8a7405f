"""HIAST's index of pseudo-labels, its donors and what is pasted, against the published code's."""

import types

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from data_pipelines import pipeline
from data_pipelines.copy_paste import CopyPaste
from diga_jax.configs.stages import hiast_stage
from diga_jax.inference import pseudo_labels
from tests.support.tiny import Source

CLASSES = 19


@pytest.fixture
def wanted(golden):
  return golden('hiast_copy_paste')


def rule(wanted, **changes) -> CopyPaste:
  """The donor sampler of HIAST's config, of the published index."""
  settings = hiast_stage('', '').copy_paste.to_dict() | changes
  return CopyPaste(wanted['counts'], wanted['class_mean_probabilities'], **settings)


def test_the_index_of_a_label_pass(wanted, tmp_path, monkeypatch):
  def predictions(*_, order, size, **__):
    for i in order:
      shape = wanted['predicted'][i].shape
      yield pseudo_labels.Prediction(i, shape, wanted['confidence'][i], wanted['predicted'][i])

  monkeypatch.setattr(pseudo_labels, 'predict_each', predictions)
  source = Source(len(wanted['images']))
  settings = {
    'selector': 'constant',
    'selector_batch': int(wanted['batch']),
    'resizing': 'bilinear',
  }
  found = pseudo_labels.pseudo_labels(
    None,
    source,
    tmp_path,
    CLASSES,
    settings=ConfigDict(settings | {'threshold': wanted['thresholds']}),
    order=wanted['order'].tolist(),
    progress=False,
  )
  np.testing.assert_array_equal(found.counts, wanted['counts'])
  np.testing.assert_allclose(found.confidence, wanted['class_mean_probabilities'], rtol=1e-6)
  for name, label in zip(source.ids, wanted['labels'], strict=True):
    with Image.open(tmp_path / f'{name}.png') as picture:
      np.testing.assert_array_equal(np.asarray(picture), label)


def test_classes_and_donors(wanted):
  found = rule(wanted)
  np.testing.assert_array_equal(found.hard, wanted['hard_classes'])
  donors = dict(zip(found.hard, found.donors, strict=True))
  for c, published in enumerate(wanted['donors_of_class']):
    if c in donors:
      np.testing.assert_array_equal(donors[c], published[published >= 0])
  np.testing.assert_allclose(
    found.weights / found.weights.sum(),
    wanted['probability_of_drawn_class'][found.hard],
    rtol=1e-6,
  )
  synthia = rule(wanted, excluded_classes=(9, 14, 16))
  np.testing.assert_array_equal(synthia.hard, wanted['synthia_hard_classes'])


def test_an_image_has_one_donor(wanted):
  found = rule(wanted)
  drawn = np.array([found.draw(np.random.default_rng(i)) for i in range(300)])
  numbers = np.bincount((drawn >= 0).sum(1), minlength=4)
  np.testing.assert_array_equal(numbers, wanted['donors_per_image_of_300'])


def test_what_is_pasted(wanted):
  found = rule(wanted)
  of_class = dict(zip(found.hard, found.donors, strict=True))
  source = types.SimpleNamespace(read=lambda i: (wanted['images'][i], wanted['labels'][i]))
  for n, (i, c, donor) in enumerate(
    zip(wanted['drawn_image'], wanted['drawn_class'], wanted['drawn_donor'], strict=True)
  ):
    assert donor in of_class[c]
    image, label = pipeline._paste(
      source, np.array([donor]), found.hard, wanted['images'][i], wanted['labels'][i], None
    )
    np.testing.assert_array_equal(image.whole(), wanted['result_image'][n])
    np.testing.assert_array_equal(label.whole(), wanted['result_label'][n])
