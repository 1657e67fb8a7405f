"""Libraries in C++ that abort the process: it ends with an action of ours instead.

XLA's client of the coordination service aborts when process 0 is gone, and so do threads of gloo
and NCCL in which an error is raised: status -6, and a page of text.
"""

import contextlib
import ctypes
import functools
import importlib
import signal
from collections.abc import Callable, Iterator

MAKE = 'get_distributed_runtime_client'
_kept: list[object] = []  # what C++ calls must not be collected


def catch(action: Callable[[], None]) -> None:
  """From now on std::terminate and abort() call the action, which has to end the process.

  Where there is no libstdc++ (macOS) nothing is changed.
  """

  def end(*_: int) -> None:
    action()

  terminated, aborted = ctypes.CFUNCTYPE(None)(end), ctypes.CFUNCTYPE(None, ctypes.c_int)(end)
  with contextlib.suppress(OSError, AttributeError):
    set_terminate = ctypes.CDLL('libstdc++.so.6')._ZSt13set_terminatePFvvE
    set_terminate.argtypes, set_terminate.restype = [type(terminated)], ctypes.c_void_p
    set_terminate(terminated)
    libc = ctypes.CDLL(None)
    # Not Python's own: its handlers wait for the main thread, and abort() does not.
    libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, type(aborted)], ctypes.c_void_p
    libc.signal(signal.SIGABRT, aborted)
    _kept.extend((terminated, aborted))


@contextlib.contextmanager
def quiet_client(action: Callable[[], None]) -> Iterator[None]:
  """Inside, JAX makes a client that calls the action when the coordination service is gone.

  With no action given, as by `jax.distributed.initialize`, it prints a stack and aborts. (jaxlib
  0.10 cannot convert the status for a function in Python, and raises in a thread: see `catch`.)
  """
  maker = importlib.import_module('jaxlib._jax')  # without types, nor a public name
  make = getattr(maker, MAKE)
  called = functools.partial(make, missed_heartbeat_callback=lambda *_: action())
  setattr(maker, MAKE, called)
  try:
    yield
  finally:
    setattr(maker, MAKE, make)
