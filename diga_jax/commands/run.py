"""run, train, label, evaluate, study, predict and plan: a recipe, and the networks it trains."""

import argparse
import pathlib

from ml_collections import ConfigDict

from data_pipelines import atomic
from data_pipelines.errors import BadInput
from diga_jax.commands.arguments import Commands, add_command, add_workdir

TOPOLOGY = 'v5e:4x4, v5e-8, cpu, cpu:4: one or more'


def add_arguments(commands: Commands) -> None:
  """The recipe, its parts, several seeds of it, its networks on new images, and what it costs."""
  text = 'the whole recipe and its evaluation; continues where it was stopped'
  add_workdir(add_command(commands, 'run', text, run))
  for name, text in {'train': 'one training stage', 'label': 'one label pass'}.items():
    command = add_workdir(add_command(commands, name, text, run_stage))
    command.add_argument('--stage', required=True, help='its name in config.stages')
  text = "the recipe's networks under the config's protocol"
  add_workdir(add_command(commands, 'evaluate', text, run))
  text = 'the recipe with several seeds; mean and spread of every row'
  command = add_workdir(add_command(commands, 'study', text, study))
  command.add_argument('--seeds', type=int, nargs='+', required=True, metavar='N')
  text = 'label images with a trained network'
  command = add_workdir(add_command(commands, 'predict', text, predict))
  command.add_argument('--stage', required=True, help='the stage whose network labels them')
  command.add_argument('--output', required=True, type=pathlib.Path, metavar='DIR')
  command.add_argument('images', nargs='+', type=pathlib.Path, help='image files or folders')
  text = 'memory, FLOPs and time of each step on hardware you do not have'
  command = add_command(commands, 'plan', text, plan)
  command.add_argument('--topology', nargs='+', required=True, help=TOPOLOGY)


def run(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """`run`: the whole recipe, then its tables. `evaluate`: the tables of complete stages."""
  from diga_jax.parallel import processes
  from diga_jax.recipe import graph
  from diga_jax.recipe.experiment import Run
  from diga_jax.report import tables
  from diga_jax.storage import stage_folder

  carry_out = {'run': graph.run_recipe, 'evaluate': graph.evaluate}[arguments.command]
  experiment = Run(config, arguments.workdir)
  with stage_folder.lock(arguments.workdir):
    results = carry_out(experiment)
  if not processes.is_main_process():
    return
  networks = [row for row in results if row['kind'] == 'network']
  print(tables.table(networks))
  print(tables.per_class(networks))
  for row in results:
    if row['kind'] == 'labels':
      print(tables.describe_labels(row))
  place = arguments.workdir / 'evaluation' / config.evaluation.name
  print(f'metrics.json and pictures of every network: {place}')


def run_stage(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """One training stage or one label pass, whose inputs must be complete."""
  from diga_jax.recipe import graph
  from diga_jax.recipe.experiment import Run
  from diga_jax.stages import kinds
  from diga_jax.storage import stage_folder

  experiment = Run(config, arguments.workdir)
  is_pass = kinds.kind_of(experiment.stage(arguments.stage)).train_step is None
  what, command = ('trained', 'label') if is_pass else ('a label pass', 'train')
  if arguments.command != command:
    raise BadInput(f'stage {arguments.stage!r} is not {what}: use the command {command}')
  with stage_folder.lock(arguments.workdir):
    graph.run_stage(experiment, arguments.stage)


def study(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """The recipe once per seed, in WORKDIR/seed_N; then mean and spread, in WORKDIR/study/."""
  from diga_jax.parallel import processes
  from diga_jax.recipe import graph
  from diga_jax.recipe.experiment import Run
  from diga_jax.report.study import drawings, summarise
  from diga_jax.storage import stage_folder

  runs = []
  for seed in arguments.seeds:
    seeded = config.copy_and_resolve_references()
    seeded.seed = seed
    workdir = arguments.workdir / f'seed_{seed}'
    with stage_folder.lock(workdir):
      runs.append(graph.run_recipe(Run(seeded, workdir)))
  if not processes.is_main_process():
    return
  place = arguments.workdir / 'study' / config.evaluation.name
  text = summarise(runs)
  for name, draw in drawings(runs):
    draw(place.with_name(f'{place.name}_{name}.png'))
  atomic.write_text(place.with_suffix('.md'), text + '\n')
  stage_folder.write_metrics(place.with_suffix('.json'), runs)
  print(text)
  print(f'these tables, all numbers and plots: {place}.md, .json and _*.png')


def predict(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Labels images with the network of a stage."""
  from diga_jax.inference.predict import predict_images
  from diga_jax.recipe.experiment import Run, palette

  experiment = Run(config, arguments.workdir)
  predictor = experiment.predictor(arguments.stage, config.evaluation.network)
  predict_images(predictor, arguments.images, arguments.output, palette(experiment))


def plan(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Prints what the recipe's training steps need on each topology."""
  import jax

  from diga_jax.plan import roofline
  from diga_jax.recipe.experiment import Experiment
  from diga_jax.report import tables

  jax.config.update('jax_platforms', 'cpu')
  experiment = Experiment(config)
  for topology in arguments.topology:
    rows = roofline.plan(experiment, topology)
    print(tables.render_tables(roofline.table(topology, rows), width=1000), end='\n\n')
