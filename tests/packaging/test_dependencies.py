"""setup.cfg names every package that the code and the tests import."""

import ast
import configparser
import importlib.metadata
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
OWN = {'diga_jax', 'data_pipelines', 'configs', 'tests', 'benchmarks', 'conftest'}
# Modules of packages that others bring: whose.
BROUGHT = {'ml_dtypes': 'jax', 'yaml': 'ml-collections'}


def requirements(*extras: str) -> set[str]:
  """The names of the packages that an installation with these extras asks for."""
  parsed = configparser.ConfigParser()
  parsed.read(ROOT / 'setup.cfg')
  lines = [parsed['options']['install_requires']]
  lines += [parsed['options.extras_require'][extra] for extra in extras]
  return {normal(re.split(r'[<>=~;]', line)[0]) for text in lines for line in text.split('\n')}


def normal(name: str) -> str:
  return re.sub(r'[-_.]+', '-', name).lower()


def imported(*folders: str) -> dict[str, str]:
  """Third-party module -> a file that imports it."""
  found = {}
  for path in (path for folder in folders for path in (ROOT / folder).rglob('*.py')):
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
      names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
      if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        names = [node.module]
      found |= {name.partition('.')[0]: str(path.relative_to(ROOT)) for name in names}
  return {k: v for k, v in found.items() if k not in sys.stdlib_module_names and k not in OWN}


@pytest.mark.parametrize(
  'folders, extras',
  [
    (
      ('diga_jax', 'data_pipelines', 'configs'),
      ('video', 'torch', 'plan', 'demo', 'wandb', 'mlflow'),
    ),
    (('tests', 'benchmarks'), ('test', 'torch', 'demo', 'wandb', 'mlflow')),
    (('docs',), ('test', 'docs')),
  ],
)
def test_what_is_imported_is_required(folders, extras):
  known, asked = importlib.metadata.packages_distributions(), requirements(*extras)
  for module, file in imported(*folders).items():
    packages = {normal(name) for name in known.get(module, [BROUGHT.get(module, module)])}
    packages |= {normal(BROUGHT.get(module, module))}
    assert packages & asked, f'{file} imports {module}: name {packages} in setup.cfg'


def test_videos_are_an_extra_that_the_tests_have():
  assert 'av' not in requirements()
  assert 'av' in requirements('video') & requirements('test')
