"""A row of a published table, typed in by hand as a small TOML or JSON file."""

import difflib
import json
import math
import pathlib
import tomllib
from collections.abc import Mapping, Sequence

from data_pipelines import label_tables
from data_pipelines.errors import BadInput, one_line
from diga_jax import rules
from diga_jax.types import PyTree

LONGEST = 2**20  # bytes: a row is a page at most
PERCENT = rules.number(0, 100)
EXTENT = rules.tuple_of(rules.whole(1, 2**14), 2)
# What a row may state of its protocol, as passports do.
PROTOCOL = {
  'data': rules.title,
  'class_set': rules.title,
  'class_means': rules.words('present', 'hiast'),
  'images': rules.whole(1),
  'list_sha256': rules.title,
  'image_files_sha256': rules.title,
  'label_files_sha256': rules.title,
  'label_table': rules.title,
  'scales': rules.tuple_of(rules.number(0, 16, above=True), least=1),
  'fusion': rules.title,
  'flip': rules.boolean,
  'image_size': rules.either(EXTENT, rules.words('various')),
  'label_size': rules.either(EXTENT, rules.words('various')),
  'chosen_by': rules.words('last', 'oracle'),
  'network': rules.words('student', 'teacher'),
}
TOP = {'name': rules.title, 'source': rules.title, 'mean_iou': PERCENT}
NUMBERS = ('mean_iou_subsets', 'iou')
TABLES = (*NUMBERS, 'protocol')
AGREE = 0.15  # points that the rounding of a mean and of its IoUs explains


def read(path: pathlib.Path) -> dict[str, PyTree]:
  """A row: 'name', 'source', 'protocol', and 'scores' with its numbers as fractions.

  Raises:
    BadInput: the file cannot be read, is no TOML or JSON, states something twice, lacks the name,
      the source or any number, or holds what a row does not have or may not be.
  """
  row: dict[str, PyTree] = {table: {} for table in TABLES}
  row |= parse(path)
  _check_names(path, row)
  _check(path, '', row, TOP)
  _check(path, 'protocol.', row['protocol'], PROTOCOL)
  _check_numbers(path, row)
  mean = row['mean_iou'] / 100 if 'mean_iou' in row else None
  fractions = {
    table: {name: value / 100 for name, value in row[table].items()} for table in NUMBERS
  }
  told = {key: row[key] for key in ('name', 'source', 'protocol')}
  return {**told, 'scores': {'mean_iou': mean, **fractions}}


def parse(path: pathlib.Path) -> dict[str, PyTree]:
  """The content of a .toml or .json file that holds a table; raises BadInput as `read`."""
  if path.suffix not in ('.toml', '.json'):
    raise BadInput(f'{path}: is no .toml or .json file: give a stage, a passport or a typed-in row')
  try:
    if path.stat().st_size > LONGEST:
      raise BadInput(f'{path}: has more than {LONGEST:,} bytes: it is no row of a table')
    text = path.read_text(encoding='utf-8')
    if path.suffix == '.toml':
      return tomllib.loads(text)
    found = json.loads(text, object_pairs_hook=_once)
  except OSError as error:
    raise BadInput(f'{path}: cannot be read ({error.strerror})') from None
  except BadInput as error:
    raise BadInput(f'{path}: {str(error).removeprefix(f"{path}: ")}') from None
  except (ValueError, RecursionError) as error:
    raise BadInput(f'{path}: is no {path.suffix[1:].upper()} file: {one_line(error)}') from None
  if not isinstance(found, dict):
    raise BadInput(f'{path}: holds no table of names and values: see docs/results_files.md')
  return found


def _once(pairs: Sequence[tuple[str, PyTree]]) -> dict[str, PyTree]:
  found = dict(pairs)
  if len(found) < len(pairs):
    names = [name for name, _ in pairs]
    raise BadInput(f'{max(names, key=names.count)!r} stands there twice: take one out')
  return found


def _check_names(path: pathlib.Path, row: Mapping[str, PyTree]) -> None:
  """Refuses fields and classes that there are not, and a row that lacks what it needs."""
  for field in TABLES:
    if not isinstance(row[field], dict):
      raise BadInput(f'{path}: {field} is {row[field]!r}: it may be a table of names and values')
  classes = label_tables.NAMES.get(str(row['protocol'].get('class_set')), ())
  for place, given, known in (
    ('', row, (*TOP, *TABLES)),
    ('protocol.', row['protocol'], tuple(PROTOCOL)),
    ('iou.', row['iou'] if classes else (), classes),
  ):
    if strangers := [field for field in given if field not in known]:
      near = difflib.get_close_matches(strangers[0], known, 1)
      advice = f'is it {near[0]!r}?' if near else f'there are {", ".join(known)}'
      raise BadInput(f'{path}: {place}{strangers[0]} is not known: {advice}')
  for field in ('name', 'source'):
    if field not in row:
      raise BadInput(f'{path}: has no {field}: give the {field} of the row')


def _check(
  path: pathlib.Path, prefix: str, values: Mapping[str, PyTree], known: Mapping[str, rules.Rule]
) -> None:
  """Refuses values that their rules do not accept."""
  for field, rule in known.items():
    if field in values and not rule.accepts(values[field]):
      raise BadInput(f'{path}: {prefix}{field} is {values[field]!r}: it may be {rule.text}')


def _check_numbers(path: pathlib.Path, row: Mapping[str, PyTree]) -> None:
  """Refuses a row without numbers, numbers that are none, and fractions in place of per cent."""
  for table in NUMBERS:
    _check(path, f'{table}.', row[table], dict.fromkeys(row[table], PERCENT))
  numbers = [value for table in NUMBERS for value in row[table].values()]
  numbers += [row['mean_iou']] if 'mean_iou' in row else []
  if not numbers:
    raise BadInput(f'{path}: has no number: give mean_iou, or a table [iou] of the classes')
  if 0 < max(numbers) <= 1:  # no network that is published is as bad
    raise BadInput(f'{path}: its largest number is {max(numbers)}: give numbers in per cent')


def disagreement(row: Mapping[str, PyTree]) -> str:
  """What is odd about a row: a mean that is not that of its IoUs; '' if nothing is."""
  scores = row['scores']
  known = label_tables.NAMES.get(row['protocol'].get('class_set', ''), ())
  if len(scores['iou']) < max(1, len(known)) or scores['mean_iou'] is None:
    return ''
  mean = 100 * math.fsum(scores['iou'].values()) / len(scores['iou'])
  if abs(mean - 100 * scores['mean_iou']) <= AGREE:
    return ''
  return (
    f'{row["name"]}: its {len(scores["iou"])} IoUs have the mean {mean:.1f}, and mean_iou is '
    f'{100 * scores["mean_iou"]:.1f}: a number is mistyped or missing, or the mean is another one'
  )
