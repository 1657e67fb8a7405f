"""What a network may start from: files that fit but for the head, and what is said about it."""

import functools
import re

import jax
import numpy as np
import pytest

from data_pipelines.errors import BadInput
from diga_jax import models, optimizer, weights
from diga_jax.__main__ import main
from diga_jax.configs import (
  cityscapes_semi,
  gta5_generalization,
  gta5_to_cityscapes,
  gta5_to_cityscapes_mit_b5,
  hiast_gta5,
  hiast_robotcar,
  hiast_synthia,
  synthia_to_cityscapes,
)
from diga_jax.models import translator
from diga_jax.recipe import starts
from diga_jax.recipe.experiment import Experiment
from tests.configs import tiny
from tests.support import torch_pickles

HEAD = (weights.HEAD.pattern,)
BODIES = ('deeplab_resnet101', 'hiast_resnet101')
PUBLISHED = (
  gta5_to_cityscapes, gta5_generalization, synthia_to_cityscapes, gta5_to_cityscapes_mit_b5,
  hiast_gta5, hiast_robotcar, hiast_synthia, cityscapes_semi,
)  # fmt: skip


@functools.cache
def shapes(name: str, **options):
  narrow = {'width': 8} if name in BODIES else {}
  return models.shapes(models.build(name, classes=5, **narrow | options))


def state_dict(name: str, **options) -> dict[str, np.ndarray]:
  """Zeros under the network's own names."""
  arrays = jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), shapes(name, **options))
  return weights.state_dict_of(arrays)


def torchvision(blocks=(3, 4, 23, 3), width: int = 8) -> dict[str, np.ndarray]:
  """The names and shapes of a ResNet of torchvision's."""
  found = state_dict('hiast_resnet101', blocks=blocks, width=width)
  body = {k.removeprefix('backbone.'): v for k, v in found.items() if k.startswith('backbone.')}
  return body | {'fc.weight': np.zeros((10, 32 * width), 'f'), 'fc.bias': np.zeros(10, 'f')}


def deep_stem() -> dict[str, np.ndarray]:
  """mmsegmentation's ResNetV1c: three small convolutions in place of the first one."""
  found = {k: v for k, v in torchvision().items() if not k.startswith(('conv1.', 'bn1.'))}
  return found | {f'stem.{i}.weight': np.zeros((4, 3, 3, 3), 'f') for i in (0, 3, 6)}


def squeezing() -> dict[str, np.ndarray]:
  """A ResNet whose blocks have a module more."""
  return torchvision() | {'layer1.0.se.fc1.weight': np.zeros((2, 32, 1, 1), 'f')}


