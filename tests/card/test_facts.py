"""What a card says of where a network comes from."""

import pytest

from data_pipelines.errors import BadInput
from diga_jax.card import facts
from diga_jax.config import config_file, read_config
from diga_jax.stages.kinds import is_chosen


@pytest.mark.parametrize(
  'name, last',
  [
    ('quickstart', 'self_training_1'),
    ('hiast_gta5', 'hiast_3'),
    ('gta5_to_cityscapes', 'self_training_2'),
    ('gta5_generalization', 'warmup'),
  ],
)
def test_the_last_trained_stage_is_the_default(name, last):
  config = read_config([f'--config={config_file(name)}'])
  assert facts.trained_stages(config)[-1] == last and is_chosen(config.stages[last])


def test_a_recipe_without_a_network_needs_a_stage():
  config = read_config([f'--config={config_file("gta5_to_cityscapes")}'])
  config.recipe = ('translator', 'label_1')
  with pytest.raises(BadInput, match='name a --stage'):
    facts.trained_stages(config)


@pytest.mark.parametrize(
  'name, sets',
  [
    ('gta5_to_cityscapes', ['GTA5', 'Cityscapes']),
    ('synthia_to_cityscapes', ['SYNTHIA', 'Cityscapes']),
    ('hiast_robotcar', ['Cityscapes', 'Oxford RobotCar']),
    ('quickstart', []),
  ],
)
def test_public_sets_are_known_by_their_paths(name, sets):
  config = read_config([f'--config={config_file(name)}'])
  identity = {f'data.sets.{key}.images': value.images for key, value in config.data.sets.items()}
  assert facts.public_sets([identity]) == sets


def test_files_of_weights_are_named_without_their_folders():
  identities = [
    {'files.model.weights': 'ab', 'model.weights': '/home/me/resnet101.pth'},
    {'files.weights': 'cd', 'stage.weights': 'start.pth#ema_model', 'model.weights': 'random'},
    {'files.translator.vgg': 'ef', 'translator.vgg': '~/vgg.pth'},
  ]
  found = facts.starts(identities)
  assert found == {'resnet101.pth': 'ab', 'start.pth#ema_model': 'cd', 'vgg.pth': 'ef'}
