"""Several processes that run the same command: which one this is, what they exchange, how they end.

Every process carries out the same program over the same working directory, which all of them see.
With one process these functions return at once.
"""

import contextlib
import pickle
import signal
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from data_pipelines.errors import BadInput, one_line

T = TypeVar('T')
EXIT_STATUS = 75  # after SIGTERM; EX_TEMPFAIL of sysexits.h: try again


def connect(where: str) -> None:
  """Makes this process one of several; must come before anything else asks for devices.

  Args:
    where: 'auto' on a TPU pod or under SLURM, Open MPI or Kubernetes, which JAX recognises; or
      'HOST:PORT,N,I': the address of process 0, the number of processes and which one this is.

  Raises:
    BadInput: the text is neither, or the others cannot be reached.
  """
  if jax.config.values['jax_platforms'] == 'cpu':
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  address, count, index = None, None, None
  if where != 'auto':
    try:
      address, *numbers = where.split(',')
      count, index = map(int, numbers)
    except ValueError:
      raise BadInput(f"--distributed={where}: give 'auto' or HOST:PORT,PROCESSES,INDEX") from None
  try:
    jax.distributed.initialize(address, count, index)
  except (RuntimeError, ValueError) as error:
    raise BadInput(f'--distributed={where}: {one_line(error)}') from error
  # The channels are opened here, where all are; the first step comes when each has compiled it.
  barrier('connected')


def is_main_process() -> bool:
  """Whether this is process 0, which writes what is written once."""
  return jax.process_index() == 0


def barrier(name: str) -> None:
  """Waits until every process has come here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def exchange(value: T) -> list[T]:
  """The values of all processes, in their order; must be picklable."""
  if jax.process_count() == 1:
    return [value]
  local = np.frombuffer(pickle.dumps(value), np.uint8)
  # In two parts: JAX has no integers of 64 bits, and the values of a data set may be 2 GiB.
  parts = multihost_utils.process_allgather(np.array(divmod(local.size, 2**30), np.int32))
  sizes = parts.astype(np.int64) @ (2**30, 1)
  padded = np.zeros(sizes.max(), np.uint8)
  padded[: local.size] = local
  everyone = multihost_utils.process_allgather(padded)
  return [pickle.loads(row[:size].tobytes()) for row, size in zip(everyone, sizes, strict=True)]


def local_share(count: int) -> range:
  """Which of `count` things belong to this process: every n-th."""
  return range(jax.process_index(), count, jax.process_count())


def in_order(shares: list[list[T]]) -> list[T]:
  """The results for `local_share` of every process, as one list in the order of the things."""
  total = sum(map(len, shares))
  return [shares[i % len(shares)][i // len(shares)] for i in range(total)]


class Preempted(Exception):
  """SIGTERM, the notice before a pre-emption; the same command goes on where it stopped."""


def _raise_preempted(*_: object) -> None:
  raise Preempted('stopped by SIGTERM: the same command goes on')


def raise_on_sigterm() -> None:
  """From now on SIGTERM raises Preempted, wherever the program is; files are whole or absent."""
  signal.signal(signal.SIGTERM, _raise_preempted)


@contextlib.contextmanager
def watch_sigterm() -> Iterator[Callable[[int], bool]]:
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
