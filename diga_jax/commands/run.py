"""run, train, label and evaluate: a recipe, whole or in parts."""

import argparse
import re

import jax
from ml_collections import ConfigDict

from data_pipelines.errors import BadInput
from diga_jax.parallel import processes
from diga_jax.recipe import graph
from diga_jax.recipe.experiment import Experiment
from diga_jax.report import tables
from diga_jax.stages import kinds
from diga_jax.storage import stage_folder


def set_up(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """What comes before any command: the other processes, and programs compiled by earlier runs.

  Raises:
    BadInput: a place is a URL, or the other processes cannot be reached.
  """
  places = {'--workdir': getattr(arguments, 'workdir', ''), 'config.data.root': config.data.root}
  for field, place in places.items():
    if re.match(r'\w+:/', str(place)):
      raise BadInput(f'{field} is {place}: mount the bucket and give its folder (docs/launch.md)')
  if getattr(arguments, 'distributed', None):
    processes.connect(arguments.distributed)
  if config.compilation_cache:
    jax.config.update('jax_compilation_cache_dir', config.compilation_cache)


def run(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """The whole recipe, then its table."""
  experiment = Experiment(config, arguments.workdir)
  with stage_folder.locked(arguments.workdir):
    results = graph.run(experiment)
  show(experiment, results)


def train(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """One training stage, whose inputs must be complete."""
  experiment = Experiment(config, arguments.workdir)
  if experiment.stage(arguments.stage).kind not in kinds.STEPS:
    raise BadInput(f'stage {arguments.stage!r} is not trained: use the command label')
  with stage_folder.locked(arguments.workdir):
    graph.run_stage(experiment, arguments.stage)


def label(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """One label pass."""
  experiment = Experiment(config, arguments.workdir)
  if experiment.stage(arguments.stage).kind != 'label':
    raise BadInput(f'stage {arguments.stage!r} is not a label pass: use the command train')
  with stage_folder.locked(arguments.workdir):
    graph.run_stage(experiment, arguments.stage)


def evaluate(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Every network of the recipe under the config's protocol."""
  experiment = Experiment(config, arguments.workdir)
  with stage_folder.locked(arguments.workdir):
    results = graph.evaluate(experiment)
  show(experiment, results)


def show(experiment: Experiment, results: list[dict]) -> None:
  """Prints the table, the table of classes, what of the labels was kept, and where the rest is."""
  if not processes.is_main_process():
    return
  networks = [row for row in results if 'iou' in row]
  print(tables.table(networks))
  print(tables.per_class(networks))
  for row in results:
    if 'kept' in row:
      print(tables.describe_labels(row))
  place = experiment.workdir / 'evaluation' / experiment.config.evaluation.name
  print(f'metrics.json and pictures of every network: {place}')
