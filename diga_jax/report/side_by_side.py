"""Two results side by side, class by class, and what forbids to compare them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import rich.table

from diga_jax.report import tables
from diga_jax.types import PyTree

# What two numbers must agree in, and how it is called.
COMPARED = {
  'class_set': 'class set',
  'classes': 'classes',
  'class_means': 'way of taking means',
  'images': 'split: number of images',
  'list_sha256': 'split: list of images',
  'image_files_sha256': 'image files',
  'label_files_sha256': 'label files',
  'label_table': 'label table',
  'label_size': 'label resolution',
  'image_size': 'image resolution',
  'scales': 'scales',
  'fusion': 'fusion of scales',
  'flip': 'flip',
  'chosen_by': 'weights chosen by',
}
# What tells two results apart and may differ.
TOLD = {
  'source': 'source',
  'data': 'data set',
  'network': 'network',
  'seed': 'seed',
  'step': 'step',
  'dtype': 'dtype',
  'precision': 'precision',
  'commit': 'commit',
  'devices': 'devices',
}
ONE_SCALE = 'one scale'  # a fusion of which the scales say all
CHOICES = {'oracle': 'labels of the target', 'last': 'the last step'}


class Result(NamedTuple):
  """One side of a comparison.

  Attributes:
    name: of the network.
    means: name of a mean ('' for the one over all classes) -> fraction.
    iou: class -> fraction, None for a class that neither labels nor predictions hold.
    facts: those of `COMPARED` and `TOLD` that are known.
  """

  name: str
  means: Mapping[str, float | None]
  iou: Mapping[str, float | None]
  facts: Mapping[str, PyTree]


def result_of(content: Mapping[str, PyTree]) -> Result:
  """A passport, or a row as `typed_row.read` gives it."""
  scores, made = content['scores'], content.get('made_from', {})
  under = made.get('made_under', {})
  facts = {**under, **made, **content['protocol'], 'source': content.get('source')}
  known = {key: facts[key] for key in (*COMPARED, *TOLD) if facts.get(key) not in (None, '')}
  if len(known.get('scales', ())) == 1:
    known['fusion'] = ONE_SCALE
  means = {'': scores['mean_iou'], **scores['mean_iou_subsets']}
  return Result(
    content['name'], {k: v for k, v in means.items() if v is not None}, scores['iou'], known
  )


def differences(first: Result, second: Result) -> list[str]:
  """Why two results are not comparable, a line for each reason; none if they are."""
  found = [
    f'{word}: {_shown(key, first.facts[key])} in A, {_shown(key, second.facts[key])} in B'
    for key, word in COMPARED.items()
    if key in first.facts
    and key in second.facts
    and ONE_SCALE not in (first.facts[key], second.facts[key])
    and _comparable(key, first.facts[key]) != _comparable(key, second.facts[key])
  ]
  found += _strangers('A', first, second) + _strangers('B', second, first)
  if first.means and second.means and not first.means.keys() & second.means.keys():
    found.append(f'mean: {_means_of(first)} in A, {_means_of(second)} in B')
  if not (first.means.keys() & second.means.keys() or first.iou.keys() & second.iou.keys()):
    found.append('numbers: A and B have no class and no mean in common')
  return found


def _strangers(side: str, result: Result, other: Result) -> list[str]:
  """Classes of a result that the other one, whose class names are all known, does not have."""
  known = other.facts.get('classes', ())
  strangers = [name for name in result.iou if known and name not in known]
  if not strangers or 'classes' in result.facts:
    return []
  return [f'classes: {", ".join(strangers)} in {side} alone; the other has {", ".join(known)}']


def _means_of(result: Result) -> str:
  return ', '.join(f'over {name}' if name else 'over all classes' for name in result.means)


def _comparable(key: str, fact: PyTree) -> PyTree:
  if key == 'scales':
    return sorted(map(float, fact))
  return list(fact) if isinstance(fact, tuple) else fact


def unknown(result: Result) -> list[str]:
  """What is not known of a result, so that nobody can say whether it agrees with another one."""
  # Of the classes the class set or the IoUs tell.
  return [word for key, word in COMPARED.items() if key not in result.facts and key != 'classes']


def render(first: Result, second: Result, width: int) -> str:
  """Facts of the two, and a line for every class and every mean with the difference in points."""
  equal, apart = [], tables.plain_table('', 'A', 'B')
  for column in apart.columns[1:]:
    column.justify, column.overflow = 'left', 'fold'
  apart.add_row('network of', first.name, second.name)
  words = TOLD | {key: word for key, word in COMPARED.items() if key != 'classes'}
  for key, word in words.items():
    cells = [_shown(key, r.facts[key]) if key in r.facts else '?' for r in (first, second)]
    if len(set(cells)) > 1:
      apart.add_row(word, *cells)
    elif cells != ['?', '?']:
      equal.append(f'{word} {cells[0]}')
  both = f'both: {"; ".join(equal)}' if equal else ''
  return tables.render_tables([apart, '', both, '', _numbers(first, second)], width)


def _numbers(first: Result, second: Result) -> rich.table.Table:
  result = tables.plain_table('IoU, %', 'A', 'B', 'B - A')
  for name in _in_order(first.iou, second.iou):
    result.add_row(name, *_cells(first.iou.get(name), second.iou.get(name)))
  result.add_section()
  for name in _in_order(first.means, second.means):
    shown = f'mean of {name}' if name else 'mean'
    result.add_row(shown, *_cells(first.means.get(name), second.means.get(name)))
  return result


def _in_order(*names: Mapping[str, PyTree]) -> Sequence[str]:
  """The longer one's order, then what it lacks."""
  longer, shorter = sorted(names, key=len, reverse=True)
  return list(dict.fromkeys([*longer, *shorter]))


def _cells(first: float | None, second: float | None) -> Iterator[str]:
  yield from ('-' if value is None else f'{100 * value:.1f}' for value in (first, second))
  yield '-' if first is None or second is None else f'{100 * (second - first):+.1f}'


def _shown(key: str, fact: PyTree) -> str:
  """A fact in few characters."""
  if key.endswith('sha256'):
    return str(fact)[:12]
  if key == 'commit':  # '+' behind it: with changes that were not committed
    return fact[:12] + '+' * fact.endswith('+')
  if key == 'scales':
    return ', '.join(f'{scale:g}' for scale in fact)
  if key.endswith('_size'):
    return tables.extent(fact)
  if key == 'classes':
    return ', '.join(fact)
  return CHOICES.get(fact, str(fact)) if key == 'chosen_by' else str(fact)
