"""What reaches a service: everything once, whatever ends the process, and nothing ends the run."""

import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diga_jax.tracking import service_writer
from diga_jax.tracking.service_writer import ServiceWriter
from diga_jax.tracking.tracked import Tracked

TRACKED = Tracked(('wandb',), 'runs/a', 'warmup', {'seed': 0})


class Service:
  """A service in memory: runs by id, each a list of (step, tag, value)."""

  def __init__(self):
    self.runs: dict[str, list] = {}
    self.ends: list[bool] = []
    self.down = False

  def begin(self, tracked: Tracked, known: str) -> 'Run':
    self.answer()
    run = known or f'run {len(self.runs)}'
    self.runs.setdefault(run, [])
    return Run(self, run)

  def answer(self) -> None:
    if self.down:
      raise ConnectionError('no route\nto host')


class Run:
  def __init__(self, service: Service, name: str):
    self.service, self.id = service, name

  def scalars(self, step, values):
    self.service.answer()
    self.service.runs[self.id] += [(step, tag, value) for tag, value in values.items()]

  images = histograms = texts = scalars

  def close(self, failed):
    self.service.answer()
    self.service.ends.append(failed)


@pytest.fixture
def service(monkeypatch) -> Service:
  found = Service()
  monkeypatch.setitem(service_writer.RUNS, 'wandb', found.begin)
  monkeypatch.setattr(service_writer, 'AGAIN', {})
  return found


def open_writer(directory: pathlib.Path) -> ServiceWriter:
  return ServiceWriter('wandb', directory, TRACKED)


def test_all_kinds_of_values_arrive_as_they_are(service, tmp_path):
  writer, pixels = open_writer(tmp_path), np.zeros((2, 3, 3), np.uint8)
  writer.write_scalars(1, {'loss': np.float32(0.5)})
  writer.write_images(1, {'picture': pixels})
  writer.write_histograms(1, {'shares': np.ones(3)})
  writer.write_texts(1, {'config': 'a'})
  writer.close()
  found = {tag: value for _, tag, value in service.runs['run 0']}
  assert found['loss'] == 0.5 and isinstance(found['loss'], float) and found['config'] == 'a'
  np.testing.assert_array_equal(found['picture'], pixels)
  assert service.ends == [False]


@settings(max_examples=30, deadline=None)
@given(kills=st.lists(st.integers(1, 19), max_size=4), every=st.integers(1, 6))
def test_killed_runs_go_on_in_one_run_without_doubled_steps(tmp_path_factory, kills, every):
  """Every kill loses what came after the last save, which is computed again."""
  directory, found = tmp_path_factory.mktemp('stage'), Service()
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(service_writer.RUNS, 'wandb', found.begin)
    for end in (*sorted(kills), 20):
      start = end - end % every if end < 20 else max([0, *kills]) - max([0, *kills]) % every
      writer = open_writer(directory)
      for step in range(max(0, start - every), end):
        writer.write_scalars(step + 1, {'loss': step})
        if (step + 1) % 4 == 0:
          writer.write_scalars(step + 1, {'mean_iou': step})
  assert found.runs.keys() == {'run 0'}
  for tag, wanted in {'loss': 1, 'mean_iou': 4}.items():
    steps = [step for step, of, _ in found.runs['run 0'] if of == tag]
    assert len(steps) == len({*steps}) and steps == sorted(steps)
    assert steps[-1] == 20 and steps[0] % wanted == 0


def test_an_outage_is_one_warning_and_later_values_arrive(service, tmp_path, caplog, monkeypatch):
  now = [1000.0]
  monkeypatch.setattr(service_writer.time, 'monotonic', lambda: now[0])
  writer = open_writer(tmp_path)
  writer.write_scalars(1, {'loss': 1.0})
  service.down = True
  for step in (2, 3):
    writer.write_scalars(step, {'loss': 1.0})
    now[0] += service_writer.PAUSE + 1
  writer.write_scalars(4, {'loss': 1.0})
  service.down = False
  writer.write_scalars(5, {'loss': 1.0})  # in the pause
  now[0] += service_writer.PAUSE + 1
  writer.write_scalars(6, {'loss': 1.0})
  writer.close()
  assert [step for step, *_ in service.runs['run 0']] == [1, 6]
  (line,) = caplog.messages
  assert line == (
    'warmup: Weights & Biases cannot be reached (no route to host): the run goes on without it, '
    'and tries again every 5 minutes; this is said once'
  )


def test_a_service_that_is_down_from_the_beginning_ends_nothing(service, tmp_path, caplog):
  service.down = True
  writer = open_writer(tmp_path)
  writer.write_texts(0, {'config': 'a'})
  writer.write_scalars(1, {'loss': 1.0})
  writer.close()
  assert len(caplog.messages) == 1 and not service.runs


def test_the_pause_is_that_of_all_folders(service, tmp_path, caplog, monkeypatch):
  """What waits a minute for a service does so once, not at each stage and each measurement."""
  now = [1000.0]
  monkeypatch.setattr(service_writer.time, 'monotonic', lambda: now[0])
  service.down = True
  open_writer(tmp_path / 'warmup').write_scalars(1, {'loss': 1.0})
  service.down = False
  writer = open_writer(tmp_path / 'self_training_1')
  writer.write_scalars(1, {'loss': 1.0})
  assert not service.runs and len(caplog.messages) == 1
  now[0] += service_writer.PAUSE + 1
  writer.write_scalars(2, {'loss': 1.0})
  assert service.runs == {'run 0': [(2, 'loss', 1.0)]}


def test_what_stops_the_run_passes(service, tmp_path, monkeypatch):
  def stop(*_):
    raise SystemExit(75)

  monkeypatch.setattr(Run, 'scalars', stop)
  with pytest.raises(SystemExit):
    open_writer(tmp_path).write_scalars(1, {'loss': 1.0})


def test_an_error_of_the_run_ends_the_tracked_run_as_failed(service, tmp_path):
  with pytest.raises(ValueError, match='mine'):
    writer = open_writer(tmp_path)
    writer.write_scalars(1, {'loss': 1.0})
    try:
      raise ValueError('mine')
    finally:
      writer.close()
  assert service.ends == [True]


@pytest.mark.parametrize('text', ['{', '{"id": "run 7"}'])
def test_a_damaged_note_begins_a_new_run(service, tmp_path, caplog, text):
  open_writer(tmp_path).write_scalars(1, {'loss': 1.0})
  (tmp_path / 'wandb_run.json').write_text(text)
  open_writer(tmp_path).write_scalars(1, {'loss': 1.0})
  assert service.runs.keys() == {'run 0', 'run 1'}
  assert 'a new run of wandb is begun' in caplog.messages[-1]
