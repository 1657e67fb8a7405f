"""Files of weights that people have: recognised, renamed, written back."""

import json
import re

import numpy as np
import pytest

from data_pipelines.errors import BadInput
from diga_jax import models, weights
from diga_jax.__main__ import main
from diga_jax.weights import pretrained, torch_file
from tests.support import torch_pickles

RNG = np.random.default_rng(0)


def some(*shape: int) -> np.ndarray:
  return RNG.normal(size=shape).astype(np.float32)


def resnet(blocks=(3, 4, 23, 3), prefix: str = '') -> dict[str, np.ndarray]:
  """The names of a torchvision ResNet, with tiny arrays."""
  names = ['conv1.weight', 'bn1.weight', 'bn1.running_mean', 'fc.weight', 'fc.bias']
  for stage, count in enumerate(blocks, 1):
    for block in range(count):
      names += [f'layer{stage}.{block}.conv{i}.weight' for i in (1, 2, 3)]
  return {prefix + name: some(2) for name in names}


def mit(size: str) -> dict[str, np.ndarray]:
  """A MiT in the names of its authors."""
  (blocks, width), _ = next(kind for kind in pretrained.BLOCKS_OF_MIT.items() if kind[1] == size)
  found = {}
  for i, count in enumerate(blocks, 1):
    found |= {f'patch_embed{i}.{part}': some(width, 2) for part in ('proj.weight', 'norm.weight')}
    for j in range(count):
      for part in (
        'norm1.weight', 'attn.q.weight', 'attn.proj.bias', 'attn.sr.weight', 'attn.norm.bias',
        'norm2.bias', 'mlp.fc1.weight', 'mlp.dwconv.dwconv.weight', 'mlp.fc2.bias',
      ):  # fmt: skip
        found[f'block{i}.{j}.{part}'] = some(3, 2)
      found[f'block{i}.{j}.attn.kv.weight'] = some(6, 2)
    found[f'norm{i}.weight'] = some(2)
  return found


OURS_TO_HUGGING_FACE = (
  ('attn.proj', 'attention.output.dense'),
  ('attn.norm', 'attention.self.layer_norm'),
  ('attn.sr', 'attention.self.sr'),
  ('attn.q', 'attention.self.query'),
  ('norm1', 'layer_norm_1'),
  ('norm2', 'layer_norm_2'),
  ('fc1', 'dense1'),
  ('fc2', 'dense2'),
)


