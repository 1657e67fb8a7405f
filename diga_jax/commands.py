"""What each command of the command line does."""

import argparse

from ml_collections import ConfigDict

from data_pipelines.errors import BadInput
from diga_jax import build, files, models, recipe, report
from diga_jax import predict as prediction
from diga_jax import study as summary
from diga_jax import weights as layers
from diga_jax.experiment import Experiment, weights_file


def run(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """The whole recipe, then its table."""
  experiment = Experiment(config, arguments.workdir)
  show(experiment, recipe.run(experiment))


def study(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """The recipe once per seed, in WORKDIR/seed_N; then mean and spread, in WORKDIR/study/."""
  runs = []
  for seed in arguments.seeds:
    seeded = config.copy_and_resolve_references()
    seeded.seed = seed
    runs.append(recipe.run(Experiment(seeded, arguments.workdir / f'seed_{seed}')))
  place = arguments.workdir / 'study' / config.evaluation.name
  text = summary.summarise(runs)
  with files.replacing(place.with_suffix('.md')) as temporary:
    temporary.write_text(text + '\n')
  report.write_metrics(place.with_suffix('.json'), runs)
  print(text)
  print(f'these tables and all numbers: {place}.md and .json')


def train(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """One training stage, whose inputs must be complete."""
  experiment = Experiment(config, arguments.workdir)
  if experiment.stage(arguments.stage).kind not in build.STEPS:
    raise BadInput(f'stage {arguments.stage!r} is not trained: use the command label')
  recipe.run_stage(experiment, arguments.stage)


def label(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """One label pass."""
  experiment = Experiment(config, arguments.workdir)
  if experiment.stage(arguments.stage).kind != 'label':
    raise BadInput(f'stage {arguments.stage!r} is not a label pass: use the command train')
  recipe.run_stage(experiment, arguments.stage)


def evaluate(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Every network of the recipe under the config's protocol."""
  experiment = Experiment(config, arguments.workdir)
  show(experiment, recipe.evaluate(experiment))


def show(experiment: Experiment, results: list[dict]) -> None:
  """Prints the table, the table of classes, what the consensus kept, and where the rest is."""
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
    experiment.network(arguments.stage, settings.network),
    arguments.images,
    arguments.output,
    palette=build.palette(experiment),
    scales=settings.scales,
  )


def weights(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Prints how a weights file and the config's network fit."""
  experiment = Experiment(config, None)
  found = layers.read(weights_file(arguments.file))
  _, rows = layers.initialise(models.shapes(experiment.model), found, partial=arguments.partial)
  print(layers.format_report(rows))
