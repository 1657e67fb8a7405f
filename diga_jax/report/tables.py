"""Tables of results and of data sets, as text for a terminal."""

import io
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
import rich.box
import rich.console
import rich.table

from data_pipelines import published_sets
from data_pipelines.doctor import Finding, Report
from data_pipelines.label_tables import TableLike
from diga_jax.types import LabelRow, NetworkRow, PyTree

# Two numbers may share a column only if they agree in all of these. The rest of a protocol
# (network, step, seed, chosen_by) tells the rows apart and has columns of its own.
MEASUREMENT = (
  'data', 'split', 'images', 'class_set', 'class_means', 'classes', 'scales', 'fusion', 'flip',
  'image_size', 'label_size',
)  # fmt: skip
ORACLE_NOTE = '* weights chosen with the labels of the target'

SHOWN = 5  # examples of each thing that doctor finds
FACTS = {'step': 'step', 'seed': 'seed', 'network': 'weights', 'chosen_by': 'chosen by'}

Measured = dict[str, PyTree]  # the part of a protocol named by MEASUREMENT
Part = rich.table.Table | str  # of a printed page
Justify = Literal['left', 'right']


def _percent(value: float | None) -> str:
  return '-' if value is None or np.isnan(value) else f'{100 * value:.1f}'


def _change(row: NetworkRow, first: NetworkRow, subset: str) -> str:
  """The difference of two means in points, with its sign; '-' for the first row itself."""
  ours, theirs = (each['mean_iou_subsets'].get(subset) for each in (row, first))
  if row is first or ours is None or theirs is None or np.isnan(ours - theirs):
    return '-'
  return f'{100 * (ours - theirs):+.1f}'


def extent(size: Sequence[int] | str) -> str:
  return f'{size[0]}x{size[1]}' if isinstance(size, (list, tuple)) else str(size)


def describe(measured: Measured) -> str:
  """A measurement in words, on one line."""
  words = [str(measured[key]) for key in ('data', 'split') if measured.get(key)]
  if 'images' in measured:
    words.append(f'{measured["images"]} images')
  if 'image_size' in measured:
    words.append(extent(measured['image_size']))
  if measured.get('label_size', measured.get('image_size')) != measured.get('image_size'):
    words.append(f'labels {extent(measured["label_size"])}')
  if 'scales' in measured:
    scales = ' and '.join(f'{scale:g}x' for scale in measured['scales'])
    words.append(f'{measured["fusion"]} of {scales}' if len(measured['scales']) > 1 else scales)
  words.append('flipped too' if measured.get('flip') else 'no flip')
  if measured.get('class_set'):
    words.append(f'classes {measured["class_set"]}')
  if measured.get('class_means') == 'hiast':
    words.append("HIAST's means")
  return ', '.join(words)


def groups(rows: Iterable[NetworkRow]) -> list[tuple[Measured, list[NetworkRow]]]:
  """Rows that may share columns, together: [(measurement, rows)], in order of appearance."""
  found: dict[str, tuple[Measured, list[NetworkRow]]] = {}
  for row in rows:
    measured = {key: row['protocol'][key] for key in MEASUREMENT if key in row['protocol']}
    found.setdefault(json.dumps(measured, sort_keys=True), (measured, []))[1].append(row)
  return list(found.values())


def render_tables(parts: Iterable[Part], width: int) -> str:
  """Tables and lines of text one below the other."""
  page = io.StringIO()
  console = rich.console.Console(
    file=page,
    width=width,
    force_terminal=False,
    color_system=None,
    highlight=False,
    markup=False,
    legacy_windows=False,
  )
  for part in parts:
    console.print(part)
  lines = (line.rstrip() for line in page.getvalue().splitlines())
  return '\n'.join(lines).rstrip('\n')


def markdown_table(first: str, *columns: str) -> rich.table.Table:
  """An empty table that renders as Markdown: a column of names, then columns of numbers."""
  result = rich.table.Table(box=rich.box.MARKDOWN)
  result.add_column(first, no_wrap=True)
  for name in columns:
    result.add_column(name, justify='right')
  return result


def render_markdown(parts: Iterable[Part]) -> str:
  """Tables for a Markdown file, whose lines are as long as they are."""
  return render_tables(parts, width=10_000)


