"""Signals, in processes that need nothing but `diga_jax.signals`: 0.1 s each."""

import os
import pathlib
import pty
import signal
import subprocess
import sys
import time

import pytest

PROCESS = """
import signal, sys, time
from diga_jax import signals
signals.GRACE = 0.2
for number in (1, 2):
  signal.signal(number, signal.{inherited})
try:
  signals.install()
  print('ready', flush=True)
  {act}
except signals.Stopped as stopped:
  sys.exit(signals.report(stopped))
"""
SLEEPS = 'time.sleep(30)'
SWALLOWS = """
  while True:
    try: time.sleep(30)
    except BaseException: pass
"""
SAVES = """
  with signals.Deferral(lambda name: f'stopped by {name}, saved') as deferred:
    deferred.hold()
    until = time.monotonic() + 1
    while time.monotonic() < until: time.sleep(0.01)
    deferred.release()
    print('never here')
"""
FINALIZES = """
  class Slow:
    def __del__(self): time.sleep(30)
  x = Slow()
  del x
  time.sleep(30)
"""
STATUS = {signal.SIGTERM: 75, signal.SIGHUP: 75, signal.SIGINT: 130}


def start(act: str, inherited: str = 'SIG_DFL', **options) -> subprocess.Popen:
  process = subprocess.Popen(
    [sys.executable, '-c', PROCESS.replace('{act}', act.strip()).replace('{inherited}', inherited)],
    cwd=pathlib.Path(__file__).parents[2], text=True, stdout=subprocess.PIPE, **options,
  )  # fmt: skip
  assert process.stdout.readline() == 'ready\n'
  return process


def ends(process: subprocess.Popen, timeout: float = 10) -> tuple[int, str]:
  output, error = process.communicate(timeout=timeout)
  assert output == ''
  return process.returncode, error


@pytest.mark.parametrize('act', [SLEEPS, SWALLOWS, FINALIZES])
@pytest.mark.parametrize('number', STATUS)
def test_a_signal_ends_with_its_status_and_one_line(number, act):
  process = start(act, stderr=subprocess.PIPE)
  process.send_signal(number)
  name = signal.Signals(number).name
  line = f'diga_jax: stopped by {name}: the same command goes on\n'
  assert ends(process) == (STATUS[number], line)


@pytest.mark.parametrize('number', STATUS)
def test_what_is_to_be_saved_is_saved_first(number):
  process = start(SAVES, stderr=subprocess.PIPE)
  time.sleep(0.2)
  process.send_signal(number)
  process.send_signal(number)  # at once: `timeout` and launchers signal twice
  line = f'diga_jax: stopped by {signal.Signals(number).name}, saved\n'
  assert ends(process) == (STATUS[number], line)


def test_a_second_signal_ends_at_once():
  process = start(SAVES.replace('+ 1', '+ 30'), stderr=subprocess.PIPE)
  time.sleep(0.3)
  process.send_signal(signal.SIGTERM)
  time.sleep(0.8)
  process.send_signal(signal.SIGINT)
  status, line = ends(process, timeout=3)
  assert status == 75 and line.count('\n') == 1 and 'a second signal' in line


def test_an_ignored_hangup_stays_ignored():
  # As nohup does, and a shell for a job in the background.
  process = start('time.sleep(1)', 'SIG_IGN', stderr=subprocess.PIPE)
  process.send_signal(signal.SIGHUP)
  time.sleep(0.3)
  process.send_signal(signal.SIGINT)
  status, line = ends(process)
  assert status == 130 and line.startswith('diga_jax: stopped by SIGINT')


def test_a_terminal_that_is_gone_disturbs_nothing():
  """What is printed after SIGHUP goes nowhere: printing to a closed terminal is an error."""
  master, slave = pty.openpty()
  act = SAVES.replace('time.sleep(0.01)', "time.sleep(0.3); print('.', file=sys.stderr)")
  process = start(act, stderr=slave)
  os.close(slave)
  os.close(master)
  process.send_signal(signal.SIGHUP)
  assert ends(process)[0] == 75
