"""run, train, label and evaluate: a recipe, whole or in parts."""

import argparse
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from data_pipelines.errors import BadInput
from diga_jax.commands.arguments import Commands, add_command, add_workdir

if TYPE_CHECKING:
  from diga_jax.recipe.experiment import Run


def add_arguments(commands: Commands) -> None:
  """The whole recipe, one stage of it, and its evaluation."""
  text = 'the whole recipe and its evaluation; continues where it was stopped'
  add_workdir(add_command(commands, 'run', text, run))
  for name, execute, text in (
    ('train', train, 'one training stage'),
    ('label', label, 'one label pass'),
  ):
    command = add_workdir(add_command(commands, name, text, execute))
    command.add_argument('--stage', required=True, help='its name in config.stages')
  text = "the recipe's networks under the config's protocol"
  add_workdir(add_command(commands, 'evaluate', text, evaluate))


def run(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """The whole recipe, then its table."""
  from diga_jax.recipe import graph
  from diga_jax.recipe.experiment import Run
  from diga_jax.storage import stage_folder

  experiment = Run(config, arguments.workdir)
  with stage_folder.locked(arguments.workdir):
    results = graph.run_recipe(experiment)
  show(experiment, results)


def train(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """One training stage, whose inputs must be complete."""
  from diga_jax.recipe import graph
  from diga_jax.recipe.experiment import Run
  from diga_jax.stages import kinds
  from diga_jax.storage import stage_folder

  experiment = Run(config, arguments.workdir)
  if kinds.kind_of(experiment.stage(arguments.stage)).train_step is None:
    raise BadInput(f'stage {arguments.stage!r} is not trained: use the command label')
  with stage_folder.locked(arguments.workdir):
    graph.run_stage(experiment, arguments.stage)


def label(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """One label pass."""
  from diga_jax.recipe import graph
  from diga_jax.recipe.experiment import Run
  from diga_jax.stages import kinds
  from diga_jax.storage import stage_folder

  experiment = Run(config, arguments.workdir)
  if kinds.kind_of(experiment.stage(arguments.stage)).train_step:
    raise BadInput(f'stage {arguments.stage!r} is not a label pass: use the command train')
  with stage_folder.locked(arguments.workdir):
    graph.run_stage(experiment, arguments.stage)


def evaluate(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Every network of the recipe under the config's protocol."""
  from diga_jax.recipe import graph
  from diga_jax.recipe.experiment import Run
  from diga_jax.storage import stage_folder

  experiment = Run(config, arguments.workdir)
  with stage_folder.locked(arguments.workdir):
    results = graph.evaluate(experiment)
  show(experiment, results)


def show(experiment: 'Run', results: list[dict]) -> None:
  """Prints the table, the table of classes, what of the labels was kept, and where the rest is."""
  from diga_jax.parallel import processes
  from diga_jax.report import tables

  if not processes.is_main_process():
    return
  networks = [row for row in results if row['kind'] == 'network']
  print(tables.table(networks))
  print(tables.per_class(networks))
  for row in results:
    if row['kind'] == 'labels':
      print(tables.describe_labels(row))
  place = experiment.workdir / 'evaluation' / experiment.config.evaluation.name
  print(f'metrics.json and pictures of every network: {place}')