def hugging_face(ours: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The same layers as Hugging Face's SegFormer names them."""
  found = {}
  for name, value in ours.items():
    head, _, rest = name.partition('.')
    kind, number = head.rstrip('1234'), int(head[-1]) - 1
    if kind == 'patch_embed':
      rest = rest.replace('norm', 'layer_norm')
      found[f'segformer.encoder.patch_embeddings.{number}.{rest}'] = value
    elif kind == 'norm':
      found[f'segformer.encoder.layer_norm.{number}.{rest}'] = value
    elif 'attn.kv' in rest:
      block, _, _ = rest.partition('.attn.kv')
      key, values = np.split(value, 2)
      place = f'segformer.encoder.block.{number}.{block}.attention.self'
      found |= {f'{place}.key.weight': key, f'{place}.value.weight': values}
    else:
      for one, other in OURS_TO_HUGGING_FACE:
        rest = rest.replace(one, other)
      found[f'segformer.encoder.block.{number}.{rest}'] = value
  return found | {'classifier.weight': some(10, 2)}


@pytest.mark.parametrize('size', ['B0', 'B2', 'B5'])
def test_hugging_faces_names_are_turned_into_the_authors(size):
  ours = mit(size)
  wanted = {f'backbone.{name}': value for name, value in ours.items()}
  for state_dict in (hugging_face(ours), ours, {f'module.{n}': v for n, v in ours.items()}):
    found = pretrained.rename(state_dict, set(wanted))
    assert set(wanted) <= set(found)
    for name, value in wanted.items():
      np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_hugging_faces_decode_head():
  theirs = {
    'decode_head.linear_c.0.proj.weight': 'decode_head.linear_c1.proj.weight',
    'decode_head.linear_c.3.proj.bias': 'decode_head.linear_c4.proj.bias',
    'decode_head.linear_fuse.weight': 'decode_head.linear_fuse.conv.weight',
    'decode_head.batch_norm.running_var': 'decode_head.linear_fuse.bn.running_var',
    'decode_head.classifier.bias': 'decode_head.linear_pred.bias',
  }
  found = pretrained.rename(dict.fromkeys(theirs, some(2)), set(theirs.values()))
  assert set(found) == set(theirs.values())


@pytest.mark.parametrize(
  ('state_dict', 'words'),
  [
    (resnet(), "ResNet-101 in torchvision's names"),
    (resnet((3, 4, 6, 3)), "ResNet-50 in torchvision's names"),
    (resnet(prefix='module.'), "ResNet-101 in torchvision's names"),
    (resnet((1, 1, 2, 1)), 'ResNet with (1, 1, 2, 1) blocks'),
    (
      {f'Scale.{name}': value for name, value in resnet().items()},
      'the DeepLab initialisation of ResNet-101',
    ),
    (resnet() | {'final.head.1.weight': some(2)}, "DiGA's saved DeepLabV2 on ResNet-101"),
    (
      resnet(prefix='module.seg_model.backbone.')
      | {'module.seg_model.aspp.conv2d_list.0.weight': some(2)},
      "HIAST's saved DeepLabV2 on ResNet-101",
    ),
    (mit('B2'), "body without a segmentation head: MiT-B2 in SegFormer's own names"),
    (hugging_face(mit('B4')), "MiT-B4 in Hugging Face's names"),
    (mit('B1') | {'decode_head.x': some(2)}, 'a whole segmentation network: MiT-B1'),
    ({'conv1.weight': some(2), 'transition1.0.0.weight': some(2)}, 'HRNetV2'),
    ({'_conv_stem.weight': some(2), '_blocks.15._bn0.weight': some(2)}, 'EfficientNet-Lite0'),
    ({'model.0.conv.weight': some(2)}, 'encoder of a translator'),
    ({'something.weight': some(2)}, 'of an unknown kind (something.weight, ...)'),
  ],
)
def test_files_are_recognised(state_dict, words):
  assert words in pretrained.describe(state_dict)


def test_hiasts_own_checkpoint_is_read_under_its_prefixes():
  theirs = resnet(prefix='seg_model.backbone.')
  wanted = {name.removeprefix('seg_model.') for name in theirs}
  assert set(pretrained.rename(theirs, wanted)) == wanted


# Of other makers.


def diga(name: str) -> str:
  return re.sub('^conv1', 'layer0.0', re.sub('^bn1', 'layer0.1', name))


def hiast(name: str) -> str:
  return f'backbone.{name}'


def mmseg(ours: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The same layers as its tools/model_converters/mit2mmseg.py makes them of the authors'."""
  found = {}
  for name, value in ours.items():
    head, _, rest = name.partition('.')
    kind, number = head.rstrip('1234'), int(head[-1]) - 1
    block, _, part = rest.partition('.')
    if kind == 'patch_embed':
      found[f'layers.{number}.0.{rest.replace("proj.", "projection.")}'] = value
    elif kind == 'norm':
      found[f'layers.{number}.2.{rest}'] = value
    elif part.startswith('attn.q.'):
      kv = ours[name.replace('attn.q.', 'attn.kv.')]
      leaf = part.removeprefix('attn.q.')
      found[f'layers.{number}.1.{block}.attn.attn.in_proj_{leaf}'] = np.concatenate([value, kv])
    elif not part.startswith('attn.kv.'):
      for one, other in (
        ('attn.proj.', 'attn.attn.out_proj.'), ('mlp.fc1.', 'ffn.layers.0.'),
        ('mlp.dwconv.dwconv.', 'ffn.layers.1.'), ('mlp.fc2.', 'ffn.layers.4.'),
      ):  # fmt: skip
        part = part.replace(one, other)
      is_matrix = part.endswith('weight') and re.search(r'layers\.[04]', part)
      found[f'layers.{number}.1.{block}.{part}'] = value[..., None, None] if is_matrix else value
  return found


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_mmsegmentations_mit_is_turned_into_the_authors(prefix):
  ours = mit('B1')
  for name in [name for name in ours if 'attn.kv' in name]:
    ours[name.replace('attn.kv', 'attn.q')] = some(3, 2)
    ours[name] = some(6, 2)
  theirs = {prefix + name: value for name, value in mmseg(ours).items()}
  assert len(theirs) < len(ours)
  head = {'decode_head.convs.0.conv.weight': some(2)} if prefix else {}
  found = pretrained.rename(theirs | head, {f'backbone.{name}' for name in ours})
  assert found.keys() == {f'backbone.{name}' for name in ours} | head.keys()
  for name, value in ours.items():
    np.testing.assert_array_equal(found[f'backbone.{name}'], value, err_msg=name)
  words = pretrained.describe(theirs | head)
  assert "MiT-B1 in mmsegmentation's names" in words and ('other layers' in words) == bool(prefix)


TRANSFORMERS_5 = (
  ('patch_embeddings.1.proj.weight', 'stages.1.patch_embeddings.proj.weight'),
  ('patch_embeddings.0.layer_norm.bias', 'stages.0.patch_embeddings.layer_norm.bias'),
  ('block.2.1.layer_norm_1.weight', 'stages.2.blocks.1.layernorm_before.weight'),
  ('block.2.1.layer_norm_2.bias', 'stages.2.blocks.1.layernorm_after.bias'),
  ('block.0.1.attention.self.query.weight', 'stages.0.blocks.1.attention.q_proj.weight'),
  ('block.0.1.attention.self.key.weight', 'stages.0.blocks.1.attention.k_proj.weight'),
  ('block.0.1.attention.self.value.weight', 'stages.0.blocks.1.attention.v_proj.weight'),
  ('block.0.1.attention.output.dense.bias', 'stages.0.blocks.1.attention.o_proj.bias'),
  (
    'block.0.1.attention.self.sr.weight',
    'stages.0.blocks.1.attention.sequence_reduction.sequence_reduction.weight',
  ),
  (
    'block.0.1.attention.self.layer_norm.weight',
    'stages.0.blocks.1.attention.sequence_reduction.layer_norm.weight',
  ),
  ('block.3.0.mlp.dense1.weight', 'stages.3.blocks.0.mlp.fc1.weight'),
  ('block.3.0.mlp.dwconv.dwconv.weight', 'stages.3.blocks.0.mlp.dwconv.dwconv.weight'),
  ('block.3.0.mlp.dense2.weight', 'stages.3.blocks.0.mlp.fc2.weight'),
  ('layer_norm.3.bias', 'stages.3.layer_norm.bias'),
)


@pytest.mark.parametrize('prefix', ['', 'segformer.'])
def test_segformers_names_since_transformers_5(prefix):
  arrays = {old: some(2, 2) for old, _ in TRANSFORMERS_5}
  wanted = {'backbone.block1.1.attn.kv.weight', 'backbone.patch_embed2.proj.weight'}
  expected = pretrained.rename({f'segformer.encoder.{k}': v for k, v in arrays.items()}, wanted)
  assert all(name.startswith('backbone.') for name in expected)
  for old in ({f'{prefix}encoder.{k}': v for k, v in arrays.items()},
              {prefix + new: arrays[name] for name, new in TRANSFORMERS_5}):  # fmt: skip
    found = pretrained.rename(old, wanted)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
      np.testing.assert_array_equal(found[name], value)


HUGGING_FACE_RESNET = (
  ('conv1.weight', 'embedder.embedder.convolution.weight'),
  ('bn1.running_mean', 'embedder.embedder.normalization.running_mean'),
  ('layer1.0.downsample.0.weight', 'encoder.stages.0.layers.0.shortcut.convolution.weight'),
  ('layer1.0.downsample.1.bias', 'encoder.stages.0.layers.0.shortcut.normalization.bias'),
  ('layer3.22.conv1.weight', 'encoder.stages.2.layers.22.layer.0.convolution.weight'),
  ('layer4.1.bn3.running_var', 'encoder.stages.3.layers.1.layer.2.normalization.running_var'),
)


@pytest.mark.parametrize('here', [diga, hiast])
@pytest.mark.parametrize('prefix', ['', 'resnet.'])
def test_hugging_faces_resnet(prefix, here):
  theirs = {prefix + name: some(2) for _, name in HUGGING_FACE_RESNET}
  found = pretrained.rename(theirs, {here(ours) for ours, _ in HUGGING_FACE_RESNET})
  for ours, name in HUGGING_FACE_RESNET:
    np.testing.assert_array_equal(found[here(ours)], theirs[prefix + name])


TIMM = (
  ('_conv_stem.weight', 'conv_stem.weight'), ('_bn0.running_mean', 'bn1.running_mean'),
  ('_blocks.0._depthwise_conv.weight', 'blocks.0.0.conv_dw.weight'),
  ('_blocks.0._bn1.bias', 'blocks.0.0.bn1.bias'),
  ('_blocks.0._project_conv.weight', 'blocks.0.0.conv_pw.weight'),
  ('_blocks.0._bn2.bias', 'blocks.0.0.bn2.bias'),
  ('_blocks.1._expand_conv.weight', 'blocks.1.0.conv_pw.weight'),
  ('_blocks.1._bn0.weight', 'blocks.1.0.bn1.weight'),
  ('_blocks.1._depthwise_conv.weight', 'blocks.1.0.conv_dw.weight'),
  ('_blocks.1._bn1.weight', 'blocks.1.0.bn2.weight'),
  ('_blocks.1._project_conv.weight', 'blocks.1.0.conv_pwl.weight'),
  ('_blocks.1._bn2.weight', 'blocks.1.0.bn3.weight'),
  ('_blocks.2._project_conv.weight', 'blocks.1.1.conv_pwl.weight'),
  ('_blocks.3._project_conv.weight', 'blocks.2.0.conv_pwl.weight'),
  ('_conv_head.weight', 'conv_head.weight'), ('_bn1.weight', 'bn2.weight'),
  ('_fc.bias', 'classifier.bias'),
)  # fmt: skip


def test_timms_efficientnet():
  theirs = {name: some(2) for _, name in TIMM}
  found = pretrained.rename(theirs, {f'backbone.{ours}' for ours, _ in TIMM})
  assert found.keys() == {f'backbone.{ours}' for ours, _ in TIMM}
  for ours, name in TIMM:
    np.testing.assert_array_equal(found[f'backbone.{ours}'], theirs[name])


def test_prodas_head_is_digas_unless_a_norm_stands_before_it():
  theirs = {
    'conv1.weight': some(2), 'layer1.0.conv1.weight': some(2),
    'layer5.conv2d_list.0.0.weight': some(2), 'layer5.bottleneck.0.se.0.weight': some(2),
    'layer5.head.1.weight': some(2), 'layer5.conv2d_list.0.weight': some(2),
  }  # fmt: skip
  wanted = {
    'layer0.0.weight', 'layer1.0.conv1.weight', 'final.conv2d_list.0.0.weight',
    'final.bottleneck.0.se.0.weight', 'final.head.1.weight',
  }  # fmt: skip
  found = pretrained.rename(theirs, wanted)
  assert found.keys() == wanted | {'layer5.conv2d_list.0.weight'}
  found = pretrained.rename(theirs | {'bn_pretrain.weight': some(2)}, wanted)
  assert 'layer5.head.1.weight' in found and 'layer0.0.weight' in found


def test_hrdas_head_is_daformers():
  theirs = {'backbone.x': some(2), 'decode_head.head.conv_seg.bias': some(2)}
  theirs['decode_head.scale_attention.conv_seg.bias'] = some(2)
  found = pretrained.rename(theirs, {'backbone.x', 'decode_head.conv_seg.bias'})
  np.testing.assert_array_equal(
    found['decode_head.conv_seg.bias'], theirs['decode_head.head.conv_seg.bias']
  )


def test_words_of_compiled_modules_are_dropped_anywhere():
  theirs = {'backbone._orig_mod.x': some(2), '_fsdp_wrapped_module.aspp.y': some(2)}
  assert pretrained.rename(theirs, {'backbone.x'}).keys() == {'backbone.x', 'aspp.y'}


def test_nothing_is_nothing():
  assert pretrained.rename({}, {'a'}) == {}


SIMCLR = (
  ('conv1.weight', 'net.0.0.weight'),
  ('bn1.running_var', 'net.0.1.0.running_var'),
  ('layer1.0.conv1.weight', 'net.1.blocks.0.net.0.weight'),
  ('layer3.22.bn1.bias', 'net.3.blocks.22.net.1.0.bias'),
  ('layer2.1.conv2.weight', 'net.2.blocks.1.net.2.weight'),
  ('layer2.1.bn2.weight', 'net.2.blocks.1.net.3.0.weight'),
  ('layer4.2.conv3.weight', 'net.4.blocks.2.net.4.weight'),
  ('layer4.2.bn3.running_mean', 'net.4.blocks.2.net.5.0.running_mean'),
  ('layer4.0.downsample.0.weight', 'net.4.blocks.0.projection.shortcut.weight'),
  ('layer4.0.downsample.1.weight', 'net.4.blocks.0.projection.bn.0.weight'),
)


@pytest.mark.parametrize('here', [diga, hiast])
def test_simclrs_names_are_turned_into_ours(here):
  theirs = {name: some(2) for _, name in SIMCLR}
  found = pretrained.rename(theirs, {here(ours) for ours, _ in SIMCLR})
  for ours, name in SIMCLR:
    np.testing.assert_array_equal(found[here(ours)], theirs[name])


def test_simclrs_files_are_read_and_recognised(tmp_path):
  names = [
    f'net.{i}.blocks.{j}.net.0.weight' for i, n in enumerate((3, 4, 23, 3), 1) for j in range(n)
  ]
  network = {name: some(2) for name in names}
  assert pretrained.describe(network).endswith('ResNet-101 by SimCLRv2')
  kernels = network | {'net.1.blocks.0.net.2.mixing_conv.0.weight': some(2)}
  assert 'take the one without (sk0)' in pretrained.describe(kernels)
  content = {'resnet': network, 'head': {'layers.0.weight': some(2)}}
  assert weights.read(torch_pickles.save(tmp_path / 'a.pth', content)).keys() == network.keys()


def test_the_wrong_file_says_what_it_is():
  shapes = models.shapes(models.build('translator_encoder'))
  with pytest.raises(
    BadInput, match=r"holds .*MiT-B2 in Hugging Face's names; wanted is DiGA's enc"
  ):
    weights.initialise(shapes, hugging_face(mit('B2')), may_differ=(weights.HEAD.pattern,))
  with pytest.raises(BadInput, match=r"the file holds .*ResNet-50 in torchvision's names"):
    weights.initialise(shapes, resnet((3, 4, 6, 3)))


# Files of PyTorch's.


def arrays() -> dict[str, np.ndarray]:
  return {
    'a.weight': some(3, 4, 2, 2),
    'a.bias': some(3),
    'half': some(5).astype(np.float16),
    'count': np.array(7, np.int64),
    'empty': np.zeros((0, 4), np.float32),
    'flags': np.array([True, False]),
    'turned': some(4, 6).T,
    'ünïcode': some(1),
  }


@pytest.mark.parametrize('suffix', ['pth', 'safetensors', 'npz'])
def test_what_is_written_is_read_back_to_the_bit(tmp_path, suffix):
  path, once = tmp_path / f'weights.{suffix}', arrays()
  weights.save(path, once)
  found = weights.read(path)
  assert found.keys() == once.keys()
  for name, value in found.items():
    np.testing.assert_array_equal(value, once[name], err_msg=name)
    assert value.dtype == once[name].dtype and value.shape == once[name].shape
  with pytest.raises(BadInput, match=r'written to \.pth, \.safetensors, \.npz'):
    weights.save(tmp_path / 'weights.h5', once)


@pytest.mark.parametrize('suffix', ['pth', 'safetensors', 'npz'])
def test_no_flipped_bit_changes_a_number(tmp_path, suffix):
  path, once = tmp_path / f'weights.{suffix}', {'a.weight': some(40, 30), 'b': some(7)}
  weights.save(path, once)
  sound, flips = path.read_bytes(), np.random.default_rng(0)
  for _ in range(300):
    found = bytearray(sound)
    found[flips.integers(len(sound))] ^= 1 << flips.integers(8)
    path.write_bytes(found)
    try:
      read = weights.read(path)
    except BadInput:
      continue
    for name, value in read.items():
      assert name in once
      np.testing.assert_array_equal(value, once[name])


def test_types_that_pytorch_lacks_are_refused(tmp_path):
  with pytest.raises(BadInput, match='complex64'):
    torch_file.write(tmp_path / 'a.pth', {'x': np.zeros(2, np.complex64)})


def test_pytorch_reads_what_is_written(tmp_path):
  torch = pytest.importorskip('torch')  # extra `torch`
  once = arrays()
  weights.save(tmp_path / 'weights.pth', once)
  found = torch.load(tmp_path / 'weights.pth', weights_only=True)
  assert list(found) == list(once)
  for name, value in found.items():
    np.testing.assert_array_equal(value.numpy(), once[name], err_msg=name)


# The command.


def test_import_export_and_compare(tmp_path, capsys):
  model = models.build('translator_encoder')
  shapes = models.shapes(model)
  state_dict = {
    name: some(*value.shape) for name, value in weights.state_dict_of(zeros(shapes)).items()
  }
  source, place, back = tmp_path / 'enc_s.pth', tmp_path / 'imported', tmp_path / 'back.pth'
  weights.save(source, state_dict)
  command = ['weights', 'import', str(source), '--model=translator_encoder', f'--output={place}']
  assert main(command) == 0
  said = capsys.readouterr().out
  assert "DiGA's encoder of a translator" in said and f'--config.model.weights={place}' in said
  assert json.loads((place / 'stage.json').read_text())['result'] == {'step': 0}
  assert main(['weights', 'export', str(place), f'--output={back}']) == 0
  found = weights.read(back)
  assert found.keys() == state_dict.keys()
  for name, value in state_dict.items():
    np.testing.assert_array_equal(found[name], value, err_msg=name)
  capsys.readouterr()
  assert main(['weights', 'compare', str(source), str(place)]) == 0
  assert f'{len(state_dict)} equal, 0 different, 0 in one alone' in capsys.readouterr().out
  prefixed = ['weights', 'export', str(place), f'--output={back}', '--prefix=seg_model.']
  assert main(prefixed) == 0
  assert list(weights.read(back)) == [f'seg_model.{name}' for name in found]
  assert main(['weights', 'export', str(place), f'--output={back}', '--network=teacher']) == 2
  assert 'holds no teacher' in capsys.readouterr().err


def zeros(shapes):
  import jax

  return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


def test_import_of_the_wrong_file_leaves_nothing_behind(tmp_path, capsys):
  weights.save(tmp_path / 'mit.npz', mit('B0'))
  place = tmp_path / 'imported'
  command = ['weights', 'import', str(tmp_path / 'mit.npz'), f'--output={place}']
  assert main([*command, '--model=deeplab_resnet101']) == 2
  said = capsys.readouterr().err.strip().splitlines()[-1]
  assert 'MiT-B0' in said and str(tmp_path / 'mit.npz') in said
  assert main([*command, '--model=deeplab_resnet102']) == 2
  assert "no network is called 'deeplab_resnet102'" in capsys.readouterr().err
  assert not place.exists() and not list(tmp_path.glob('*.partial'))


def test_an_import_says_what_a_start_from_it_draws(tmp_path, capsys):
  model = models.build('mit_b0_segformer', classes=2)
  drawn = {
    n: np.abs(some(*x.shape)) for n, x in weights.state_dict_of(zeros(models.shapes(model))).items()
  }
  body = {name: value for name, value in drawn.items() if name.startswith('backbone.')}
  for name, given in (('whole', drawn), ('body', body)):
    path = tmp_path / f'{name}.npz'
    weights.save(path, given)
    command = ['weights', 'import', str(path), '--model=mit_b0_segformer', '--classes=2']
    assert main([*command, f'--output={tmp_path / name}']) == 0
    said = capsys.readouterr().out
    assert ('start at random (of the head)' in said) == (name == 'body')
    found = weights.read(tmp_path / name)
    counted = {name for name in given if not name.endswith('num_batches_tracked')}
    assert {name for name in found if not name.endswith('num_batches_tracked')} == counted


def test_comparison_shows_norms_and_differences():
  one = {'a': np.array([3.0, 4.0]), 'b': np.zeros(2), 'c': np.zeros(3)}
  two = {'a': np.array([3.0, 4.5]), 'c': np.zeros(4), 'd': np.ones(1)}
  rows = {row[0]: row[1:] for row in weights.compare(one, two)}
  assert rows['a'] == ('2', '5', '5.40833', '0.5', '0.125')
  assert rows['b'] == ('2', '0', '-', '-', '-') and rows['d'] == ('1', '-', '1', '-', '-')
  assert rows['c'][0] == '3 != 4'
  text = weights.format_comparison(weights.compare(one, two))
  assert '0 equal, 1 different, 3 in one alone' in text
