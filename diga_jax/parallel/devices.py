"""The devices of a run: found, or refused in one line; and in words."""

import ctypes.util
import logging
import os
import pathlib
import shutil
import sys
from collections.abc import Mapping

import jax

from data_pipelines.errors import BadInput, one_line
from diga_jax.types import PyTree

INSTALL = "pip install 'jax[cuda12]'"
# JAX's own words on a GPU that it cannot use, which `doubt` has as well.
FALLING_BACK = 'Falling back to cpu'

logging.getLogger('jax._src.xla_bridge').addFilter(
  lambda record: FALLING_BACK not in record.getMessage()
)


def find() -> list[PyTree]:
  """The devices of all processes.

  Raises:
    BadInput: JAX finds none of those that it has been told to use.
  """
  try:
    return jax.devices()
  except (AssertionError, RuntimeError) as error:
    wanted = platforms()
    reason = '' if isinstance(error, AssertionError) else one_line(error)
    if not wanted:
      raise BadInput(
        f'JAX finds no device: {reason}; set JAX_PLATFORMS=cpu, or mend its installation '
        '(docs/launch.md)'
      ) from error
    raise BadInput(
      f'JAX_PLATFORMS is {wanted!r}, and JAX finds no such device{f" ({reason})" * bool(reason)}: '
      f'unset it or set it to cpu, or install JAX for the accelerator, such as {INSTALL} '
      '(docs/launch.md)'
    ) from error


def platforms() -> str:
  """JAX_PLATFORMS, such as 'cuda,cpu'; '' if it is not set."""
  return jax.config.values['jax_platforms'] or ''


def kinds(count: int = 0) -> str:
  """The devices of all processes, such as '8 x NVIDIA H100 80GB HBM3 in 2 processes'.

  Args:
    count: how many of them are used; 0 for all.
  """
  names = [device.device_kind for device in find()]
  used = names[: count or len(names)]
  text = ', '.join(
    f'{used.count(kind)}{f" of {names.count(kind)}" * (used.count(kind) < names.count(kind))} x '
    f'{kind}'
    for kind in dict.fromkeys(used)
  )
  processes = jax.process_count()
  return text if processes == 1 else f'{text} in {processes} processes'


def describe(count: int = 0) -> str:
  """As `kinds`, for people: of the CPU, which is one device to JAX, its cores are told."""
  if any(device.platform != 'cpu' for device in find()):
    return kinds(count)
  several = jax.device_count() > 1
  cpu = f'{cores()} CPU core{"s" * (cores() > 1)}'
  return f'{cpu} ({kinds(count)})' if several else cpu


def cores() -> int:
  """How many cores this process may use: sums on a CPU are split over them."""
  return len(os.sched_getaffinity(0)) if sys.platform == 'linux' else os.cpu_count() or 1


def doubt(environment: Mapping[str, str]) -> str:
  """Why a run on the CPU may be none that was wanted; '' for one that was, or on other devices."""
  if any(device.platform != 'cpu' for device in find()):
    return ''
  wanted = platforms().split(',')
  if wanted != [''] and wanted[0] != 'cpu':
    return f'JAX_PLATFORMS is {",".join(wanted)!r}, and of these JAX finds the CPU alone'
  hidden = environment.get('CUDA_VISIBLE_DEVICES') in ('', '-1')
  if wanted == [''] and not hidden and (sign := sign_of_gpu()):
    return (
      f'this machine has {sign}, but JAX finds the CPU alone: {INSTALL}, or JAX_PLATFORMS=cpu if '
      'the CPU is meant (docs/launch.md)'
    )
  return ''


def sign_of_gpu() -> str:
  """What shows that there is an NVIDIA GPU in this machine, whatever JAX finds; '' for nothing."""
  if pathlib.Path('/proc/driver/nvidia/version').exists():
    return "NVIDIA's driver"
  if shutil.which('nvidia-smi'):
    return 'nvidia-smi'
  return 'libcuda' if ctypes.util.find_library('cuda') else ''
