"""Published files of weights: what each one holds, and what its entries are called here.

A network's names are those of the published code (docs/diga.md section 3). Other distributions of
the same layers have other names; each of `SCHEMES` turns one of them into ours.
"""

import re
from collections.abc import Callable, Mapping

import numpy as np

from diga_jax.models import mit

StateDict = Mapping[str, np.ndarray]

# What stands before the names when a network is part of something: DiGA's and HIAST's trainers,
# parallel training, compiled modules.
PREFIXES = ('module.', 'seg_model.', 'student.', 'model.', '_orig_mod.')
# (blocks per stage, channels of the first) -> size.
BLOCKS_OF_MIT = {
  (sizes['depths'], sizes['widths'][0]): name.upper() for name, sizes in mit.SIZES.items()
}
RESNETS: dict[tuple[int, ...], int] = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}

# Names of Hugging Face's SegFormer -> those of its authors. {0} counts from 0 there, from 1 here.
_HUGGING_FACE_BLOCK = {
  'layer_norm_1': 'norm1', 'layer_norm_2': 'norm2',
  'attention.self.query': 'attn.q', 'attention.self.kv': 'attn.kv', 'attention.self.sr': 'attn.sr',
  'attention.self.layer_norm': 'attn.norm', 'attention.output.dense': 'attn.proj',
  'mlp.dense1': 'mlp.fc1', 'mlp.dense2': 'mlp.fc2', 'mlp.dwconv.dwconv': 'mlp.dwconv.dwconv',
}  # fmt: skip
_HUGGING_FACE = {
  r'patch_embeddings\.(\d+)\.proj': 'patch_embed{0}.proj',
  r'patch_embeddings\.(\d+)\.layer_norm': 'patch_embed{0}.norm',
  r'layer_norm\.(\d+)': 'norm{0}',
  **{
    r'block\.(\d+)\.(\d+)\.' + re.escape(theirs): 'block{0}.{1}.' + ours
    for theirs, ours in _HUGGING_FACE_BLOCK.items()
  },
}
_HUGGING_FACE_HEAD = {
  r'linear_c\.(\d+)\.proj': 'linear_c{0}.proj', 'linear_fuse': 'linear_fuse.conv',
  'batch_norm': 'linear_fuse.bn', 'classifier': 'linear_pred',
}  # fmt: skip
# Names of a block in SimCLRv2 converted to PyTorch (github.com/Separius/SimCLRv2-Pytorch) ->
# torchvision's.
_SIMCLR_BLOCK = {
  'net.0': 'conv1', 'net.1.0': 'bn1', 'net.2': 'conv2', 'net.3.0': 'bn2', 'net.4': 'conv3',
  'net.5.0': 'bn3', 'projection.shortcut': 'downsample.0', 'projection.bn.0': 'downsample.1',
}  # fmt: skip


