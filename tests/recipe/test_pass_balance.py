"""What a label pass tells of its classes, and which earlier pass it is compared with."""

import logging

import numpy as np
import pytest

from diga_jax import class_balance
from diga_jax.inference.pseudo_labels import Statistics
from diga_jax.recipe import pass_balance
from diga_jax.recipe.experiment import Run
from diga_jax.storage import stage_folder
from tests.configs import tiny, tiny_hiast
from tests.support.event_values import values_in

NAMES = ('road', 'sky', 'car')


def statistics(labels, predicted=(50, 30, 20)) -> Statistics:
  """Of one image; confidences are 0.8 of all pixels and 0.9 of those that are labelled."""
  labels, predicted = np.array([labels]), np.array(predicted)
  return Statistics(
    labels,
    np.zeros(3),
    np.zeros(3),
    predicted,
    0.8 * (predicted > 0),
    0.9 * (labels[0] > 0),
    np.eye(3, class_balance.BINS, 40, int) * predicted[:, None],
    np.where(predicted > 0, labels / np.maximum(predicted, 1), np.nan),
  )


def test_shares_confidences_and_entropy_are_recorded():
  found = pass_balance.describe(statistics((25, 15, 0), (50, 50, 0)), NAMES)
  assert found['kept'] == pytest.approx(0.4) and found['confidence'] == pytest.approx(0.8)
  assert found['classes'] == 2
  assert found['predicted_entropy'] == pytest.approx(np.log(2) / np.log(3))
  assert found['entropy'] < found['predicted_entropy']
  road, car = found['by_class']['road'], found['by_class']['car']
  assert road == {
    'predicted': 0.5, 'labels': 0.625, 'kept': 0.5, 'confidence': 0.8, 'label_confidence': 0.9
  }  # fmt: skip
  assert car == {
    'predicted': 0, 'labels': 0, 'kept': None, 'confidence': None, 'label_confidence': None
  }  # fmt: skip


@pytest.mark.parametrize(
  ('config', 'first'),
  [
    (tiny, {'label_1': '', 'label_2': 'label_1'}),
    (tiny_hiast, {'label_1': '', 'label_2': 'label_1', 'label_3': 'label_1'}),
  ],
)
def test_the_first_pass_is_that_of_the_chain(config, first, tmp_path):
  run = Run(config.get_config(), tmp_path)
  for name, wanted in first.items():
    if name in run.config.stages:
      assert pass_balance.first_pass(run, name) == wanted


def test_a_pass_is_compared_with_the_first_and_that_with_its_predictions(tmp_path):
  run = Run(tiny.get_config(), tmp_path)
  found = pass_balance.warnings(run, 'label_1', statistics((10, 41, 0)), NAMES)
  assert found == [
    'label_1: sky takes 80% of the pseudo-labels, 30% of the predictions',
    'label_1: car falls to 0% of the pseudo-labels, 20% of the predictions',
  ]
  result = {'pixels': [70, 24, 6]}  # as stages of before this record also have
  stage_folder.produce(tmp_path / 'label_1', {}, lambda place: result)
  assert pass_balance.warnings(run, 'label_2', statistics((54, 41, 5)), NAMES) == [
    'label_2: sky takes 41% of the pseudo-labels, 24% in label_1'
  ]
  assert not pass_balance.warnings(run, 'label_2', statistics((70, 24, 6)), NAMES)


def test_it_is_told_in_one_line_with_warnings_behind(tmp_path, capsys, caplog):
  found, place = statistics((25, 15, 0)), tmp_path / 'label_1.partial'
  balance = pass_balance.describe(found, NAMES) | {'warnings': ['label_1: odd']}
  with caplog.at_level(logging.WARNING):
    run, arrays = Run(tiny.get_config(), tmp_path), pass_balance.histograms(found, NAMES)
    pass_balance.tell(run, 'label_1', place, balance, arrays)
  assert capsys.readouterr().out == (
    'label_1: labels of 40.0% of the pixels and 2 of 3 classes, entropy 0.60 (1: all equally '
    'frequent), 0.94 before selection, mean confidence 0.80\n'
  )
  assert caplog.messages[-1] == 'label_1: odd'
  tags = [value.tag for value in values_in(place)]
  assert {'labels/kept', 'kept/road', 'confidence_histogram/all'} <= {*tags}
  assert 'kept_histogram/car' in tags and len(tags) == len({*tags})


def test_histograms_are_of_pixels_and_of_images():
  found = pass_balance.histograms(statistics((25, 15, 0), (50, 50, 0)), NAMES)
  road, sky = (found[f'confidence_histogram/{name}'] for name in ('road', 'sky'))
  assert len(road) == 50 and len(found['confidence_histogram/all']) == 100
  np.testing.assert_allclose(road, 40.5 / class_balance.BINS)
  np.testing.assert_allclose(sky, 41.5 / class_balance.BINS)
  assert found['kept_histogram/road'].tolist() == [0.5]
  assert not [tag for tag in found if tag.endswith('/car')]  # of which there is no pixel


def test_no_pixel_at_all_is_told(tmp_path, capsys):
  balance = pass_balance.describe(statistics((0, 0, 0)), NAMES)
  assert balance['kept'] == balance['entropy'] == balance['classes'] == 0
  run = Run(tiny.get_config(), tmp_path)
  found = pass_balance.warnings(run, 'label_1', statistics((0, 0, 0)), NAMES)
  assert found == ['label_1: there are no pseudo-labels at all']
