"""predict: labels for any images."""

import argparse

from ml_collections import ConfigDict

from diga_jax.inference.predict import predict_images
from diga_jax.recipe.experiment import Run, palette


def predict(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Labels images with the network of a stage."""
  experiment = Run(config, arguments.workdir)
  predictor = experiment.predictor(arguments.stage, config.evaluation.network)
  predict_images(predictor, arguments.images, arguments.output, palette(experiment))
