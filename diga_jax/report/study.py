"""The same rows over several seeds: mean and spread, as Markdown tables.

The spread is the sample standard deviation. Rows of different protocols never share a table.
"""

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence

import rich.table

from diga_jax.report import tables
from diga_jax.types import LabelRow, NetworkRow, Row, Rows

# Of a label pass: the share of the pixels that keep a pseudo-label, and how right those are.
SHARES = {
  'kept': 'kept',
  'accuracy': 'right, all',
  'accuracy_kept': 'right, kept',
  'accuracy_rejected': 'right, rejected',
}
# The same of each class.
LABELLED = {
  'coverage': 'Coverage, the share of the pixels of a class that keep a label:',
  'accuracy_kept': 'Precision, the share of the kept labels of a class that are right:',
}


def summarise(runs: Sequence[Rows]) -> str:
  """Markdown tables of one study.

  Args:
    runs: for each seed, what `recipe.run` returns; the same rows in the same order.

  Returns:
    Per protocol: a table of mIoU and pixel accuracy and one of IoU per class, a line for each
    network; then tables of what every label pass keeps, of all pixels and by class. Values in per
    cent, mean ± spread.
  """
  passes = [row for row in zip(*runs, strict=True) if row[0]['kind'] == 'labels']
  parts = []
  for measured, members in _networks(runs):
    facts = {key: {str(run['protocol'][key]) for row in members for run in row} for key in _FACTS}
    shared = ''.join(f', {word} {", ".join(sorted(facts[key]))}' for key, word in _FACTS.items())
    parts += [tables.describe(measured) + shared, means(members)]
    parts += ['IoU of every class:', classes(members)]
  if passes:
    parts += ['Pseudo-labels (target labels serve this measurement only):', shares(passes)]
    for key, title in LABELLED.items():
      parts += [title, label_classes(passes, key)]
  return tables.render_tables(parts, width=1000)


def _networks(runs: Sequence[Rows]) -> Iterator[tuple[tables.Measured, list[tuple[Row, ...]]]]:
  """(measurement, the networks measured so, each once per seed)."""
  networks = [row for row in zip(*runs, strict=True) if row[0]['kind'] == 'network']
  for measured, first in tables.groups([row[0] for row in networks]):
    yield measured, [row for row in networks if any(row[0] is other for other in first)]


def drawings(
  runs: Sequence[Rows],
) -> Iterator[tuple[str, Callable[..., None], list[tuple[Row, ...]]]]:
  """(name, drawing function of `charts`, rows) for what can be drawn of a study."""
  from diga_jax.report import charts  # matplotlib: half a second that no other command needs

  for number, (_, members) in enumerate(_networks(runs)):
    yield f'networks_{number}' if number else 'networks', charts.scores, members
  passes = [row for row in zip(*runs, strict=True) if row[0]['kind'] == 'labels']
  measured = [row for row in passes if row[0]['accuracy_kept'] is not None]
  if measured:
    yield 'labels', charts.label_quality, measured


_FACTS = {'network': 'weights of the', 'chosen_by': 'step chosen by', 'seed': 'seeds'}


def spread(values: Iterable[float | None]) -> str:
  """'mean ± sample standard deviation' in per cent; '-' if a value is missing."""
  values = list(values)
  if None in values:
    return '-'
  mean = f'{100 * statistics.fmean(values):.1f}'
  return mean if len(values) < 2 else f'{mean} ± {100 * statistics.stdev(values):.1f}'


def _fill(heads: Iterable[str], lines: Iterable[Iterable[str]]) -> rich.table.Table:
  table = tables.markdown_table(*heads)
  for line in lines:
    table.add_row(*line)
  return table


def means(rows: Sequence[Sequence[NetworkRow]]) -> rich.table.Table:
  """Networks against their mIoU over every class set and pixel accuracy."""
  subsets = list(rows[0][0]['mean_iou_subsets'])
  lines = (
    (
      row[0]['name'],
      str(row[0]['protocol']['step']),
      *(spread(run['mean_iou_subsets'][name] for run in row) for name in subsets),
      spread(run['pixel_accuracy'] for run in row),
    )
    for row in rows
  )
  return _fill(('network', 'steps', *(f'mIoU {name}' for name in subsets), 'pixel acc.'), lines)


def classes(rows: Sequence[Sequence[NetworkRow]]) -> rich.table.Table:
  """Networks against the IoU of every class."""
  names = list(rows[0][0]['iou'])
  lines = ((row[0]['name'], *(spread(run['iou'][c] for run in row) for c in names)) for row in rows)
  return _fill(('network', *names), lines)


def shares(rows: Sequence[Sequence[LabelRow]]) -> rich.table.Table:
  """Label passes against what is kept and how right it is."""
  lines = (
    (row[0]['name'], row[0]['selector'], *(spread(run[key] for run in row) for key in SHARES))
    for row in rows
  )
  return _fill(('label pass', 'kept by', *SHARES.values()), lines)


def label_classes(rows: Sequence[Sequence[LabelRow]], key: str) -> rich.table.Table:
  """Label passes against one measure of every class."""
  names = list(rows[0][0]['per_class'])
  lines = (
    (row[0]['name'], *(spread(run['per_class'][c][key] for run in row) for c in names))
    for row in rows
  )
  return _fill(('label pass', *names), lines)
