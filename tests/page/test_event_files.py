"""Curves from event files: thinned, repeated after a stop, damaged."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diga_jax.page import event_files
from tests.page.conftest import write_events
from tests.support import damage

VALUES = st.dictionaries(st.integers(0, 10**6), st.floats(-1e3, 1e3), min_size=1, max_size=2000)


@given(VALUES)
def test_a_thinned_curve_has_the_ends_and_the_mean(values):
  curve = event_files.thin(values)
  steps, means = zip(*curve.points, strict=True)
  assert len(steps) <= event_files.MOST
  assert list(steps) == sorted(set(steps)) and steps[-1] == max(values)
  assert set(steps) <= set(values)
  assert min(values.values()) - 1e-9 <= min(means) and max(means) <= max(values.values()) + 1e-9
  sizes = np.full(len(steps), curve.every)
  sizes[-1] = len(values) - curve.every * (len(steps) - 1)
  assert np.average(means, weights=sizes) == pytest.approx(np.mean([*values.values()]), abs=1e-6)


def test_curves_by_class_are_not_read(tmp_path):
  write_events(tmp_path, **{'criteria/entropy': 0.3})
  found = event_files.read(tmp_path)
  assert found.curves.keys() == {'loss', 'learning_rate', 'criteria/entropy'}
  wanted = [[n, 2.0 / n] for n in range(1, 6)]
  np.testing.assert_allclose(found.curves['loss'].points, wanted, rtol=1e-6)
  assert found.hours >= 0 and found.problems == []


def test_of_repeated_steps_the_later_ones_count(tmp_path):
  write_events(tmp_path, steps=4, learning=1.0)
  first = next(tmp_path.iterdir())
  first.rename(tmp_path / 'events.out.tfevents.0000000001.host.1.0.v2')
  write_events(tmp_path, steps=2, learning=2.0)
  points = event_files.read(tmp_path).curves['learning'].points
  assert points == [(1, 2.0), (2, 2.0), (3, 1.0), (4, 1.0)]


@pytest.mark.parametrize('seed', range(8))
def test_a_damaged_file_is_read_as_far_as_it_goes(tmp_path, seed):
  write_events(tmp_path, steps=20)
  path = next(tmp_path.iterdir())
  if seed % 2:
    damage.flip(path, random.Random(seed))
  else:
    path.write_bytes(path.read_bytes()[: 100 * (seed + 2)])
  found = event_files.read(tmp_path)
  assert 'loss' in found.curves or found.problems


def test_a_folder_without_event_files_has_no_curve(tmp_path):
  assert event_files.read(tmp_path / 'absent') == event_files.Events({}, 0.0, [])
