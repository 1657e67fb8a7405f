"""One writer to all trackers of a run; only the main process has it."""

import importlib
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from data_pipelines import host_tensorflow
from data_pipelines.errors import BadInput, one_line
from diga_jax.tracking import wandb_run
from diga_jax.tracking.tracked import SERVICES, TENSORBOARD, Tracked

if TYPE_CHECKING:
  from clu.metric_writers import MetricWriter


def check(trackers: Sequence[str]) -> None:
  """Refuses trackers whose package is not installed, and W&B without a login; raises BadInput."""
  for name in trackers:
    if name in SERVICES:
      try:
        importlib.import_module(name)
      except ImportError:
        raise BadInput(
          f"config.trackers names {name!r}, which is not installed: pip install '.[{name}]'"
        ) from None
  if 'wandb' in trackers:
    check_login()


def check_login() -> None:
  """Refuses W&B where it would ask for a login, or does not take its settings; raises BadInput."""
  why = 'nobody is logged in'
  try:
    if wandb_run.is_ready():
      return
  except Exception as error:  # of whatever kind W&B has: of a key, a mode, a file of settings
    why = f'W&B refuses its settings ({one_line(error)})'
  raise BadInput(
    f"config.trackers names 'wandb', and {why}: run `wandb login`, or set WANDB_API_KEY, or "
    'WANDB_MODE=offline'
  )


def open_writer(directory: pathlib.Path, tracked: Tracked, step: int = 0) -> 'MetricWriter':
  """A writer to all trackers of a folder, to be closed; it begins with the config, at `step`.

  Event files lie in the folder. So does what is known of the run of a service, which a process
  that goes on after a kill continues.
  """
  host_tensorflow.load()
  from clu import metric_writers  # which imports TensorFlow

  from diga_jax.tracking.service_writer import ServiceWriter

  writers = [
    metric_writers.SummaryWriter(str(directory))
    if name == TENSORBOARD
    else ServiceWriter(name, directory, tracked)
    for name in tracked.trackers
  ]
  writer = metric_writers.MultiWriter(writers)
  if tracked.config:
    lines = [f'    {field} = {value!r}' for field, value in tracked.config.items()]
    writer.write_texts(step, {'config/resolved': '\n'.join(lines)})  # as Markdown: as it stands
  return writer
