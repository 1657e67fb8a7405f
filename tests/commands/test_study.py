"""The command study: which seeds it is of, and what it never overwrites."""

import json
import pathlib

import pytest

from diga_jax.__main__ import main
from diga_jax.recipe import graph
from diga_jax.report import study


@pytest.fixture
def run(tmp_path, tmp_path_factory, monkeypatch):
  """run(options) -> status of a study in tmp_path whose recipes are made in no time."""

  def recipe(run):
    (run.workdir / 'evaluation' / 'published').mkdir(parents=True, exist_ok=True)
    return [{'kind': 'network', 'protocol': {'seed': run.config.seed}}]

  monkeypatch.setattr(graph, 'run_recipe', recipe)
  monkeypatch.setattr(study, 'drawings', lambda rows: ())
  monkeypatch.setattr(study, 'summarise', lambda rows: f'{len(rows)} seeds')
  monkeypatch.setattr('diga_jax.recipe.checks.check_recipe', lambda run: {})
  monkeypatch.setattr('diga_jax.recipe.checks.check_folders', lambda *_: None)
  options = ['--config=tests/configs/tiny.py', f'--workdir={tmp_path}']
  return lambda *more: main(['study', *options, *more])


def seeds(path: pathlib.Path) -> list[int]:
  return [rows[0]['protocol']['seed'] for rows in json.loads(path.read_text())]


def test_a_seed_joins_those_that_are_there(run, tmp_path):
  numbers = tmp_path / 'study' / 'published.json'
  for named, wanted in (('0 1', [0, 1]), ('0', [0, 1]), ('7', [0, 1, 7])):
    assert run('--seeds', *named.split()) == 0
    assert seeds(numbers) == wanted
    assert numbers.with_suffix('.md').read_text() == f'{len(wanted)} seeds\n'
  (tmp_path / 'seed_1').rename(tmp_path / 'set_aside')
  assert run('--seeds', '0') == 0
  assert seeds(numbers) == [0, 7]


@pytest.mark.parametrize(('named', 'words'), [('0 0', 'named twice'), ('0 1 0', 'twice')])
def test_seeds_that_are_none_are_refused(run, tmp_path, capsys, named, words):
  assert run('--seeds', *named.split()) == 2
  assert words in capsys.readouterr().err.splitlines()[-1]
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('damage', ['', '[', '[[{"protocol": {"seed": 3}}]]', None])
def test_numbers_that_are_damaged_or_lost_lose_no_seed(run, tmp_path, damage):
  numbers = tmp_path / 'study' / 'published.json'
  assert run('--seeds', '0', '1') == 0
  numbers.unlink() if damage is None else numbers.write_text(damage)
  (tmp_path / 'seed_04' / 'evaluation' / 'published').mkdir(parents=True)  # of no seed
  (tmp_path / 'seed_5' / 'evaluation' / 'other').mkdir(parents=True)
  assert run('--seeds', '2') == 0
  assert seeds(numbers) == [0, 1, 2]
