"""--config takes a file or the name of a config that comes with the package."""

import pathlib

import pytest

from data_pipelines.errors import BadInput
from diga_jax import config, configs

ROOT = pathlib.Path(__file__).parents[2]


def test_the_configs_are_those_of_this_tree():
  place = pathlib.Path(configs.__file__).parent
  assert place == ROOT / 'configs', 'run `pip install --no-deps --editable .` in this folder'


@pytest.mark.parametrize('name', ['gta5_to_cityscapes', 'cityscapes_semi:1_16'])
def test_a_name_means_the_shipped_config(name, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  file, _, part = name.partition(':')
  assert config.config_file(name) == f'{ROOT}/configs/{file}.py' + f':{part}' * bool(part)
  config.read_config([f'--config={config.config_file(name)}'])


def test_a_file_is_itself_also_beside_a_shipped_config_of_its_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ('quickstart', 'my.py'):
    pathlib.Path(name).write_text('')
    assert config.config_file(name) == name
    assert config.config_file(f'{name}:part') == f'{name}:part'


@pytest.mark.parametrize('name', ['none', 'configs/none.py', 'datasets', ''])
def test_neither_is_refused_with_the_shipped_names(name):
  with pytest.raises(BadInput, match=r'gta5_to_cityscapes, .*quickstart') as refusal:
    config.config_file(name)
  assert '\n' not in str(refusal.value)
