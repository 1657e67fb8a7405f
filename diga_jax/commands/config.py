"""config: every field of a config after the overrides, beside the default."""

import argparse
from collections.abc import Iterator

from ml_collections import ConfigDict

from diga_jax.commands.arguments import Commands, add_command


def add_arguments(commands: Commands) -> None:
  """What a config and its overrides amount to."""
  text = 'print every field with its value, and what differs from configs/default.py'
  command = add_command(commands, 'config', text, show)
  command.add_argument('--diff', action='store_true', help='only the fields that differ')


def show(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Prints the fields of a config, one a line."""
  from diga_jax.config import config_file, read_config

  default = read_config([f'--config={config_file("default")}'])
  for line in lines(config, default, only_changed=arguments.diff):
    print(line)


def lines(config: ConfigDict, default: ConfigDict, *, only_changed: bool) -> Iterator[str]:
  """`path = value` for every field, with a remark behind what is not the default."""
  from diga_jax.config import flatten

  values, defaults = flatten(config.to_dict()), flatten(default.to_dict())
  for path, value in values.items():
    if path not in defaults:
      yield f'{path} = {value!r}  # not in the default'
    elif value != defaults[path]:
      yield f'{path} = {value!r}  # default: {defaults[path]!r}'
    elif not only_changed:
      yield f'{path} = {value!r}'
