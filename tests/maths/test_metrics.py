import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diga_jax import metrics


@pytest.mark.parametrize('kind', [np.asarray, jnp.asarray])
def test_scores_are_the_published_ones(golden, kind):
  z = golden('metrics')
  confusion = metrics.confusion_matrix(kind(z['prediction']), kind(z['truth']), 19)
  np.testing.assert_array_equal(confusion, z['confusion'])
  scores = metrics.summary(confusion)
  for name in ('iou', 'mean_iou', 'accuracy', 'mean_accuracy', 'fw_accuracy'):
    np.testing.assert_allclose(scores[name], z[name], rtol=1e-6)


@given(st.integers(0, 2**31), st.integers(2, 11))
@settings(max_examples=15, deadline=None)
def test_rows_are_truth_and_ignored_pixels_do_not_count(seed, classes):
  rng = np.random.default_rng(seed)
  values = np.append(np.arange(classes), 255).astype(np.uint8)
  prediction, truth = rng.choice(values, (2, 3, 8, 9))
  want = np.zeros((classes, classes))
  for p, t in zip(prediction.ravel(), truth.ravel(), strict=True):
    if p < classes and t < classes:
      want[t, p] += 1
  np.testing.assert_array_equal(metrics.confusion_matrix(prediction, truth, classes), want)
  traced = jax.jit(metrics.confusion_matrix, static_argnums=2)
  np.testing.assert_array_equal(traced(prediction, truth, classes), want)


def test_numpy_counts_do_not_overflow():
  assert metrics.confusion_matrix(np.zeros(4, int), np.zeros(4, int), 2).dtype == np.int64


def test_absent_classes_are_left_out_of_means():
  confusion = np.zeros((19, 19))
  confusion[0, 0], confusion[0, 3], confusion[3, 3] = 6, 2, 2
  scores = metrics.summary(confusion, metrics.MEANS['cityscapes19'])
  assert np.isnan(scores['iou'][[1, 18]]).all()
  assert scores['mean_iou'] == scores['mean_iou_19'] == scores['mean_iou_16']
  assert scores['mean_iou'] == pytest.approx((6 / 8 + 2 / 4) / 2)
  assert scores['mean_iou_13'] == pytest.approx(6 / 8)  # without wall
  assert scores['accuracy'] == pytest.approx(0.8)
  assert scores['mean_accuracy'] == pytest.approx((6 / 8 + 1) / 2)
  assert scores['fw_accuracy'] == pytest.approx(0.8 * 6 / 8 + 0.2 * 2 / 4)


def confusion_of(golden, prediction: str, truth: str, classes: int):
  z = golden('evaluation_synthia')
  return z, metrics.confusion_matrix(z[prediction], z[truth], classes)


def test_digas_synthia_protocol(golden):
  z, confusion = confusion_of(golden, 'prediction_16', 'truth_16', 16)
  np.testing.assert_array_equal(confusion, z['diga_confusion'])
  scores = metrics.summary(confusion, metrics.class_means('synthia16', 16, 'present'))
  np.testing.assert_allclose(scores['iou'], z['diga_iou'], rtol=1e-6)
  assert (
    scores['mean_iou'] == scores['mean_iou_16'] == pytest.approx(z['diga_mean_iou_16'], rel=1e-6)
  )
  assert scores['mean_iou_13'] == pytest.approx(z['diga_mean_iou_13'], rel=1e-6)


@pytest.mark.parametrize('which', ['', '_with_all'])
def test_hiasts_synthia_protocol(golden, which):
  z, confusion = confusion_of(golden, f'prediction_19{which}', 'truth_19', 19)
  scores = metrics.summary(confusion, metrics.class_means('cityscapes19', 19, 'hiast'))
  np.testing.assert_allclose(np.nan_to_num(scores['iou']), z[f'hiast_iou{which}'], rtol=1e-6)
  for name in ('16', '13'):
    wanted = float(z[f'hiast_mean_iou_{name}{which}'])
    assert scores[f'mean_iou_{name}'] == pytest.approx(wanted, rel=1e-6)
  assert scores['mean_iou'] == pytest.approx(scores['mean_iou_16'] * 16 / 19)


def test_a_class_only_predicted_counts_as_zero():
  np.testing.assert_array_equal(metrics.iou(np.array([[2, 2], [0, 0]])), [0.5, 0])


def test_an_empty_matrix_gives_nan_without_a_warning():
  scores = metrics.summary(np.zeros((3, 3)), metrics.Means({'some': (0, 1)}))
  assert np.isnan([scores['mean_iou'], scores['mean_iou_some'], scores['accuracy']]).all()


def test_subsets_are_those_of_the_synthia_benchmarks():
  assert [len(metrics.CLASS_SUBSETS[n]) for n in ('19', '16', '13')] == [19, 16, 13]
  assert not {9, 14, 16} & set(metrics.CLASS_SUBSETS['16'])
  assert set(metrics.CLASS_SUBSETS['16']) - set(metrics.CLASS_SUBSETS['13']) == {3, 4, 5}
