"""Files of weights that are damaged or made to do harm: loaded or refused, in memory and time."""

import subprocess
import sys

import pytest


def read_in_a_process_of_its_own(*arguments: str) -> str:
  done = subprocess.run(
    [sys.executable, '-m', 'tests.support.hostile_files', *arguments],
    capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
  return done.stdout


def test_bombs_are_refused_or_loaded_within_their_budget():
  said = read_in_a_process_of_its_own('bombs')
  assert 'refused' in said and 'more than the' in said


@pytest.mark.parametrize('count', [300, pytest.param(10_000, marks=pytest.mark.exhaustive)])
def test_any_file_is_loaded_or_refused_in_one_line(count):
  said = read_in_a_process_of_its_own('fuzz', str(count))
  assert ' loaded' in said
