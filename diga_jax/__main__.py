"""The command line: python -m diga_jax COMMAND --config=FILE --workdir=DIR [--config.x.y=VALUE]."""

import argparse
import logging
import sys

from ml_collections import ConfigDict

from data_pipelines.errors import BadInput
from diga_jax import __version__
from diga_jax.commands import config, data, plan, predict, run, study, weights
from diga_jax.commands.arguments import OVERRIDES, Parser

COMMANDS = (run, study, predict, plan, data, weights, config)  # each: add_arguments(commands)


def parser() -> Parser:
  """The commands and their options, without the config's fields."""
  top = Parser(prog='python -m diga_jax', description=__doc__, epilog=OVERRIDES)
  top.add_argument('--version', action='version', version=f'diga_jax {__version__}')
  commands = top.add_subparsers(dest='command', required=True, metavar='COMMAND')
  for module in COMMANDS:
    module.add_arguments(commands)
  return top


def execute(arguments: argparse.Namespace, settings: ConfigDict | None) -> int:
  """Carries out a command; its exit status."""
  from diga_jax.commands import start  # JAX: from here on the command line is known to be right
  from diga_jax.parallel import processes

  try:
    start.start(arguments, settings)
    return arguments.execute(arguments, settings) or 0
  except processes.Preempted as stopped:
    print(f'diga_jax: {stopped}', file=sys.stderr)
    return processes.EXIT_STATUS


def main(argv: list[str] | None = None) -> int:
  """Exit status: 0 done, 2 wrong use or wrong input, 75 stopped by SIGTERM (one line on stderr).

  `doctor` ends with 1 when it has found something.
  """
  logging.getLogger('absl').setLevel(logging.WARNING)
  arguments, overrides = parser().parse_known_args(argv)
  from diga_jax.config import config_of  # TensorFlow, which --help need not wait for

  try:
    return execute(arguments, config_of(arguments, overrides))
  except BadInput as error:
    print(f'diga_jax: {error}', file=sys.stderr)
  except OSError as error:  # a full disk, a folder without permission: the message names the file
    print(f'diga_jax: {error}; fix this and run again', file=sys.stderr)
  return 2


if __name__ == '__main__':
  sys.exit(main())
