"""Checkpoints as training codes save them: which network of a file is taken, and what is said."""

import collections
import pathlib
import pickle

import jax
import numpy as np
import pytest

from data_pipelines.errors import BadInput
from diga_jax import models, weights
from diga_jax.weights import parts
from tests.support import torch_pickles
from tests.support.torch_pickles import Global

SHAPES = {
  'backbone.conv1.weight': (4, 3, 7, 7),
  'backbone.bn1.running_var': (4,),
  'backbone.layer1.0.conv1.weight': (4, 4, 1, 1),
  'aspp.conv2d_list.0.weight': (5, 16, 3, 3),
}
OTHER_HEAD = {**SHAPES, 'aspp.conv2d_list.0.weight': (9, 16, 3, 3)}
BODY = {name: shape for name, shape in SHAPES.items() if name.startswith('backbone.')}


def network(value: float, prefix: str = '', shapes=SHAPES) -> dict[str, np.ndarray]:
  return {prefix + name: np.full(shape, value, 'f') for name, shape in shapes.items()}


def body(value: float, prefix: str = '') -> dict[str, np.ndarray]:
  names = {name.removeprefix('backbone.'): shape for name, shape in BODY.items()}
  return network(value, prefix, names)


def dacs() -> dict:
  """As DAFormer, HRDA, MIC and SePiCo save: the student, its teacher, an ImageNet network."""
  state = network(1, 'model.') | network(2, 'ema_model.') | network(3, 'imnet_model.')
  return {'meta': {'env_info': 'linux', 'iter': 40000}, 'state_dict': state, 'optimizer': adam()}


def adam() -> dict:
  moments = {i: {'step': 3, 'exp_avg': np.ones(3, 'f')} for i in range(9)}
  return {'state': moments, 'param_groups': [{'lr': 0.1, 'params': [0, 1]}]}


FILES = {
  'DAFormer': (
    dacs, 1,
    'took model (student), left ema_model (teacher), imnet_model; choose another by --part=ema',
  ),
  'MIC': (
    lambda: {'state_dict': dacs()['state_dict'] | network(4, 'mic.teacher.ema_model.')}, 1,
    'took model (student)',
  ),
  'mmsegmentation': (lambda: {'meta': {}, 'state_dict': network(1), 'optimizer': adam()}, 1, ''),
  'mmengine, with an average': (
    lambda: {'state_dict': network(1), 'ema_state_dict': network(2, 'module.')}, 1,
    'took state_dict, left ema_state_dict; choose another by --part=ema_state_dict',
  ),
  'UniMatch': (lambda: {'model': network(1, 'module.'), 'optimizer': adam(), 'epoch': 3}, 1, ''),
  'UniMatch V2': (
    lambda: {'model': network(1, 'module.'), 'model_ema': network(2, 'module.')}, 1,
    'took model (student), left model_ema (teacher)',
  ),
  'ProDA': (
    lambda: {
      'ResNet101': {'model_state': network(1), 'objective_vectors': np.zeros((5, 9), 'f')},
      'FCDiscriminator': {'model_state': {'conv1.weight': np.zeros((2, 5, 4, 4), 'f')}},
      'iter': 9,
    }, 1, 'took ResNet101.model_state, left ResNet101.objective_vectors, FCDiscriminator',
  ),
  'Lightning': (
    lambda: {
      'pytorch-lightning_version': '2.1.0', 'callbacks': {},
      'loops': {'fit_loop': {'state_dict': {}}},
      'state_dict': network(1, 'net.') | {'criterion.weight': np.zeros(5, 'f')},
      'optimizer_states': [adam()],
    }, 1, 'took net, left criterion',
  ),
  'DINO': (
    lambda: {
      'student': body(1, 'module.backbone.') | {'module.head.last.weight': np.zeros((2, 2), 'f')},
      'teacher': body(2, 'backbone.') | {'head.last.weight': np.zeros((2, 2), 'f')},
      'dino_loss': {'center': np.zeros((1, 2), 'f')},
    }, 1, 'took student, left teacher, dino_loss; choose another by --part=teacher',
  ),
  'MoCo': (
    lambda: {
      'epoch': 200, 'arch': 'resnet101',
      'state_dict': body(1, 'module.encoder_q.') | body(2, 'module.encoder_k.')
      | {'module.queue': np.zeros((128, 64), 'f')},
    }, 1, 'took module.encoder_q (student), left module.encoder_k (teacher)',
  ),
  'MoCo 3': (
    lambda: {'state_dict': body(1, 'module.base_encoder.') | body(2, 'module.momentum_encoder.')},
    1, 'took module.base_encoder (student)',
  ),
  "HIAST's own": (
    lambda: network(1, 'seg_model.') | {'representation.0.weight': np.zeros((3, 3), 'f')}, 1,
    'took seg_model, left representation',
  ),
  'a student and its teacher, without a word for the student': (
    lambda: network(1) | network(2, 'teacher.'), 1, '',
  ),
  'compiled': (lambda: {'model': network(1, '_orig_mod.module.')}, 1, ''),
  'the head of another class count': (
    lambda: {'model': network(1), 'old': network(2, shapes=OTHER_HEAD)}, 1, 'took model, left old',
  ),
  **{
    f'under {key}': (lambda key=key: {key: network(1), 'optimizer': adam()}, 1, '')
    for key in (
      'state_dict_ema', 'model_ema', 'ema', 'net', 'network', 'model_state_dict', 'teacher',
      'params', 'weights', 'G',
    )
  },
}  # fmt: skip


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('kind', FILES)
def test_a_file_is_taken_as_it_is(tmp_path, kind, legacy):
  make, value, said = FILES[kind]
  path = torch_pickles.save(tmp_path / 'a.PTH', make(), legacy=legacy)
  found = weights.find(str(path), SHAPES)
  taken = weights.pretrained.rename(found.arrays, set(SHAPES))
  assert BODY.keys() <= taken.keys()
  assert all((taken[name] == value).all() for name in SHAPES.keys() & taken.keys())
  assert said in found.said and '\n' not in found.said


