"""study: the recipe over several seeds."""

import argparse

from ml_collections import ConfigDict

from data_pipelines import atomic
from diga_jax.commands.arguments import Commands, add_command, add_workdir


def add_arguments(commands: Commands) -> None:
  """The recipe with several seeds."""
  text = 'the recipe with several seeds; mean and spread of every row'
  command = add_workdir(add_command(commands, 'study', text, study))
  command.add_argument('--seeds', type=int, nargs='+', required=True, metavar='N')


def study(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """The recipe once per seed, in WORKDIR/seed_N; then mean and spread, in WORKDIR/study/."""
  from diga_jax.parallel import processes
  from diga_jax.recipe import graph
  from diga_jax.recipe.experiment import Run
  from diga_jax.report.study import drawings, summarise
  from diga_jax.storage import run_record, stage_folder

  runs = []
  for seed in arguments.seeds:
    seeded = config.copy_and_resolve_references()
    seeded.seed = seed
    workdir = arguments.workdir / f'seed_{seed}'
    with stage_folder.lock(workdir), run_record.recorded(workdir):
      runs.append(graph.run_recipe(Run(seeded, workdir)))
  if not processes.is_main_process():
    return
  place = arguments.workdir / 'study' / config.evaluation.name
  text = summarise(runs)
  for name, draw in drawings(runs):
    draw(place.with_name(f'{place.name}_{name}.png'))
  atomic.write_text(place.with_suffix('.md'), text + '\n')
  stage_folder.write_metrics(place.with_suffix('.json'), runs)
  print(text)
  print(f'these tables, all numbers and plots: {place}.md, .json and _*.png')