def render_to_fit(parts: Iterable[Part], width: int | None = None) -> str:
  """Tables for a terminal: columns that have no room stand in further tables below.

  Args:
    parts: the tables and texts.
    width: columns of the terminal; None: as it is.
  """
  width = width or shutil.get_terminal_size().columns

  def fitting() -> Iterator[Part]:
    for part in parts:
      yield from [part] if isinstance(part, str) else columns_to_fit(part, width)

  return render_tables(fitting(), width)


def columns_to_fit(table: rich.table.Table, width: int) -> Iterator[rich.table.Table]:
  """A table as one or several plain ones, each with the first column and as many as have room."""
  name, *columns = table.columns
  sizes = {id(c): max(len(str(cell)) for cell in (c.header, *c.cells)) + 3 for c in table.columns}
  waiting, used = [], sizes[id(name)]
  for column in [*columns, None]:
    if column is None or (waiting and used + sizes[id(column)] > width):
      yield _with_columns(name, waiting)
      waiting, used = [], sizes[id(name)]
    if column is not None:
      waiting.append(column)
      used += sizes[id(column)]


def _with_columns(
  name: rich.table.Column, columns: Sequence[rich.table.Column]
) -> rich.table.Table:
  result = plain_table(str(name.header), *(str(column.header) for column in columns))
  for new, column in zip(result.columns[1:], columns, strict=True):
    new.justify = column.justify
  for cells in zip(name.cells, *(column.cells for column in columns), strict=True):
    result.add_row(*cells)
  return result


def plain_table(first: str, *columns: str) -> rich.table.Table:
  """As `markdown_table`, for a terminal."""
  result = markdown_table(first, *columns)
  result.box, result.pad_edge, result.show_edge = rich.box.SIMPLE_HEAD, False, False
  return result


def _fact(row: NetworkRow, key: str) -> str:
  fact = row['protocol'].get(key)
  return '-' if fact is None else f'{fact}*' if fact == 'oracle' else str(fact)


def _one_table(measured: Measured, rows: Sequence[NetworkRow], mean: str) -> Iterator[Part]:
  """Title with what holds for every row, table, an empty line."""
  subsets = list(dict.fromkeys(name for row in rows for name in row['mean_iou_subsets']))
  facts = {key: [_fact(row, key) for row in rows] for key in FACTS}
  # A column of equal cells wastes width; step and choice are always shown.
  columns = [
    key for key, cells in facts.items() if key in ('step', 'chosen_by') or len(set(cells)) > 1
  ]
  result = plain_table('network', *(f'mIoU {name}' for name in subsets))
  compared = mean if mean in subsets else next(iter(subsets), '')
  if len(rows) > 1:
    result.add_column(f'change of {compared}' if len(subsets) > 1 else 'change', justify='right')
  result.add_column('pixel acc.', justify='right')
  for key in columns:
    result.add_column(
      FACTS[key], justify='left' if key in ('network', 'chosen_by') else 'right', no_wrap=True
    )
  for i, row in enumerate(rows):
    result.add_row(
      row['name'],
      *(_percent(row['mean_iou_subsets'].get(name)) for name in subsets),
      *[_change(row, rows[0], compared)] * (len(rows) > 1),
      _percent(row['pixel_accuracy']),
      *(facts[key][i] for key in columns),
    )
  shared = [
    f'{FACTS[key]} {facts[key][0]}' for key in FACTS if key not in columns and facts[key][0] != '-'
  ]
  yield ', '.join([describe(measured), *shared])
  yield result
  if 'oracle*' in facts['chosen_by']:
    yield ORACLE_NOTE
  yield ''


def table(rows: Sequence[NetworkRow], width: int | None = None, mean: str = '') -> str:
  """Networks against their mIoU (%), as text for a terminal.

  Rows measured in different ways (data, split, sizes, scales, fusion, flip, class set) are never
  put in one column: each way gets a table of its own, its title saying which. Of several networks
  the change of the mIoU against the first one, in points, has a column of its own.

  Args:
    rows: what `evaluate.evaluate` returns, each with a 'name'. Step, seed, network and chosen_by
      of its protocol become columns.
    width: columns of the terminal; None: as it is.
    mean: of which classes the change is told; '': of the first mIoU, which is over all of them.
  """
  width = width or shutil.get_terminal_size().columns
  return render_tables((part for group in groups(rows) for part in _one_table(*group, mean)), width)


