"""Shares of the classes, their entropy, and which of them are warned of."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from diga_jax import class_balance

NAMES = ('road', 'sky', 'car', 'train')
COUNTS = arrays.arrays(np.int64, 4, elements=st.integers(0, 10**12))


@given(COUNTS)
def test_shares_sum_to_one_and_the_entropy_is_between_zero_and_one(counts):
  found = class_balance.shares(counts)
  assert found.sum() == (pytest.approx(1) if counts.any() else 0)
  assert 0 <= class_balance.entropy(counts) <= 1 + 1e-12
  assert class_balance.entropy(counts) == pytest.approx(class_balance.entropy(found), abs=1e-9)
  assert class_balance.classes_present(counts) == (counts > 0).sum()


def test_the_entropy_is_that_of_the_formula_over_ln_of_the_classes():
  assert class_balance.entropy([5, 5, 5, 5]) == pytest.approx(1)
  assert class_balance.entropy([0, 7, 0, 0]) == 0
  wanted = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(4)
  assert class_balance.entropy([1, 3, 0, 0]) == pytest.approx(wanted)
  assert class_balance.entropy([]) == class_balance.entropy([3]) == 0


def oddities(now, first):
  return class_balance.oddities(now, first, NAMES, 'pseudo-labels', 'in label_1')


@given(COUNTS)
def test_nothing_is_odd_about_what_stays(counts):
  assert oddities(counts, counts) == {}


@given(COUNTS, COUNTS, st.integers(1, 1000))
def test_what_is_odd_depends_on_shares_alone(now, first, times):
  assert oddities(now, first) == oddities(now * times, first)


def test_a_class_that_takes_over_is_told_with_both_numbers():
  assert oddities([40, 41, 10, 9], [56, 24, 10, 10]) == {
    'sky': 'sky takes 41% of the pseudo-labels, 24% in label_1'
  }
  assert 'sky' not in oddities([42, 39, 10, 9], [56, 24, 10, 10])  # below DOMINANT
  assert 'sky' not in oddities([40, 41, 10, 9], [50, 30, 10, 10])  # below GROWN times
  assert 'train' in oddities([30, 20, 5, 45], [60, 30, 10, 0])  # from nothing


def test_a_class_that_is_all_but_lost_is_told_with_both_numbers():
  assert oddities([500, 499, 1, 0], [500, 400, 50, 50]) == {
    'car': 'car falls to 0.1% of the pseudo-labels, 5% in label_1',
    'train': 'train falls to 0% of the pseudo-labels, 5% in label_1',
  }
  assert oddities([500, 400, 50, 5], [500, 400, 50, 50]) == {}  # a tenth, and a little more
  assert oddities([500, 400, 50, 0], [5_000_000, 4_000_000, 500_000, 9]) == {}  # below LEAST


def test_no_pixel_at_all_is_one_warning():
  assert oddities([0] * 4, [1, 2, 3, 4]) == {'': 'there are no pseudo-labels at all'}
  assert oddities([0] * 4, [0] * 4) == {}


@pytest.mark.parametrize(
  ('share', 'text'),
  [(0.414, '41%'), (0.0241, '2.4%'), (0.000311, '0.031%'), (0, '0%'), (1, '100%')],
)
def test_shares_are_shown_with_two_digits(share, text):
  assert class_balance.percent(share) == text
