"""The classes of label files, and the tables from what the files hold to train ids."""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from data_pipelines import published_sets
from data_pipelines.errors import BadInput
from data_pipelines.label_tables import IGNORE, NAMES, PALETTE, Colour
from data_pipelines.own_data.label_kinds import CLASSES_OF, Labels, holds, named_table

Size = tuple[int, ...]  # (height, width)
Table = str | tuple[tuple[int | Colour, int], ...]

# By which table files are read whose classes the user names by these.
TABLE_OF = {'cityscapes19': 'train_ids', 'camvid11': 'camvid11', 'robotcar9': 'robotcar9'}
BY_HAND = 'give its table in the config by hand (docs/own_data.md)'


class Classes(NamedTuple):
  """The classes of some sets of label files.

  Attributes:
    count: how many.
    tables: by set, from ids or colours to train ids: the name of a table, or pairs.
    names: of each class; () for classes without names.
    colours: of each class; () for classes without colours.
    known: the key of `label_tables.NAMES` of the published set whose classes they are; '' else.
    kept: the train ids of these classes there; () for all, read by the tables of `named`.
    named: by set, the name of the table by which the published set's files are read.
  """

  count: int
  tables: dict[str, Table]
  names: tuple[str, ...] = ()
  colours: tuple[Colour, ...] = ()
  known: str = ''
  kept: tuple[int, ...] = ()
  named: Mapping[str, str] = MappingProxyType({})

  @property
  def absent(self) -> list[str]:
    """The classes of the published set that are left out, since no label shows them."""
    names = NAMES[self.known] if self.known and self.kept else ()
    return [name for train, name in enumerate(names) if train not in self.kept]


def find_classes(
  labels: Mapping[str, Labels],
  paths: Mapping[str, str],
  sizes: Mapping[str, Size],
  names: Sequence[str] = (),
) -> Classes:
  """The classes that the first of some sets shows, and the tables of all.

  Args:
    labels: by set, what its label files hold.
    paths: by set, a label file.
    sizes: by set, the size (h, w) of most of its images.
    names: of the classes, as many as there are; or a key of `label_tables.NAMES`; () for none.

  Raises:
    BadInput: the sets do not go together, or the names not with what the files hold.
  """
  first = next(iter(labels))
  given = names[0] if len(names) == 1 and names[0] in NAMES else ''
  named = {key: _table_of(each, paths[key], given) for key, each in labels.items()}
  known = {CLASSES_OF.get(table, table) for table in named.values()}
  if len(known) == 1 and named[first] in CLASSES_OF:
    found = _published(labels, named, sizes)
  elif named[first] in CLASSES_OF and len(labels) > 1:
    raise BadInput(
      f'{paths[list(labels)[-1]]}: is not of the classes of {paths[first]} '
      f'({CLASSES_OF[named[first]]}): {BY_HAND}'
    )
  else:
    found = _own(labels, paths)
  if given or not names:
    return found
  if len(names) != found.count or len(set(names)) < len(names):
    held = _few(labels[first].values, 20)
    raise BadInput(
      f'--names: give {found.count} different names, one for each class ({held}), and not '
      f'{len(names)}'
    )
  return found._replace(names=tuple(names))


def _table_of(labels: Labels, path: str, given: str) -> str:
  if not given or labels.label_format == 'colour':
    return named_table(labels, path)
  table = TABLE_OF.get(given, '')
  ids = [raw for raw in labels.values if isinstance(raw, int)]
  if not table or not holds(table, ids):
    raise BadInput(
      f'--names {given}: {path} and the others hold {_few(ids, 20)}, which are no '
      f"ids of table '{table or given}': give the names one by one"
    )
  return table


def _published(
  labels: Mapping[str, Labels], named: Mapping[str, str], sizes: Mapping[str, Size]
) -> Classes:
  """Those of a published set; if some do not occur, the others under numbers of their own.

  Images of other sizes than the set's are of another set with its classes, which is not compared
  with what is known of it: its table is written as pairs.
  """
  first = next(iter(labels))
  known = CLASSES_OF[named[first]]
  names, palette = NAMES[known], PALETTE[known].tolist()
  every, label_format = range(len(names)), labels[first].label_format
  train_of = dict(published_sets.some_classes(named[first], every, label_format))
  trains = {train_of[value] for value in labels[first].values} - {IGNORE}
  complete = len(trains) == len(names)
  if complete and all(sizes[key] in _usual_sizes(named[key], sizes[key]) for key in named):
    return Classes(len(names), dict(named), names, known=known, named=dict(named))
  kept = tuple(sorted(trains))
  tables: dict[str, Table] = {
    key: published_sets.some_classes(table, kept, labels[key].label_format)
    for key, table in named.items()
  }
  shown = tuple((r, g, b) for r, g, b in (palette[train] for train in kept))
  own = tuple(names[train] for train in kept)
  return Classes(len(kept), tables, own, shown, known, kept, dict(named))


def _usual_sizes(table: str, other: Size) -> Collection[Size]:
  """Those of the set that is read by a named table; any for sets of all sizes."""
  return published_sets.SIZES.get('cityscapes' if table == 'train_ids' else table, {other})


def _own(labels: Mapping[str, Labels], paths: Mapping[str, str]) -> Classes:
  """A class for each id or colour of the first set; what others hold besides is ignored."""
  first, values = next(iter(labels)), _values(labels)
  for key, each in labels.items():
    if each.label_format != labels[first].label_format:
      raise BadInput(
        f'{paths[key]}: holds labels of the format {each.label_format!r}, {paths[first]} of '
        f'{labels[first].label_format!r}: {BY_HAND}'
      )
    beyond = [v for v in each.values if v not in values and v != IGNORE]
    if beyond and key == 'target_test':
      raise BadInput(
        f'{paths[key]} and others hold {_few(beyond)}, which {paths[first]} and others do not: the '
        f'same ids have to mean the same, or {BY_HAND}'
      )
  held = set().union(*(each.values for each in labels.values()))
  beyond = [value for value in sorted(held, key=str) if value not in values and value != IGNORE]
  ignored = [(value, IGNORE) for value in (*beyond, *([IGNORE] if IGNORE in held else ()))]
  palette = labels[first].palette
  shown = tuple(palette[raw] for raw in values if isinstance(raw, int) and raw in palette)
  if labels[first].label_format == 'colour':
    shown = tuple(value for value in values if isinstance(value, tuple))
  shown = shown if len(set(shown)) == len(values) else ()
  table: Table = (*zip(values, range(len(values)), strict=True), *ignored)
  if not beyond and list(values) == list(range(len(values))):
    table = 'identity'
  if held == {0, IGNORE}:
    table, values = 'masks', (0, IGNORE)
  return Classes(len(values), dict.fromkeys(labels, table), colours=shown)


def _values(labels: Mapping[str, Labels]) -> tuple[int | Colour, ...]:
  """The ids or colours of the first set that are classes."""
  return tuple(value for value in next(iter(labels.values())).values if value != IGNORE)


def _few(values: Collection[int | Colour], count: int = 5) -> str:
  return ', '.join(map(str, list(values)[:count])) + ', ...' * (len(values) > count)
