"""The wheel: what is in it, and that it runs where the repository is not."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest
import yaml

import diga_jax

ROOT = pathlib.Path(__file__).parents[2]
# Folders of the repository, and where the wheel has them.
FOLDERS = {
  'diga_jax': 'diga_jax',
  'data_pipelines': 'data_pipelines',
  'configs': 'diga_jax/configs',
}
PIP = (sys.executable, '-m', 'pip', '--disable-pip-version-check')


def run(*command: str | os.PathLike, cwd: pathlib.Path) -> str:
  """The standard output of a command that has to succeed, without this process's settings."""
  environment = {key: x for key, x in os.environ.items() if not key.startswith('PYTHON')}
  done = subprocess.run(
    list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> pathlib.Path:
  """Built from a copy of what is packaged, so that nothing is written beside the sources."""
  copy = tmp_path_factory.mktemp('sources')
  for name in ('setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(ROOT / name, copy)
  for name in FOLDERS:
    shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns('__pycache__'))
  run(*PIP, 'wheel', '--quiet', '--no-deps', '--no-build-isolation', '-w', 'dist', '.', cwd=copy)
  return next((copy / 'dist').glob('*.whl'))


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory) -> pathlib.Path:
  """The programs of an environment with the wheel and, behind it, the packages that run the tests.

  A .pth file puts their folders on the path; .pth files in those, such as the one that finds an
  editable install, are not read there.
  """
  place = tmp_path_factory.mktemp('environment')
  venv.create(place, symlinks=True)
  paths = {'base': str(place), 'platbase': str(place)}
  packages = pathlib.Path(sysconfig.get_path('purelib', 'venv', paths))
  behind = [path for path in sys.path if path.endswith(('site-packages', 'dist-packages'))]
  (packages / 'behind.pth').write_text('\n'.join(behind))
  programs = pathlib.Path(sysconfig.get_path('scripts', 'venv', paths))
  into = ('--python', programs / 'python')
  run(*PIP, *into, 'install', '--quiet', '--no-deps', '--no-index', wheel, cwd=place)
  return programs


def test_it_holds_every_module_and_every_file_of_data(wheel):
  found = {name for name in zipfile.ZipFile(wheel).namelist() if '.dist-info/' not in name}
  wanted = {
    f'{package}/{path.relative_to(ROOT / folder).as_posix()}'
    for folder, package in FOLDERS.items()
    for path in (ROOT / folder).rglob('*')
    if path.suffix in ('.py', '.typed', '.txt') or path.parent.name == 'templates'
  }
  assert found == wanted
  assert 'diga_jax/page/templates/page.js' in found
  assert {'diga_jax/py.typed', 'data_pipelines/lists/bdd100k_val.txt'} <= found


def test_it_says_its_version_and_licence(wheel):
  files = zipfile.ZipFile(wheel)
  name = next(name for name in files.namelist() if name.endswith('/METADATA'))
  metadata = files.read(name).decode()
  assert f'\nVersion: {diga_jax.__version__}\n' in metadata
  assert '\nLicense: Apache-2.0\n' in metadata or '\nLicense-Expression: Apache-2.0\n' in metadata
  assert any(name.endswith('LICENSE') for name in files.namelist())


def test_the_citation_is_of_this_version():
  citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
  assert citation['version'] == diga_jax.__version__
  assert [paper['year'] for paper in citation['references']] == [2023, 2023]


# Run where nothing of the repository is: which packages there are, and whether a copy of a config
# makes what the shipped one does.
CHECK = """
import importlib.util
import diga_jax
from diga_jax.config import config_file, read_config
print(importlib.util.find_spec('configs'), diga_jax.__file__)
read = lambda name: read_config([f'--config={config_file(name)}'])
print(read('mine.py') == read('quickstart'))
"""


@pytest.mark.slow
def test_it_runs_from_another_folder(installed, tmp_path):
  python, program = installed / 'python', installed / 'diga-jax'
  assert run(program, '--version', cwd=tmp_path) == f'diga_jax {diga_jax.__version__}\n'
  shutil.copy(ROOT / 'configs/quickstart.py', tmp_path / 'mine.py')
  top_level, place, same = run(python, '-c', CHECK, cwd=tmp_path).split()
  assert top_level == 'None' and same == 'True'
  assert pathlib.Path(place).is_relative_to(installed.parent)
  doctor = (program, 'doctor', '--config=quickstart', '--jobs=1', '--sets', 'source')
  two_scenes = ('--config.data.cache=cache', '--config.data.sets.source.count=2')
  assert 'source' in run(*doctor, *two_scenes, cwd=tmp_path)
  (tmp_path / 'empty').mkdir()
  assert 'page: ' in run(program, 'report', 'empty', cwd=tmp_path)
