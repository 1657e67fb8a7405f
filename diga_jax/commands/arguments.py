"""Arguments that several commands have."""

import argparse
import os
import pathlib
from collections.abc import Callable
from typing import TypeAlias

from ml_collections import ConfigDict

Commands: TypeAlias = 'argparse._SubParsersAction[argparse.ArgumentParser]'
Execute: TypeAlias = Callable[[argparse.Namespace, ConfigDict], int | None]

DISTRIBUTED = (
  "for several processes that each run this command: 'auto' (TPU pods, SLURM, Open MPI) or "
  'HOST:PORT,PROCESSES,INDEX'
)
OVERRIDES = 'Any field of the config is changed by --config.FIELD=VALUE (see docs/config.md).'


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


def add_workdir(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
  """Where the stages are, and the processes that work on them; returns the command."""
  command.add_argument('--workdir', required=True, type=pathlib.Path, metavar='DIR')
  command.add_argument('--distributed', metavar='WHERE', help=DISTRIBUTED)
  return command


def add_dry_run(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
  """Whether to stop after the check that comes before the first step; returns the command."""
  text = 'open all that will be read, say what it is, and stop'
  command.add_argument('--dry_run', action='store_true', help=text)
  return command


def add_sets(command: argparse.ArgumentParser) -> None:
  """Which data sets, and how many processes for them."""
  command.add_argument('--sets', nargs='+', metavar='NAME', help='of data.sets; default: all')
  command.add_argument(
    '--jobs', type=int, default=os.cpu_count(), metavar='N', help='processes; default: all cores'
  )
