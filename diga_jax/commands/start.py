"""What comes before any command."""

import argparse
import gc
import re

import jax
from ml_collections import ConfigDict

from data_pipelines.errors import BadInput
from diga_jax.parallel import processes


def start(arguments: argparse.Namespace, config: ConfigDict | None) -> None:
  """Listens for SIGTERM, finds the other processes and the programs compiled by earlier runs.

  Raises:
    BadInput: a place is a URL, or the other processes cannot be reached.
  """
  # Tracing makes many objects and hardly any garbage: looking for it took a sixth of every start.
  gc.freeze()
  gc.set_threshold(50_000)
  processes.raise_on_sigterm()
  if config is not None:
    set_up(arguments, config)


def set_up(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """The part of `start` that depends on the config."""
  places = {'--workdir': getattr(arguments, 'workdir', ''), 'config.data.root': config.data.root}
  for field, place in places.items():
    if re.match(r'\w+:/', str(place)):
      raise BadInput(f'{field} is {place}: mount the bucket and give its folder (docs/launch.md)')
  if getattr(arguments, 'distributed', None):
    processes.connect(arguments.distributed)
  if config.compilation_cache:
    jax.config.update('jax_compilation_cache_dir', config.compilation_cache)
