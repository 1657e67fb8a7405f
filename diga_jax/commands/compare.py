"""compare: two results, or a result and a published row, side by side."""

import argparse
import pathlib
import shutil
import sys

import numpy as np
from ml_collections import ConfigDict

from data_pipelines.errors import BadInput
from diga_jax.commands.arguments import Commands, add_command, parse_path

SIDE = (
  'the folder of a stage (runs/a/self_training_1) or of one of its measurements, a passport.json, '
  'or a published row typed in by hand (.toml or .json)'
)


def add_arguments(commands: Commands) -> None:
  """Two results, and whether to show those that are not comparable."""
  text = 'two results, or a result and a published row, side by side'
  command = add_command(commands, 'compare', text, compare, config=False)
  command.add_argument('first', metavar='A', type=parse_path, help=SIDE)
  command.add_argument('second', metavar='B', type=parse_path, help='the same')
  text = 'show also what is not comparable, below the reasons'
  command.add_argument('--anyway', action='store_true', help=text)


def compare(arguments: argparse.Namespace, config: ConfigDict | None) -> None:
  """Prints facts and numbers of both; refuses what is not comparable, with all reasons."""
  from diga_jax.report import side_by_side
  from diga_jax.storage import passport

  paths = [path_of(path) for path in (arguments.first, arguments.second)]
  if paths[0].resolve() == paths[1].resolve():
    raise BadInput(f'A and B are both {paths[0]}: name two results')
  contents = [content_of(path) for path in paths]
  first, second = map(side_by_side.result_of, contents)
  reasons = side_by_side.differences(first, second)
  if reasons and not arguments.anyway:
    raise BadInput(
      f'not comparable: {"; ".join(reasons)} (A: {paths[0]}, B: {paths[1]}; --anyway shows both)'
    )
  for reason in reasons:
    print(f'NOT COMPARABLE: {reason}')
  print(f'A: {paths[0]}\nB: {paths[1]}\n')
  print(side_by_side.render(first, second, shutil.get_terminal_size().columns))
  for side, result in (('A', first), ('B', second)):
    if doubts := side_by_side.unknown(result):
      print(f'{side} does not state, so not compared: {", ".join(doubts)}', file=sys.stderr)
  if not reasons:
    print(f'\n{interval(contents, [passport.counts(path) for path in paths])}')


def path_of(path: pathlib.Path) -> pathlib.Path:
  """The passport or typed-in row that an argument means; raises BadInput."""
  from diga_jax.storage import passport

  if path.is_dir():
    return passport.find(path)
  if path.name == 'metrics.json':
    return passport.find(path.parent)
  if not path.is_file():
    raise BadInput(f'{path}: there is no such file or folder: give {SIDE}')
  return path


def content_of(path: pathlib.Path) -> dict:
  """A passport or a typed-in row; raises BadInput for a damaged one, or one of a label pass."""
  from diga_jax.report import typed_row
  from diga_jax.storage import passport

  if path.name != passport.NAME and 'passport' not in typed_row.parse(path):
    row = typed_row.read(path)
    if odd := typed_row.disagreement(row):
      print(f'diga_jax: {odd}', file=sys.stderr)
    return row
  found = passport.read(path)
  if found['kind'] != 'network':
    raise BadInput(f'{path}: is of a label pass, which has no IoU: name the stage of a network')
  return found


def interval(contents: list[dict], counts: list[dict[str, np.ndarray] | None]) -> str:
  """The difference of two means over the images of both, or why there is none, on one line."""
  from diga_jax import metrics
  from diga_jax.report import paired
  from diga_jax.types import ImageCounts

  for side, found in zip('AB', counts, strict=True):
    if found is None:
      return f'no interval over images: {side} has no numbers of single images (images.npz)'
  first, second = (found for found in counts if found is not None)
  if first['ids'].tolist() != second['ids'].tolist():
    raise BadInput('the images.npz of A and B are of different images: evaluate one of them again')
  protocol = contents[0]['protocol']
  names, way = protocol['classes'], protocol['class_means']
  means = metrics.class_means(protocol['class_set'], len(names), way)
  if means.divisors:
    return f'no interval over images: the means are of the kind {way!r}'
  classes = means.subsets.get(protocol['mean'], range(len(names)))
  ours, theirs = (ImageCounts(x['intersection'][None], x['union'][None]) for x in (second, first))
  found = paired.difference(ours, theirs, paired.Average(classes))
  if found.low is None or found.high is None:
    return 'no interval over images: there is one image'
  return (
    f'B - A in mIoU of {len(classes)} classes: {100 * found.mean:+.1f} points, 95% interval over '
    f'the {len(first["ids"])} images {100 * found.low:+.1f} to {100 * found.high:+.1f} (it says '
    'nothing of other seeds)'
  )