# Names of a block of SegFormer in memory since transformers 5 -> those of its files.
_TRANSFORMERS_BLOCK = {
  'layernorm_before': 'layer_norm_1', 'layernorm_after': 'layer_norm_2',
  'attention.q_proj': 'attention.self.query', 'attention.k_proj': 'attention.self.key',
  'attention.v_proj': 'attention.self.value', 'attention.o_proj': 'attention.output.dense',
  'attention.sequence_reduction.sequence_reduction': 'attention.self.sr',
  'attention.sequence_reduction.layer_norm': 'attention.self.layer_norm',
  'mlp.fc1': 'mlp.dense1', 'mlp.fc2': 'mlp.dense2',
}  # fmt: skip
# Names of Hugging Face's ResNet -> torchvision's. {0} and {2} count from 0 there, from 1 here.
_RESNET = (
  (r'embedder\.embedder\.convolution', 'conv1'),
  (r'embedder\.embedder\.normalization', 'bn1'),
  (r'encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.convolution', 'layer{0}.{1}.downsample.0'),
  (r'encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.normalization', 'layer{0}.{1}.downsample.1'),
  (r'encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.convolution', 'layer{0}.{1}.conv{2}'),
  (r'encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.normalization', 'layer{0}.{1}.bn{2}'),
)  # fmt: skip
# Names of a block of timm's EfficientNet -> the package's; without an expansion, and with one.
_TIMM_BLOCK = (
  {'conv_dw': '_depthwise_conv', 'bn1': '_bn1', 'conv_pw': '_project_conv', 'bn2': '_bn2'},
  {
    'conv_pw': '_expand_conv', 'bn1': '_bn0', 'conv_dw': '_depthwise_conv', 'bn2': '_bn1',
    'conv_pwl': '_project_conv', 'bn3': '_bn2',
  },
)  # fmt: skip
_TIMM = {
  'conv_stem': '_conv_stem', 'bn1': '_bn0', 'conv_head': '_conv_head', 'bn2': '_bn1',
  'classifier': '_fc',
}  # fmt: skip
# Names of a block of mmsegmentation's MiT -> its authors'.
_MMSEG_BLOCK = {
  'attn.attn.out_proj.': 'attn.proj.', 'ffn.layers.0.': 'mlp.fc1.',
  'ffn.layers.1.': 'mlp.dwconv.dwconv.', 'ffn.layers.4.': 'mlp.fc2.',
}  # fmt: skip
# Of compiled and sharded modules, anywhere in a name.
_WRAPPED = re.compile(
  r'(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.'
)


# Renaming.


def strip_prefixes(state_dict: StateDict) -> dict[str, np.ndarray]:
  """The entries without the prefixes that all names share."""
  found = dict(state_dict)
  while found and (
    prefix := next((p for p in PREFIXES if all(_stands_before(p, n) for n in found)), None)
  ):
    found = {name.removeprefix(prefix): value for name, value in found.items()}
  return found


def _stands_before(prefix: str, name: str) -> bool:
  # 'model.0.conv.weight' is a name of its own: the layers of a sequence.
  return name.startswith(prefix) and not name.removeprefix(prefix)[:1].isdigit()


def _each_name(rename: Callable[[str], str]) -> Callable[[StateDict], dict[str, np.ndarray]]:
  return lambda state_dict: {rename(name): value for name, value in state_dict.items()}


def _resnet(name: str) -> str:
  """torchvision's names, or those of the checkpoints converted from Caffe, -> DiGA's."""
  name = name.removeprefix('Scale.')
  return re.sub(r'^bn1\.', 'layer0.1.', re.sub(r'^conv1\.', 'layer0.0.', name))


def _proda(state_dict: StateDict) -> dict[str, np.ndarray]:
  """As `_resnet`, and the head of ProDA, which is DiGA's; not after a norm that is not here."""
  if any(name.startswith('bn_pretrain.') for name in state_dict):
    return {_resnet(name): value for name, value in state_dict.items()}
  head = re.compile(r'^layer5\.(?=conv2d_list\.\d+\.\d+\.|bottleneck\.|head\.)')
  return {head.sub('final.', _resnet(name)): value for name, value in state_dict.items()}


def _hrnet_imagenet(name: str) -> str:
  """HRNet's ImageNet classifier -> DiGA's names of its body."""
  name = re.sub(r'^transition(\d)', lambda m: f'transition_stage_{m[1]}_{int(m[1]) + 1}', name)
  return 'hrnet.' + re.sub(r'^layer1\.', 'stage1.', name)


def _hugging_face(state_dict: StateDict) -> dict[str, np.ndarray]:
  """Hugging Face's SegFormer, or its encoder alone, -> the authors' names."""
  joined = {}
  for name, value in state_dict.items():
    if '.self.key.' in name:  # one matrix for keys and values there
      values = state_dict.get(name.replace('.self.key.', '.self.value.'))
      if values is not None:
        joined[name.replace('.self.key.', '.self.kv.')] = np.concatenate([value, values])
    elif '.self.value.' not in name:
      joined[name] = value
  return {_hugging_face_name(name): value for name, value in joined.items()}


