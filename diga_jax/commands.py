"""What each command of the command line does."""

import argparse
import re

import jax
from ml_collections import ConfigDict

from data_pipelines.errors import BadInput
from diga_jax import artifact, build, files, hosts, models, recipe, report
from diga_jax import plan as planning
from diga_jax import predict as prediction
from diga_jax import study as summary
from diga_jax import weights as layers
from diga_jax.experiment import Experiment, weights_file


def prepare(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """What comes before any command: the other processes, and programs compiled by earlier runs.

  Raises:
    BadInput: a place is a URL, or the other processes cannot be reached.
  """
  places = {'--workdir': getattr(arguments, 'workdir', ''), 'config.data.root': config.data.root}
  for field, place in places.items():
    if re.match(r'\w+:/', str(place)):
      raise BadInput(f'{field} is {place}: mount the bucket and give its folder (docs/launch.md)')
  if getattr(arguments, 'distributed', None):
    hosts.connect(arguments.distributed)
  if config.compilation_cache:
    jax.config.update('jax_compilation_cache_dir', config.compilation_cache)


def run(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """The whole recipe, then its table."""
  experiment = Experiment(config, arguments.workdir)
  with artifact.locked(arguments.workdir):
    results = recipe.run(experiment)
  show(experiment, results)


def study(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """The recipe once per seed, in WORKDIR/seed_N; then mean and spread, in WORKDIR/study/."""
  runs = []
  for seed in arguments.seeds:
    seeded = config.copy_and_resolve_references()
    seeded.seed = seed
    workdir = arguments.workdir / f'seed_{seed}'
    with artifact.locked(workdir):
      runs.append(recipe.run(Experiment(seeded, workdir)))
  if not hosts.is_first():
    return
  place = arguments.workdir / 'study' / config.evaluation.name
  text = summary.summarise(runs)
  for name, draw, rows in summary.drawings(runs):
    draw(rows, place.with_name(f'{place.name}_{name}.png'))
  with files.replacing(place.with_suffix('.md')) as temporary:
    temporary.write_text(text + '\n')
  report.write_metrics(place.with_suffix('.json'), runs)
  print(text)
  print(f'these tables, all numbers and plots: {place}.md, .json and _*.png')


def train(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """One training stage, whose inputs must be complete."""
  experiment = Experiment(config, arguments.workdir)
  if experiment.stage(arguments.stage).kind not in build.STEPS:
    raise BadInput(f'stage {arguments.stage!r} is not trained: use the command label')
  with artifact.locked(arguments.workdir):
    recipe.run_stage(experiment, arguments.stage)


def label(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """One label pass."""
  experiment = Experiment(config, arguments.workdir)
  if experiment.stage(arguments.stage).kind != 'label':
    raise BadInput(f'stage {arguments.stage!r} is not a label pass: use the command train')
  with artifact.locked(arguments.workdir):
    recipe.run_stage(experiment, arguments.stage)


def evaluate(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Every network of the recipe under the config's protocol."""
  experiment = Experiment(config, arguments.workdir)
  with artifact.locked(arguments.workdir):
    results = recipe.evaluate(experiment)
  show(experiment, results)


def show(experiment: Experiment, results: list[dict]) -> None:
  """Prints the table, the table of classes, what of the labels was kept, and where the rest is."""
  if not hosts.is_first():
    return
  networks = [row for row in results if 'iou' in row]
  print(report.table(networks))
  print(report.per_class(networks))
  for row in results:
    if 'kept' in row:
      print(report.kept(row))
  place = experiment.workdir / 'evaluation' / experiment.config.evaluation.name
  print(f'metrics.json and pictures of every network: {place}')


def predict(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Labels images with the network of a stage."""
  experiment = Experiment(config, arguments.workdir)
  settings = config.evaluation
  prediction.predict(
    experiment.model,
    experiment.trained(arguments.stage, settings.network),
    arguments.images,
    arguments.output,
    palette=build.palette(experiment),
    scales=settings.scales,
    batch_size=experiment.rows(1),
    put=experiment.put,
  )


def plan(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Prints what the recipe's training steps need on each topology."""
  counts = [int(t.partition(':')[2] or 1) for t in arguments.topology if t.startswith('cpu')]
  jax.config.update('jax_platforms', 'cpu')
  if counts:
    jax.config.update('jax_num_cpu_devices', max(counts))
  experiment = Experiment(config, None)
  for topology in arguments.topology:
    rows = planning.plan(experiment, topology)
    print(report.rendered(planning.table(topology, rows), width=1000), end='\n\n')


def weights(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Prints how a weights file and the config's network fit."""
  experiment = Experiment(config, None)
  found = layers.read(weights_file(arguments.file))
  _, rows = layers.initialise(models.shapes(experiment.model), found, partial=arguments.partial)
  print(layers.format_report(rows))
