"""config: every field of a config after the overrides, beside the default."""

import argparse

from ml_collections import ConfigDict

from diga_jax.commands.arguments import Commands, add_command


def add_arguments(commands: Commands) -> None:
  """What a config and its overrides amount to."""
  text = 'print every field with its value, and what differs from configs/default.py'
  command = add_command(commands, 'config', text, show)
  command.add_argument('--diff', action='store_true', help='only the fields that differ')


def show(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Prints `path = value` for every field, with a remark behind what is not the default."""
  from diga_jax.config import config_file, flatten, read_config

  default = flatten(read_config([f'--config={config_file("default")}']).to_dict())
  for path, value in flatten(config.to_dict()).items():
    if path not in default:
      print(f'{path} = {value!r}  # not in the default')
    elif value != default[path]:
      print(f'{path} = {value!r}  # default: {default[path]!r}')
    elif not arguments.diff:
      print(f'{path} = {value!r}')
