"""Runs of MLflow, in the store that MLFLOW_TRACKING_URI names or MLflow's own default."""

import importlib
import logging
import os
import re
import time
from collections.abc import Mapping

import numpy as np

from diga_jax.tracking.tracked import Tracked

EXPERIMENT = 'diga_jax'  # unless MLFLOW_EXPERIMENT_NAME names another one
BATCH = 100  # parameters at a time
LONGEST = 500  # characters of a parameter
# A server that does not answer is given up after about half a minute: the run waits for it.
PATIENCE = {'MLFLOW_HTTP_REQUEST_TIMEOUT': '10', 'MLFLOW_HTTP_REQUEST_MAX_RETRIES': '2'}


def allowed(tag: str) -> str:
  """A tag without the characters that MLflow refuses in names of metrics and files."""
  return re.sub(r'[^a-zA-Z0-9_./ -]', '_', tag)


class MlflowRun:
  """A run of MLflow, new or continued; see `service_writer.ServiceRun`."""

  def __init__(self, tracked: Tracked, known: str):
    for name, value in PATIENCE.items():
      os.environ.setdefault(name, value)
    mlflow = importlib.import_module('mlflow')  # an extra: it may be absent
    logging.getLogger('mlflow').setLevel(logging.WARNING)
    self.entities = mlflow.entities
    self.client = mlflow.MlflowClient()
    self.id = known or self._create(tracked)
    if known:
      self.client.update_run(known, status='RUNNING')

  def _create(self, tracked: Tracked) -> str:
    name = os.environ.get('MLFLOW_EXPERIMENT_NAME', EXPERIMENT)
    found = self.client.get_experiment_by_name(name)
    place = found.experiment_id if found else self.client.create_experiment(name)
    title = f'{tracked.group}/{tracked.name}'
    run = self.client.create_run(place, run_name=title, tags={'workdir': tracked.group}).info.run_id
    params = [
      self.entities.Param(allowed(field), str(value)[:LONGEST])
      for field, value in tracked.config.items()
    ]
    for start in range(0, len(params), BATCH):
      self.client.log_batch(run, params=params[start : start + BATCH])
    return run

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    now = int(time.time() * 1000)
    metrics = [self.entities.Metric(allowed(tag), x, now, step) for tag, x in values.items()]
    self.client.log_batch(self.id, metrics=metrics)

  def images(self, step: int, values: Mapping[str, np.ndarray]) -> None:
    for tag, pixels in values.items():
      self.client.log_image(self.id, pixels, key=allowed(tag), step=step, synchronous=True)

  def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
    """MLflow has none: each is a JSON file of the run, with the edges and counts of its bins."""
    for tag, array in values.items():
      counts, edges = np.histogram(array, bins=50)
      content = {'step': step, 'edges': edges.tolist(), 'counts': counts.tolist()}
      self.client.log_dict(self.id, content, f'histograms/{allowed(tag)}/{step}.json')

  def texts(self, step: int, values: Mapping[str, str]) -> None:
    for tag, text in values.items():
      self.client.log_text(self.id, text, f'{allowed(tag)}/{step}.txt')

  def close(self, failed: bool) -> None:
    self.client.set_terminated(self.id, 'KILLED' if failed else 'FINISHED')
