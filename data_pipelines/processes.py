"""Work on many files by several processes."""

import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from data_pipelines.errors import BadInput

Item = TypeVar('Item')
Result = TypeVar('Result')


def in_order(
  function: Callable[[Item], Result], items: Sequence[Item], jobs: int, chunk: int = 1
) -> Iterator[Result]:
  """function(item) of every item in order, by `jobs` processes, `chunk` items at a time.

  With one job no process is started. What the function raises comes out of the iteration. The
  processes end when this one does, however it ends. Raises BadInput if one of them is killed.
  """
  if jobs <= 1:
    yield from map(function, items)
    return
  # Not forked: the threads of TensorFlow and JAX would not survive it.
  context = multiprocessing.get_context('forkserver')
  with concurrent.futures.ProcessPoolExecutor(jobs, context, _end_with_parent) as pool:
    try:
      yield from pool.map(function, items, chunksize=chunk)
    except BrokenProcessPool:
      raise BadInput(
        f'one of {jobs} processes was killed, perhaps for want of memory: give a smaller --jobs'
      ) from None
    finally:
      pool.shutdown(wait=False, cancel_futures=True)


def _end_with_parent() -> None:
  """Ends this process as soon as the one that started the pool is gone, even if it was killed.

  Signals of the terminal go to all processes of a command; the parent decides what they mean.
  """
  for name in (signal.SIGINT, signal.SIGHUP):
    signal.signal(name, signal.SIG_IGN)
  threading.Thread(target=_wait_for_end_of_parent, daemon=True).start()


def _wait_for_end_of_parent() -> None:
  parent = multiprocessing.parent_process()
  assert parent is not None
  parent.join()
  os._exit(1)
