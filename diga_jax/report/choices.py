"""How well criteria without labels rank the checkpoints of a stage, as a Markdown table."""

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import rich.table

from diga_jax import criteria
from diga_jax.report import tables
from diga_jax.report.study import spread
from diga_jax.types import CheckpointTable

FEWEST = 3  # checkpoints that can be ranked
ALL = 'all'


class Recorded(NamedTuple):
  """Of one stage of one run: the scores of its checkpoints, and choice -> the chosen step."""

  table: CheckpointTable
  chosen: Mapping[str, int]


class Ranks(NamedTuple):
  """How a criterion ranks checkpoints beside the true score; None where that cannot be told.

  Attributes:
    checkpoints: how many were ranked.
    rho: Spearman's rank correlation over all of them.
    tau: Kendall's tau-b, over all of them.
    within: the mean over the runs of Spearman's correlation in each: what a choice within a run
      depends on.
  """

  checkpoints: int
  rho: float | None
  tau: float | None
  within: float | None


def rank(runs: Sequence[Recorded], criterion: str) -> Ranks:
  """The rank correlations of a criterion with the true score, over the checkpoints of all runs.

  There are none of fewer than `FEWEST` checkpoints, without a true score, or if all scores are the
  same. Checkpoints of one run depend on each other: no p is told.
  """
  pairs = [
    np.array([(row[criterion], row[criteria.ORACLE]) for row in run.table])
    for run in runs
    if run.table and {criterion, criteria.ORACLE} <= run.table[0].keys()
  ]
  each = [_correlations(found)[0] for found in pairs]
  known = [rho for rho in each if rho is not None]
  rho, tau = _correlations(np.concatenate(pairs)) if pairs else (None, None)
  within = statistics.fmean(known) if known else None
  return Ranks(sum(len(run.table) for run in runs), rho, tau, within)


def _correlations(pairs: np.ndarray) -> tuple[float | None, float | None]:
  """Spearman's rho and Kendall's tau-b of pairs [n, 2]."""
  if len(pairs) < FEWEST or not np.ptp(pairs, axis=0).all():
    return None, None
  from scipy import stats  # a second that no run without such choices needs

  found = stats.spearmanr(*pairs.T), stats.kendalltau(*pairs.T)
  return float(found[0].statistic), float(found[1].statistic)


def table(stages: Mapping[str, Sequence[Recorded]]) -> rich.table.Table:
  """A line for each stage and criterion: its rank correlations, its choice and what that is worth.

  Args:
    stages: name -> what was recorded of it, once for each seed.
  """
  result = tables.markdown_table(
    *('stage@criterion', 'checkpoints', "Spearman's rho", "Kendall's tau", 'rho in a run'),
    *('chosen step', 'its mIoU', 'mIoU of the last', 'mIoU of the best'),
  )
  for name, runs in stages.items():
    for criterion in _criteria(runs):
      ours = [_true_score(run, _step(run, criterion)) for run in runs]
      last = [_true_score(run, run.table[-1]['step']) for run in runs]
      best = [_true_score(run, _step(run, criteria.ORACLE)) for run in runs]
      steps = ', '.join(f'{_step(run, criterion):.0f}' for run in runs)
      cells = steps, *map(spread, (ours, last, best))
      result.add_row(f'{name}@{criterion}', *_ranks(rank(runs, criterion)), *cells)
  if len(stages) > 1:
    everything = [run for runs in stages.values() for run in runs]
    for criterion in _criteria(everything):
      having = [run for run in everything if criterion in run.table[0]]
      result.add_row(f'{ALL}@{criterion}', *_ranks(rank(having, criterion)), *4 * '-')
  return result


def describe(stages: Mapping[str, Sequence[Recorded]]) -> list[tables.Part]:
  """`table` with what it is of."""
  first = max(stages.values(), key=len)
  parts: list[tables.Part] = [
    f'Checkpoints chosen without labels, {len(first)} seed{"s" * (len(first) > 1)}: how each '
    'criterion ranks them beside the true score, and the mIoU of its choice, of the last step and '
    'of the best.',
    table(stages),
  ]
  if any(criteria.ORACLE in run.table[0] for runs in stages.values() for run in runs):
    parts.append(
      'The true score, and with it the best, is by the labels of the first evaluation set.'
    )
  else:
    parts.append("No true score is known: config.criteria.record lacks 'oracle'.")
  return parts


def _criteria(runs: Sequence[Recorded]) -> list[str]:
  """The criteria without labels that were recorded, in order."""
  return [name for name in criteria.UNLABELLED if any(name in run.table[0] for run in runs)]


def _step(run: Recorded, criterion: str) -> float:
  """The step chosen by a criterion; the last where none was."""
  return run.chosen.get(criterion, run.table[-1]['step'])


def _true_score(run: Recorded, step: float) -> float | None:
  return next((row.get(criteria.ORACLE) for row in run.table if row['step'] == step), None)


def _ranks(found: Ranks) -> list[str]:
  return [str(found.checkpoints)] + [
    '-' if value is None else f'{value:+.2f}' for value in found[1:]
  ]
