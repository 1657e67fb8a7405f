"""A network as docs/extending/network.md adds it, without what all shipped ones have."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from diga_jax import config as configs
from diga_jax import models, rules
from diga_jax.__main__ import main
from diga_jax.models import layers
from diga_jax.plan import roofline
from tests.recipe import test_config_values


class Plain(layers.Network):
  """Two convolutions of stride 2 and a linear classifier, without BatchNorm."""

  feature: int = 8

  @layers.in_precision
  @nn.compact
  def __call__(self, images, train=False, keys=None):
    x = images
    for i in range(2):
      x = nn.relu(layers.Conv(self.feature, 3, 2, 1, bias=True, name=f'conv{i}')(x))
    logits = layers.Conv(self.classes, 1, bias=True, name='decode_head')(x)
    return {'logits': logits.astype(jnp.float32), 'feature': x.astype(jnp.float32)}


@pytest.fixture
def config(tmp_path, monkeypatch) -> ConfigDict:
  """The smallest recipe with that network."""
  monkeypatch.setitem(models.SEGMENTATION, 'plain', Plain)
  monkeypatch.setitem(configs.FIELDS, 'model.name', rules.words('plain'))
  config = test_config_values.prepared('tests.configs.tiny', tmp_path)
  config.translator.kind = 'none'
  config.model.name, config.model.options = 'plain', {'feature': 8}
  for stage in config.stages.values():
    if 'optimizer' in stage:
      stage.optimizer.update({'head_pattern': '^decode_head', 'frozen': (), 'repeats': ()})
  return config


@pytest.mark.parametrize('stage', ['warmup', 'self_training_1'])
def test_a_step_of_a_network_without_batch_norm_traces(stage, config):
  step, *shapes = roofline.abstract_step(config, stage, rows=2)
  state, metrics = jax.eval_shape(step, *shapes)
  assert state.batch_stats == {} and metrics['loss'].shape == ()


@pytest.mark.exhaustive
def test_a_network_without_batch_norm_goes_through_a_whole_recipe(config, tmp_path, capsys):
  test_config_values.run(config, tmp_path, capsys, 'run')
  place = tmp_path / 'run/evaluation/published/self_training_2/camera_test/metrics.json'
  assert json.loads(place.read_text())['protocol']['class_set'] == 'cityscapes19'
  stage, output = tmp_path / 'run/self_training_2', tmp_path / 'plain.npz'
  assert main(['weights', 'export', str(stage), f'--output={output}']) == 0
  config.stages.warmup.update({'start': '', 'weights': str(output), 'steps': 0})
  config.recipe = ('warmup',)
  (tmp_path / 'again').mkdir()
  test_config_values.run(config, tmp_path / 'again', capsys, 'run')
