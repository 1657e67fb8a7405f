"""The numbers of a page: tables of results, IoU by class, confusion, pseudo-labels, curves."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from diga_jax import class_balance
from diga_jax.page.event_files import SCORE
from diga_jax.page.working_directory import Measurement, Stage, WorkingDirectory
from diga_jax.report import tables
from diga_jax.types import PyTree

DEFAULT_TAG = 'loss'
# Curves with panels of their own, or that are about the machine.
NO_LOSSES = ('learning_rate', 'seconds_per_step', 'input_wait_per_step')


class Cell(NamedTuple):
  """A number of a table.

  Attributes:
    text: as shown.
    share: 0 to 1, how strongly the cell is coloured; None: not at all.
    sign: '+' or '-' for a difference that is coloured as such; else ''.
    note: shown where the pointer rests, and as a mark.
  """

  text: str
  share: float | None = None
  sign: str = ''
  note: str = ''


class Table(NamedTuple):
  """A table: what it is of, the names of its columns, and name -> cells of its lines."""

  title: str
  columns: list[str]
  rows: list[tuple[str, list[Cell]]]
  notes: tuple[str, ...] = ()


def percent(value: float | None, digits: int = 1) -> str:
  """A fraction in per cent; '-' for None."""
  return '-' if value is None else f'{100 * value:.{digits}f}'


def points(difference: float | None) -> Cell:
  """A difference of fractions, in points, with its sign."""
  if difference is None:
    return Cell('-')
  sign = '' if abs(difference) < 5e-4 else '+' if difference > 0 else '-'
  return Cell(f'{100 * difference:+.1f}', min(abs(difference) / 0.2, 1), sign)


def minus(value: float | None, other: float | None) -> float | None:
  """A difference, None without one of the two."""
  return None if value is None or other is None else value - other


def result_tables(measurements: Sequence[Measurement]) -> list[Table]:
  """The networks, a table for each way of measuring, as `tables.table`."""
  rows = [each.row for each in measurements if each.row['kind'] == 'network']
  return [result_table(*group) for group in tables.groups(rows)]


def result_table(measured: Mapping[str, PyTree], rows: Sequence[PyTree]) -> Table:
  """Networks that were measured in one way, with the change against the first."""
  subsets = list(dict.fromkeys(name for row in rows for name in row['mean_iou_subsets']))
  facts = list(tables.FACTS)
  columns = [f'mIoU {name}' for name in subsets] + ['against the first', 'pixel acc.']
  lines = []
  for row in rows:
    means = [row['mean_iou_subsets'].get(name) for name in subsets]
    apart = minus(row['mean_iou'], rows[0]['mean_iou'])
    cells = [Cell(percent(mean), mean) for mean in means]
    cells += [Cell('') if row is rows[0] else points(apart), Cell(percent(row['pixel_accuracy']))]
    cells += [Cell(str(row['protocol'].get(key, '-'))) for key in facts]
    lines.append((row['name'], cells))
  chosen = any(row['protocol'].get('chosen_by') == 'oracle' for row in rows)
  notes = ('oracle: weights chosen with the labels of the target',) * chosen
  return Table(tables.describe(dict(measured)), [*columns, *tables.FACTS.values()], lines, notes)


def class_tables(measurements: Sequence[Measurement]) -> list[Table]:
  """IoU by class of the networks measured in one way, from the largest gain to the worst loss."""
  found = []
  networks = [each.row for each in measurements if each.row['kind'] == 'network']
  for measured, rows in tables.groups(networks):
    changes = {
      name: minus(rows[-1]['iou'].get(name), rows[0]['iou'].get(name)) for name in rows[0]['iou']
    }
    lines = [
      (
        name,
        [Cell(percent(row['iou'].get(name)), row['iou'].get(name)) for row in rows]
        + [points(changes[name])] * (len(rows) > 1),
      )
      for name in sorted(changes, key=lambda n: (changes[n] is None, -(changes[n] or 0)))
    ]
    columns = [row['name'] for row in rows] + ['change'] * (len(rows) > 1)
    found.append(Table(tables.describe(measured), columns, lines))
  return found


def confusion_tables(measurements: Sequence[Measurement]) -> list[Table]:
  """The confusion matrix of every network: which share of a true class is predicted as which."""
  found = []
  for each in measurements:
    if each.row['kind'] != 'network':
      continue
    names = list(each.row['iou'])
    counts = np.array(each.row['confusion'], np.float64).reshape(len(names), len(names))
    totals = counts.sum(1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    lines = [
      (
        name,
        [
          Cell(f'{100 * x:.0f}' if x >= 0.005 else '', float(x)) if total else Cell('') for x in row
        ],
      )
      for name, row, total in zip(names, shares, totals[:, 0], strict=True)
    ]
    found.append(Table(f'{each.name} on {each.key}', names, lines))
  return found


# Pseudo-labels.


def audit(found: WorkingDirectory) -> list[Table]:
  """What the label passes keep, by class: shares, coverage, precision, and classes that collapse.

  The numbers of a pass's own record need no labels; coverage and precision are those of its
  measurement, where the target has labels.
  """
  passes = [
    stage for stage in found.stages if stage.state == 'complete' and 'images' in stage.result
  ]
  measured = {each.name: each.row for each in found.measurements if each.row['kind'] == 'labels'}
  names = class_names(found)
  return [
    table
    for stage in passes
    if (table := audit_table(stage, passes[0], measured.get(stage.name), names))
  ]


def class_names(found: WorkingDirectory) -> list[str]:
  """The names of the classes, from whatever holds them."""
  for each in found.measurements:
    return list(each.row.get('iou') or each.row['per_class'])
  for stage in found.stages:
    if by_class := stage.result.get('class_balance', {}).get('by_class'):
      return list(by_class)
  return []


def audit_table(stage: Stage, first: Stage, row: PyTree, names: Sequence[str]) -> Table | None:
  """The table of one pass; None where neither its record nor a measurement tells anything."""
  counts = stage.result.get('pixels', [])
  if len(counts) != len(names) or not names:
    return None
  balance = stage.result.get('class_balance', {}).get('by_class', {})
  odd, ordinary = oddities(stage, first, names), Oddity('', '')
  per_class = row['per_class'] if row else {}
  shares = class_balance.shares(counts)
  columns = {
    'predicted': lambda name, i: balance.get(name, {}).get('predicted'),
    'of the labels': lambda name, i: float(shares[i]),
    'kept by the pass': lambda name, i: balance.get(name, {}).get('kept'),
    'confidence': lambda name, i: balance.get(name, {}).get('confidence'),
    'kept in training': lambda name, i: per_class.get(name, {}).get('kept'),
    'coverage': lambda name, i: per_class.get(name, {}).get('coverage'),
    'precision': lambda name, i: per_class.get(name, {}).get('accuracy_kept'),
    'precision of the rejected': lambda name, i: per_class.get(name, {}).get('accuracy_rejected'),
  }
  values = {
    what: [value(name, i) for i, name in enumerate(names)] for what, value in columns.items()
  }
  shown = [what for what, column in values.items() if any(x is not None for x in column)]
  lines = []
  for i, name in enumerate(names):
    cells = [Cell(percent(values[what][i]), values[what][i]) for what in shown]
    mark, text = odd.get(name, ordinary)
    lines.append((name, [Cell(mark, note=text), *cells]))
  notes = [tables.describe_labels(row)] if row else []
  return Table(stage.name, ['', *shown], lines, (*notes, *(each.text for each in odd.values())))


class Oddity(NamedTuple):
  """What is odd about the labels of a class: in a word or two, and in a sentence."""

  mark: str
  text: str


def oddities(stage: Stage, first: Stage, names: Sequence[str]) -> dict[str, Oddity]:
  """Classes that are all but lost, or take over, in a pass against the first one."""
  balance = stage.result.get('class_balance', {}).get('by_class', {})
  reference, before = first.result.get('pixels', []), f'in {first.name}'
  if stage is first:
    reference = [balance.get(name, {}).get('predicted') or 0.0 for name in names]
    before = 'of the predictions'
  if len(reference) != len(names) or not any(reference):
    return {}
  counts = stage.result['pixels']
  texts = class_balance.oddities(counts, reference, names, 'pseudo-labels', before)
  grown = class_balance.shares(counts) > class_balance.shares(reference)
  more = dict(zip(names, grown, strict=True))
  return {
    name: Oddity('takes over' if more.get(name) else 'collapses', text)
    for name, text in texts.items()
  }


def warnings(found: WorkingDirectory) -> list[str]:
  """What the records of the stages warn of."""
  return [
    text
    for stage in found.stages
    for text in stage.result.get('class_balance', {}).get('warnings', [])
  ]


# Curves.


def curves(found: WorkingDirectory, series: str = '') -> dict[str, PyTree]:
  """The curves of all stages on one axis of steps, one stage behind the other.

  Args:
    found: the run.
    series: what its lines are called; '': each by its stage.

  Returns:
    'points' {x, y, tag, panel, series, stage, step}, 'bounds' {x, stage} where a stage begins, and
    'tags' of the first panel.
  """
  rows, bounds, begin = [], [], 0
  for stage in found.stages:
    own = stage.events.curves
    if stage.steps is None or not (own or stage.measured):
      continue
    bounds.append({'x': begin, 'stage': stage.name})
    for tag, curve in own.items():
      panel = panel_of(tag)
      for step, value in curve.points if panel else ():
        name = tag.removeprefix(SCORE)
        line = series or (f'{stage.name}: {name}' if panel == 'score' else stage.name)
        rows.append(
          {'x': begin + step, 'y': value, 'tag': name, 'panel': panel, 'series': line}
          | {'stage': stage.name, 'step': step}
        )
    scores, end = scores_of(found, stage, series), max(stage.steps, *stage.ends)
    rows += [{'x': begin + (score['step'] or end), **score} for score in scores]
    begin += end
  tags = dict.fromkeys(row['tag'] for row in rows if row['panel'] == 'loss')
  first = [DEFAULT_TAG] * (DEFAULT_TAG in tags)
  return {
    'points': [row for row in rows if np.isfinite(row['y'])],
    'bounds': bounds,
    'tags': [*first, *(tag for tag in tags if tag != DEFAULT_TAG)],
  }


def panel_of(tag: str) -> str:
  """The panel that shows a curve; '' for none."""
  if tag == 'learning_rate':
    return 'rate'
  if tag.startswith(SCORE):
    return 'score'
  return '' if tag in NO_LOSSES or tag == 'parameter_norm' or '/' in tag else 'loss'


def scores_of(found: WorkingDirectory, stage: Stage, series: str) -> list[dict[str, PyTree]]:
  """The mIoU of a stage's network while it trained, and as it was measured at the end."""
  final = {
    each.key: each.row['mean_iou']
    for each in found.measurements
    if each.row['kind'] == 'network' and each.name == stage.name
  }
  points = [(point['step'], point['data'], point['mean_iou']) for point in stage.measured]
  points = [each for each in points if each[0] != stage.steps or each[1] not in final]
  points += [(stage.steps or 0, key, mean) for key, mean in final.items()]
  return [
    {'y': mean, 'tag': f'mIoU on {key}', 'panel': 'score', 'series': series or f'mIoU on {key}'}
    | {'stage': stage.name, 'step': step}
    for step, key, mean in points
    if mean is not None
  ]


def tables_while_training(found: WorkingDirectory) -> list[Table]:
  """The last point of every stage that has a curve and no measurement yet, for each data set."""
  measured = {(each.name, each.key) for each in found.measurements}
  last = {
    (point['data'], stage.name): point
    for stage in found.stages
    for point in stage.measured
    if (stage.name, point['data']) not in measured
  }
  return [
    Table(
      f'{key}, while stages train: measured on its labels, for the curve alone',
      ['step', 'mIoU', *next(point['iou'] for (of, _), point in last.items() if of == key)],
      [
        (
          name,
          [Cell(str(point['step'])), *map(iou_cell, [point['mean_iou'], *point['iou'].values()])],
        )
        for (of, name), point in last.items()
        if of == key
      ],
    )
    for key in dict.fromkeys(of for of, _ in last)
  ]


def iou_cell(value: float | None) -> Cell:
  """An IoU in per cent, coloured by it."""
  return Cell(percent(value), value)
