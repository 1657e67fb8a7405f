"""What setup.cfg asks for can be installed from wheels, on every machine that the README names."""

import configparser
import pathlib
import shutil
import subprocess

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
PLATFORMS = ('x86_64-manylinux_2_28', 'aarch64-manylinux_2_28', 'aarch64-apple-darwin')
VERSIONS = ('3.11', '3.12', '3.13')
EXTRAS = ('test', 'docs', 'demo', 'video')
SOURCE_ALONE = ('promise',)  # Python alone, which tensorflow-datasets asks for


def asked(*extras: str) -> str:
  parsed = configparser.ConfigParser()
  parsed.read(ROOT / 'setup.cfg')
  found = [parsed['options.extras_require'][extra] for extra in extras]
  return '\n'.join([parsed['options']['install_requires'], *found])


@pytest.mark.exhaustive  # asks the package index
@pytest.mark.skipif(not shutil.which('uv'), reason='needs uv: pip install uv')
@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('platform', PLATFORMS)
def test_there_is_a_wheel_of_everything(tmp_path, platform, version):
  (tmp_path / 'requirements.txt').write_text(asked(*EXTRAS))
  done = subprocess.run(
    [
      *('uv', 'pip', 'compile', 'requirements.txt', '--quiet', '--only-binary=:all:'),
      *(f'--no-binary={name}' for name in SOURCE_ALONE),
      *(f'--python-platform={platform}', f'--python-version={version}', '--output-file=found.txt'),
    ],
    cwd=tmp_path, capture_output=True, text=True, check=False
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  found = (tmp_path / 'found.txt').read_text()
  assert ('cykooz-resizer' in found) == (platform != 'aarch64-manylinux_2_28')
  assert ('tensorflow-cpu' in found) == platform.startswith('x86_64')
  assert 'nvidia' not in found


def test_the_versions_of_python_are_those_that_are_installed():
  parsed = configparser.ConfigParser()
  parsed.read(ROOT / 'setup.cfg')
  first, last = VERSIONS[0], int(VERSIONS[-1].partition('.')[2])
  assert parsed['options']['python_requires'] == f'>={first},<3.{last + 1}'
  setup = (ROOT / 'launch' / 'setup.sh').read_text()
  assert f'(3, {first[2:]}) <= sys.version_info < (3, {last + 1})' in setup


def test_the_workflow_runs_every_machine_and_version():
  workflow = yaml.safe_load((ROOT / '.github' / 'workflows' / 'ci.yml').read_text())
  matrix = workflow['jobs']['platforms']['strategy']['matrix']
  assert tuple(matrix['python']) == VERSIONS and len(matrix['os']) == len(PLATFORMS)
