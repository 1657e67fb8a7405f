"""Class shares while a stage trains: windows, warnings, and what survives a kill."""

import logging
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diga_jax import class_watch
from diga_jax.class_watch import ClassWatch

NAMES = ('road', 'sky', 'car')
STEPS = 40  # windows of 10


def metrics(kept, predictions=(0.4, 0.4, 0.2)):
  """Metrics of a step; every label is kept, confidences are 0.5."""
  kept, predictions = (np.array(x, np.float32) for x in (kept, predictions))
  return {
    'labels_by_class': kept * 2,
    'kept_by_class': kept,
    'predictions_by_class': predictions,
    'confidence_by_class': predictions / 2,
  }


def watch(directory: pathlib.Path, start: int = 0, steps: int = STEPS) -> ClassWatch:
  return ClassWatch(directory, 'self_training_1', NAMES, start, steps)


def fading(step: int):
  """The car is kept less and less, the sky more and more."""
  return metrics((0.3, 0.2 + 0.01 * step, max(0.1 - 0.01 * step, 0)))


def warnings(caplog) -> list[str]:
  return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_each_class_is_warned_of_once_with_both_numbers(tmp_path, caplog):
  seen = watch(tmp_path)
  for step in range(STEPS):
    seen.step(step + 1, fading(step))
  assert warnings(caplog) == [
    'self_training_1: step 20: car falls to 0% of the pseudo-labels kept, 9.2% in the first 10 '
    'steps',
    'self_training_1: step 40: sky takes 64% of the pseudo-labels kept, 41% in the first 10 steps',
  ]


def test_a_window_gives_curves_of_shares_and_confidences(tmp_path):
  seen = watch(tmp_path)
  assert all(seen.step(step + 1, metrics((0.3, 0.1, 0))) is None for step in range(9))
  window = seen.step(10, metrics((0.3, 0.1, 0)))
  assert window is not None
  found = window.scalars
  assert found['kept_share/road'] == pytest.approx(0.75)
  assert found['predictions_share/car'] == pytest.approx(0.2)
  assert found['kept_of_labels/road'] == pytest.approx(0.5) and 'kept_of_labels/car' not in found
  assert found['confidence/sky'] == pytest.approx(0.5)
  assert found['kept/classes'] == 2 and 0 < found['kept/entropy'] < 1


def test_a_window_gives_histograms_of_its_steps(tmp_path):
  seen, found = watch(tmp_path), []
  for step in range(2 * 10):
    kept, labelled = np.array([0.1 if step < 5 else 0.3, 0.2, 0]), np.array([0.4, 0.2, 0])
    found.append(seen.step(step + 1, metrics((0.3, 0.1, 0)) | {
      'kept_by_class': kept, 'labels_by_class': labelled
    }))  # fmt: skip
  first, second = found[9].histograms, found[19].histograms
  assert 'kept_histogram/car' not in first and len(first['confidence_histogram/car']) == 10
  np.testing.assert_allclose(first['kept_histogram/road'], [0.25] * 5 + [0.75] * 5, atol=0.02)
  np.testing.assert_allclose(second['kept_histogram/road'], [0.75] * 10, atol=0.02)
  np.testing.assert_allclose(first['kept_histogram/sky'], 1, atol=0.02)
  np.testing.assert_allclose(first['confidence_histogram/road'], 0.5, atol=0.02)


def test_a_record_of_an_earlier_version_goes_on(tmp_path):
  seen = watch(tmp_path)
  for step in range(15):
    seen.step(step + 1, fading(step))
  del seen.state['bins']
  seen.save(15)
  again = watch(tmp_path, 15)
  ends = [again.step(step + 1, fading(step)) for step in range(15, 20)]
  assert ends[-1] is not None and len(ends[-1].histograms['kept_histogram/road']) == 5
  assert again.state['first']


@settings(max_examples=20, deadline=None)
@given(stops=st.lists(st.integers(1, STEPS - 1), max_size=4))
def test_a_run_that_is_stopped_warns_of_the_same(tmp_path_factory, stops):
  """A checkpoint every 7 steps and at stops; a kill loses what came after the last one."""
  whole, parts = (tmp_path_factory.mktemp(name) for name in ('whole', 'parts'))
  ends, shown = {whole: [], parts: sorted(set(stops))}, {whole: {}, parts: {}}
  for directory, stopped in ends.items():
    start = 0
    for end in (*stopped, STEPS):
      seen, saved = watch(directory, start), start
      for step in range(start, end):
        if window := seen.step(step + 1, fading(step)):
          shown[directory][step + 1] = {k: v.tolist() for k, v in window.histograms.items()}
        if (step + 1) % 7 == 0 or step + 1 == STEPS:
          seen.save(saved := step + 1)
      start = saved
  found = class_watch.summary(whole)
  assert found is not None and class_watch.summary(parts) == found
  assert shown[whole] == shown[parts] and shown[whole].keys() == {10, 20, 30, 40}
  assert len(found['warnings']) == 2 and found['window'] == 10
  assert found['kept']['last']['car'] == 0 < found['kept']['first']['car']


@pytest.mark.parametrize('damage', ['absent', 'cut', 'edited', 'other step', 'other record'])
def test_a_damaged_file_costs_the_first_shares_but_no_training(tmp_path, caplog, damage):
  seen, path = watch(tmp_path), tmp_path / class_watch.NAME
  for step in range(20):
    seen.step(step + 1, fading(step))
  seen.save(20)
  text = path.read_text()
  changed = {
    'cut': text[:-20],
    'edited': text.replace('road', 'rood'),
    'other record': '{"a": 1}',
    'other step': text,
  }
  path.unlink() if damage == 'absent' else path.write_text(changed[damage])
  again = watch(tmp_path, 19 if damage == 'other step' else 20)
  again.step(20, fading(20))
  assert again.state['first'] == {} and 'are those from here on' in warnings(caplog)[-1]
  assert str(path) in warnings(caplog)[-1]
  again.save(21)
  assert (class_watch.summary(tmp_path) or {})['warnings'] == []


def test_a_stage_without_such_metrics_has_no_file_and_no_warning(tmp_path, caplog):
  seen = watch(tmp_path, 7)
  seen.save(10)
  assert not list(tmp_path.iterdir()) and class_watch.summary(tmp_path) is None
  assert not warnings(caplog)


def test_a_damaged_file_at_the_end_is_told(tmp_path, caplog):
  (tmp_path / class_watch.NAME).write_text('{')
  assert class_watch.summary(tmp_path) is None
  assert 'is damaged' in warnings(caplog)[-1]


@pytest.mark.parametrize(('steps', 'window'), [(1, 1), (5, 1), (40, 10), (40_000, 100)])
def test_a_window_is_a_quarter_of_a_short_stage(tmp_path, steps, window):
  assert watch(tmp_path, steps=steps).window == window