def render_report(name: str, report: Report, names: Sequence[str], table: TableLike) -> str:
  """What `doctor.examine` found of a data set: facts, shares of the classes, and what is wrong.

  `names` are those of the classes; `table` is the set's label table, for the shares known of it.
  """
  parts = list(_report_parts(name, report, names, table))
  # A path that is broken over two lines cannot be copied.
  longest = max(len(part) for part in parts if isinstance(part, str))
  return render_tables(parts, max(shutil.get_terminal_size().columns, longest))


def _report_parts(
  name: str, report: Report, names: Sequence[str], table: TableLike
) -> Iterator[Part]:
  yield name
  for what, value in report.facts:
    yield f'  {what}: {value}'
  if report.shares is not None:
    yield _class_shares(
      report.shares, names, published_sets.SHARES.get(table) if isinstance(table, str) else None
    )
  yield from _finding_parts(report.findings)


def render_comparison(names: str, facts: Sequence[str], findings: Sequence[Finding]) -> str:
  """What `overlaps.compare` found between data sets of these names."""
  lines = [f'between {names}', *(f'  {fact}' for fact in facts), *_finding_parts(findings)]
  return '\n'.join(lines)


def _finding_parts(findings: Sequence[Finding]) -> Iterator[str]:
  if not findings:
    yield 'nothing is wrong'
  for finding in findings:
    yield f'{finding.kind}: {len(finding.where):,}'
    yield from (f'  {line}' for line in finding.where[:SHOWN])
    if len(finding.where) > SHOWN:
      yield f'  ... and {len(finding.where) - SHOWN:,} more'
    yield f'  -> {finding.fix}'


def _class_shares(
  shares: np.ndarray, names: Sequence[str], expected: np.ndarray | None
) -> rich.table.Table:
  """Each class's share of the labelled pixels in per cent, beside what is known of the set."""
  columns = {'% of pixels': shares}
  if expected is not None and len(expected) == len(shares):
    columns['known'] = expected
  result = plain_table('class', *columns)
  for name, *values in zip(names, *columns.values(), strict=True):
    result.add_row(name, *(f'{100 * value:.2f}' for value in values))
  return result


def _split_to_fit(rows: Sequence[NetworkRow], width: int) -> Iterator[list[NetworkRow]]:
  """Rows in turn, as many at a time as have room for columns headed by their names."""
  waiting, used = [], 0
  for row in rows:
    needed = max(len(row['name']), 5) + 3
    if waiting and used + needed > width:
      yield waiting
      waiting, used = [], 0
    waiting.append(row)
    used += needed
  yield waiting


def _class_table(rows: Sequence[NetworkRow]) -> rich.table.Table:
  result = plain_table('class', *(row['name'] for row in rows))
  for name in rows[0]['iou']:
    result.add_row(name, *(_percent(row['iou'].get(name)) for row in rows))
  result.add_section()
  for subset in rows[0]['mean_iou_subsets']:
    means = (_percent(row['mean_iou_subsets'].get(subset)) for row in rows)
    result.add_row(f'mean of {subset}', *means)
  return result


def per_class(rows: Sequence[NetworkRow], width: int | None = None) -> str:
  """IoU (%) of every class, a line each, with one column per network.

  Rows measured in different ways get tables of their own, as in `table`; so do more rows than the
  width has room for. '-' is a class that neither the labels nor the predictions hold.
  """
  width = width or shutil.get_terminal_size().columns

  def parts() -> Iterator[Part]:
    for measured, members in groups(rows):
      yield 'IoU per class, ' + describe(measured)
      first = max(len(name) for name in members[0]['iou'])
      for shown in _split_to_fit(members, width - max(first, len('mean of 19')) - 2):
        yield _class_table(shown)
        yield ''

  return render_tables(parts(), width)


def describe_labels(row: LabelRow) -> str:
  """One line for what `label_quality.measure` found: how much is kept, how right that is."""
  right = ''
  if row['accuracy_kept'] is not None:
    right = f'; right: {_percent(row["accuracy_kept"])}% of them'
  if row['accuracy_rejected'] is not None:
    right += f', {_percent(row["accuracy_rejected"])}% of the rejected'
  by = {'none': 'no selector'}.get(row['selector'], row['selector'])
  return f'{row["name"]}: {by} keeps labels of {_percent(row["kept"])}% of the pixels{right}'
