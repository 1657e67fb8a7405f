"""Two processes that stop together, whatever happens to one of them."""

import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from data_pipelines.errors import BadInput
from diga_jax.parallel.launchers import visible_devices

# A process of two, with limits of a few seconds; `act` is what it does once it is connected.
PROCESS = """
import os, pathlib, signal, sys, time
from diga_jax import signals
try:
  signals.install()
  from data_pipelines.errors import BadInput
  from diga_jax.parallel import group, processes
  group.SILENT, group.BEAT, group.FAREWELL = 3, 0.2, 3
  processes.CONNECTING, processes.SHOWING = 12, 1
  index = int(sys.argv[1].rpartition(',')[2])
  try:
    processes.connect(sys.argv[1])
    print('connected', flush=True)
    {act}
    processes.close()
  except BaseException as error:
    processes.end(error)
    raise
except signals.Stopped as stopped:
  sys.exit(signals.report(stopped))
except BadInput as error:  # before there were others
  signals.leave(2, str(error))
"""
LIMIT = 60.0  # seconds, of everything


def start(where: str, act: str, devices: int = 1) -> subprocess.Popen:
  environment = {'JAX_PLATFORMS': 'cpu', 'PATH': '/usr/bin:/bin'}
  environment['JAX_NUM_CPU_DEVICES'] = str(devices)
  return subprocess.Popen(
    [sys.executable, '-c', PROCESS.replace('{act}', act), where],
    cwd=pathlib.Path(__file__).parents[2], env=environment, text=True,
    stdout=subprocess.PIPE, stderr=subprocess.PIPE,
  )  # fmt: skip


def places() -> list[str]:
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  return [f'localhost:{port},2,{index}' for index in range(2)]


def pair(*acts: str) -> list[subprocess.Popen]:
  return [start(where, act) for where, act in zip(places(), acts, strict=True)]


def ends(processes: list[subprocess.Popen]) -> list[tuple[int, str]]:
  """(status, stderr) of each; all have to end in time."""
  until = time.monotonic() + LIMIT
  found = []
  for process in processes:
    _, error = process.communicate(timeout=max(until - time.monotonic(), 1))
    found.append((process.returncode, error))
  return found


def connected(processes: list[subprocess.Popen]) -> None:
  for process in processes:
    while (line := process.stdout.readline()) != 'connected\n':
      assert line, process.stderr.read()  # or what gloo says


EXHAUSTIVE = pytest.mark.exhaustive  # seconds each: importing JAX, twice


@pytest.mark.parametrize('wrong', [pytest.param(0, marks=EXHAUSTIVE), 1])
def test_a_mistake_that_one_sees_ends_both(wrong):
  acts = ["processes.barrier('a place')"] * 2
  acts[wrong] = "raise BadInput('runs/x: another run is at work there')"
  found = ends(pair(*acts))
  line = 'diga_jax: runs/x: another run is at work there\n'
  assert found[wrong] == (2, line)
  assert found[1 - wrong] == (2, line.replace(': ', f': process {wrong} has stopped: ', 1))


@pytest.mark.parametrize(
  'lost, number',
  [
    (0, signal.SIGKILL),
    pytest.param(1, signal.SIGKILL, marks=EXHAUSTIVE),
    pytest.param(0, signal.SIGSTOP, marks=EXHAUSTIVE),
    pytest.param(1, signal.SIGSTOP, marks=EXHAUSTIVE),
  ],
)
def test_a_process_that_is_gone_ends_the_other(lost, number):
  both = pair(*["processes.barrier('a'); time.sleep(99)"] * 2)
  connected(both)
  both[lost].send_signal(number)
  [(status, error)] = ends([both[1 - lost]])
  both[lost].kill()
  both[lost].communicate()
  assert status == 2 and len(error.splitlines()) == 1, error
  assert f'process {lost} of 2 is gone' in error and 'complete stages are kept' in error


