"""Two processes with two devices each, against one process with four."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from data_pipelines.errors import BadInput
from diga_jax.parallel.processes import (
  barrier,
  connect,
  exchange,
  in_order,
  is_main_process,
  local_share,
)
from diga_jax.recipe import checkpoints
from diga_jax.storage import stage_folder
from tests.end_to_end.test_recipe import final_state

ROOT = pathlib.Path(__file__).parents[2]
TRAINED = ('warmup', 'self_training_1')
RECIPE = "('warmup', 'label_1', 'self_training_1')"
# Thresholds that every image moves, so that the processes have to tell each other what they see.
SELECTOR = {'selector': 'ias', 'threshold': 0.05, 'beta': 0.1, 'gamma': 0.0, 'selector_batch': 1}


def command(name: str, workdir: pathlib.Path, cache: pathlib.Path, *more: str) -> list[str]:
  """A command of the tiny recipe, with batches that divide over four devices."""
  batches = [f'--config.stages.{s}.batch.{k}=2' for s in TRAINED for k in ('low_rows', 'full_rows')]
  return [
    *(sys.executable, '-W', 'error', '-W', 'ignore:the load_module:DeprecationWarning'),
    *('-m', 'diga_jax', name),
    '--config=tests/configs/tiny_criteria.py',
    f'--workdir={workdir}',
    f'--config.data.cache={cache}',
    f'--config.recipe={RECIPE}',
    *(f'--config.stages.label_1.{key}={value}' for key, value in SELECTOR.items()),
    '--config.devices=0',
    '--config.checkpoint_choice=oracle',
    '--config.translator.kind=fourier',
    *batches,
    *more,
  ]


def start(arguments: list[str], devices: int) -> subprocess.Popen:
  environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': str(devices)}
  return subprocess.Popen(
    arguments,
    cwd=ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finish(processes: list[subprocess.Popen]) -> list[str]:
  """The outputs; fails with them if a process fails."""
  outputs = [process.communicate(timeout=900)[0] for process in processes]
  assert not any(process.returncode for process in processes), '\n'.join(outputs)
  return outputs


def in_two_processes(name: str, workdir: pathlib.Path, cache: pathlib.Path, *more: str):
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  where = [f'--distributed=localhost:{port},2,{i}' for i in range(2)]
  return finish([start(command(name, workdir, cache, w, *more), devices=2) for w in where])


@pytest.fixture(scope='module')
def runs(tmp_path_factory) -> tuple[pathlib.Path, pathlib.Path, pathlib.Path]:
  """(scenes, workdir of one process, workdir of two)."""
  cache, alone, together = (tmp_path_factory.mktemp(name) for name in ('scenes', 'one', 'two'))
  # One of them keeps all checkpoints, to go on from.
  finish([start(command('run', alone, cache, '--config.keep_checkpoints=all'), devices=4)])
  first, second = in_two_processes('run', together, cache)
  assert 'metrics.json and pictures' in first and 'metrics.json' not in second
  return cache, alone, together


def check_same(found: pathlib.Path, wanted: pathlib.Path) -> None:
  """The parameters to use of two stages agree within 1e-5 of the largest."""
  step = stage_folder.read_record(found)['result']['step']
  found, wanted = final_state(found, step), final_state(wanted, step)
  names = [name for name in found if "'params'" in name or '.params' in name]
  assert names and set(names) <= wanted.keys()
  largest = max(np.abs(wanted[name]).max() for name in names)
  for name in names:
    np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=1e-5 * largest, err_msg=name)


def check_same_shares(found, wanted) -> None:
  """Class shares are those of the images of all processes."""
  if wanted is None:
    assert found is None
    return
  for what in ('kept', 'predictions'):
    for when in ('first', 'last'):
      ours, theirs = (list(side[what][when].values()) for side in (found, wanted))
      np.testing.assert_allclose(ours, theirs, atol=0.01)


@pytest.mark.slow
def test_two_processes_do_what_one_does(runs):
  _, alone, together = runs
  for name in TRAINED:
    check_same(together / name, alone / name)
    result, wanted = (stage_folder.read_record(run / name)['result'] for run in (together, alone))
    check_same_shares(result.pop('class_balance', None), wanted.pop('class_balance', None))
    assert result == wanted and result['chosen_by'] == 'oracle'  # by all processes' images
    one, two = (checkpoints.read(run / name)['table'] for run in (alone, together))
    for row, other in zip(one, two, strict=True):
      assert row.keys() == other.keys() >= {'step', 'agreement', 'density', 'oracle'}
      # A pixel of two nearly equal logits may be of another class.
      np.testing.assert_allclose([*other.values()], [*row.values()], rtol=2e-3)
  ours, theirs = (
    stage_folder.read_record(run / 'label_1')['result']['class_balance']
    for run in (together, alone)
  )
  for name, each in theirs['by_class'].items():
    assert ours['by_class'][name]['predicted'] == pytest.approx(each['predicted'], abs=1e-3)
  wanted = sorted((alone / 'label_1' / 'labels').glob('*.png'))
  found = sorted((together / 'label_1' / 'labels').glob('*.png'))
  assert [path.name for path in found] == [path.name for path in wanted]
  one, two = (dict(np.load(run / 'label_1' / 'index.npz')) for run in (alone, together))
  # Quantiles of confidences in float16: two that are equal to rounding may be a step apart there.
  step = np.spacing(np.float16(one['thresholds'].max()))
  np.testing.assert_allclose(two['thresholds'], one['thresholds'], rtol=0, atol=step)
  np.testing.assert_allclose(two['confidence'], one['confidence'], atol=1e-5)
  assert np.abs(two['counts'] - one['counts']).sum() <= 0.001 * one['counts'].sum()
  assert 0 < one['counts'].sum() < 4 * 48 * 96
  place = 'evaluation/published/warmup/camera_test/metrics.json'
  one, two = (json.loads((run / place).read_text()) for run in (alone, together))
  assert two['pixels'] == one['pixels'] and two['images'] == one['images']
  different = np.abs(np.subtract(one['confusion'], two['confusion'])).sum()
  assert different <= 0.001 * one['pixels']  # a logit may be nearer to another than rounding
  assert len(list((together / 'evaluation').rglob('pictures/*.png'))) == len(
    list((alone / 'evaluation').rglob('pictures/*.png'))
  )
  assert not list(together.rglob('*.partial'))


@pytest.mark.slow
def test_a_run_goes_on_with_other_processes(runs, tmp_path):
  cache, alone, _ = runs
  partial = tmp_path / 'run' / 'warmup.partial'
  shutil.copytree(alone / 'warmup', partial)
  shutil.rmtree(partial / 'checkpoints' / '5')
  in_two_processes('train', tmp_path / 'run', cache, '--stage=warmup')
  check_same(tmp_path / 'run' / 'warmup', alone / 'warmup')


LOWER = """
import hashlib
from diga_jax.plan import roofline
from tests.configs import tiny
import jax
step, *shapes = roofline.abstract_step(tiny.get_config(), 'self_training_1', 2)
print(hashlib.sha256(jax.jit(step).lower(*shapes).as_text().encode()).hexdigest())
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize('index', [0, 1])
def test_a_checkpoint_that_one_cannot_write_ends_all(tmp_path, index):
  """The others do not wait for its part."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    where = f'--distributed=localhost:{free.getsockname()[1]},2'
  train = command('train', tmp_path / 'run', tmp_path / 'cache', '--stage=warmup')
  limited = ['sh', '-c', 'ulimit -f 40; exec "$@"', 'sh']  # in blocks of 512 bytes
  started = [start([*limited * (i == index), *train, f'{where},{i}'], 2) for i in (0, 1)]
  outputs = [process.communicate(timeout=300)[0] for process in started]
  assert [process.returncode for process in started] == [2, 2], outputs
  for output in outputs:
    assert 'a checkpoint cannot be written' in output and 'Traceback' not in output, output
  assert f'process {index} has stopped: ' in outputs[1 - index]


@pytest.mark.slow
def test_every_process_traces_the_same_program():
  """Otherwise they would wait for each other in different places, and no cache would be hit."""
  environment = os.environ | {'JAX_PLATFORMS': 'cpu'}
  found = {
    subprocess.run(
      [sys.executable, '-c', LOWER],
      cwd=ROOT, env=environment | {'PYTHONHASHSEED': seed}, capture_output=True, check=True,
    ).stdout
    for seed in ('1', '2')
  }  # fmt: skip
  assert len(found) == 1


def test_alone_there_is_nothing_to_exchange():
  assert is_main_process() and exchange('x') == ['x']
  assert list(local_share(5)) == [0, 1, 2, 3, 4]
  barrier('nobody')


@pytest.mark.parametrize('count', [0, 1, 4, 7])
@pytest.mark.parametrize('processes', [1, 2, 3])
def test_shares_in_order_are_the_whole(monkeypatch, count, processes):
  monkeypatch.setattr(jax, 'process_count', lambda: processes)
  shares = []
  for index in range(processes):
    monkeypatch.setattr(jax, 'process_index', lambda index=index: index)
    shares.append(list(local_share(count)))
  assert in_order(shares) == list(range(count))


@pytest.mark.parametrize(
  'where',
  [
    'nowhere', '', 'localhost:1', 'localhost:1,two,0', 'localhost,2,0', 'localhost:0,2,0',
    'localhost:99999,2,0', 'localhost:9000,2,2', 'localhost:9000,2,-1', 'localhost:9000,0,0',
    'localhost:9000,2,0,0', 'localhost:port,2,0',
  ],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(where):
  with pytest.raises(BadInput, match='HOST:PORT'):
    connect(where)


@pytest.mark.parametrize('family, host', [(socket.AF_INET, ''), (socket.AF_INET6, '::')])
def test_a_port_that_is_taken_is_refused(family, host):
  with socket.socket(family) as taken:
    taken.bind((host, 0))
    taken.listen()
    with pytest.raises(BadInput, match='Address already in use; give another port'):
      connect(f'localhost:{taken.getsockname()[1]},2,0')


@pytest.mark.exhaustive
def test_two_processes_make_a_study(tmp_path):
  vary = '--vary=stages.self_training_1.steps=4,5'
  options = ('--seeds', '0', vary, '--against=warmup', '--config.checkpoint_choice=last')
  first, second = in_two_processes('study', tmp_path / 'w', tmp_path / 'cache', *options)
  assert 'these tables' in first and 'these tables' not in second
  numbers = json.loads((tmp_path / 'w/study/published.json').read_text())
  assert list(numbers['rows']) == ['warmup', 'steps=4/self_training_1', 'steps=5/self_training_1']
  assert (tmp_path / 'w/steps=5/seed_0/warmup').is_symlink()
