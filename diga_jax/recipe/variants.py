"""The variants of a study: a grid of values of fields, named changes of a config, or both."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from data_pipelines.errors import BadInput
from diga_jax import rules
from diga_jax.config import config_file, flatten, read_config, split_override
from diga_jax.types import PyTree

LONGEST = 100  # characters of a name, which is a folder's
SEED = re.compile(r'seed_\d+')
ENDS = {'(': ')', '[': ']', '{': '}'}


class Variant(NamedTuple):
  """One config of a study.

  Attributes:
    name: of its folder; '' if it is the only one, and has none of its own.
    config: with its changes.
    changes: field -> value.
  """

  name: str
  config: ConfigDict
  changes: dict[str, PyTree]


def variants(
  name: str, overrides: Sequence[str], config: ConfigDict, vary: Sequence[str]
) -> list[Variant]:
  """Every named variant of a config with every combination of the values of `vary`.

  Args:
    name, overrides: --config and the arguments --config.FIELD=VALUE, which hold for all.
    config: what they give, with its `variants`.
    vary: 'FIELD=VALUE,VALUE,...'.

  Raises:
    BadInput: a field or value is none, stands twice or is that of every variant, or two variants
      would have one folder.
  """
  given = [split_override(text)[0] for text in overrides]
  grid = read_grid(vary, given)
  named = {label: list(map(change, texts)) for label, texts in config.variants}
  if len(named) < len(config.variants):
    raise BadInput('config.variants: a name stands twice')
  if not named and not grid:
    return [Variant('', config, {})]
  found = []
  for label, own in (named or {'': []}).items():
    for field, _ in own:
      refuse_field(f'config.variants: {label}', field, [*grid, *given])
    for values in itertools.product(*grid.values()):
      changes = dict([*own, *zip(grid, values, strict=True)])
      if len(changes) < len(own) + len(grid):
        raise BadInput(f'config.variants: {label}: a field stands twice')
      found.append(variant(name, overrides, label, list(grid), changes))
  check_names([each.name for each in found])
  return found


def variant(
  name: str, overrides: Sequence[str], label: str, varied: Sequence[str], changes: Mapping[str, str]
) -> Variant:
  """A config with changes, field -> value as on the command line; named by `label` and `varied`."""
  texts = [f'--config.{field}={value}' for field, value in changes.items()]
  config = read_config([f'--config={config_file(name)}', *overrides, *texts])
  values = flatten(config.to_dict(), empty=True)
  if groups := [field for field in changes if field not in values]:
    raise BadInput(f'config.{groups[0]} is a group of fields: vary one of them')
  short = short_names(varied)
  parts = [f'{short[field]}={folder_name(values[field])}' for field in varied]
  parts = [label, *parts] if label else parts
  return Variant(','.join(parts), config, {field: values[field] for field in changes})


def read_grid(vary: Sequence[str], given: Sequence[str]) -> dict[str, list[str]]:
  """'FIELD=VALUE,VALUE' -> field -> its values; `given` are the fields that all variants share."""
  grid: dict[str, list[str]] = {}
  for text in vary:
    field, equals, values = text.partition('=')
    if not equals or not field:
      raise BadInput(f'--vary {text}: is no FIELD=VALUE,VALUE')
    refuse_field(f'--vary {text}', field, [*grid, *given])
    grid[field] = split_values(values)
    if len(grid[field]) < 2:
      raise BadInput(f'--vary {text}: has one value: give --config.{text}, or more values')
  return grid


def refuse_field(where: str, field: str, others: Sequence[str]) -> None:
  """Refuses a field that no variant may change; `others` are changed elsewhere."""
  if field in ('seed', 'variants'):
    what = {'seed': 'seeds are given by --seeds', 'variants': 'variants have no variants'}[field]
    raise BadInput(f'{where}: {what}')
  if field in others:
    raise BadInput(f'{where}: config.{field} is given twice: leave one out')


def change(text: str) -> tuple[str, str]:
  """(field, value) of 'FIELD=VALUE'; raises BadInput."""
  field, equals, value = text.partition('=')
  if not equals or not field:
    raise BadInput(f'config.variants: {text!r} is no FIELD=VALUE')
  return field, value


def split_values(text: str) -> list[str]:
  """The values between the commas that stand in no brackets; raises BadInput for open brackets."""
  parts, waiting = [''], []
  for letter in text:
    if letter in ENDS:
      waiting.append(ENDS[letter])
    elif waiting and letter == waiting[-1]:
      waiting.pop()
    if letter == ',' and not waiting:
      parts.append('')
    else:
      parts[-1] += letter
  if waiting:
    raise BadInput(f'--vary {text}: a bracket is not closed')
  return parts


def short_names(fields: Sequence[str]) -> dict[str, str]:
  """Field -> as few of its last words as tell it from the others."""

  def ends(field: str) -> Iterator[str]:
    words = field.split('.')
    return ('.'.join(words[-count:]) for count in range(1, len(words) + 1))

  def is_unique(end: str) -> bool:
    return sum(f'.{field}'.endswith(f'.{end}') for field in fields) == 1

  return {field: next(filter(is_unique, ends(field)), field) for field in fields}


def folder_name(value: PyTree) -> str:
  """A value as part of the name of a folder: (192, 256) -> '192x256'."""
  if isinstance(value, tuple | list):
    return 'x'.join(map(folder_name, value)) or 'empty'
  return re.sub(r'[^A-Za-z0-9_.+-]+', '-', str(value)) or 'empty'


def check_names(names: Sequence[str]) -> None:
  """Refuses variants of one folder, and names that no folder of a variant may have."""
  for name in names:
    if sum(rules.fold(name) == rules.fold(other) for other in names) > 1:
      raise BadInput(
        f'two variants would be the folder {name!r}: a value stands twice, or write them in '
        'config.variants, with names of their own'
      )
    if len(name) > LONGEST:
      raise BadInput(
        f'the folder {name!r} of a variant is longer than {LONGEST} characters: write the variants '
        'in config.variants, with names of their own'
      )
    if name == 'study' or SEED.fullmatch(name):
      raise BadInput(f'config.variants: {name!r} is the name of another folder: rename it')
