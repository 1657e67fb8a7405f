"""predict: labels for any images."""

import argparse

from ml_collections import ConfigDict

from data_pipelines import sets
from diga_jax.commands.arguments import Commands, add_command, add_workdir, parse_folder, parse_path


def add_arguments(commands: Commands) -> None:
  """Images labelled by the network of a stage."""
  text = 'label images with a trained network'
  command = add_workdir(add_command(commands, 'predict', text, predict))
  command.add_argument('--stage', required=True, help='the stage whose network labels them')
  command.add_argument('--output', required=True, type=parse_folder, metavar='DIR')
  command.add_argument('images', nargs='+', type=parse_path, help='image files or folders')


def predict(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Labels images with the network of a stage."""
  from diga_jax.inference.predict import predict_images
  from diga_jax.recipe.experiment import Run, palette
  from diga_jax.storage import stage_folder

  stage_folder.check_output(arguments.output)
  for name, settings in config.data.sets.items():
    sets.check_pictures(settings, name, config.data.root, str(arguments.output))
  experiment = Run(config, arguments.workdir)
  predictor = experiment.predictor(arguments.stage, config.evaluation.network)
  predict_images(
    predictor,
    arguments.images,
    arguments.output,
    palette(experiment),
    max_pixels=config.data.max_pixels,
  )