@EXHAUSTIVE
def test_a_process_that_never_comes_is_waited_for_in_vain():
  for index in (0, 1):
    [(status, error)] = ends([start(places()[index], 'pass')])
    assert status == 2 and len(error.splitlines()) == 1, error
    assert 'not all processes have come' in error


@EXHAUSTIVE
def test_a_slow_process_is_waited_for():
  acts = ("processes.barrier('slow')", "time.sleep(8); processes.barrier('slow')")
  assert ends(pair(*acts)) == [(0, ''), (0, '')]


@EXHAUSTIVE
def test_different_values_are_refused_by_name():
  act = "processes.compare('--distributed', {'config.seed': index, 'config.devices': 0})"
  found = ends(pair(act, act + "; processes.barrier('on')"))
  assert [status for status, _ in found] == [2, 2]
  assert 'config.seed is 1 in process 1 and 0 in process 0' in found[1][1]


@EXHAUSTIVE
def test_another_number_of_processes_is_refused():
  first, second = places()
  found = ends([start(first, 'pass'), start(second.replace(',2,', ',3,'), 'pass')])
  assert [status for status, _ in found] == [2, 2]
  assert 'the number of processes is 3 in process 1 and 2 in process 0' in found[1][1]


@EXHAUSTIVE
def test_another_number_of_devices_is_refused():
  found = ends([start(place, 'pass', index + 1) for index, place in enumerate(places())])
  assert [status for status, _ in found] == [2, 2]
  assert 'the number of its devices is 2 in process 1 and 1 in process 0' in found[1][1]


@EXHAUSTIVE
@pytest.mark.parametrize('index', [0, 1])
def test_one_place_for_two_is_refused(index):
  place = places()[index]
  for status, error in ends([start(place, 'pass'), start(place, 'pass')]):
    assert status == 2 and len(error.splitlines()) == 1, error


@EXHAUSTIVE
def test_different_places_are_refused():
  found = ends(pair("processes.barrier('here')", "processes.barrier('there')"))
  assert [status for status, _ in found] == [2, 2]
  assert 'process 1 is at "there" and process 0 at "here"' in found[1][1]


@EXHAUSTIVE
def test_another_folder_is_refused(tmp_path):
  act = f"os.chdir('{tmp_path}'); os.makedirs(f'w{{index}}'); "
  act += "processes.see_file(pathlib.Path(f'w{index}/.lock'), '--workdir'); processes.barrier('on')"
  found = ends(pair(act, act))
  assert [status for status, _ in found] == [2, 2]
  assert '--workdir: w1 is another folder in process 1' in found[1][1]


TRAINS = """
    import random
    saves = processes.deferral(lambda name: f'{name} after {step}', lambda: 'step 0 is saved')
    with saves as (d, stops):
      for step in range(1, 10**6):
        time.sleep(random.random() / 50)
        if step % 5 == 0: processes.barrier('in step')  # as a collective: they cannot drift apart
        d.hold()
        if stops(step): break
      d.release()
"""


@pytest.mark.parametrize(
  'number',
  [
    signal.SIGTERM,
    pytest.param(signal.SIGINT, marks=EXHAUSTIVE),
    pytest.param(signal.SIGHUP, marks=EXHAUSTIVE),
  ],
)
def test_all_stop_after_the_same_step(number):
  both = pair(TRAINS.strip(), TRAINS.strip())
  connected(both)
  time.sleep(1)
  both[1].send_signal(number)
  found = ends(both)
  assert [status for status, _ in found] == 2 * [130 if number == signal.SIGINT else 75]
  first, second = (error.split(' after ') for _, error in found)
  assert first[1] == second[1] and int(first[1]) > 1


@EXHAUSTIVE
def test_a_signal_to_one_ends_both_where_nothing_is_to_be_saved():
  both = pair(*["processes.barrier('a') if index else time.sleep(99)"] * 2)
  connected(both)
  both[1].send_signal(signal.SIGTERM)
  assert [status for status, _ in ends(both)] == [75, 75]