def _hugging_face_name(name: str) -> str:
  for start, patterns, prefix in (
    ('segformer.encoder.', _HUGGING_FACE, 'backbone.'),
    ('encoder.', _HUGGING_FACE, 'backbone.'),  # of the model without a head
    ('decode_head.', _HUGGING_FACE_HEAD, 'decode_head.'),
  ):
    rest = name.removeprefix(start)
    for pattern, ours in patterns.items() if rest != name else ():
      if found := re.match(pattern + r'\.', rest):
        counts = [int(group) for group in found.groups()]
        counts[:1] = [count + 1 for count in counts[:1]]
        return f'{prefix}{ours.format(*counts)}.{rest[found.end() :]}'
  return name


def _simclr(name: str) -> str:
  """A name of SimCLRv2 -> torchvision's; others stay."""
  name = re.sub(r'^net\.0\.0\.', 'conv1.', re.sub(r'^net\.0\.1\.0\.', 'bn1.', name))
  for theirs, ours in _SIMCLR_BLOCK.items():
    pattern = rf'^net\.(\d)\.blocks\.(\d+)\.{re.escape(theirs)}\.'
    name = re.sub(pattern, rf'layer\1.\2.{ours}.', name)
  return name


def _transformers_5(name: str) -> str:
  """A name of SegFormer in memory since transformers 5 -> that of its files; others stay."""
  name = re.sub(r'^decode_head\.linear_projections\.', 'decode_head.linear_c.', name)
  match = re.match(r'^(?:segformer\.)?stages\.(\d+)\.(.+)$', name)
  if not match:
    return name
  stage, rest = match.groups()
  if found := re.match(r'(patch_embeddings|layer_norm)\.', rest):
    return f'segformer.encoder.{found[1]}.{stage}.{rest[found.end() :]}'
  if found := re.match(r'blocks\.(\d+)\.(.+)\.(\w+)$', rest):
    block, part, leaf = found.groups()
    part = _TRANSFORMERS_BLOCK.get(part, part)
    return f'segformer.encoder.block.{stage}.{block}.{part}.{leaf}'
  return name


def _hugging_face_resnet(name: str) -> str:
  """A name of Hugging Face's ResNet -> torchvision's; others stay."""
  rest = name.removeprefix('resnet.')
  for pattern, ours in _RESNET:
    if found := re.match(pattern + r'\.', rest):
      counts = [int(group) + (i != 1) for i, group in enumerate(found.groups())]
      return f'{ours.format(*counts)}.{rest[found.end() :]}'
  return re.sub(r'^classifier\.1\.', 'fc.', name) if rest != name else name


def _timm_lite0(state_dict: StateDict) -> StateDict:
  """timm's EfficientNet -> the names of its package; others stay."""
  if 'conv_stem.weight' not in state_dict:
    return state_dict
  block = re.compile(r'^blocks\.(\d+)\.(\d+)\.(\w+)\.')
  parts = [match for name in state_dict if (match := block.match(name))]
  places = sorted({(int(match[1]), int(match[2])) for match in parts})
  wide = {(int(match[1]), int(match[2])) for match in parts if match[3] == 'conv_pwl'}

  def rename_one(name: str) -> str:
    if not (match := block.match(name)):
      first, _, rest = name.partition('.')
      return f'{_TIMM.get(first, first)}.{rest}'
    place = int(match[1]), int(match[2])
    part = _TIMM_BLOCK[place in wide].get(match[3], match[3])
    return f'_blocks.{places.index(place)}.{part}.{name[match.end() :]}'

  return {rename_one(name): value for name, value in state_dict.items()}


