"""How the process of a command ends."""

import subprocess
import sys

import pytest

# A thread that never ends stands for those of libraries, which crash as the interpreter ends.
COMMAND = """
import atexit, threading, time
from diga_jax.commands import process
threading.Thread(target=time.sleep, args=(600,)).start()
atexit.register(print, 'registered', flush=True)
print('printed', end=' ')
process.leave({status})
"""


@pytest.mark.parametrize('status', [0, 3])
def test_a_process_ends_with_its_status_whatever_threads_do(status):
  command = [sys.executable, '-c', COMMAND.format(status=status)]
  done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
  assert done.returncode == status and done.stdout.split() == ['printed', 'registered']