def wide(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  return {**state, 'layer1.0.conv2.weight': np.zeros((16, 16, 3, 3), 'f')}


WRONG = {
  'a ResNet-50': (lambda: torchvision((3, 4, 6, 3)), r'layer3\.10.*\(missing\).*ResNet-50'),
  'a ResNet-152': (lambda: torchvision((3, 8, 36, 3)), r'layer2\.4.*\(unexpected\).*ResNet-152'),
  'a deep stem': (deep_stem, r'\(missing\)'),
  'a wider one': (lambda: wide(torchvision()), r'layer1\.0\.conv2\.weight \(shape'),
  'a module more': (squeezing, r'layer1\.0\.se\.fc1\.weight \(unexpected\)'),
  'without its end': (
    lambda: {k: v for k, v in torchvision().items() if 'layer4.2.bn3.running' not in k},
    r'layer4\.2\.bn3\.running_mean \(missing\)',
  ),
}  # fmt: skip


@pytest.mark.parametrize('name', BODIES)
@pytest.mark.parametrize('wrong', WRONG)
def test_another_body_is_refused_and_named(name, wrong):
  make, words = WRONG[wrong]
  with pytest.raises(BadInput, match=words) as error:
    weights.initialise(shapes(name), make(), HEAD)
  assert '\n' not in str(error.value) and 'wanted is' in str(error.value)


@pytest.mark.parametrize('name', BODIES)
def test_the_body_alone_starts_a_network_and_a_line_says_so(name):
  _, rows = weights.initialise(shapes(name), torchvision(), HEAD)
  text = weights.describe_fit(rows)
  total = len(jax.tree.leaves(shapes(name)))
  head = sum(key.startswith(models.HEADS) for key, _, status in rows if status == 'missing')
  left = [key for key, _, status in rows if status == 'unexpected']
  assert len(left) == 2 and all('fc.' in key for key in left)
  assert text == (
    f"{total - head} of the network's {total} entries are the file's, {head} start at random (of "
    f"the head); 2 of the file's are not used ({', '.join(left)})"
  )


def test_the_head_may_be_of_another_size():
  _, rows = weights.initialise(
    shapes('deeplab_resnet101', blocks=(1, 1), width=4, feature=16),
    state_dict('deeplab_resnet101', blocks=(1, 1), width=4, feature=32), HEAD,
  )  # fmt: skip
  assert re.search(r'\d+ start at random \(of the head\)$', weights.describe_fit(rows))


def test_nothing_random_is_said_too():
  _, rows = weights.initialise(
    shapes('hiast_resnet101', blocks=(1, 1)), state_dict('hiast_resnet101', blocks=(1, 1)), HEAD
  )
  assert re.fullmatch(
    r"(\d+) of the network's \1 entries are the file's", weights.describe_fit(rows)
  )


def test_patterns_name_what_else_may_differ():
  shallow = torchvision((3, 4, 6, 3))
  _, rows = weights.initialise(shapes('hiast_resnet101'), shallow, (*HEAD, r'layer3\.\d+'))
  assert 'start at random (backbone.layer3.10.' in weights.describe_fit(rows)
  with pytest.raises(BadInput, match=r'layer3\.10'):
    weights.initialise(shapes('hiast_resnet101'), shallow, (*HEAD, r'layer3\.[6-9]\.'))
  with pytest.raises(BadInput, match='none of the'):
    weights.initialise(shapes('hiast_resnet101'), {'x': np.zeros(2, 'f')}, ('.',))


@pytest.mark.parametrize(
  ('value', 'words'),
  [
    (np.full((8, 3, 7, 7), np.nan, 'f'), 'not finite'),
    (np.full((8, 3, 7, 7), 1e300), 'not finite'),
    (np.ones((8, 3, 7, 7), np.int8), 'int8'),
  ],
)
def test_numbers_of_no_use_are_refused(value, words):
  with pytest.raises(BadInput, match=rf'conv1\.weight holds .*{words}'):
    weights.initialise(shapes('hiast_resnet101'), torchvision() | {'conv1.weight': value}, HEAD)


def test_variances_below_0_are_refused():
  value = np.r_[-1e-6, np.ones(7)].astype('f')
  with pytest.raises(BadInput, match=r'bn1\.running_var holds variances below 0'):
    weights.initialise(shapes('hiast_resnet101'), torchvision() | {'bn1.running_var': value}, HEAD)


def test_files_that_the_docs_name_start_their_networks():
  mit = state_dict('mit_b0_daformer')
  file = {k.removeprefix('backbone.'): v for k, v in mit.items() if k.startswith('backbone.')}
  file |= {'head.weight': np.zeros((9, 256), 'f'), 'head.bias': np.zeros(9, 'f')}
  caffe = {f'Scale.{k}': v for k, v in torchvision().items() if not k.startswith('fc')}
  caffe['Scale.layer5.conv2d_list.0.weight'] = np.zeros((21, 256, 3, 3), 'f')
  segformer = state_dict('mit_b0_segformer')  # as its authors', with a layer that nothing uses
  segformer['decode_head.conv_seg.weight'] = np.zeros((5, 128, 1, 1), 'f')
  for name, given, may in (
    ('mit_b0_daformer', file, HEAD),
    ('mit_b0_daformer', segformer, HEAD),
    ('mit_b0_segformer', segformer, ()),
    ('deeplab_resnet101', caffe, HEAD),
    ('deeplab_resnet101', {f'module.{k}': v for k, v in torchvision().items()}, HEAD),
  ):
    _, rows = weights.initialise(shapes(name), given, may)
    random = [key for key, _, status in rows if status == 'missing' or status.startswith('shape')]
    assert all(key.startswith(models.HEADS) for key in random)


# What a config starts from.


@pytest.mark.parametrize('module', PUBLISHED)
def test_published_configs_ask_for_their_file(module):
  experiment = Experiment(module.get_config())
  first = [s for s in experiment.config.stages.values() if s.kind != 'label' and not s.get('start')]
  segmentation = [stage for stage in first if stage.kind != 'translator']
  assert segmentation
  for stage in segmentation:
    with pytest.raises(BadInput, match=r"config\.model\.weights is ''.*docs/weights\.md.*'random'"):
      starts.file_of(experiment, stage)
  experiment.config.model.weights = 'random'
  assert all(starts.file_of(experiment, stage) == weights.RANDOM for stage in segmentation)


def test_frozen_norms_are_found():
  config, params = tiny.get_config(), Experiment(tiny.get_config()).shapes['params']
  stage = config.stages.warmup
  assert optimizer.freezes_norms(stage.optimizer, params)
  assert not optimizer.freezes_norms({'frozen': ('kernel$', r'^final\.')}, params)


def tiny_with(**changes):
  config = tiny.get_config()
  config.update_from_flattened_dict(changes)
  return Experiment(config)


def test_another_file_is_refused_before_anything_is_trained(tmp_path, capsys):
  wrong = str(tmp_path / 'resnet50.npz')
  weights.save(wrong, torchvision((3, 4, 6, 3), width=4))
  command = ['run', '--config=tests/configs/tiny.py', f'--workdir={tmp_path / "run"}']
  command += [f'--config.data.cache={tmp_path / "cache"}']
  for change, words in (
    (f'model.weights={wrong}', 'resnet50.npz: '),
    ('model.weights=', "config.model.weights is ''"),
    (f'stages.self_training_1.weights={wrong}', "start is 'warmup'"),
    (f'translator.vgg={wrong}', 'resnet50.npz: none of'),
    (f'translator.enc_s={wrong}', "DiGA's encoder"),
    (f'model.weights={tmp_path / "none.pth"}', 'no such file'),
  ):
    assert main([*command, f'--config.{change}']) == 2
    said = capsys.readouterr().err.strip().splitlines()  # after the bars of rendered scenes
    assert said[-1].startswith('diga_jax: ') and words in said[-1], said
    assert not (tmp_path / 'run' / 'translator').exists()


def test_a_label_pass_needs_the_head(tmp_path):
  options = tiny.get_config().model.options.to_dict()
  found = {k: v for k, v in weights.state_dict_of(zeros(options)).items()}
  body = {k: v for k, v in found.items() if not k.startswith('final.')}
  weights.save(tmp_path / 'body.npz', body)
  weights.save(tmp_path / 'whole.npz', found)
  for name in ('body', 'whole'):
    file = str(tmp_path / f'{name}.npz')
    experiment = tiny_with(**{'stages.label_1.start': '', 'stages.label_1.weights': file})
    if name == 'whole':
      starts.check(experiment, experiment.stage('label_1'))
      continue
    with pytest.raises(BadInput, match=r'body\.npz: .*final.*\(missing\)'):
      starts.check(experiment, experiment.stage('label_1'))
  with pytest.raises(BadInput, match='no network that labels'):
    tiny_with(**{'stages.label_1.start': '', 'stages.label_1.weights': 'random'})


def test_a_stage_starts_from_the_part_that_is_named_and_records_it(tmp_path, capsys):
  found = weights.state_dict_of(zeros(tiny.get_config().model.options.to_dict()))
  floats = {name: x + np.float32(1) for name, x in found.items() if x.dtype == np.float32}
  content = {'model': floats, 'model_ema': {name: 2 * x for name, x in floats.items()}}
  file = torch_pickles.save(tmp_path / 'best.pth', content)
  digests = {}
  for name, value in ((str(file), 1), (f'{file}#model_ema', 2)):
    experiment = tiny_with(**{'model.weights': name})
    variables = starts.initial_variables(experiment)
    assert all((np.asarray(leaf) == value).all() for leaf in jax.tree.leaves(variables))
    said = starts.check(experiment, experiment.stage('warmup'))[f'weights {name}']
    assert said in capsys.readouterr().out and said.startswith('took model')
    digests[name] = weights.file_digest(name)
  assert digests[f'{file}#model_ema'] == f'{digests[str(file)]}#model_ema'
  with pytest.raises(BadInput, match="has no part 'mean'"):
    starts.check(
      experiment := tiny_with(**{'model.weights': f'{file}#mean'}), experiment.stage('warmup')
    )


def zeros(options):
  model = models.build('deeplab_resnet101', **options)
  return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), models.shapes(model))


def test_a_translator_that_is_not_trained_needs_its_files(tmp_path):
  shapes = translator.shapes(tiny.get_config().translator)['generators']['enc_s']
  arrays = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  weights.save(tmp_path / 'enc_s.npz', weights.state_dict_of({'params': arrays}))
  file = str(tmp_path / 'enc_s.npz')
  experiment = tiny_with(**{'stages.translator.steps': 0, 'translator.enc_s': file})
  for find in (starts.check, starts.initial_translator):
    with pytest.raises(BadInput, match=r'0 steps.*enc_s and config\.translator\.dec_s2t'):
      find(experiment, experiment.stage('translator'))


def test_a_start_is_said(capsys, tmp_path):
  experiment = tiny_with()
  starts.initial_variables(experiment)
  assert re.search(r"weights: all of the network's \d+ entries are random", capsys.readouterr().out)
  file = str(tmp_path / 'a.npz')
  weights.save(file, weights.state_dict_of(zeros(tiny.get_config().model.options)))
  starts.initial_variables(experiment, file)
  assert re.search(rf"weights: {file}: (\d+) of the network's \1 entries", capsys.readouterr().out)
