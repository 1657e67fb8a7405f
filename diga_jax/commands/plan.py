"""plan: what the training steps need on hardware you do not have."""

import argparse

import jax
from ml_collections import ConfigDict

from diga_jax.plan import roofline
from diga_jax.recipe.experiment import Experiment
from diga_jax.report import tables


def plan(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Prints what the recipe's training steps need on each topology."""
  jax.config.update('jax_platforms', 'cpu')
  experiment = Experiment(config, None)
  for topology in arguments.topology:
    rows = roofline.plan(experiment, topology)
    print(tables.render_tables(roofline.table(topology, rows), width=1000), end='\n\n')
