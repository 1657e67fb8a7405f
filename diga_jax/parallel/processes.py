"""Several processes that run the same command: which one this is, what they exchange, how they end.

Every process carries out the same program over the same working directory, which all of them see.
With one process these functions return at once.
"""

import contextlib
import errno
import os
import pathlib
import pickle
import re
import secrets
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import jax
import numpy as np
from jax._src import distributed
from jax.experimental import multihost_utils

from data_pipelines.errors import BadInput, line_of, one_line
from diga_jax import signals
from diga_jax.parallel import aborts
from diga_jax.parallel.group import Group
from diga_jax.types import PyTree

T = TypeVar('T')
CONNECTING = 35.0  # seconds in which all processes must have come
SHOWING = 10.0  # seconds in which a file that one has written shows on the others' machines

_groups: list[Group] = []  # the one that this process belongs to, if it is not alone


def connect(where: str, devices: str | None = None) -> None:
  """Makes this process one of several; must come before anything else asks for devices.

  Args:
    where: 'auto' on a TPU pod or under SLURM, Open MPI or Kubernetes, which JAX recognises; or
      'HOST:PORT,N,I': the address of process 0, the number of processes and which one this is.
    devices: which of the visible GPUs this process uses, 'all' or '2,3'; None: JAX's choice.

  Raises:
    BadInput: the text is neither, or there is no such place.
  """
  if jax.config.values['jax_platforms'] == 'cpu':
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  address, count, index = None, None, None
  if where != 'auto':
    address, count, index = _place(where)
  late = (
    f'--distributed={where}: not all processes have come within {CONNECTING:.0f} s: start the same '
    'command for each of them, where each can reach the first'
  )
  aborts.catch(_aborted)
  # JAX would abort the process: its own limits are longer.
  limit = threading.Timer(CONNECTING, signals.leave, (2, late))
  limit.daemon = True
  limit.start()
  try:
    with aborts.quiet_client(_aborted):
      jax.distributed.initialize(
        address,
        count,
        index,
        initialization_timeout=int(CONNECTING) + 10,
        heartbeat_timeout_seconds=50,
        shutdown_timeout_seconds=20,
      )
  except ValueError as error:
    raise BadInput(f'--distributed={where}: {one_line(error)}') from error
  except RuntimeError:  # of the client, which would say more while the interpreter ends
    signals.leave(2, f'--distributed={where}: refused; give every index once, and a free port')
  finally:
    limit.cancel()
  signals.handle()  # JAX has taken SIGTERM for itself
  if devices is not None:
    jax.config.update('jax_cuda_visible_devices', devices)
    jax.config.update('jax_rocm_visible_devices', devices)
  state = distributed.global_state
  if state.num_processes > 1:
    _groups.append(Group(state.process_id, state.num_processes))
    signals.at_leaving(_groups[0].farewell)
    compare('--distributed', {'the number of processes': state.num_processes})
    compare('--distributed', {'the number of its devices': jax.local_device_count()})
    barrier('connected')
    # The channels are opened here, where all are; the first step comes when each has compiled it.
    multihost_utils.sync_global_devices('connected')


def _place(where: str) -> tuple[str, int, int]:
  """'HOST:PORT,N,I' -> (HOST:PORT, N, I); BadInput if it is no such text, or the port is taken."""
  found = re.fullmatch(r'([^,]+:(\d{1,5})),(\d{1,6}),(\d{1,6})', where, re.ASCII)
  if not found or int(found[4]) >= int(found[3]) or not 0 < int(found[2]) < 2**16:
    raise BadInput(
      f"--distributed={where}: give 'auto' or HOST:PORT,PROCESSES,INDEX, where INDEX is 0 to "
      'PROCESSES - 1'
    )
  if int(found[4]) == 0:  # which JAX listens on; it crashes if something else does
    for family in (socket.AF_INET, socket.AF_INET6):
      try:
        socket.create_server(('', int(found[2])), family=family).close()
      except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
          reason = os.strerror(error.errno)
          raise BadInput(f'--distributed={where}: {reason}; give another port') from None
  return found[1], int(found[3]), int(found[4])


def _aborted() -> None:
  """Called in place of an abort: tells which process is gone, if that is why."""
  for group in _groups:
    group.aborted()
  signals.leave(2, 'a library has aborted; what was saved is kept, and the same command goes on')


def close() -> None:
  """Waits until all processes have done everything, and takes leave of them."""
  for group in _groups:
    group.close()


def end(error: BaseException) -> None:
  """Ends this process, and with it the others, after an error; returns if it is alone."""
  for group in _groups:
    if signals.received() is not None:
      status = signals.report(error)
      group.farewell()
    else:
      if comes_from_devices(error):
        group.explain()
      status = 2 if isinstance(error, BadInput | OSError) else 1
      if status == 1:
        traceback.print_exception(error)
      signals.say(line_of(error))
      group.fail(line_of(error))
    signals.leave(status, '')  # here: while the interpreter ends it would wait for the others


def comes_from_devices(error: BaseException | None) -> bool:
  """Whether an error is one of a computation, such as one that has lost a process, or after one."""
  while error is not None and not isinstance(error, jax.errors.JaxRuntimeError):
    error = error.__cause__ or error.__context__
  return error is not None


def is_main_process() -> bool:
  """Whether this is process 0, which writes what is written once."""
  return jax.process_index() == 0


def barrier(name: str) -> None:
  """Waits until every process has come here, however long it compiles or reads.

  Raises:
    BadInput: another process has come to a barrier of another name.
  """
  for group in _groups:
    group.meet(name)


def compare(what: str, values: Mapping[str, PyTree]) -> None:
  """Refuses values, JSON-able and by name, that differ from those of process 0.

  Raises:
    BadInput: naming the first that differs.
  """
  for group in _groups:
    group.compare(what, values)


def see_file(path: pathlib.Path, field: str) -> None:
  """Makes sure that a file of process 0 is the same one everywhere: writes a word into it.

  Raises:
    BadInput: this process does not see the word, though network file systems may take a while.
  """
  for group in _groups:
    word = group.tell(secrets.token_hex(8) if group.index == 0 else '')
    if group.index == 0:
      path.write_text(word)
    group.meet(f'{field}: a word is written')
    until = time.monotonic() + SHOWING
    while not path.exists() or path.read_text() != word:
      if time.monotonic() > until:
        raise BadInput(
          f'{field}: {path.parent} is another folder in process {group.index} than in process 0: '
          'give all of them the same one, on a file system that they share'
        )
      time.sleep(0.5)


def exchange(value: T) -> list[T]:
  """The values of all processes, in their order; must be picklable."""
  if jax.process_count() == 1:
    return [value]
  barrier('exchange')  # a collective would wait for the slowest process for minutes only
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


@contextlib.contextmanager
def deferral(
  text: Callable[[str], str], saved: Callable[[], str]
) -> Iterator[tuple[signals.Deferral, Callable[[int], bool]]]:
  """As `signals.Deferral`, which it gives, and a function of the step that has been done.

  The function, to be called after every step, tells whether to save and stop after it: several
  processes agree on a step that none of them has passed. `saved` tells what is on disk, for the
  line on a process that has been lost.
  """
  with signals.Deferral(text) as deferred:
    if not _groups:
      yield deferred, lambda step: signals.received() is not None
      return
    group, before = _groups[0], _groups[0].saved
    group.saved = saved
    try:
      yield deferred, group.stops_after
      group.saved = before  # after an error the line on a lost process still tells
    finally:
      group.step = None
