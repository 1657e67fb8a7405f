"""A command as the whole of a process: `python -m diga_jax` and the script `diga-jax`."""

import importlib
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
  sys.exit(status)
