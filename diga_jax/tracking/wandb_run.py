"""Runs of Weights & Biases, online or offline as its own settings tell."""

import importlib
import secrets
from collections.abc import Mapping
from html import escape

import numpy as np

from diga_jax.tracking.tracked import Tracked
from diga_jax.types import PyTree

PROJECT = 'diga_jax'  # unless WANDB_PROJECT names another one
STEP = 'step'  # the axis of all values: W&B's own one only ever goes forward
LONGEST = 128  # characters of a name
PATIENCE = 60.0  # seconds for the last values; later ones stay on disk for `wandb sync`


def is_ready() -> bool:
  """Whether a run can be begun without asking: W&B is offline, or there is a login."""
  wandb = importlib.import_module('wandb')  # an extra: it may be absent
  if wandb.setup().settings.mode not in ('online', 'shared'):
    return True
  return wandb.login(prompt=False, verify=False)


class WandbRun:
  """A run of W&B, new or continued; see `service_writer.ServiceRun`."""

  def __init__(self, tracked: Tracked, known: str):
    wandb = self.wandb = importlib.import_module('wandb')
    settings = wandb.Settings(
      console='off', silent=True, finish_timeout=PATIENCE, init_timeout=PATIENCE
    )
    self.run = wandb.init(
      project=wandb.setup().settings.project or PROJECT,
      id=known or secrets.token_hex(8),
      resume='allow',
      reinit='create_new',
      group=tracked.group[-LONGEST:],
      name=f'{tracked.group}/{tracked.name}'[-LONGEST:],
      dir=tracked.group,
      config=dict(tracked.config),
      allow_val_change=True,
      settings=settings,
    )
    self.run.define_metric(STEP, hidden=True)
    self.run.define_metric('*', step_metric=STEP)

  @property
  def id(self) -> str:
    return self.run.id

  def _log(self, step: int, values: Mapping[str, PyTree]) -> None:
    self.run.log({**values, STEP: step})

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    self._log(step, values)

  def images(self, step: int, values: Mapping[str, np.ndarray]) -> None:
    self._log(step, {tag: self.wandb.Image(pixels) for tag, pixels in values.items()})

  def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
    self._log(step, {tag: self.wandb.Histogram(array) for tag, array in values.items()})

  def texts(self, step: int, values: Mapping[str, str]) -> None:
    pages = {tag: f'<pre>{escape(text)}</pre>' for tag, text in values.items()}
    self._log(step, {tag: self.wandb.Html(page) for tag, page in pages.items()})

  def close(self, failed: bool) -> None:
    self.run.finish(exit_code=int(failed))
