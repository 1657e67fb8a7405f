"""What comes before any command, and how several processes end one."""

import argparse
import gc
import os
import re
import sys

from ml_collections import ConfigDict

from data_pipelines.errors import BadInput
from diga_jax import numerics
from diga_jax.config import flatten
from diga_jax.parallel import devices, launchers, processes
from diga_jax.storage import program_cache, run_record

# What may differ from process to process: where things are on its machine.
LOCAL = ('data.root', 'data.cache', 'compilation_cache')


def execute(arguments: argparse.Namespace, config: ConfigDict | None) -> int:
  """Carries out a command; its exit status. One of several processes ends the others with it."""
  # Tracing makes many objects and hardly any garbage: looking for it took a sixth of every start.
  gc.freeze()
  gc.set_threshold(50_000)
  numerics.fix()
  try:
    try:
      if config is not None:
        set_up(arguments, config)
      status = arguments.execute(arguments, config) or 0
    except (AssertionError, RuntimeError):
      devices.find()  # raises what is wrong with JAX_PLATFORMS, if that is why
      raise
    processes.close()
    return status
  except BaseException as error:
    processes.end(error)
    raise


def set_up(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Finds the other processes, the devices, and the programs compiled by earlier runs.

  Raises:
    BadInput: a place is a URL, the other processes cannot be reached or do something else, or there
      is no device.
  """
  places = {
    '--workdir': getattr(arguments, 'workdir', ''),
    'config.data.root': config.data.root,
    'config.compilation_cache': config.compilation_cache,
  }
  for field, place in places.items():
    if re.match(r'\w+:/', str(place)):
      raise BadInput(f'{field} is {place}: mount the bucket and give its folder (docs/launch.md)')
  program_cache.use(config.compilation_cache, os.environ)
  if getattr(arguments, 'distributed', None):
    processes.connect(arguments.distributed, launchers.visible_devices(os.environ))
    processes.compare('--distributed', what_all_do(arguments, config))
  if hasattr(arguments, 'distributed'):
    tell_devices(config)


def tell_devices(config: ConfigDict) -> None:
  """Prints the devices, and why they may not be those that are wanted; raises BadInput for none."""
  text, doubt = devices.describe(config.devices), devices.doubt(os.environ)
  if processes.is_main_process():
    print(f'devices: {text}', file=sys.stderr, flush=True)
    if doubt:
      print(f'warning: {doubt}', file=sys.stderr, flush=True)


def what_all_do(arguments: argparse.Namespace, config: ConfigDict) -> dict[str, str]:
  """What has to be the same in all processes of a run, by name."""
  own = (  # a folder's content is compared, later
    'distributed', 'execute', 'config', 'overrides', 'workdir',
  )  # fmt: skip
  given = {f'--{name}': value for name, value in vars(arguments).items() if name not in own}
  fields = {f'config.{name}': value for name, value in flatten(config.to_dict()).items()}
  same = {key: value for key, value in fields.items() if key.removeprefix('config.') not in LOCAL}
  versions = {f'version of {name}': text for name, text in run_record.versions().items()}
  return {key: str(value) for key, value in {**given, **same, **versions}.items()}
