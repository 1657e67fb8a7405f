"""What a run records of its processes: WORKDIR/run.json has an entry for each start of one.

Numbers are a function of the config and the seed on one kind of machine with one set of versions;
here is written which. One process at a time works in a folder (`stage_folder.lock`), so that the
last entry is its own.
"""

import contextlib
import datetime
import functools
import importlib.metadata
import itertools
import os
import pathlib
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping

from absl import logging

from data_pipelines import records
from data_pipelines.errors import BadInput
from diga_jax.parallel import devices, processes
from diga_jax.types import PyTree

NAME = 'run.json'
PACKAGES = (
  'diga_jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'tensorflow-cpu', 'numpy',
  'pillow', 'ml_collections', 'clu', 'cykooz.resizer', 'jax-cuda12-plugin', 'jax-cuda13-plugin',
  'nvidia-cudnn-cu12', 'nvidia-cudnn-cu13', 'nvidia-cublas-cu12', 'nvidia-cublas', 'libtpu',
)  # fmt: skip
# Variables that reach the compiler, the kernels or the reductions; read by libraries, not by us.
FLAGS = (
  'JAX_', 'XLA_', 'LIBTPU_', 'TF_XLA_', 'TF_ENABLE_', 'TF_DETERMINISTIC', 'TF_CUDNN_',
  'NVIDIA_TF32', 'NCCL_', 'CUBLAS_', 'CUDNN_', 'OMP_', 'MKL_', 'OPENBLAS_', 'NPY_', 'ONEDNN_',
)  # fmt: skip


