"""What a passport says of how a stage was made: settings that are not the default's, and tables."""

import json

import pytest

from data_pipelines.folder import Folder
from diga_jax.configs import default
from diga_jax.recipe import graph, provenance
from diga_jax.recipe.experiment import Run
from tests.support import frozen


def test_settings_that_differ_from_the_default_are_named(tmp_path, monkeypatch):
  frozen.without_files(monkeypatch)
  config = default.get_config()
  config.seed = 3
  run = Run(config, tmp_path)
  same = json.loads(json.dumps(graph.identity(run, 'warmup')))
  assert provenance.changed_fields('warmup', same) == {'stream': 'warmup'}
  config.stages.warmup.optimizer.learning_rate = 0.5
  config.data.crop = (64, 96)
  changed = json.loads(json.dumps(graph.identity(Run(config, tmp_path), 'warmup')))
  assert provenance.changed_fields('warmup', changed) == {
    'stream': 'warmup',
    'stages.warmup.optimizer.learning_rate': 0.5,
    'data.crop': [64, 96],
  }


def test_the_settings_of_a_stage_of_another_name_are_all_there(tmp_path, monkeypatch):
  frozen.without_files(monkeypatch)
  config = default.get_config()
  config.stages.other = config.stages.warmup.copy_and_resolve_references()
  identity = json.loads(json.dumps(graph.identity(Run(config, tmp_path), 'other')))
  found = provenance.changed_fields('other', identity)
  assert found['stages.other.kind'] == 'warmup' and found['stages.other.steps'] > 0


@pytest.mark.parametrize(
  ('tables', 'equal'),
  [
    (('cityscapes', 'cityscapes'), True),
    (('cityscapes', 'gta5'), False),
    (([(7, 0)], [(7, 0)]), True),
    (([(7, 0)], [(7, 1)]), False),
  ],
)
def test_label_tables_have_one_name_each(tables, equal):
  folders = [Folder('{id}.png', '{id}.png', ['a'], table=table, classes=19) for table in tables]
  first, second = map(provenance.table_name, folders)
  assert (first == second) == equal
  assert first == (tables[0] if isinstance(tables[0], str) else first)
