"""The command list: all that a config may name, with a line each, from the code itself."""

import pathlib

import pytest

from diga_jax import models
from diga_jax.__main__ import main
from diga_jax.commands import catalogue
from diga_jax.config import config_file
from diga_jax.inference import selectors
from diga_jax.stages import consensus, kinds

ROOT = pathlib.Path(__file__).parents[2]


def test_every_entry_has_a_line():
  for kind, (_, entries) in catalogue.KINDS.items():
    found = list(entries())
    assert len(dict(found)) == len(found) > 0, kind
    assert [name for name, text in found if len(text) < 10 or '\n' in text] == [], kind


def test_all_that_there_is_is_listed():
  found = {kind: {name for name, _ in entries()} for kind, (_, entries) in catalogue.KINDS.items()}
  assert found['networks'] == {*models.SEGMENTATION} and found['stages'] == {*kinds.KINDS}
  assert found['selectors'] == {*selectors.SELECTORS, *consensus.SELECTORS}
  assert {'quickstart', 'my_data', 'default'} <= found['configs']
  assert not {'datasets', 'networks', 'fields'} & found['configs']
  assert all(pathlib.Path(config_file(name)).is_file() for name in found['configs'])
  assert {'gta5()', 'cityscapes(split)', 'dataset()'} <= found['datasets']
  assert not [name for name in found['datasets'] if name.startswith('fields')]


@pytest.mark.parametrize('width', [60, 80, 120])
def test_the_tables_fit_a_terminal(monkeypatch, capsys, width):
  monkeypatch.setenv('COLUMNS', str(width))
  assert main(['list']) == 0
  lines = capsys.readouterr().out.splitlines()
  assert max(map(len, lines)) <= width
  assert [sum(line.startswith(f'{kind} ') for line in lines) for kind in catalogue.KINDS] == [1] * 5


def test_one_kind_is_chosen(capsys):
  assert main(['list', 'selectors']) == 0
  said = capsys.readouterr().out
  assert 'consensus' in said and 'quickstart' not in said
  with pytest.raises(SystemExit) as error:
    main(['list', 'losses'])
  assert error.value.code == 2 and 'selectors' in capsys.readouterr().err
