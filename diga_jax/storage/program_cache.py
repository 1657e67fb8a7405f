"""Compiled programs, kept on disk for later runs on processors of the same kind.

The folder of a kind of processor is named by what the compiler looks at: a program for another one
may hold instructions that this one lacks. It may be deleted at any time.
"""

import contextlib
import hashlib
import os
import pathlib
import platform
from collections.abc import Mapping

import jax
from absl import logging

from data_pipelines.errors import BadInput, cannot_write

DEFAULT, NONE = 'default', ''  # settings that are no folder
LIMIT = 2 * 2**30  # bytes of a folder when a run begins; the oldest programs give way
CPUINFO = pathlib.Path('/proc/cpuinfo')
# What of a core the compiler's code depends on: x86's names, then Arm's.
FACTS = (
  'vendor_id', 'cpu family', 'model', 'model name', 'stepping', 'flags',
  'CPU implementer', 'CPU architecture', 'CPU variant', 'CPU part', 'Features',
)  # fmt: skip


def use(setting: str, environment: Mapping[str, str]) -> None:
  """Lets JAX keep its compiled programs in the folder of a setting, and read them there.

  Args:
    setting: a folder; `DEFAULT`: that of JAX_COMPILATION_CACHE_DIR, or one in the user's cache;
      `NONE`: no program is kept.
    environment: of the process.

  Raises:
    BadInput: a folder that was named cannot be made.
  """
  if setting == DEFAULT and environment.get('JAX_COMPILATION_CACHE_DIR'):
    return  # which JAX has read
  folder = None
  if setting != NONE:
    folder = folder_of(setting, environment) / processor_key()
    try:
      make(folder)
    except BadInput as error:
      if setting != DEFAULT:
        raise
      logging.warning('%s: compiled programs are not kept', error)
      folder = None
  jax.config.update('jax_compilation_cache_dir', None if folder is None else str(folder))


def folder_of(setting: str, environment: Mapping[str, str]) -> pathlib.Path:
  """The folder of a setting, that of all kinds of processors."""
  if setting != DEFAULT:
    return pathlib.Path(os.path.expanduser(setting))
  cache = environment.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  return pathlib.Path(cache) / 'diga_jax' / 'programs'


def make(folder: pathlib.Path) -> None:
  """Makes the folder, and removes its oldest programs beyond `LIMIT`; raises BadInput."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    shrink(folder)
    if not os.access(folder, os.W_OK):
      raise PermissionError(13, 'Permission denied')
  except OSError as error:  # JAX would warn at every program, and compile it
    raise cannot_write(f'config.compilation_cache: {folder}', error) from None


def shrink(folder: pathlib.Path, limit: int = LIMIT) -> None:
  """Removes the oldest files of a folder until the others take `limit` bytes at most."""
  files = []
  for path in folder.iterdir():
    with contextlib.suppress(FileNotFoundError):  # another run has just removed it
      files += [(path, path.stat())] * path.is_file()
  total = sum(stat.st_size for _, stat in files)
  for path, stat in sorted(files, key=lambda found: found[1].st_mtime):
    if total <= limit:
      return
    path.unlink(missing_ok=True)
    total -= stat.st_size


def processor_key() -> str:
  """A name for processors of this kind: the architecture, and a hash of what it can do."""
  try:
    lines = CPUINFO.read_text(encoding='utf-8', errors='replace').splitlines()
  except OSError:
    lines = [platform.processor(), platform.platform()]
  else:
    lines = [line for line in lines if line.partition(':')[0].strip() in FACTS]
  digest = hashlib.sha256('\n'.join(sorted({*lines})).encode()).hexdigest()
  return f'{platform.machine()}-{digest[:12]}'
