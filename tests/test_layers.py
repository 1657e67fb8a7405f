"""Who may import whom. The layers are what keeps the mathematics testable without the loop."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = ('diga_jax', 'data_pipelines', 'configs', 'tests', 'benchmarks')
LEAVES = {
  f'diga_jax.{name}'
  for name in (
    'augment', 'centroids', 'ema', 'fourier', 'losses', 'metrics', 'mixing', 'models.convolution',
    'optimizer', 'parallel.collectives', 'pixels', 'resize', 'selection',
  )
}  # fmt: skip
FILES = sorted(path for top in PROJECT[:3] for path in (ROOT / top).rglob('*.py'))


def imports(source: str, package: str = '') -> set[str]:
  """Dotted names that a module imports anywhere, `from a import b` as 'a.b'."""
  found = set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      parents = package.split('.')[: len(package.split('.')) - node.level + 1]
      base = '.'.join([*(parents if node.level else []), *([node.module] if node.module else [])])
      found |= {f'{base}.{alias.name}' for alias in node.names}
  return found


def imports_of(path: pathlib.Path) -> set[str]:
  package = '.'.join(path.relative_to(ROOT).parent.parts)
  return imports(path.read_text(encoding='utf-8'), package)


def within(name: str, *packages: str) -> bool:
  return any(name == package or name.startswith(package + '.') for package in packages)


def name_of(path: pathlib.Path) -> str:
  return '.'.join(path.relative_to(ROOT).with_suffix('').parts)


def files(*packages: str) -> list[pathlib.Path]:
  return [path for path in FILES if within(name_of(path), *packages)]


def ids(path: pathlib.Path) -> str:
  return name_of(path)


def test_imports_are_found_wherever_they_stand():
  source = 'import a.b\nfrom c import d as e\ndef f():\n  from .g import h\n  from .. import i\n'
  assert imports(source, 'top.sub') == {'a.b', 'c.d', 'top.sub.g.h', 'top.i'}


@pytest.mark.parametrize('path', files('data_pipelines'), ids=ids)
def test_data_pipelines_know_nothing_of_jax(path):
  forbidden = ('jax', 'jaxlib', 'flax', 'optax', 'orbax', 'diga_jax', 'configs')
  assert not [name for name in imports_of(path) if within(name, *forbidden)]


@pytest.mark.parametrize('path', files(*LEAVES), ids=ids)
def test_leaves_import_leaves_at_most(path):
  own = [name for name in imports_of(path) if within(name, *PROJECT)]
  assert not [name for name in own if not within(name, *LEAVES)]
  outside = ('tensorflow', 'flax', 'orbax', 'ml_collections', 'PIL')
  assert not [name for name in imports_of(path) if within(name, *outside)]


@pytest.mark.parametrize('path', files('diga_jax.stages'), ids=ids)
def test_stages_do_not_know_who_runs_them(path):
  above = [f'diga_jax.{name}' for name in ('__main__', 'recipe', 'train', 'inference')]
  assert not [name for name in imports_of(path) if within(name, *above)]


@pytest.mark.parametrize('path', files('diga_jax'), ids=ids)
def test_nothing_imports_the_command_line(path):
  assert not [name for name in imports_of(path) if within(name, 'diga_jax.__main__')]


def test_there_is_no_drawer_for_everything():
  assert FILES
  assert not [path for path in FILES if path.stem in ('utils', 'util', 'common', 'helpers', 'misc')]