SLURM = {'SLURM_LOCALID': '1', 'SLURM_NODEID': '1', 'SLURM_STEP_TASKS_PER_NODE': '1,8(x2)'}
EIGHT = '0,1,2,3,4,5,6,7'
MIG = 'MIG-1a,MIG-2b,MIG-3c,MIG-4d,MIG-5e,MIG-6f,MIG-7a,MIG-8b'


@pytest.mark.parametrize(
  'more, devices',
  [
    ({'CUDA_VISIBLE_DEVICES': '0'}, 'all'),  # --gpus-per-task=1: each sees its own as 0
    ({'CUDA_VISIBLE_DEVICES': EIGHT}, '1'),  # all see all: one each
    ({'CUDA_VISIBLE_DEVICES': MIG}, '1'),
    ({'CUDA_VISIBLE_DEVICES': 'GPU-8932f937-d72c'}, 'all'),
    ({'CUDA_VISIBLE_DEVICES': ''}, 'all'),  # none, which JAX finds out
    ({'CUDA_VISIBLE_DEVICES': '0,-1,1,2,3,4,5,6,7'}, 'all'),  # CUDA sees what is before the -1
    ({'CUDA_VISIBLE_DEVICES': '0,1,2,3', 'SLURM_GPUS_PER_TASK': '4'}, 'all'),
    ({'CUDA_VISIBLE_DEVICES': '0,1,2,3', 'SLURM_GPUS_PER_TASK': 'h100:4'}, 'all'),
    ({'CUDA_VISIBLE_DEVICES': '0,1', 'SLURM_TRES_PER_TASK': 'cpu=4,gres/gpu:h100=2'}, 'all'),
    ({'CUDA_VISIBLE_DEVICES': EIGHT, 'SLURM_TRES_PER_TASK': 'cpu:8'}, '1'),
    ({'CUDA_VISIBLE_DEVICES': EIGHT, 'SLURM_GPUS_PER_TASK': '1'}, '1'),  # --gpu-bind=none
    ({'CUDA_VISIBLE_DEVICES': EIGHT, 'SLURM_STEP_TASKS_PER_NODE': '2(x2)'}, '4,5,6,7'),
    ({'CUDA_VISIBLE_DEVICES': '0,1,2,3', 'SLURM_STEP_TASKS_PER_NODE': '1(x4)'}, 'all'),
    ({'ROCR_VISIBLE_DEVICES': EIGHT}, '1'),
    ({'SLURM_GPUS_ON_NODE': '8'}, '1'),
    ({'SLURM_GPUS_ON_NODE': 'h100:8'}, '1'),
    ({'SLURM_GPUS_ON_NODE': '8', 'SLURM_GPUS_PER_TASK': '1'}, 'all'),
    ({}, 'all'),
    ({'JAX_LOCAL_DEVICE_IDS': '3'}, '3'),
    # mpirun in a job: SLURM's variables are those of the daemon that starts the processes.
    ({'OMPI_COMM_WORLD_LOCAL_RANK': '2', 'OMPI_COMM_WORLD_LOCAL_SIZE': '4',
      'CUDA_VISIBLE_DEVICES': EIGHT}, '4,5'),
  ],
)  # fmt: skip
def test_a_process_of_slurm_uses_its_gpus(more, devices):
  assert visible_devices(SLURM | more) == devices


def test_gpus_that_do_not_divide_are_refused():
  assert visible_devices({}) is None
  open_mpi = {'OMPI_COMM_WORLD_LOCAL_RANK': '0', 'OMPI_COMM_WORLD_LOCAL_SIZE': '3'}
  with pytest.raises(BadInput, match='3 processes on this machine share 4 GPUs'):
    visible_devices(open_mpi | {'CUDA_VISIBLE_DEVICES': '0,1,2,3'})
