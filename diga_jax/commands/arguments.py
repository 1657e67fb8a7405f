"""Arguments that several commands have, and what arguments may be: a wrong one ends in one line."""

import argparse
import os
import pathlib
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

from ml_collections import ConfigDict

from data_pipelines.errors import BadInput, one_line
from diga_jax import rules

Commands: TypeAlias = 'argparse._SubParsersAction[argparse.ArgumentParser]'
Execute: TypeAlias = Callable[[argparse.Namespace, ConfigDict], int | None]

DISTRIBUTED = (
  "for several processes that each run this command: 'auto' (TPU pods, SLURM, Open MPI) or "
  'HOST:PORT,PROCESSES,INDEX'
)
PART = (
  'of the file: student, teacher, or words of its path, such as ema_model; the line "took" lists'
)
OVERRIDES = 'Any field of the config is changed by --config.FIELD=VALUE (see docs/config.md).'


class Parser(argparse.ArgumentParser):
  """A parser that says on one line what is wrong; arguments without a type are not empty."""

  def __init__(self, **options: Any):
    super().__init__(**options, allow_abbrev=False)
    self.register('type', None, parse_name)

  def error(self, message: str) -> NoReturn:
    """Ends the process with status 2."""
    self.exit(2, f'diga_jax: {one_line(message)} (see {self.prog} --help)\n')


def parse_name(text: str) -> str:
  """An argument that is not empty; raises ArgumentTypeError."""
  if not rules.title.accepts(text):
    raise argparse.ArgumentTypeError(f'{text!r} is not {rules.title.text}')
  return text


def parse_path(text: str) -> pathlib.Path:
  """The path of a file or folder, there or not; raises ArgumentTypeError.

  No shell replaces the ~ of --workdir=~/runs.
  """
  return pathlib.Path(os.path.expanduser(parse_name(text)))


def parse_folder(text: str) -> pathlib.Path:
  """The path of a folder, there or not; raises ArgumentTypeError."""
  path = parse_path(text)
  if os.path.exists(path) and not os.path.isdir(path):
    raise argparse.ArgumentTypeError(f'{text} is a file: give a folder')
  return path


def parse_number(low: int, high: int) -> Callable[[str], int]:
  """A parser of whole numbers from `low` to `high`, which raises ArgumentTypeError."""
  rule = rules.whole(low, high)

  def parse(text: str) -> int:
    value = int(text) if re.fullmatch(r'[+-]?[0-9]{1,20}', text) else None
    if value is None or not rule.accepts(value):
      raise argparse.ArgumentTypeError(f'{text!r} is not {rule.text}')
    return value

  return parse


def parse_processes(text: str) -> str:
  """Where the other processes are; raises ArgumentTypeError."""
  found = re.fullmatch(r'[^,\s]+:([0-9]{1,5}),([0-9]{1,5}),([0-9]{1,5})', text)
  numbers = map(int, found.groups()) if found else (0, 0, 0)
  port, count, index = numbers
  if text != 'auto' and not (0 < port < 2**16 and index < count):
    raise argparse.ArgumentTypeError(
      f"{text!r}: give 'auto' or HOST:PORT,PROCESSES,INDEX, indices from 0"
    )
  return text


def add_command(
  commands: Commands, name: str, text: str, execute: Execute | None = None, *, config: bool = True
) -> argparse.ArgumentParser:
  """A command with one line of help; `config`: whether it must be given a config.

  `execute` carries it out, given the arguments and the config, and returns the exit status, or None
  for 0; a command that has actions of its own has none.
  """
  command = commands.add_parser(name, help=text, description=text, epilog=OVERRIDES * config)
  command.set_defaults(execute=execute)
  if config:
    command.add_argument('--config', required=True, metavar='FILE', help='a file of configs/')
  return command


def add_workdir(command: argparse.ArgumentParser, required: bool = True) -> argparse.ArgumentParser:
  """Where the stages are, and the processes that work on them; returns the command."""
  command.add_argument('--workdir', required=required, type=parse_folder, metavar='DIR')
  add_distributed(command)
  return command


def add_distributed(command: argparse.ArgumentParser) -> None:
  """The processes that work together."""
  command.add_argument('--distributed', type=parse_processes, metavar='WHERE', help=DISTRIBUTED)


def add_network(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
  """The network of a stage, or of a file of weights without any stage; returns the command."""
  one = add_workdir(command, required=False).add_mutually_exclusive_group(required=True)
  one.add_argument('--stage', help='the stage of --workdir whose network it is')
  return add_weights(command, one)


def add_weights(
  command: argparse.ArgumentParser, one: 'argparse._MutuallyExclusiveGroup'
) -> argparse.ArgumentParser:
  """A file of weights, as one of a group of arguments, and its part; returns the command."""
  text = 'instead: a file of the whole network (.pth, .safetensors, .npz), or an import'
  one.add_argument('--weights', type=parse_path, metavar='FILE', help=text)
  command.add_argument('--part', metavar='NAME', help=PART)
  return command


def file_and_part(file: str, part: str | None) -> str:
  """FILE#PART of a file and of --part; raises BadInput where two parts are named."""
  from diga_jax import weights

  if part is None:
    return file
  if weights.split(file)[1]:
    raise BadInput(f'--part={part}: {file} names a part already')
  return f'{file}#{part}'


def weights_of(arguments: argparse.Namespace) -> str:
  """FILE[#PART] of --weights and --part, '' without --weights; raises BadInput."""
  if arguments.weights is None:
    if arguments.part is not None:
      raise BadInput(f'--part={arguments.part} is of a file of weights: give --weights too')
    return ''
  return file_and_part(str(arguments.weights), arguments.part)


def say_taken(file: str, taken: str) -> None:
  """Prints what of a file of weights the network is, by the first of several processes."""
  from diga_jax.parallel import processes

  if processes.is_main_process():
    print(f'weights {file}: {taken}', file=sys.stderr)


def add_dry_run(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
  """Whether to stop after the check that comes before the first step; returns the command."""
  text = 'open all that will be read, say what it is, and stop'
  command.add_argument('--dry_run', action='store_true', help=text)
  return command


def add_sets(command: argparse.ArgumentParser) -> None:
  """Which data sets, and how many processes for them."""
  command.add_argument('--sets', nargs='+', metavar='NAME', help='of data.sets; default: all')
  command.add_argument(
    '--jobs',
    type=parse_number(1, 1024),
    default=os.cpu_count(),
    metavar='N',
    help='processes; default: all cores',
  )
