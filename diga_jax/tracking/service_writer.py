"""A writer to a service: each value once at a step, and training goes on without the service."""

import contextlib
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn, Protocol

import numpy as np
from absl import logging
from clu.metric_writers import MetricWriter
from clu.metric_writers.interface import Array, Scalar

from data_pipelines import records
from data_pipelines.errors import BadInput, one_line
from diga_jax.tracking import mlflow_run, wandb_run
from diga_jax.tracking.tracked import SERVICES, Tracked
from diga_jax.types import PyTree

PAUSE = 300.0  # seconds after which a service that has failed is tried again
# Service -> when it is tried again, by the writers of all folders: each would wait a minute for it.
AGAIN: dict[str, float] = {}


class ServiceRun(Protocol):
  """A run of a service; values are by tag, and everything may raise any Exception."""

  @property
  def id(self) -> str: ...

  def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

  def images(self, step: int, values: Mapping[str, np.ndarray]) -> None: ...

  def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None: ...

  def texts(self, step: int, values: Mapping[str, str]) -> None: ...

  def close(self, failed: bool) -> None: ...


# Service -> (what is said of the run, the id of one to go on with or '') -> the run.
RUNS: dict[str, Callable[[Tracked, str], ServiceRun]] = {
  'wandb': wandb_run.WandbRun,
  'mlflow': mlflow_run.MlflowRun,
}


class ServiceWriter(MetricWriter):
  """Writes to the run of a service that belongs to a folder, and goes on with it after a kill.

  The folder holds the run's id and the last step of every tag, noted before it is sent: what is
  computed again after a kill is not sent again. What the service raises is one warning; this
  process leaves it alone for `PAUSE` seconds at a time, and the values of that time are not sent.
  """

  def __init__(self, service: str, directory: pathlib.Path, tracked: Tracked):
    self.service, self.tracked = service, tracked
    self.path = directory / f'{service}_run.json'
    self.id, self.steps = self._known()
    self.run: ServiceRun | None = None
    self.warned = False

  def _known(self) -> tuple[str, dict[str, int]]:
    """The id and the last steps, of an earlier process."""
    if not self.path.exists():
      return '', {}
    try:
      found = records.read(self.path, f'a new run of {self.service} is begun', 'id', 'steps')
      return found['id'], found['steps']
    except BadInput as error:
      logging.warning('%s', error)
      return '', {}

  def _note(self) -> None:
    records.write(self.path, {'id': self.id, 'steps': self.steps})

  @contextlib.contextmanager
  def _outage(self) -> Iterator[None]:
    """An error inside is a warning, the first time, and begins a pause."""
    try:
      yield
    except Exception as error:  # of the network, the disk or the service: whatever it raises
      AGAIN[self.service] = time.monotonic() + PAUSE
      if not self.warned:
        self.warned = True
        logging.warning(
          '%s: %s cannot be reached (%s): the run goes on without it, and tries again every %.0f '
          'minutes; this is said once',
          *(self.tracked.name, SERVICES[self.service], one_line(error) or type(error).__name__),
          PAUSE / 60,
        )

  def _opened(self) -> ServiceRun:
    if self.run is None:
      self.run = RUNS[self.service](self.tracked, self.id)
      self.id = self.run.id
      self._note()
    return self.run

  def _send(
    self, send: Callable[[ServiceRun, dict[str, PyTree]], None], step: int, values: PyTree
  ) -> None:
    """Sends the values whose tags have none of this step, or of a later one."""
    fresh = {tag: value for tag, value in values.items() if self.steps.get(tag, -1) < step}
    if not fresh or time.monotonic() < AGAIN.get(self.service, 0.0):
      return
    with self._outage():
      run = self._opened()
      self.steps |= dict.fromkeys(fresh, step)
      self._note()
      send(run, fresh)

  def write_scalars(self, step: int, scalars: Mapping[str, Scalar]) -> None:
    numbers = {tag: float(value) for tag, value in scalars.items()}
    self._send(lambda run, values: run.scalars(step, values), step, numbers)

  def write_images(self, step: int, images: Mapping[str, Array]) -> None:
    pixels = {tag: np.asarray(value, np.uint8) for tag, value in images.items()}
    self._send(lambda run, values: run.images(step, values), step, pixels)

  def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
    self._send(lambda run, values: run.texts(step, values), step, texts)

  def write_histograms(
    self, step: int, arrays: Mapping[str, Array], num_buckets: Mapping[str, int] | None = None
  ) -> None:
    found = {tag: np.asarray(value) for tag, value in arrays.items()}
    self._send(lambda run, values: run.histograms(step, values), step, found)

  def write_summaries(self, step: int, values: PyTree, metadata: PyTree = None) -> NoReturn:
    raise NotImplementedError('services take no summaries')

  def write_videos(self, step: int, videos: PyTree) -> NoReturn:
    raise NotImplementedError('services take no videos')

  def write_audios(self, step: int, audios: PyTree, *, sample_rate: int) -> NoReturn:
    raise NotImplementedError('services take no audios')

  def write_hparams(self, hparams: PyTree) -> NoReturn:
    raise NotImplementedError('a run of a service begins with its config')

  def flush(self) -> None:
    """Values are sent as they come."""

  def close(self) -> None:
    """Ends the run; as failed, if this is while an error ends the process."""
    if self.run is not None:
      with self._outage():
        self.run.close(failed=sys.exc_info()[0] is not None)
      self.run = None
