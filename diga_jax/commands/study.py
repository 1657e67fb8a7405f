"""study: the recipe over several seeds."""

import argparse
import pathlib
import re

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


def add_arguments(commands: Commands) -> None:
  """The recipe with several seeds."""
  text = 'the recipe with several seeds; mean and spread of every row'
  command = add_dry_run(add_workdir(add_command(commands, 'study', text, study)))
  text = 'joins those that the study has already'
  command.add_argument(
    '--seeds', type=parse_number(0, 2**63 - 1), nargs='+', required=True, metavar='N', help=text
  )
  text = 'a row to which the differences of the others are told, seed by seed'
  command.add_argument('--against', metavar='STAGE', help=text)


def study(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """The recipe once per seed, in WORKDIR/seed_N; then mean and spread, in WORKDIR/study/."""
  from diga_jax.parallel import processes
  from diga_jax.recipe import checks, comparison, graph
  from diga_jax.recipe.experiment import Run
  from diga_jax.report.study import drawings, summarise
  from diga_jax.storage import run_record, stage_folder

  if len(set(arguments.seeds)) < len(arguments.seeds):
    raise BadInput('--seeds: a seed is named twice: a spread is of different ones')
  place = arguments.workdir / 'study' / config.evaluation.name
  table, numbers = (place.with_name(f'{place.name}.{ending}') for ending in ('md', 'json'))
  seeds = sorted({*arguments.seeds, *seeds_of(arguments.workdir, config.evaluation.name)})
  runs = []
  for seed in seeds:
    seeded = config.copy_and_resolve_references()
    seeded.seed = seed
    runs.append(Run(seeded, arguments.workdir / f'seed_{seed}'))
  if arguments.against is not None:
    comparison.check(runs[0], arguments.against)
  facts = checks.check_recipe(runs[0])
  for other in runs[1:]:  # which read the same
    checks.check_folders(other, graph.stages_of(other), graph.measurements(other))
  if arguments.dry_run:
    return print_facts({'seeds': ', '.join(map(str, seeds)), **facts})
  rows = []
  for run in runs:
    with stage_folder.lock(run.workdir), run_record.recorded(run.workdir, run.config.to_dict()):
      rows.append(graph.run_recipe(run))
  if not processes.is_main_process():
    return
  text = summarise(rows)
  if arguments.against is not None:
    text += f'\n\n{comparison.describe(runs, arguments.against)}'
  for name, draw in drawings(rows):
    draw(place.with_name(f'{place.name}_{name}.png'))
  atomic.write_text(table, text + '\n')
  stage_folder.write_metrics(numbers, rows)
  print(text)
  print(f'these tables, all numbers and plots: {place}.md, .json and _*.png')


def seeds_of(workdir: pathlib.Path, protocol: str) -> set[int]:
  """The seeds whose folders hold measurements of a protocol."""
  places = (each.parents[1].name for each in workdir.glob(f'seed_*/evaluation/{protocol}'))
  return {int(place[5:]) for place in places if re.fullmatch(r'seed_(0|[1-9]\d{0,18})', place)}