def _mmseg_mit(state_dict: StateDict) -> StateDict:
  """mmsegmentation's MiT -> its authors' names and layouts; others stay.

  The query, key and value are one matrix there, and the layers of a block 1x1 convolutions.
  """
  found = {}
  for name, value in state_dict.items():
    match = re.match(r'^(backbone\.)?layers\.(\d)\.([012])\.(.+)$', name)
    if not match or f'{match[1] or ""}layers.0.0.projection.weight' not in state_dict:
      found[name] = value
      continue
    start, stage, rest = match[1] or '', int(match[2]) + 1, match[4]
    if match[3] == '0':
      found[f'{start}patch_embed{stage}.{rest.replace("projection.", "proj.")}'] = value
    elif match[3] == '2':
      found[f'{start}norm{stage}.{rest}'] = value
    else:
      found |= _mmseg_block(f'{start}block{stage}.', rest, value)
  return found


def _mmseg_block(start: str, name: str, value: np.ndarray) -> dict[str, np.ndarray]:
  """An entry of a block of mmsegmentation's MiT, which may be two of its authors'."""
  number, _, rest = name.partition('.')
  if rest.startswith('attn.attn.in_proj_') and value.ndim:
    leaf, count = rest.removeprefix('attn.attn.in_proj_'), len(value) // 3
    place = f'{start}{number}.attn'
    return {f'{place}.q.{leaf}': value[:count], f'{place}.kv.{leaf}': value[count:]}
  for theirs, ours in _MMSEG_BLOCK.items():
    if rest.startswith(theirs):
      if ours.startswith('mlp.fc') and value.ndim == 4:
        value = value[:, :, 0, 0]
      return {f'{start}{number}.{ours}{rest[len(theirs) :]}': value}
  return {f'{start}{name}': value}


def _hrda(name: str) -> str:
  """The head that HRDA applies at both of its scales -> DAFormer's, which it is."""
  return re.sub(r'^decode_head\.head\.', 'decode_head.', name)


# From other makers' names to those of a network's authors; others stay as they are.
_MAKERS: tuple[Callable[[StateDict], StateDict], ...] = (
  _each_name(lambda name: _WRAPPED.sub('', name)),
  strip_prefixes,
  _each_name(_simclr),
  _each_name(_transformers_5),
  _each_name(_hugging_face_resnet),
  _each_name(_hrda),
  _timm_lite0,
  _mmseg_mit,
)
# From the authors' names to ours.
SCHEMES: tuple[Callable[[StateDict], StateDict], ...] = (
  dict,
  # A body alone: EfficientNet-Lite0, MiT, a torchvision ResNet for HIAST.
  _each_name('backbone.{}'.format),
  _each_name(_hrnet_imagenet),
  _proda,
  _hugging_face,
)


def rename(state_dict: StateDict, wanted: set[str]) -> StateDict:
  """The entries under our names, by the scheme that finds most of the `wanted` ones."""
  found = state_dict
  for turn in _MAKERS:
    found = turn(found)
  return max((scheme(found) for scheme in SCHEMES), key=lambda named: len(wanted & named.keys()))


def count_shared(first: StateDict, second: StateDict) -> int:
  """How many names two files have in common once they are under the names of one of them."""
  one, two = under_one_names(first, second)
  return len(one.keys() & two.keys())


def under_one_names(first: StateDict, second: StateDict) -> tuple[StateDict, StateDict]:
  """Both under the names of one of them: those that more of their entries share."""
  pairs = [
    (strip_prefixes(first), rename(second, set(strip_prefixes(first)))),
    (rename(first, set(strip_prefixes(second))), strip_prefixes(second)),
  ]
  return max(pairs, key=lambda pair: len(pair[0].keys() & pair[1].keys()))


# Recognising.


