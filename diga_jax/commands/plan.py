"""plan: memory, FLOPs and time of each training step on hardware you do not have."""

import argparse

from ml_collections import ConfigDict

from diga_jax.commands.arguments import Commands, add_command


def add_arguments(commands: Commands) -> None:
  """Memory, FLOPs and time of the training steps on hardware you do not have."""
  text = 'memory, FLOPs and time of each step on hardware you do not have'
  command = add_command(commands, 'plan', text, plan)
  command.add_argument(
    '--topology', nargs='+', required=True, help='v5e:4x4, v5e-8, h100:8, cpu:4: one or more'
  )


def plan(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Prints what the recipe's training steps need on each topology."""
  import jax

  from diga_jax.plan import roofline
  from diga_jax.plan.chips import parse_topology
  from diga_jax.recipe.experiment import Experiment
  from diga_jax.report import tables

  jax.config.update('jax_platforms', 'cpu')
  experiment = Experiment(config)
  for topology in arguments.topology:
    parse_topology(topology)
  for topology in arguments.topology:
    rows = roofline.plan(experiment, topology)
    print(tables.render_tables(roofline.table(topology, rows), width=1000), end='\n\n')
