"""Processes that work on files: they end with the one that started them."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from data_pipelines import processes
from data_pipelines.errors import BadInput


def work(folder: pathlib.Path) -> None:
  """Leaves the number of this process in a file, and works for ever."""
  (folder / str(os.getpid())).touch()
  time.sleep(600)


def kill_itself(number: int) -> int:
  if number == 3:
    os.kill(os.getpid(), signal.SIGKILL)
  return number


def children_of(pid: int) -> list[int]:
  """The processes that a process has started, and those that they have."""
  found = []
  for path in pathlib.Path(f'/proc/{pid}/task').glob('*/children'):
    for child in map(int, path.read_text().split()):
      found += [child, *children_of(child)]
  return found


def is_running(pid: int) -> bool:
  try:
    state = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
  except (FileNotFoundError, ProcessLookupError):
    return False
  return state != 'Z'


def wait_until(true, seconds: float) -> bool:
  end = time.monotonic() + seconds
  while not true() and time.monotonic() < end:
    time.sleep(0.02)
  return true()


@pytest.mark.parametrize('name', ['SIGKILL', 'SIGTERM'])
def test_no_process_outlives_a_killed_command(tmp_path, name):
  source = (
    'import pathlib, sys\n'
    'from data_pipelines import processes\n'
    'from tests.data_pipelines.test_processes import work\n'
    'list(processes.in_order(work, [pathlib.Path(sys.argv[1])] * 4, 2))\n'
  )
  command = subprocess.Popen([sys.executable, '-c', source, str(tmp_path)])
  try:
    assert wait_until(lambda: len(list(tmp_path.iterdir())) == 2, 30)
    started = children_of(command.pid)
    assert len(started) >= 3  # the server that starts them, and two workers
    command.send_signal(signal.Signals[name])
    assert command.wait(10) < 0
    assert wait_until(lambda: not any(map(is_running, started)), 10)
  finally:
    command.kill()


def test_a_killed_process_is_said(tmp_path):
  with pytest.raises(BadInput, match=r'one of 2 processes was killed, .* --jobs'):
    list(processes.in_order(kill_itself, range(6), 2))


def test_the_order_is_that_of_the_items():
  assert list(processes.in_order(abs, range(-9, 0), 2, chunk=2)) == list(range(9, 0, -1))