@pytest.mark.parametrize(
  ('part', 'value'),
  [('ema_model', 2), ('teacher', 2), ('model', 1), ('student', 1), ('imnet_model', 3),
   ('state_dict.ema_model', 2)],
)  # fmt: skip
def test_another_part_is_asked_for(tmp_path, part, value):
  path = torch_pickles.save(tmp_path / 'a', dacs())
  found = weights.find(f'{path}#{part}', SHAPES)
  assert (found.arrays['backbone.conv1.weight'] == value).all()
  assert weights.file_digest(f'{path}#{part}') == f'{weights.file_digest(str(path))}#{part}'
  assert weights.split(f'{path}#{part}') == (path, part)


def test_a_sign_may_be_part_of_a_name(tmp_path):
  path = torch_pickles.save(tmp_path / 'run#3', network(1))
  assert weights.split(str(path)) == (path, '')
  assert weights.find(str(path), SHAPES).arrays.keys() == SHAPES.keys()
  for name in (f'{path}#', '#ema'):
    with pytest.raises(BadInput, match='give FILE#PART'):
      weights.find(name, SHAPES)


def test_a_part_that_is_not_there_is_refused_with_those_that_are(tmp_path):
  path = torch_pickles.save(tmp_path / 'a.pth', dacs())
  with pytest.raises(BadInput, match=r"a\.pth: has no part 'emma'; it has .*ema_model") as error:
    weights.find(f'{path}#emma', SHAPES)
  assert '\n' not in str(error.value)


def test_networks_that_fit_alike_are_a_choice(tmp_path):
  path = torch_pickles.save(tmp_path / 'a.pth', {'G_A': network(1), 'G_B': network(2)})
  with pytest.raises(BadInput, match=r'fit alike: G_A, G_B; choose one by --part=NAME'):
    weights.find(str(path), SHAPES)
  assert (weights.find(f'{path}#G_B', SHAPES).arrays['backbone.conv1.weight'] == 2).all()


ROUND = {
  'deeplab_resnet101': {'blocks': (1, 1, 1, 1), 'width': 4, 'feature': 16},
  'hiast_resnet101': {'blocks': (1, 1, 1, 1), 'width': 4},
  'hrnet_w48_ocr': {'width': 4, 'stem': 4, 'feature': 16, 'key': 8},
  'mit_b0_segformer': {}, 'mit_b0_daformer': {}, 'deeplab_efficientnet_lite0': {'feature': 16},
  'vgg19_features': {}, 'translator_encoder': {}, 'translator_decoder': {},
}  # fmt: skip


@pytest.mark.parametrize('name', ROUND)
def test_what_is_exported_of_a_network_is_all_taken_again(tmp_path, name):
  given = {} if name.startswith(('vgg', 'translator')) else {'classes': 5}
  shapes = models.shapes(models.build(name, **given, **ROUND[name]))
  zeros = jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), shapes)
  weights.save(tmp_path / 'a.pth', weights.state_dict_of(zeros))
  loaded = weights.load_weights_into(shapes, str(tmp_path / 'a.pth'))
  assert {status for _, _, status in loaded.rows} == {'used'}
  assert "entries are the file's" in loaded.said and 'took' not in loaded.said


def test_without_a_network_the_largest_dict_is_taken(tmp_path):
  content = {'small': {'a': np.zeros(1, 'f')}, 'ema': network(2), 'model': network(1)}
  found = weights.read(torch_pickles.save(tmp_path / 'a.pth', content))
  assert found.keys() == SHAPES.keys() and (found['backbone.conv1.weight'] == 1).all()