def describe(state_dict: StateDict) -> str:
  """What a file holds, in words, recognised by its names and shapes."""
  names = strip_prefixes(state_dict)
  for turn in (_timm_lite0, _each_name(_transformers_5), _each_name(_hugging_face_resnet)):
    names = turn(names)
  for recognise in (_simclr_kind, _mit, _resnet_kind, _hrnet, _lite0, _translator):
    if words := recognise(names):
      return words
  return f'a network of an unknown kind ({", ".join(list(names)[:3])}, ...)'


def _count(names: StateDict, pattern: str) -> int:
  """How many different numbers the pattern's group takes."""
  found = (re.search(pattern, name) for name in names)
  return len({match[1] for match in found if match})


def _mit(names: StateDict) -> str:
  if any(re.search(r'layers\.0\.0\.projection\.weight$', name) for name in names):
    whole = any(name.startswith('decode_head.') for name in names)
    theirs = f"{_mit(_mmseg_mit(names)).partition(' in ')[0]} in mmsegmentation's names"
    return theirs + ' (its head has other layers)' * whole
  first = next((n for n in names if re.search(r'patch_embed(1|dings\.0)\.proj\.weight$', n)), '')
  if not first:
    return ''
  theirs = 'patch_embeddings' in first
  stage = r'block\.{}\.(\d+)\.' if theirs else r'block{}\.(\d+)\.'
  blocks = tuple(_count(names, stage.format(i if theirs else i + 1)) for i in range(4))
  size = BLOCKS_OF_MIT.get((blocks, len(names[first])), f'with {blocks} blocks')
  by = "Hugging Face's names" if theirs else "SegFormer's own names"
  whole = any(name.startswith('decode_head.') for name in names)
  return f'{_whole(whole)} MiT-{size} in {by}'


def _resnet_kind(names: StateDict) -> str:
  blocks = tuple(_count(names, rf'(?:^|\.)layer{i}\.(\d+)\.conv3\.') for i in (1, 2, 3, 4))
  if not all(blocks) or any('transition' in name for name in names):
    return ''
  depth = RESNETS.get(blocks, f' with {blocks} blocks')
  body = f'ResNet-{depth}' if isinstance(depth, int) else f'ResNet{depth}'
  if any('final.' in name for name in names):
    return f"DiGA's saved DeepLabV2 on {body}"
  if any(name.startswith('aspp.') for name in names):
    return f"HIAST's saved DeepLabV2 on {body}"
  if any('layer5.' in name or 'Scale.' in name for name in names):
    return f'the DeepLab initialisation of {body}, converted from Caffe'
  return f"{_whole(False)} {body} in torchvision's names"


def _simclr_kind(names: StateDict) -> str:
  blocks = tuple(_count(names, rf'^net\.{i}\.blocks\.(\d+)\.') for i in (1, 2, 3, 4))
  if not all(blocks):
    return ''
  kind = f'{_whole(False)} ResNet-{RESNETS.get(blocks, f"with {blocks} blocks")} by SimCLRv2'
  if any('.mixing_conv.' in name for name in names):
    kind += ' with selective kernels, which no network here has: take the one without (sk0)'
  return kind


def _hrnet(names: StateDict) -> str:
  if not any(re.search(r'transition(1|_stage_1)', name) for name in names):
    return ''
  whole = any('ocr' in name for name in names)
  return f'{_whole(whole)} HRNetV2' + (' with OCR' if whole else '')


def _lite0(names: StateDict) -> str:
  if not any('_blocks.15.' in name for name in names):
    return ''
  return f'{_whole(any("final." in name for name in names))} EfficientNet-Lite0'


def _translator(names: StateDict) -> str:
  if any(re.match(r'cnns\.\d', name) for name in names):
    return "DiGA's discriminator of translations"
  if 'model.0.conv.weight' in names:
    return "DiGA's encoder of a translator"
  return "DiGA's decoder of a translator" if 'model.5.conv.weight' in names else ''


def _whole(whole: bool) -> str:
  return 'a whole segmentation network:' if whole else 'a body without a segmentation head:'
