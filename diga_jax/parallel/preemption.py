"""SIGTERM, the notice before a pre-emption: train.py saves, __main__.py exits with status 75."""

import contextlib
import signal
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

EXIT_STATUS = 75  # sysexits.h's EX_TEMPFAIL: try again


class Preempted(Exception):
  """The process was asked to end; the same command goes on where it stopped."""


def _leave(*_: object) -> None:
  raise Preempted('stopped by SIGTERM: the same command goes on')


def listen() -> None:
  """From now on SIGTERM raises Preempted, wherever the program is; files are whole or absent."""
  signal.signal(signal.SIGTERM, _leave)


@contextlib.contextmanager
def watch() -> Iterator[Callable[[int], bool]]:
  """Inside, SIGTERM interrupts nothing; the function given tells whether to save and stop.

  It must be called after every step, with the step's number: several processes agree on a step
  that none of them has passed.
  """
  if jax.process_count() > 1:
    yield multihost_utils.reached_preemption_sync_point
    return
  received = []
  before = signal.signal(signal.SIGTERM, lambda *_: received.append(True))
  try:
    yield lambda step: bool(received)
  finally:
    signal.signal(signal.SIGTERM, before)
