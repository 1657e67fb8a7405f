"""Compiled programs are kept for processors of the same kind, and take a bounded room."""

import os
import pathlib

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from data_pipelines.errors import BadInput
from diga_jax.storage import program_cache


@pytest.fixture(autouse=True)
def restored():
  before = (
    jax.config.jax_compilation_cache_dir,
    jax.config.jax_persistent_cache_min_compile_time_secs,
  )
  yield
  jax.config.update('jax_compilation_cache_dir', before[0])
  jax.config.update('jax_persistent_cache_min_compile_time_secs', before[1])
  compilation_cache.reset_cache()


def folder() -> str | None:
  return jax.config.jax_compilation_cache_dir


def test_the_default_is_in_the_users_cache(tmp_path, monkeypatch):
  program_cache.use('default', {'XDG_CACHE_HOME': str(tmp_path)})
  assert folder() == str(tmp_path / 'diga_jax/programs' / program_cache.processor_key())
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  program_cache.use('default', {})
  assert str(folder()).startswith(str(tmp_path / 'home/.cache/diga_jax/programs'))


def test_jaxs_own_variable_comes_before_the_default(tmp_path):
  jax.config.update('jax_compilation_cache_dir', 'as JAX has read it')
  environment = {'JAX_COMPILATION_CACHE_DIR': 'x', 'XDG_CACHE_HOME': str(tmp_path)}
  program_cache.use('default', environment)
  assert folder() == 'as JAX has read it'
  program_cache.use(str(tmp_path / 'own'), environment)
  assert str(folder()).startswith(str(tmp_path / 'own'))
  program_cache.use('', environment)
  assert folder() is None


def test_a_folder_that_is_none_is_refused_if_it_was_named(tmp_path, caplog):
  (tmp_path / 'file').write_text('')
  with pytest.raises(BadInput, match=r'config\.compilation_cache: .*file'):
    program_cache.use(str(tmp_path / 'file'), {})
  program_cache.use('default', {'XDG_CACHE_HOME': str(tmp_path / 'file')})
  assert folder() is None and 'compiled programs are not kept' in caplog.text


CORE = """processor\t: {number}
vendor_id\t: AuthenticAMD
model\t\t: 1
flags\t\t: fpu sse2 {flags}
cpu MHz\t\t: {clock}
"""


def test_another_processor_has_another_folder(tmp_path, monkeypatch):
  def key(flags: str, cores: int = 1, clock: float = 1.0) -> str:
    text = '\n'.join(CORE.format(number=i, flags=flags, clock=clock + i) for i in range(cores))
    (tmp_path / 'cpuinfo').write_text(text)
    return program_cache.processor_key()

  monkeypatch.setattr(program_cache, 'CPUINFO', tmp_path / 'cpuinfo')
  linux = key('avx2')
  assert linux == key('avx2', cores=8, clock=3.5) != key('avx2 avx512f')
  monkeypatch.setattr(program_cache, 'CPUINFO', tmp_path / 'none')  # no Linux
  assert program_cache.processor_key() == program_cache.processor_key() != linux


def write(path: pathlib.Path, size: int, age: float) -> None:
  path.write_bytes(bytes(size))
  os.utime(path, (1e9 - age, 1e9 - age))


def test_the_oldest_programs_give_way(tmp_path):
  for name, size, age in (('a', 40, 3), ('b', 30, 1), ('c', 20, 2)):
    write(tmp_path / name, size, age)
  (tmp_path / 'xla').mkdir()  # which is the compiler's own
  program_cache.shrink(tmp_path, 90)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['a', 'b', 'c', 'xla']
  program_cache.shrink(tmp_path, 60)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['b', 'c', 'xla']
  program_cache.shrink(tmp_path, 0)
  assert [path.name for path in tmp_path.iterdir()] == ['xla']


@pytest.mark.parametrize('damage', [b'', b'no program', None])
def test_a_damaged_program_is_compiled_again(tmp_path, damage):
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  program_cache.use(str(tmp_path), {})
  compilation_cache.reset_cache()
  jax.clear_caches()

  def compute() -> float:
    return float(jax.jit(lambda x: jnp.sin(x).sum() * 3)(jnp.arange(7.0)))

  first = compute()
  entries = [path for path in pathlib.Path(str(folder())).iterdir() if path.name.endswith('-cache')]
  assert entries
  for path in entries:
    path.write_bytes(path.read_bytes()[:-20] if damage is None else damage)
  jax.clear_caches()
  with pytest.warns(UserWarning, match='compilation cache'):
    assert compute() == first


def test_a_program_that_another_run_removes_meanwhile_is_no_error(tmp_path, monkeypatch):
  for name in 'ab':
    write(tmp_path / name, 10, 1)
  listed = [tmp_path / 'a', tmp_path / 'gone', tmp_path / 'b']
  monkeypatch.setattr(pathlib.Path, 'iterdir', lambda self: iter(listed))
  monkeypatch.setattr(pathlib.Path, 'is_file', lambda self: True)
  program_cache.shrink(tmp_path, 10)
  assert sum((tmp_path / name).exists() for name in 'ab') == 1
