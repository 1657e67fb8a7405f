"""config.json of a card: a config again that means the same network."""

import pytest

from data_pipelines import digests, records
from data_pipelines.errors import BadInput
from diga_jax.config import config_file, read_config
from diga_jax.recipe import hub_config
from diga_jax.recipe.experiment import Experiment, class_names, palette

CONFIGS = (
  'quickstart', 'gta5_to_cityscapes', 'hiast_gta5', 'hiast_robotcar', 'synthia_to_cityscapes',
  'cityscapes_semi', 'gta5_to_cityscapes_mit_b5', 'my_data', 'camvid_semi', 'tests/configs/tiny.py',
)  # fmt: skip


def written(folder, config, **changes):
  """A folder with what `describe` says of a config."""
  (folder / hub_config.WEIGHTS).write_bytes(b'weights')
  files = {hub_config.WEIGHTS: digests.of_file(folder / hub_config.WEIGHTS)}
  content = {**hub_config.describe(Experiment(config)), 'files': files, **changes}
  records.write(folder / hub_config.NAME, content)
  return folder


@pytest.mark.parametrize('name', CONFIGS)
def test_the_network_is_the_same(name, tmp_path):
  config = read_config([f'--config={config_file(name)}'])
  config.evaluation.update({'scales': (1.0, 0.75), 'flip': True, 'network': 'teacher'})
  one, other = Experiment(config), Experiment(hub_config.read(written(tmp_path, config)))
  assert one.model.clone(remat=False) == other.model.clone(remat=False)
  assert class_names(one) == class_names(other)
  assert palette(one).tolist() == palette(other).tolist()
  assert other.config.evaluation.scales == (1.0, 0.75) and other.config.evaluation.flip
  assert other.config.evaluation.network == 'teacher'


def test_what_another_program_wrote_is_not_read(tmp_path):
  assert hub_config.read(tmp_path) is None
  (tmp_path / hub_config.NAME).write_text('{"model_type": "segformer"}')
  assert hub_config.read(tmp_path) is None


@pytest.mark.parametrize(
  'changes, words',
  [
    ({'version': 2}, 'is of version 2'),
    ({'model': {'name': 'nothing'}}, 'damaged'),
    ({'model': 3}, 'damaged'),
    ({'inference': {'scales': [], 'flip': False, 'network': 'student'}}, 'evaluation.scales'),
    ({'inference': {'scales': [1.0], 'flip': 'x', 'network': 'student'}}, 'evaluation.flip'),
    ({'files': {}}, 'damaged'),
    ({'files': {'model.safetensors': 'ab'}}, 'is not what config.json was written with'),
  ],
)
def test_what_is_damaged_is_refused(changes, words, tmp_path):
  config = read_config([f'--config={config_file("quickstart")}'])
  with pytest.raises(BadInput, match=words):
    hub_config.read(written(tmp_path, config, **changes))