@functools.cache
def versions() -> dict[str, str]:
  """The versions of this program, of Python and of the libraries that numbers depend on.

  They are those of the first call: what is installed or checked out later is not what runs.
  """
  found = {'commit': commit(), 'python': platform.python_version()}
  return found | {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    # What setup.cfg asks for on machines that `tensorflow-cpu` is not made for.
    return _version('tensorflow') if name == 'tensorflow-cpu' else 'absent'


def commit() -> str:
  """The git commit that this program is at, '+' behind it if files differ; '' if installed."""
  if not (_root() / '.git').exists():
    return ''
  try:
    changed = _git('status', '--porcelain', '--untracked-files=no')
    return _git('rev-parse', 'HEAD') + '+' * bool(changed)
  except (OSError, subprocess.SubprocessError):
    return ''


def same_program(one: str, other: str) -> bool:
  """Whether the program is the same at two commits, as far as this checkout knows.

  With files that differed from the commit ('+') it is the same at the same commit alone.
  """
  if not all(re.fullmatch('[0-9a-f]{40}', each) for each in (one, other)):
    return one == other
  try:
    _git('diff', '--quiet', one, other, '--', 'diga_jax', 'data_pipelines')
  except (OSError, subprocess.SubprocessError):  # they differ, or one is not there
    return False
  return True


def _root() -> pathlib.Path:
  return pathlib.Path(__file__).parents[2]


def _git(*arguments: str) -> str:
  # Without the lock that `git status` takes for convenience, and leaves behind if it is killed.
  command = ['git', '--no-optional-locks', '-C', str(_root()), *arguments]
  done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
  return done.stdout.strip()


def conditions() -> dict[str, PyTree]:
  """What numbers depend on beside the config, flat."""
  flags = {name: os.environ[name] for name in sorted(os.environ) if name.startswith(FLAGS)}
  return {
    **versions(),
    'devices': devices.kinds(),
    'processor': processor(),
    'cores': devices.cores(),
    **flags,
  }


def processor() -> str:
  """The kind of the machine's processor."""
  with contextlib.suppress(OSError):
    for line in pathlib.Path('/proc/cpuinfo').read_text().splitlines():
      if line.startswith('model name'):
        return line.partition(':')[2].strip()
  return platform.machine()


@contextlib.contextmanager
def recorded(workdir: pathlib.Path, config: Mapping[str, PyTree] | None = None) -> Iterator[None]:
  """Adds the entry of this start to a working directory that is locked, and its hours at the end.

  `config`: all that is set, so that `config_of` finds it again.
  """
  entry = {
    'date': _now().isoformat(timespec='seconds'),
    'command': shlex.join(sys.orig_argv),
    'folder': os.getcwd(),
    'host': platform.node(),
    'conditions': conditions(),
    'config': config or {},
    'stages': [],  # those that it has worked on, and the folders of its measurements
    'paces': {},  # of these: [seconds, steps or images done in them]
    'hours': 0.0,
    'hours_of': {},  # those that were spent on each of them
  }
  if processes.is_main_process():
    _write(workdir, [*_read(workdir), entry])
  try:
    yield
  finally:
    with contextlib.suppress(BadInput):  # it would hide why the run ends
      if processes.is_main_process() and (starts := _read(workdir)):
        _write(workdir, starts)


def config_of(workdir: pathlib.Path, stage: str) -> dict[str, PyTree]:
  """The config of the last start that worked on a stage, or else of the last one that has any.

  Raises:
    BadInput: the record is missing or damaged, or is of a version that did not write configs.
  """
  instead = 'give the config'
  starts = records.read(workdir / NAME, instead, 'starts')['starts']
  known = [start for start in starts if start.get('config')]
  if not known:
    raise BadInput(f'{workdir / NAME}: holds no config, as it is of an earlier version; {instead}')
  last = [start for start in known if stage in start['stages']] or known
  return _with_tuples(last[-1]['config'])


def _with_tuples(tree: PyTree) -> PyTree:
  """What JSON has made lists of, as it was."""
  if isinstance(tree, dict):
    return {key: _with_tuples(value) for key, value in tree.items()}
  return tuple(map(_with_tuples, tree)) if isinstance(tree, list) else tree


def note(workdir: pathlib.Path, stage: str, resumed: bool) -> None:
  """Notes that this process works on a stage; warns if what it depends on differs from before."""
  if not processes.is_main_process() or not (starts := _read(workdir)):
    return
  *earlier, entry = starts
  before = [start for start in earlier if stage in start['stages']]
  if resumed and before and (changed := differences(before[-1]['conditions'], entry['conditions'])):
    logging.warning('%s goes on under other conditions than it was begun: %s', stage, changed)
  entry['stages'] = sorted({*entry['stages'], stage})
  _write(workdir, starts)


@contextlib.contextmanager
def timed(workdir: pathlib.Path, stage: str) -> Iterator[None]:
  """Adds the time inside to the hours that this process has spent on a stage or a measurement."""
  begun = time.monotonic()
  try:
    yield
  finally:
    with contextlib.suppress(BadInput):  # it would hide why the run ends
      if processes.is_main_process() and (starts := _read(workdir)):
        hours = starts[-1].setdefault('hours_of', {})
        passed = (time.monotonic() - begun) / 3600
        hours[stage] = round(hours.get(stage, 0.0) + passed, 5)
        _write(workdir, starts)


def note_pace(workdir: pathlib.Path, name: str, seconds: float, count: int) -> None:
  """Notes how long this process has taken for so many steps or images of a stage."""
  if count and processes.is_main_process() and (starts := _read(workdir)):
    starts[-1].setdefault('paces', {})[name] = [round(seconds, 3), count]
    _write(workdir, starts)


def starts_of(workdir: pathlib.Path) -> list[dict[str, PyTree]]:
  """The entries of a working directory; none where they are missing or damaged."""
  try:
    return records.read(workdir / NAME, '', 'starts')['starts']
  except BadInput:
    return []


def conditions_of(workdir: pathlib.Path, name: str) -> dict[str, PyTree]:
  """The conditions of the last start that made a stage or a measurement; {} if none is known."""
  found = [start['conditions'] for start in _read(workdir) if name in start['stages']]
  return found[-1] if found else {}


def differences(before: Mapping[str, PyTree], now: Mapping[str, PyTree]) -> str:
  """What differs between the conditions of two starts, on one line."""
  return '; '.join(
    f'{key}: {before.get(key, "unset")} then, {now.get(key, "unset")} now'
    for key in dict.fromkeys([*now, *before])
    if before.get(key) != now.get(key)
  )


def made_by(workdir: pathlib.Path) -> list[dict[str, str]]:
  """The versions of every start that has worked on a stage of a working directory."""
  names = versions()
  return [
    {key: value for key, value in start['conditions'].items() if key in names}
    for start in _read(workdir)
    if start['stages']
  ]


def _read(workdir: pathlib.Path) -> list[dict[str, PyTree]]:
  """The entries; a file that is damaged, or not ours, is set aside, with a warning."""
  path = workdir / NAME
  if not os.path.lexists(path):
    return []
  numbered = (workdir / f'{NAME}.damaged.{number}' for number in itertools.count(1))
  aside = next(place for place in numbered if not place.exists())
  try:
    return records.read(path, f'set aside as {aside.name}', 'starts')['starts']
  except BadInput as error:
    logging.warning('%s', error)
  path.replace(aside)
  return []


def _now() -> datetime.datetime:
  return datetime.datetime.now(datetime.UTC)


def _hours(start: Mapping[str, PyTree]) -> float:
  passed = _now() - datetime.datetime.fromisoformat(start['date'])
  return round(passed.total_seconds() / 3600, 4)


def _write(workdir: pathlib.Path, starts: list[dict[str, PyTree]]) -> None:
  """Writes the entries, of which the last is this process's."""
  starts[-1]['hours'] = _hours(starts[-1])
  records.write(workdir / NAME, {'starts': starts})
