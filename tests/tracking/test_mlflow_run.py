"""Runs of MLflow in a store of SQLite, read back with its client."""

import json
import pathlib
import socket
import time

import numpy as np
import pytest

from diga_jax.tracking import service_writer
from diga_jax.tracking.tracked import Tracked
from diga_jax.tracking.writers import open_writer

mlflow = pytest.importorskip('mlflow', reason="needs the extra 'mlflow': pip install '.[mlflow]'")
pytestmark = pytest.mark.filterwarnings('ignore')  # of its libraries


@pytest.fixture
def client(tmp_path, monkeypatch):
  """Of a new store."""
  monkeypatch.chdir(tmp_path)
  store = f'sqlite:///{tmp_path / "store.db"}'
  monkeypatch.setenv('MLFLOW_TRACKING_URI', store)
  before = mlflow.get_tracking_uri()
  mlflow.set_tracking_uri(store)
  yield mlflow.MlflowClient(store)
  mlflow.set_tracking_uri(before)


def write(workdir: pathlib.Path, first: int, last: int, closed: bool = True) -> None:
  """Steps from `first` on, by a process of which nothing is left."""
  directory = workdir / 'warmup.partial'
  directory.mkdir(parents=True, exist_ok=True)
  config = {'seed': 7, 'data.crop': (2, 3), **{f'field_{i}': i for i in range(250)}}
  tracked = Tracked(('mlflow',), str(workdir), 'warmup', config)
  writer = open_writer(directory, tracked, first)
  for step in range(first, last):
    writer.write_scalars(step + 1, {'loss': 1 / (step + 1), 'iou/camera/Straße (neu)': 0.5})
  writer.write_images(last, {'pictures/a': np.full((4, 6, 3), 200, np.uint8)})
  writer.write_histograms(last, {'kept_histogram/road': np.linspace(0, 1, 20)})
  if closed:
    writer.close()


@pytest.mark.exhaustive
def test_a_run_goes_on_without_doubled_steps(client, tmp_path, caplog):
  workdir = tmp_path / 'runs' / 'a'
  write(workdir, 0, 6, closed=False)
  experiment = client.get_experiment_by_name('diga_jax')
  (run,) = client.search_runs([experiment.experiment_id])
  assert run.info.status == 'RUNNING' and run.info.run_name == f'{workdir}/warmup'
  write(workdir, 4, 8)  # it was saved at 4
  (run,) = client.search_runs([experiment.experiment_id])
  name = run.info.run_id
  assert run.info.status == 'FINISHED' and not caplog.messages
  for tag in ('loss', 'iou/camera/Stra_e _neu_'):
    steps = [metric.step for metric in client.get_metric_history(name, tag)]
    assert sorted(steps) == [1, 2, 3, 4, 5, 6, 7, 8]
  assert run.data.params['seed'] == '7' and run.data.params['data.crop'] == '(2, 3)'
  assert len(run.data.params) == 252
  place = pathlib.Path(mlflow.artifacts.download_artifacts(run_id=name, dst_path=str(tmp_path)))
  found = json.loads((place / 'histograms/kept_histogram/road/8.json').read_text())
  assert sum(found['counts']) == 20 and len(found['edges']) == len(found['counts']) + 1
  assert len([*(place / 'images').glob('*.png')]) == 2
  assert 'field_249 = 249' in (place / 'config/resolved/0.txt').read_text()


@pytest.mark.exhaustive
def test_a_server_that_is_gone_is_one_warning(client, tmp_path, caplog):
  with socket.create_server(('127.0.0.1', 0)) as server:
    port = server.getsockname()[1]
  mlflow.set_tracking_uri(f'http://127.0.0.1:{port}')  # where nothing answers any more
  begun = time.monotonic()
  write(tmp_path / 'runs' / 'a', 0, 3)
  assert time.monotonic() - begun < 60
  (line,) = [text for text in caplog.messages if 'MLflow cannot be reached' in text]
  assert '\n' not in line and service_writer.PAUSE == 300
