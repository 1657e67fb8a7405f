"""Several runs on one page."""

import numpy as np
import pytest

from diga_jax.__main__ import main
from diga_jax.page import charts, comparison, working_directory
from diga_jax.report import paired
from diga_jax.types import ImageCounts
from tests.page.test_write import Parsed


@pytest.fixture
def runs(finished):
  return [working_directory.read(finished / name) for name in 'abc']


@pytest.fixture
def library(monkeypatch):
  monkeypatch.setattr(charts, 'vega', lambda: 'vegaEmbed')


def test_runs_that_differ_in_the_seed_alone_are_a_group(runs):
  groups = comparison.groups_of('abc', runs)
  assert [(g.name, [r.name for r in g.runs]) for g in groups] == [('a', ['a', 'b']), ('c', ['c'])]
  assert comparison.left_out('abc', runs) == []


def test_the_table_shows_the_fields_that_differ(runs):
  table = comparison.runs_table('abc', runs)
  assert table.columns == [
    'stages', 'seed', 'last network', 'mIoU', 'stages.self_training_1.selector',
    'stages.self_training_2.selector',
  ]  # fmt: skip
  assert [cells[-1].text for _, cells in table.rows] == ['consensus', 'consensus', 'none']
  assert [cells[1].text for _, cells in table.rows] == ['0', '1', '0']


def test_differences_are_paired_by_seed_and_image(runs):
  (table,) = comparison.difference_tables(comparison.groups_of('abc', runs))
  rows = dict(table.rows)
  assert list(rows) == [
    'a self_training_1 − a warmup',
    'a self_training_2 − a warmup',
    'c warmup − a warmup',
    'c self_training_1 − c warmup',
    'c self_training_1 − a self_training_1',
    'c self_training_2 − c warmup',
    'c self_training_2 − a self_training_2',
  ]
  cells = rows['a self_training_1 − a warmup']
  assert [cell.text for cell in cells[2:4]] == ['2', '3']
  assert rows['c self_training_1 − a self_training_1'][2].text == '1'

  def counts(name):
    paths = [run.path / f'evaluation/published/{name}/camera_test/images.npz' for run in runs[:2]]
    arrays = [np.load(path) for path in paths]
    return ImageCounts(*(np.stack([a[w] for a in arrays]) for w in ImageCounts._fields))

  average = paired.Average(range(19))
  wanted = paired.difference(counts('self_training_1'), counts('warmup'), average)
  assert cells[0].text == f'{100 * wanted.mean:+.1f}'
  assert cells[1].text == f'{100 * wanted.low:+.1f} to {100 * wanted.high:+.1f}'


def test_seeds_that_one_side_lacks_are_left_out(runs):
  c, a, b = runs[2], runs[0], runs[1]
  (table,) = comparison.difference_tables(comparison.groups_of('cab', [c, a, b]))
  rows = dict(table.rows)
  assert rows['a self_training_1 − c self_training_1'][2].text == '1'
  assert rows['a self_training_1 − a warmup'][2].text == '2'


def test_without_counts_of_images_the_mean_is_told(runs, monkeypatch):
  monkeypatch.setattr(comparison, 'counts_of', lambda *_: None)
  (table,) = comparison.difference_tables(comparison.groups_of('abc', runs))
  assert all(cells[1].text == 'no counts of images' for _, cells in table.rows)


def test_a_seed_that_stands_twice_is_told(runs):
  names = ['a', 'b', 'again']
  again = [runs[0], runs[1], working_directory.read(runs[0].path)]
  again[2].path = runs[0].path.with_name('again')
  assert comparison.left_out(names, again) == [
    'again has the config and seed of a: only that one is paired'
  ]


def test_runs_without_a_config_are_compared_by_their_records(runs):
  runs[1].config = {}
  table = comparison.runs_table('abc', runs)
  assert 'self_training_1: stage.selector' in table.columns
  assert [g.name for g in comparison.groups_of('abc', runs)] == ['a', 'c']


def test_names_tell_runs_apart(tmp_path):
  paths = [tmp_path / 'x' / 'seed_0', tmp_path / 'y' / 'seed_0']
  found = [working_directory.WorkingDirectory(path) for path in paths]
  assert comparison.names_of(found) == ['x/seed_0', 'y/seed_0']


def test_the_page(finished, tmp_path, monkeypatch, library, capsys):
  monkeypatch.chdir(tmp_path)
  assert main(['report', *(str(finished / name) for name in 'abc')]) == 0
  assert 'comparison.html' in capsys.readouterr().out
  found = Parsed((tmp_path / 'comparison.html').read_text())
  assert list(found.sections) == ['runs', 'differences', 'results', 'curves', 'classes']
  assert 'c: self_training_2' in found.sections['results']
  assert main(['report', str(finished / 'a'), str(finished / 'a')]) == 2
  assert 'named twice' in capsys.readouterr().err
