"""Who lends hard classes to whom: drawn from the index alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.copy_paste import CopyPaste
from data_pipelines.errors import BadInput

seeds = st.integers(0, 2**40)


def index(seed: int, images: int = 30, classes: int = 19):
  """(counts [N, C], confidence [C]) with classes of all frequencies."""
  rng = np.random.default_rng(seed)
  shown = rng.random((images, classes)) < rng.random(classes)
  return shown * rng.integers(1, 10_000, shown.shape), rng.uniform(0.3, 1, classes)


def draws(rule: CopyPaste, count: int) -> np.ndarray:
  return np.array([rule.draw(np.random.default_rng([i, 7])) for i in range(count)])


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_donors_hold_hard_classes_and_stop_at_half_of_them(seed):
  counts, confidence = index(seed)
  rule = CopyPaste(counts, confidence, hard_classes=14, max_donors=3)
  np.testing.assert_array_equal(rule.hard, np.argsort(confidence)[:14])
  for drawn in draws(rule, 20):
    used = drawn[drawn >= 0]
    assert len(used) and (drawn[len(used) :] == -1).all()
    pasted = set()
    for i, donor in enumerate(used):
      new = set(rule.hard[counts[donor, rule.hard] > 0]) - pasted
      assert new, 'each donor was drawn for a class that had not come yet'
      assert i == 0 or len(pasted) < 7
      pasted |= new
    able = {c for c, lent in zip(rule.hard, rule.donors, strict=True) if len(lent)}
    assert len(pasted) >= 7 or len(used) == 3 or pasted >= able


def test_the_tenth_with_the_fewest_pixels_lends_nothing():
  counts = np.arange(1, 21)[:, None]
  rule = CopyPaste(counts, np.array([0.5]), hard_classes=1, max_donors=1)
  assert set(draws(rule, 400).ravel()) == set(range(2, 20))


def test_classes_are_drawn_by_the_square_of_what_their_confidence_lacks():
  counts = np.eye(3, dtype=int) * 9
  rule = CopyPaste(counts, np.array([0.9, 0.8, 0.6]), max_donors=1)
  shares = np.bincount(draws(rule, 4000).ravel(), minlength=3) / 4000
  np.testing.assert_allclose(shares, np.array([1, 4, 16]) / 21, atol=0.025)


def test_never_is_never_drawn_nor_pasted():
  counts, confidence = index(0)
  rule = CopyPaste(counts, confidence, hard_classes=14, excluded_classes=(9, 14, 16))
  assert not set(rule.hard) & {9, 14, 16} and len(rule.hard) == 14


def test_a_draw_is_a_function_of_its_seed():
  rule = CopyPaste(*index(0), max_donors=3)
  np.testing.assert_array_equal(draws(rule, 3), draws(rule, 3))
  assert len({tuple(row) for row in draws(rule, 50)}) > 20


def test_a_hard_class_that_nobody_holds_is_passed_over():
  counts = np.array([[0, 5], [0, 6]])
  rule = CopyPaste(counts, np.array([0.0, 0.9]), max_donors=2, leave_out=0)
  assert set(draws(rule, 50)[:, 0]) == {0, 1}


def test_no_hard_class_at_all_is_refused():
  with pytest.raises(BadInput, match='no image holds a pseudo-label of a hard class'):
    CopyPaste(np.array([[0, 5]]), np.array([0.2, 0.9]), hard_classes=1)
