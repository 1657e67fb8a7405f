"""study: the recipe over several seeds, and over variants of its config."""

import argparse
import itertools
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from data_pipelines import atomic
from data_pipelines.errors import BadInput
from diga_jax.commands.arguments import (
  Commands,
  add_command,
  add_dry_run,
  add_workdir,
  parse_number,
)
from diga_jax.commands.run import print_facts

if TYPE_CHECKING:
  from diga_jax.recipe.cells import Study
  from diga_jax.recipe.comparison import Bounds, Comparison
  from diga_jax.recipe.variants import Variant
  from diga_jax.report.tables import Part
  from diga_jax.types import Rows


def add_arguments(commands: Commands) -> None:
  """The recipe with several seeds and variants."""
  text = 'the recipe with several seeds, and with variants of the config, compared'
  command = add_dry_run(add_workdir(add_command(commands, 'study', text, study)))
  text = 'joins those that the study has already'
  command.add_argument(
    '--seeds', type=parse_number(0, 2**63 - 1), nargs='+', required=True, metavar='N', help=text
  )
  text = 'values of a field that are compared; several of these make a grid (docs/studies.md)'
  command.add_argument(
    '--vary', action='append', default=[], metavar='FIELD=VALUE,VALUE', help=text
  )
  text = 'a row to which the differences of the others are told, seed by seed: [VARIANT/]STAGE'
  command.add_argument('--against', metavar='ROW', help=text)
  text = 'a row that ends the gap which begins at --against, such as one trained on target labels'
  command.add_argument('--upper', metavar='ROW', help=text)
  text = (
    'this machine is the I-th of N with this --workdir: begins elsewhere than the others; '
    "'auto': of an array of SLURM, or an indexed job of Kubernetes"
  )
  command.add_argument('--share', type=parse_share, metavar='I/N', help=text)


def parse_share(text: str) -> tuple[int, int]:
  """(which, of how many) machines this is; raises ArgumentTypeError."""
  if text == 'auto':
    found = share_of(os.environ)
    if found is None:
      raise argparse.ArgumentTypeError(
        "'auto' is for arrays of SLURM and indexed jobs of Kubernetes: give I/N"
      )
    return found
  numbers = re.fullmatch(r'([0-9]{1,6})/([0-9]{1,6})', text)
  which, count = map(int, numbers.groups()) if numbers else (1, 0)
  if which > count or count == 0:
    raise argparse.ArgumentTypeError(f'{text!r} is not I/N, with I from 0 or 1 on, such as 2/8')
  return which % count, count


def share_of(environment: Mapping[str, str]) -> tuple[int, int] | None:
  """(which, of how many) by the environment of SLURM's arrays and Kubernetes' indexed jobs."""
  if 'SLURM_ARRAY_TASK_ID' in environment:
    first = int(environment.get('SLURM_ARRAY_TASK_MIN', 0))
    count = int(environment.get('SLURM_ARRAY_TASK_COUNT', 1))
    return (int(environment['SLURM_ARRAY_TASK_ID']) - first) % count, count
  if 'JOB_COMPLETION_INDEX' in environment:  # which tells nothing of the others
    return int(environment['JOB_COMPLETION_INDEX']), 0
  return None


def first_cell(share: tuple[int, int] | None, cells: int) -> int:
  """The position of the cell that a machine begins with; of unknown many each takes the next."""
  which, count = share or (0, 1)
  return which * cells // count if count else which % cells


def study(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """The recipe once per variant and seed, in WORKDIR/[VARIANT/]seed_N; tables in WORKDIR/study/."""
  from diga_jax.page.write import update, update_comparison
  from diga_jax.parallel import processes
  from diga_jax.recipe import cells, checkpoints, comparison
  from diga_jax.recipe.variants import variants

  if len(set(arguments.seeds)) < len(arguments.seeds):
    raise BadInput('--seeds: a seed is named twice: a spread is of different ones')
  made = variants(arguments.config, arguments.overrides, config, arguments.vary)
  names, protocol = [variant.name for variant in made], config.evaluation.name
  seeds = sorted({*arguments.seeds, *cells.seeds_of(arguments.workdir, names, protocol)})
  found = cells.study(arguments.workdir, made, seeds)
  found, facts = cells.check(found)
  named = comparison.bounds(found, arguments.against, arguments.upper)
  place = arguments.workdir / 'study' / protocol
  comparison.check_earlier(place.with_name(f'{protocol}.json'), found, made)
  if arguments.dry_run:
    done = sum(map(cells.is_complete, found.cells.values()))
    about = {'seeds': ', '.join(map(str, seeds)), **cells.describe(found)}
    about['cells'] = f'{done} of {len(found.cells)} complete'
    return print_facts({**about, **facts})
  cells.work(found, first_cell(arguments.share, len(found.cells)), update)
  cells.check_versions(found)
  rows = cells.measured(found)
  each = {key: comparison.compare(found, key, named) for key in config.evaluation.sets}
  chosen = [part for name in names for part in checkpoints.describe(found.runs(name))]
  if processes.is_main_process():
    write(place, found, made, named, rows, each, chosen)
    page = place.with_name(f'{protocol}.html')
    if update_comparison([cell.run.workdir for cell in found.cells.values()], page):
      print(f'the runs on a page: {page}')


def write(
  place: pathlib.Path,
  found: 'Study',
  made: 'Sequence[Variant]',
  named: 'Bounds',
  rows: 'Sequence[Rows]',
  each: 'Mapping[str, Comparison]',
  chosen: 'Sequence[Part]',
) -> None:
  """Writes tables, numbers and figures of a complete study as PLACE.*; prints the tables."""
  from diga_jax.recipe import comparison, graph
  from diga_jax.recipe.experiment import class_names
  from diga_jax.report import charts, tables
  from diga_jax.report.study import drawings, summarise
  from diga_jax.storage import stage_folder

  def beside(end: str) -> pathlib.Path:
    return place.with_name(f'{place.name}{end}')

  comparison.check_earlier(beside('.json'), found, made)
  run = found.runs(found.variants[0])[0]
  names, parts = class_names(run), summarise(rows)
  parts += [*comparison.describe(each, named, len(found.seeds)), *chosen]
  for number, (key, one) in enumerate(each.items()):
    path = beside(f'_networks{f"_{number}" * (number > 0)}.png')
    charts.scores(key, one.scores, one.differences, named.against, path)
  for name, draw in drawings(rows):
    draw(beside(f'_{name}.png'))
  if each:
    average = comparison.average_of(run)
    comparison.save_counts(beside('.npz'), each, found.seeds, names, average)
    table = comparison.table_of_classes(each, found.seeds, names)
    atomic.write_text(beside('.csv'), table)
  atomic.write_text(beside('.md'), tables.render_markdown(parts) + '\n')
  numbers = comparison.summary(found, made, each, named)
  stage_folder.write_metrics(beside('.json'), {**numbers, 'runs': rows})
  passports = [graph.passports_of(found.runs(variant)) for variant in found.variants]
  stage_folder.write_metrics(beside('_passports.json'), [*itertools.chain(*passports)])
  print(tables.render_to_fit(parts))
  print(f'these tables, all numbers and plots: {place}.md, .json, .csv, .npz and _*.png')
