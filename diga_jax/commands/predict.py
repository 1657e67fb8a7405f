"""predict: labels for any images."""

import argparse

from ml_collections import ConfigDict

from diga_jax import inference
from diga_jax.recipe.experiment import Run, palette


def predict(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Labels images with the network of a stage."""
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
