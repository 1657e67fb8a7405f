"""The command line: python -m diga_jax COMMAND --config=FILE --workdir=DIR [--config.x.y=VALUE]."""

if __name__ == '__main__':  # before the imports, which take time
  from diga_jax.commands import process

  process.run()

import logging
import sys

from data_pipelines.errors import BadInput, line_of, one_line
from diga_jax import __version__, progress, signals
from diga_jax.commands import (
  catalogue,
  compare,
  config,
  data,
  export_card,
  init,
  plan,
  predict,
  report,
  run,
  study,
  weights,
)
from diga_jax.commands.arguments import OVERRIDES, Parser

# Each: add_arguments(commands).
COMMANDS = (
  *(run, study, predict, compare, report),
  *(plan, init, data, weights, export_card, config, catalogue),
)


def parser() -> Parser:
  """The commands and their options, without the config's fields."""
  top = Parser(prog='python -m diga_jax', description=__doc__, epilog=OVERRIDES)
  top.add_argument('--version', action='version', version=f'diga_jax {__version__}')
  commands = top.add_subparsers(dest='command', required=True, metavar='COMMAND')
  for module in COMMANDS:
    module.add_arguments(commands)
  return top


def main(argv: list[str] | None = None) -> int:
  """Exit status: 0 done, 2 wrong use or wrong input (one line on stderr).

  `doctor` ends with 1 when it has found something. A signal raises `signals.Stopped`, to which
  `commands.process` gives 75 or 130.
  """
  progress.show_warnings()
  logging.getLogger('absl').setLevel(logging.WARNING)
  arguments, overrides = parser().parse_known_args(argv)
  arguments.overrides = overrides
  try:
    try:
      from diga_jax.config import config_of  # JAX, which --help need not wait for
    except ValueError as error:  # JAX reads its variables as it is imported
      raise BadInput(f'{one_line(error)}: correct that variable, or unset it') from None

    config = config_of(arguments, overrides)
    from diga_jax.commands import start  # the command line is known to be right

    return start.execute(arguments, config)
  except (BadInput, OSError) as error:
    if signals.received() is not None:  # a library's, that was interrupted
      raise
    print(f'diga_jax: {line_of(error)}', file=sys.stderr)
  return 2
