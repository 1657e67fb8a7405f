"""Work on many files by several processes."""

import concurrent.futures
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar('Item')
Result = TypeVar('Result')


def in_order(
  function: Callable[[Item], Result], items: Sequence[Item], jobs: int, chunk: int = 1
) -> Iterator[Result]:
  """function(item) of every item in order, by `jobs` processes, `chunk` items at a time.

  With one job no process is started. What the function raises comes out of the iteration.
  """
  if jobs <= 1:
    yield from map(function, items)
    return
  # Not forked: the threads of TensorFlow and JAX would not survive it.
  context = multiprocessing.get_context('forkserver')
  with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context) as pool:
    try:
      yield from pool.map(function, items, chunksize=chunk)
    finally:
      pool.shutdown(wait=False, cancel_futures=True)
