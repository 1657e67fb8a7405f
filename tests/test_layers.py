"""Who may import whom. The layers are what keeps the mathematics testable without the loop.

Downwards only: __main__ -> commands -> card -> page -> recipe, plan -> train, inference, report ->
stages -> storage, weights, models -> leaves. The floor, which every module may import, is
data_pipelines.errors, .atomic, .digests, .records and .label_tables (for the one IGNORE).
"""

import ast
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = ('diga_jax', 'data_pipelines', 'tests', 'benchmarks')
FLOOR = tuple(
  f'data_pipelines.{name}' for name in ('errors', 'atomic', 'digests', 'label_tables', 'records')
)
LEAVES = tuple(
  f'diga_jax.{name}'
  for name in (
    'augment', 'centroids', 'class_balance', 'criteria', 'ema', 'fourier', 'losses', 'metrics',
    'mixing',
    'models.convolution', 'numerics', 'optimizer', 'parallel.collectives', 'parallel.example_keys',
    'pixels', 'resize', 'rules', 'selection', 'signals', 'strong_augment', 'types',
  )
)  # fmt: skip
STAGES = ('adversarial', 'hiast', 'self_training', 'translator', 'warmup')
# Folder (or module) -> what it may import of diga_jax beside itself, leaves and the floor.
ALLOWED = {
  'models': ('weights',),
  'parallel': (),
  'state': (),
  'storage': ('parallel', 'state'),
  'weights': ('models', 'state', 'storage'),
  'stages': ('models', 'parallel', 'state'),
  'progress': (),
  'report': ('metrics',),
  'class_watch': (),
  'train': ('class_watch', 'parallel', 'progress', 'state', 'storage'),
  'inference': ('models', 'parallel', 'progress', 'report'),
  'tracking': (),
  'config': ('models', 'parallel', 'stages', 'state', 'inference', 'tracking'),
  'recipe': (
    'class_watch', 'config', 'inference', 'models', 'parallel', 'progress', 'report', 'stages',
    'state', 'storage', 'tracking', 'train', 'weights',
  ),
  'page': ('config', 'parallel', 'recipe', 'report', 'storage'),
  'card': (
    'config', 'inference', 'models', 'page', 'parallel', 'recipe', 'report', 'stages', 'storage',
    'weights',
  ),
  'plan': ('models', 'parallel', 'progress', 'recipe', 'report', 'stages', 'weights'),
}  # fmt: skip
FILES = sorted(
  path for top in ('diga_jax', 'data_pipelines', 'configs') for path in (ROOT / top).rglob('*.py')
)


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
  parts = path.relative_to(ROOT).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def files(*packages: str) -> list[pathlib.Path]:
  return [path for path in FILES if within(name_of(path), *packages)]


ids = name_of


def test_imports_are_found_wherever_they_stand():
  source = 'import a.b\nfrom c import d as e\ndef f():\n  from .g import h\n  from .. import i\n'
  assert imports(source, 'top.sub') == {'a.b', 'c.d', 'top.sub.g.h', 'top.i'}


@pytest.mark.parametrize('path', files('data_pipelines'), ids=ids)
def test_data_pipelines_import_no_jax(path):
  forbidden = ('jax', 'jaxlib', 'flax', 'optax', 'orbax', 'diga_jax', 'configs')
  assert not [name for name in imports_of(path) if within(name, *forbidden)]


@pytest.mark.parametrize('path', files(*FLOOR), ids=ids)
def test_the_floor_imports_nothing_above_it(path):
  assert not [
    name for name in imports_of(path) if within(name, *PROJECT) and not within(name, *FLOOR)
  ]


def test_data_pipelines_import_each_other_one_way():
  modules = {name_of(path): imports_of(path) for path in files('data_pipelines')}
  graph = {
    module: {other for other in modules if any(within(name, other) for name in names)} - {module}
    for module, names in modules.items()
  }
  order = list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError
  for leaf in ('label_tables', 'image_files'):
    chain = ('errors', leaf, 'pack', 'folder', 'doctor', 'prepare')
    places = [order.index(f'data_pipelines.{name}') for name in chain]
    assert places == sorted(places)


@pytest.mark.parametrize('path', files(*LEAVES), ids=ids)
def test_leaves_import_leaves_at_most(path):
  own = [name for name in imports_of(path) if within(name, *PROJECT)]
  allowed = (*LEAVES, *FLOOR, *(('diga_jax.state',) if path.stem == 'types' else ()))
  assert not [name for name in own if not within(name, *allowed)]
  outside = ('tensorflow', 'flax', 'orbax', 'PIL')
  outside += () if path.stem == 'types' else ('ml_collections',)
  assert not [name for name in imports_of(path) if within(name, *outside)]


@pytest.mark.parametrize('folder', ALLOWED)
def test_folders_import_what_lies_below_them(folder):
  own = f'diga_jax.{folder}'
  allowed = (own, *LEAVES, *(f'diga_jax.{name}' for name in ALLOWED[folder]))
  for path in files(own):
    found = [name for name in imports_of(path) if within(name, 'diga_jax')]
    assert not [name for name in found if not within(name, *allowed)], name_of(path)


def test_every_folder_has_its_rule():
  known = {*ALLOWED, '__init__', '__main__', 'commands', *(name.split('.')[1] for name in LEAVES)}
  found = {path.stem if path.suffix else path.name for path in (ROOT / 'diga_jax').iterdir()}
  assert found - known <= {'__pycache__', 'py'}


@pytest.mark.parametrize('path', files('diga_jax.stages'), ids=ids)
def test_stages_import_no_stage(path):
  if path.stem != 'kinds':  # which lists them
    steps = tuple(f'diga_jax.stages.{name}' for name in STAGES)
    assert not [name for name in imports_of(path) if within(name, *steps)]


@pytest.mark.parametrize('path', files('diga_jax', 'data_pipelines'), ids=ids)
def test_no_module_needs_renaming_on_import(path):
  for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
    if isinstance(node, ast.ImportFrom) and (node.level or within(node.module, *PROJECT)):
      assert not [alias.name for alias in node.names if alias.asname], node.module


@pytest.mark.parametrize('path', files('diga_jax'), ids=ids)
def test_nothing_imports_the_command_line(path):
  if path.stem != '__main__' and path.parent.name != 'commands':
    above = ('diga_jax.__main__', 'diga_jax.commands')
    assert not [name for name in imports_of(path) if within(name, *above)]


def test_there_is_no_circle():
  graph = {name_of(path): set() for path in FILES}
  for path in FILES:
    for name in imports_of(path):
      target = name if name in graph else name.rpartition('.')[0]
      if target in graph and not within(name_of(path), target):
        graph[name_of(path)].add(target)
  done: set[str] = set()

  def visit(name: str, trail: tuple[str, ...]) -> None:
    assert name not in trail, ' -> '.join((*trail, name))
    if name not in done:
      for other in graph[name]:
        visit(other, (*trail, name))
      done.add(name)

  graph['diga_jax.types'].discard('diga_jax.state')  # for the type checker alone
  for name in graph:
    visit(name, ())


def test_there_is_no_drawer_for_everything():
  assert FILES
  assert not [path for path in FILES if path.stem in ('utils', 'util', 'common', 'helpers', 'misc')]
