"""The same rows over several seeds: mean and spread, as tables.

The spread is the sample standard deviation. Rows of different protocols never share a table.
"""

import functools
import pathlib
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeVar

import rich.table

from data_pipelines.errors import BadInput
from diga_jax.report import tables
from diga_jax.types import LabelRow, NetworkRow, Rows

R = TypeVar('R', NetworkRow, LabelRow)
Share = Literal['kept', 'coverage', 'accuracy', 'accuracy_kept', 'accuracy_rejected']

# Of a label pass: the share of the pixels that keep a pseudo-label, and how right those are.
SHARES: dict[Share, str] = {
  'kept': 'kept',
  'accuracy': 'right, all',
  'accuracy_kept': 'right, kept',
  'accuracy_rejected': 'right, rejected',
}
# The same of each class.
LABELLED: dict[Share, str] = {
  'coverage': 'Coverage, the share of the pixels of a class that keep a label:',
  'accuracy_kept': 'Precision, the share of the kept labels of a class that are right:',
}
_FACTS = {'network': 'weights of the', 'chosen_by': 'step chosen by', 'seed': 'seeds'}


def summarise(runs: Sequence[Rows]) -> list[tables.Part]:
  """Tables of one study.

  Args:
    runs: for each seed, what `graph.run_recipe` returns; the same rows in the same order.

  Returns:
    Per protocol: a table of mIoU and pixel accuracy and one of IoU per class, a line for each
    network; then tables of what every label pass keeps, of all pixels and by class. Values in per
    cent, mean ± spread.

  Raises:
    BadInput: a seed lacks a row that another has, or has it by another protocol.
  """
  check_rows(runs)
  parts: list[tables.Part] = []
  for measured, members in _networks(runs):
    facts = {key: {str(run['protocol'][key]) for row in members for run in row} for key in _FACTS}
    shared = ''.join(f', {word} {", ".join(sorted(facts[key]))}' for key, word in _FACTS.items())
    network = _table(
      members,
      lambda run: {'network': run['name'], 'steps': str(run['protocol']['step'])},
      _means,
    )
    parts += ['', tables.describe(measured) + shared, network, '', 'IoU of every class:']
    parts.append(_table(members, lambda run: {'network': run['name']}, lambda run: run['iou']))
  if passes := _passes(runs):
    parts += _pass_parts(passes)
  return parts[1:]


def check_rows(runs: Sequence[Rows]) -> None:
  """Refuses seeds whose rows are not the same ones, measured in the same way.

  The step may differ: an oracle chooses it.

  Raises:
    BadInput: naming the row and the seed.
  """
  by_name = [
    {(run['kind'], run['name'], run['protocol'].get('data')): run for run in rows} for rows in runs
  ]
  seeds = [rows[0]['protocol'].get('seed') for rows in runs if rows]
  for key in dict.fromkeys(key for rows in by_name for key in rows):
    for seed, rows in zip(seeds, by_name, strict=True):
      if key not in rows:
        raise BadInput(f'{key[1]}: has no seed {seed}, and others have: run that seed as well')
      ways = [
        {k: v for k, v in found[key]['protocol'].items() if k not in ('seed', 'step')}
        for found in (by_name[0], rows)
        if key in found
      ]
      if ways[0] != ways[-1]:
        field = next(k for k in {**ways[0], **ways[-1]} if ways[0].get(k) != ways[-1].get(k))
        raise BadInput(
          f'{key[1]}: {field} is {ways[-1].get(field)} in seed {seed} and {ways[0].get(field)} in '
          f'seed {seeds[0]}: they are not averaged; run both seeds by one protocol'
        )


def _pass_parts(passes: Sequence[Sequence[LabelRow]]) -> Iterator[tables.Part]:
  yield ''
  yield 'Pseudo-labels (target labels serve this measurement only):'
  yield _table(
    passes,
    lambda run: {'label pass': run['name'], 'kept by': run['selector']},
    lambda run: {heading: run[key] for key, heading in SHARES.items()},
  )
  for key, title in LABELLED.items():
    yield ''
    yield title
    yield _table(
      passes,
      lambda run: {'label pass': run['name']},
      lambda run, key=key: {name: shares[key] for name, shares in run['per_class'].items()},
    )


def _networks(
  runs: Sequence[Rows],
) -> Iterator[tuple[tables.Measured, list[list[NetworkRow]]]]:
  """(measurement, the networks measured so, each once per seed)."""
  rows = [[run for run in row if run['kind'] == 'network'] for row in zip(*runs, strict=True)]
  for measured, first in tables.groups([row[0] for row in rows if row]):
    yield measured, [row for row in rows if row and any(row[0] is other for other in first)]


def _passes(runs: Sequence[Rows]) -> list[list[LabelRow]]:
  """The label passes, each once per seed."""
  rows = [[run for run in row if run['kind'] == 'labels'] for row in zip(*runs, strict=True)]
  return [row for row in rows if row]


def drawings(runs: Sequence[Rows]) -> Iterator[tuple[str, Callable[[pathlib.Path], None]]]:
  """(name, function that draws a PNG at a path) for what can be drawn of label passes."""
  from diga_jax.report import charts  # matplotlib: half a second that no other command needs

  measured = [row for row in _passes(runs) if row[0]['accuracy_kept'] is not None]
  if measured:
    yield 'labels', functools.partial(charts.label_quality, measured)


def spread(values: Iterable[float | None]) -> str:
  """'mean ± sample standard deviation' in per cent; '-' if a value is missing."""
  values = list(values)
  known = [value for value in values if value is not None]
  if len(known) < len(values):
    return '-'
  mean = f'{100 * statistics.fmean(known):.1f}'
  return mean if len(known) < 2 else f'{mean} ± {100 * statistics.stdev(known):.1f}'


def _table(
  rows: Sequence[Sequence[R]],
  texts: Callable[[R], dict[str, str]],
  numbers: Callable[[R], Mapping[str, float | None]],
) -> rich.table.Table:
  """One line per row: texts of its first run, then the mean and spread of numbers of all runs.

  Args:
    rows: each once per seed.
    texts, numbers: run -> {heading: cell}.
  """
  first = rows[0][0]
  result = tables.markdown_table(*texts(first), *numbers(first))
  for row in rows:
    runs = list(map(numbers, row))
    result.add_row(
      *texts(row[0]).values(), *(spread(run[name] for run in runs) for name in numbers(first))
    )
  return result


def _means(run: NetworkRow) -> dict[str, float | None]:
  means = {f'mIoU {name}': value for name, value in run['mean_iou_subsets'].items()}
  return means | {'pixel acc.': run['pixel_accuracy']}