@pytest.mark.parametrize('legacy', [False, True])
def test_objects_beside_the_tensors_are_left_out(tmp_path, legacy):
  content = {'state_dict': network(1), **torch_pickles.objects()}
  path = torch_pickles.save(tmp_path / 'epoch=3.ckpt', content, legacy=legacy)
  found = weights.find(str(path), SHAPES)
  assert found.arrays.keys() == SHAPES.keys() and found.said == 'took state_dict'
  assert weights.read(path).keys() == SHAPES.keys()


def test_a_dict_with_a_default_is_a_dict(tmp_path):
  content = {'model': collections.defaultdict(list, network(1))}
  path = torch_pickles.save(tmp_path / 'a.pth', content)
  assert weights.find(str(path), SHAPES).arrays.keys() == SHAPES.keys()


class Subclass(collections.OrderedDict):
  """Whose entries may be anything: nobody asks it."""


def test_what_a_class_of_its_own_holds_is_not_read(tmp_path):
  path = torch_pickles.save(tmp_path / 'a.pth', {'model': Subclass(network(1)), 'epoch': 3})
  with pytest.raises(BadInput, match=r'no state dict.*test_parts\.Subclass.* not read'):
    weights.find(str(path), SHAPES)


MADE = (
  Global('torch._utils', '_rebuild_qtensor', 1), Global('pickle', 'loads', b'x'),
  Global('torch._tensor', '_rebuild_from_type_v2', Global('torch._utils', '_rebuild_tensor_v2'),
         Global('fastai.torch_core', 'TensorBase'), (1, 2), {}),
  torch_pickles.numpy_array(3),
)  # fmt: skip


@pytest.mark.parametrize('made', MADE)
def test_a_tensor_that_depends_on_an_object_is_refused_where_it_is_needed(tmp_path, made):
  needed = network(1) | {'backbone.conv1.weight': made}
  path = torch_pickles.save(tmp_path / 'a.pth', {'model': needed})
  with pytest.raises(BadInput, match=r'conv1\.weight is no plain tensor.*save plain tensors'):
    weights.find(str(path), SHAPES)
  path = torch_pickles.save(tmp_path / 'b.pth', {'model': network(1) | {'extra': made}})
  assert weights.find(str(path), SHAPES).arrays.keys() == SHAPES.keys()


def test_attributes_of_a_tensor_are_left_out(tmp_path):
  plain = Global(
    'torch._tensor', '_rebuild_from_type_v2',
    Global('torch._utils', '_rebuild_parameter_with_state'),
    Global('torch.nn.parameter', 'Parameter'), (np.ones(3, 'f'), True, {}, {'tag': 1}), {'x': 2},
  )  # fmt: skip
  path = torch_pickles.save(tmp_path / 'a.pth', {'w': plain})
  np.testing.assert_array_equal(weights.read(path)['w'], [1, 1, 1])


def test_a_pickled_network_is_called_by_its_class(tmp_path):
  whole = torch_pickles.instance('models.deeplab', 'DeepLab', _modules={'a': np.ones(3, 'f')})
  for content in (whole, {'model': whole, 'epoch': 3}):
    path = torch_pickles.save(tmp_path / 'a.pth', content)
    with pytest.raises(BadInput, match=r'no state dict.*copy_reg\._reconstructor.*state_dict\(\)'):
      weights.find(str(path), SHAPES)
  (tmp_path / 'b.pth').write_bytes(pickle.dumps({'a': 1}))
  with pytest.raises(BadInput, match='a plain pickle'):
    weights.find(str(tmp_path / 'b.pth'), SHAPES)


def test_dicts_within_each_other_have_a_bound():
  inner: dict = {f'k{i}': np.zeros(1) for i in range(2000)}
  middle = {f'k{i}': inner for i in range(2000)}
  with pytest.raises(BadInput, match='entries: refused'):
    parts.tables({f'k{i}': middle for i in range(2000)})
  ring: dict = {'w': np.zeros(1)}
  ring['model'] = ring
  assert set(parts.tables(ring)) == {'', 'model', 'model.model'}


@pytest.mark.parametrize(
  ('path', 'role'),
  [('state_dict.model', 'student'), ('seg_model', 'student'), ('network', 'student'),
   ('ema_model', 'teacher'), ('model_ema', 'teacher'), ('state_dict_ema', 'teacher'),
   ('module.encoder_k', 'teacher'), ('momentum_encoder', 'teacher'), ('imnet_model', ''),
   ('ema_state_dict', ''), ('schema', 'student')],
)  # fmt: skip
def test_the_words_of_a_path_say_whose_it_is(path, role):
  assert parts.role(path) == role


def test_reading_it_twice_gives_the_same(tmp_path: pathlib.Path):
  path = torch_pickles.save(tmp_path / 'a.pth', dacs())
  first, second = (weights.find(str(path), SHAPES) for _ in range(2))
  assert first.said == second.said and list(first.arrays) == list(second.arrays)
