"""Runs of W&B, written offline and read back from its own files."""

import json
import os
import pathlib
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from data_pipelines.errors import BadInput
from diga_jax.tracking import writers

pytest.importorskip('wandb', reason="needs the extra 'wandb': pip install '.[wandb]'")

# A process writes the steps from FIRST on, and is killed or closes the run.
PROGRAM = """
import os, pathlib, sys
import numpy as np
from diga_jax.tracking.tracked import Tracked
from diga_jax.tracking.writers import open_writer

workdir, first, last, end = pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:4]), sys.argv[4]
directory = workdir / 'warmup.partial'
directory.mkdir(parents=True, exist_ok=True)
tracked = Tracked(('wandb',), str(workdir), 'warmup', {'seed': 7, 'data.crop': (2, 3)})
writer = open_writer(directory, tracked, first)
for step in range(first, last):
  writer.write_scalars(step + 1, {'loss': 1 / (step + 1)})
writer.write_images(last, {'pictures/a': np.full((4, 6, 3), 200, np.uint8)})
writer.write_histograms(last, {'kept_histogram/road': np.linspace(0, 1, 20)})
if end == 'killed':
  import time
  time.sleep(20)  # W&B's own process writes every 15 seconds
  os.kill(os.getpid(), 9)
writer.close()
"""


def records_in(path: pathlib.Path) -> Iterator[bytes]:
  """The records of a transaction log: LevelDB's format, behind 7 bytes of W&B's."""
  data, place, found = path.read_bytes(), 7, b''
  assert data.startswith(b':W&B')
  while len(data) - place >= 7:
    if (left := 2**15 - place % 2**15) < 7:
      place += left
      continue
    length, kind = struct.unpack_from('<HB', data, place + 4)
    found += data[place + 7 : place + 7 + length]
    place += 7 + length
    if kind in (1, 4):  # whole, or the last part
      yield found
      found = b''


def read(path: pathlib.Path) -> tuple[set[tuple[str, str, str]], dict, list[dict]]:
  """(id, title and group), config and history of a transaction log."""
  from wandb.proto import wandb_internal_pb2

  runs, config, history = set(), {}, []
  for data in records_in(path):
    record = wandb_internal_pb2.Record.FromString(data)
    if record.HasField('run'):
      run = record.run
      runs.add((run.run_id, run.display_name, run.run_group))
      config |= {item.key: json.loads(item.value_json) for item in run.config.update}
    if record.HasField('history'):
      items = {'/'.join(i.nested_key) or i.key: i.value_json for i in record.history.item}
      history.append({key: json.loads(text) for key, text in items.items() if text})
  return runs, config, history


def python(program: str, *arguments: str, cwd: pathlib.Path) -> subprocess.CompletedProcess[str]:
  environment = {**os.environ, 'WANDB_MODE': 'offline', 'PYTHONPATH': os.getcwd()}
  return subprocess.run(
    [sys.executable, '-c', program, *arguments], cwd=cwd, env=environment, text=True,
    capture_output=True, check=False, timeout=300,
  )  # fmt: skip


@pytest.mark.exhaustive
def test_a_run_that_was_killed_goes_on_under_its_id_without_doubled_steps(tmp_path):
  workdir = tmp_path / 'runs' / 'a'
  killed = python(PROGRAM, str(workdir), '0', '6', 'killed', cwd=tmp_path)
  assert killed.returncode == -9, killed.stderr
  ended = python(PROGRAM, str(workdir), '4', '8', 'closed', cwd=tmp_path)  # it was saved at 4
  assert ended.returncode == 0, ended.stderr
  assert not ended.stdout and 'wandb:' not in ended.stderr
  logs = sorted(workdir.glob('wandb/offline-run-*/*.wandb'))
  assert len(logs) == 2
  found = [read(log) for log in logs]
  titles = {run[1:] for runs, *_ in found for run in runs}
  assert titles == {(f'{workdir}/warmup'[-128:], str(workdir)[-128:])}
  assert len({name for runs, *_ in found for name, *_ in runs}) == 1
  assert found[0][1]['seed'] == 7 and found[0][1]['data.crop'] == [2, 3]
  lines = [line for *_, history in found for line in history]
  assert [line['step'] for line in lines if 'loss' in line] == [1, 2, 3, 4, 5, 6, 7, 8]
  tags = {tag for line in lines for tag in line}
  tags |= {tag.rpartition('/')[0] for tag in tags}  # of what has several parts
  assert tags >= {'loss', 'step', 'pictures/a', 'kept_histogram/road', 'config/resolved'}
  assert [*workdir.glob('wandb/offline-run-*/files/media/images/pictures/*.png')]


@pytest.mark.exhaustive
def test_without_a_login_it_is_refused(tmp_path):
  program = (
    'from diga_jax.tracking import writers\n'
    'from data_pipelines.errors import BadInput\n'
    'try:\n  writers.check(("wandb",))\nexcept BadInput as error:\n  print(error)\n'
  )
  environment = {k: v for k, v in os.environ.items() if not k.startswith(('WANDB', 'NETRC'))}
  for mode, key, wanted in (
    ('online', '', 'nobody is logged in: run `wandb login`'),
    ('online', 'short', 'W&B refuses its settings (WANDB_API_KEY invalid'),
    ('somewhere', '', 'W&B refuses its settings (1 validation error'),
    ('offline', '', ''),
  ):
    found = {'WANDB_MODE': mode} | ({'WANDB_API_KEY': key} if key else {})
    done = subprocess.run(
      [sys.executable, '-c', program], text=True, capture_output=True, check=True, timeout=120,
      env={**environment, **found, 'HOME': str(tmp_path), 'PYTHONPATH': os.getcwd()},
    )  # fmt: skip
    assert wanted in done.stdout and done.stdout.count('\n') == bool(wanted)


def test_a_package_that_is_absent_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'wandb', None)
  with pytest.raises(BadInput, match=r"pip install '.\[wandb\]'"):
    writers.check(('tensorboard', 'wandb'))
