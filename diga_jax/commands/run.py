"""run, train, label and evaluate: a recipe, whole or in parts."""

import argparse
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from data_pipelines.errors import BadInput
from diga_jax.commands.arguments import (
  Commands,
  add_command,
  add_distributed,
  add_dry_run,
  add_weights,
  add_workdir,
  parse_folder,
  say_taken,
  weights_of,
)

if TYPE_CHECKING:
  from diga_jax.recipe.experiment import Run
  from diga_jax.types import NetworkRow


def add_arguments(commands: Commands) -> None:
  """The whole recipe, one stage of it, and its evaluation."""
  text = 'the whole recipe and its evaluation; continues where it was stopped'
  add_dry_run(add_workdir(add_command(commands, 'run', text, run)))
  for name, text in {'train': 'one training stage', 'label': 'one label pass'}.items():
    command = add_dry_run(add_workdir(add_command(commands, name, text, run_stage)))
    command.add_argument('--stage', required=True, help='its name in config.stages')
  text = "the recipe's networks, or those of a file of weights, under the config's protocol"
  command = add_dry_run(add_command(commands, 'evaluate', text, evaluate))
  one = command.add_mutually_exclusive_group(required=True)
  one.add_argument('--workdir', type=parse_folder, metavar='DIR', help='of complete stages')
  add_weights(command, one)
  text = 'where the numbers of --weights go; default: evaluation_of_weights/FILE here'
  command.add_argument('--output', type=parse_folder, metavar='DIR', help=text)
  add_distributed(command)


def evaluate(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """The tables of complete stages, or of a file of weights without any."""
  file = weights_of(arguments)
  if not file and arguments.output is not None:
    raise BadInput('--output is for --weights: the numbers of stages go into their --workdir')
  if file:
    evaluate_file(arguments, config, file)
  else:
    run(arguments, config)


def evaluate_file(arguments: argparse.Namespace, config: ConfigDict, file: str) -> None:
  """Measures a file of weights, and prints its table."""
  from diga_jax.parallel import processes
  from diga_jax.recipe import file_evaluation
  from diga_jax.recipe.experiment import Experiment
  from diga_jax.storage import stage_folder

  experiment = Experiment(config)
  output = arguments.output or file_evaluation.default_output(file)
  predictor, facts = file_evaluation.check(experiment, file, output)
  if arguments.dry_run:
    return print_facts(facts)
  say_taken(file, facts[f'weights {file}'])
  with stage_folder.lock(output, '--output'):
    rows = file_evaluation.evaluate(experiment, file, predictor, output)
  if processes.is_main_process():
    print_networks(rows, config.evaluation.mean)
    print(f'weights {file}: SHA-256 {rows[0]["protocol"]["weights_sha256"]}')
    print(f'metrics.json, passport.json and pictures: {output / config.evaluation.name}')


def run(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """`run`: the whole recipe, then its tables. `evaluate`: the tables of complete stages."""
  from diga_jax.page import write
  from diga_jax.page.working_directory import PAGE
  from diga_jax.parallel import processes
  from diga_jax.recipe import checkpoints, checks, graph
  from diga_jax.recipe.experiment import Run
  from diga_jax.report import tables
  from diga_jax.storage import run_record, stage_folder

  page = functools.partial(write.update, arguments.workdir)
  check, carry_out = {
    'run': (checks.check_recipe, functools.partial(graph.run_recipe, after_stage=page)),
    'evaluate': (checks.check_evaluation, graph.evaluate),
  }[arguments.command]
  experiment = Run(config, arguments.workdir)
  stages = graph.stages_of(experiment) if arguments.command == 'run' else []
  if arguments.dry_run:
    return print_forecast(experiment, stages, True, check(experiment))
  with (
    stage_folder.lock(arguments.workdir),
    run_record.recorded(arguments.workdir, config.to_dict()),
  ):
    check(experiment)
    print_forecast(experiment, stages, True)
    results = carry_out(experiment)
    chosen = checkpoints.describe([experiment])
    page()
  if not processes.is_main_process():
    return
  if not results:
    return print('nothing was measured: config.evaluation.sets is ()')
  networks = [row for row in results if row['kind'] == 'network']
  print_networks(networks, config.evaluation.mean)
  for row in results:
    if row['kind'] == 'labels':
      print(tables.describe_labels(row))
  for warning in graph.warnings_of(experiment):
    print(f'warning: {warning}')
  if chosen:
    print(f'\n{tables.render_to_fit(chosen)}\n')
  place = arguments.workdir / 'evaluation' / config.evaluation.name
  print(f'metrics.json and pictures of every network: {place}')
  print(f'all of it on a page: {arguments.workdir / PAGE}')


def print_networks(rows: 'Sequence[NetworkRow]', mean: str) -> None:
  """The tables of networks: their means, and the IoU of every class."""
  from diga_jax.report import tables

  print(tables.table(rows, mean=mean))
  print(tables.per_class(rows))


def run_stage(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """One training stage or one label pass, whose inputs must be complete."""
  from diga_jax.page import write
  from diga_jax.recipe import checks, graph
  from diga_jax.recipe.experiment import Run
  from diga_jax.stages import kinds
  from diga_jax.storage import run_record, stage_folder

  experiment, stages = Run(config, arguments.workdir), [arguments.stage]
  is_pass = kinds.kind_of(experiment.stage(arguments.stage)).train_step is None
  what, command = ('trained', 'label') if is_pass else ('a label pass', 'train')
  if arguments.command != command:
    raise BadInput(f'stage {arguments.stage!r} is not {what}: use the command {command}')
  if arguments.dry_run:
    return print_forecast(experiment, stages, False, checks.check(experiment, stages))
  with (
    stage_folder.lock(arguments.workdir),
    run_record.recorded(arguments.workdir, config.to_dict()),
  ):
    checks.check(experiment, stages)
    print_forecast(experiment, stages, False)
    graph.run_stage(experiment, arguments.stage)
    write.update(arguments.workdir)


def print_forecast(
  experiment: 'Run', stages: Sequence[str], measured: bool, facts: Mapping[str, str] | None = None
) -> None:
  """What is to be done, by the first of several processes; with the facts of a check below it."""
  from diga_jax.parallel import processes
  from diga_jax.recipe import forecast
  from diga_jax.report import tables

  if not processes.is_main_process():
    return
  rows = forecast.forecast(experiment, stages, measured)
  print(tables.render_to_fit(forecast.describe(rows, reads=facts is not None)), flush=True)
  if facts is not None:
    said = ('stage ', 'measured ')  # in the table
    print()
    print_facts({what: fact for what, fact in facts.items() if not what.startswith(said)})


def print_facts(facts: Mapping[str, str]) -> None:
  """What a check has found, one fact a line, by the first of several processes."""
  from diga_jax.parallel import processes

  if processes.is_main_process():
    width = max(map(len, facts))
    for what, fact in facts.items():
      print(f'{what:{width}}  {fact}')
