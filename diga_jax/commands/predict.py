"""predict: labels for any images."""

import argparse
import pathlib

from ml_collections import ConfigDict

from diga_jax.commands.arguments import Commands, add_command, add_workdir


def add_arguments(commands: Commands) -> None:
  """Images labelled by the network of a stage."""
  text = 'label images with a trained network'
  command = add_workdir(add_command(commands, 'predict', text, predict))
  command.add_argument('--stage', required=True, help='the stage whose network labels them')
  command.add_argument('--output', required=True, type=pathlib.Path, metavar='DIR')
  command.add_argument('images', nargs='+', type=pathlib.Path, help='image files or folders')


def predict(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Labels images with the network of a stage."""
  from diga_jax import inference
  from diga_jax.recipe.experiment import Run, palette

  experiment = Run(config, arguments.workdir)
  settings = config.evaluation
  inference.predict.predict(
    experiment.model,
    experiment.trained(arguments.stage, settings.network),
    arguments.images,
    arguments.output,
    palette=palette(experiment),
    scales=settings.scales,
    batch_size=experiment.rows(1),
    put=experiment.put,
  )
