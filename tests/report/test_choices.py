"""Rank correlations of criteria, and the table of what they choose."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diga_jax.report import choices, tables
from diga_jax.report.choices import Recorded

SCORES = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=12).filter(
  lambda pairs: all(len(set(part)) > 1 for part in zip(*pairs, strict=True))
)


def recorded(agreement, oracle=None, chosen=None):
  rows = [{'step': 10 * (i + 1), 'agreement': value} for i, value in enumerate(agreement)]
  for row, value in zip(rows, oracle or [], strict=bool(oracle)):
    row['oracle'] = value
  return Recorded(rows, chosen or {})


def render(stages):
  return tables.render_markdown(choices.describe(stages))


def tau_by_hand(pairs):
  """Kendall's tau-b from concordant and discordant pairs."""
  score, ties = 0, [0, 0]
  for (a, b), (c, d) in itertools.combinations(pairs, 2):
    score += np.sign(a - c) * np.sign(b - d)
    ties[0] += a == c
    ties[1] += b == d
  total = len(pairs) * (len(pairs) - 1) / 2
  return score / np.sqrt((total - ties[0]) * (total - ties[1]))


def rho_by_hand(pairs):
  """Pearson's correlation of the ranks, those of equals averaged."""
  columns = []
  for part in zip(*pairs, strict=True):
    columns.append([sum(y < x for y in part) + (sum(y == x for y in part) + 1) / 2 for x in part])
  return np.corrcoef(columns)[0, 1]


@settings(max_examples=50, deadline=None)
@given(SCORES)
def test_rank_correlations_are_those_of_their_definitions(pairs):
  found = choices.rank([recorded(*map(list, zip(*pairs, strict=True)))], 'agreement')
  assert found.checkpoints == len(pairs)
  np.testing.assert_allclose(found.rho, rho_by_hand(pairs), atol=1e-9)
  np.testing.assert_allclose(found.tau, tau_by_hand(pairs), atol=1e-9)
  np.testing.assert_allclose(found.within, found.rho, atol=1e-12)


def test_checkpoints_of_all_runs_are_ranked_together_and_in_each_run():
  up, down = recorded([1, 2, 3], [0.1, 0.2, 0.3]), recorded([6, 5, 4], [0.4, 0.5, 0.6])
  found = choices.rank([up, down], 'agreement')
  assert found.checkpoints == 6 and found.within == 0
  np.testing.assert_allclose(found.rho, rho_by_hand([*enumerate([1, 2, 3, 6, 5, 4])]))


@pytest.mark.parametrize(
  'run',
  [
    recorded([1, 2], [0.1, 0.2]),  # too few
    recorded([1, 1, 1], [0.1, 0.2, 0.3]),
    recorded([1, 2, 3], [0.1, 0.1, 0.1]),
    recorded([1, 2, 3]),  # no true score
  ],
)
def test_what_cannot_be_ranked_has_no_correlation(run):
  found = choices.rank([run], 'agreement')
  assert found == (len(run.table), None, None, None)
  assert '-' in render({'warmup': [run]})


def test_the_table_has_the_choice_beside_the_last_and_the_best():
  first = recorded([0.9, 0.8, 0.7], [0.1, 0.3, 0.2], {'last': 30, 'agreement': 10, 'oracle': 20})
  second = recorded([0.5, 0.6, 0.4], [0.3, 0.4, 0.2], {'last': 30, 'agreement': 20, 'oracle': 20})
  text = render({'warmup': [first, second]})
  line = next(line for line in text.splitlines() if line.startswith('| warmup'))
  cells = [cell.strip() for cell in line.strip('|').split('|')]
  assert cells[:2] == ['warmup@agreement', '6'] and cells[5] == '10, 20'
  assert cells[6:] == ['25.0 ± 21.2', '20.0 ± 0.0', '35.0 ± 7.1']
  assert '2 seeds' in text and 'all@' not in text
  both = render({'warmup': [first], 'self_training_1': [second]})
  assert '1 seed:' in both
  last = [line for line in both.splitlines() if line.startswith('| all@agreement')]
  assert len(last) == 1 and last[0].split('|')[2].strip() == '6'


def test_without_a_true_score_the_table_says_so():
  text = render({'warmup': [recorded([1, 2, 3], chosen={'agreement': 30})]})
  line = next(line for line in text.splitlines() if line.startswith('| warmup'))
  assert "lacks 'oracle'" in text and [cell.strip() for cell in line.split('|')][6:9] == [
    '30', '-', '-'
  ]  # fmt: skip
