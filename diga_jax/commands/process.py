"""A command as the whole of a process: `python -m diga_jax` and the script `diga-jax`."""

import atexit
import contextlib
import importlib
import os
import sys
from typing import NoReturn

from diga_jax import signals


def run() -> NoReturn:
  """Carries out the command line and ends the process with its status."""
  try:
    signals.install()
    # By name: it imports this module. It takes a second, in which a signal may come.
    status = importlib.import_module('diga_jax.__main__').main()
  except signals.Stopped as stopped:
    status = signals.report(stopped)
  except Exception as error:  # of a library that a signal has interrupted
    if signals.received() is None:
      raise
    status = signals.report(error)
  signals.finish()
  leave(status)


def leave(status: int) -> NoReturn:
  """Ends the process without taking the interpreter down: threads of libraries still run in it.

  They crash now and then as it goes (segmentation faults after the last line was printed). What
  is registered to happen at the end happens; if the output cannot be written Python says so.
  """
  with contextlib.suppress(OSError, ValueError):
    sys.stdout.flush()
    sys.stderr.flush()
    atexit._run_exitfuncs()
    os._exit(status)
  sys.exit(status)
