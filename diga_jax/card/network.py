"""The network of this folder in PyTorch; it needs torch and safetensors alone.

  model = load('.')                       # the folder with config.json and model.safetensors
  labels = model(images).argmax(1)        # images: RGB [B, 3, H, W], 0 to 255, of any size

Names of layers are those of model.safetensors. Made by diga_jax, under the Apache License 2.0.
"""

import functools
import json
import math
import pathlib
from collections.abc import Callable, Sequence

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

MEAN_BGR, SCALE = (104.00698793, 116.66876762, 122.67891434), 128.0
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load(folder: str | pathlib.Path) -> 'Segmentation':
  """The trained network of a folder, ready for images: without dropout, with its statistics."""
  config = json.loads((pathlib.Path(folder) / 'config.json').read_text(encoding='utf-8'))
  model, used = config['model'], config['inference']
  network = NETWORKS[config['architecture']](len(config['classes']), **model['options'])
  found = safetensors.torch.load_file(pathlib.Path(folder) / 'model.safetensors')
  network.load_state_dict(found)
  return Segmentation(network, used['scales'], used['flip']).eval()


class Segmentation(nn.Module):
  """A network at several scales: the largest logit of each class and pixel counts."""

  def __init__(self, network: nn.Module, scales: Sequence[float], flip: bool):
    super().__init__()
    self.network, self.scales, self.flip = network, tuple(scales), flip
    self.register_buffer('mean', torch.tensor(MEAN_BGR)[:, None, None], persistent=False)

  def forward(self, images: Tensor) -> Tensor:
    """RGB [B, 3, H, W], 0 to 255 -> logits [B, classes, H, W]."""
    height, width = images.shape[-2:]
    normalised = (images.flip(1).float() - self.mean) / SCALE
    maps = []
    for scale in self.scales:
      scaled = max(math.floor(height * scale), 1), max(math.floor(width * scale), 1)
      view = normalised if scale == 1 else align_corners(normalised, scaled)
      maps.append(align_corners(self.network(view), (height, width)))
      if self.flip:
        mirrored = align_corners(self.network(view.flip(-1)), (height, width))
        maps.append(mirrored.flip(-1))
    return functools.reduce(torch.maximum, maps)


def align_corners(x: Tensor, size: Sequence[int]) -> Tensor:
  """Bilinear resize [B, C, h, w] -> [B, C, *size] whose corner pixels stay where they are."""
  return functional.interpolate(x, tuple(size), mode='bilinear', align_corners=True)


def half_pixel(x: Tensor, size: Sequence[int]) -> Tensor:
  """Bilinear resize [B, C, h, w] -> [B, C, *size] that aligns borders, not centres, of pixels."""
  return functional.interpolate(x, tuple(size), mode='bilinear', align_corners=False)


def imagenet(x: Tensor) -> Tensor:
  """Normalised BGR [B, 3, H, W] -> RGB as torchvision normalises it."""
  mean, deviation = x.new_tensor(IMAGENET_MEAN), x.new_tensor(IMAGENET_STD)
  shift = (x.new_tensor(MEAN_BGR).flip(0) / 255 - mean) / deviation
  return x.flip(1) * (SCALE / 255 / deviation)[:, None, None] + shift[:, None, None]


def tensorflow(x: Tensor) -> Tensor:
  """Normalised BGR [B, 3, H, W] -> (RGB - 127) / 128."""
  shift = (x.new_tensor(MEAN_BGR).flip(0) - 127) / 128
  return x.flip(1) * (SCALE / 128) + shift[:, None, None]


# What a network makes of normalised BGR.
PIXELS = {'given': lambda x: x, 'rgb': lambda x: x.flip(1), 'imagenet': imagenet}


def conv_norm(inputs: int, outputs: int, size: int, **conv: int | bool) -> list[nn.Module]:
  """A convolution, without bias if none is asked for, and BatchNorm."""
  return [nn.Conv2d(inputs, outputs, size, **{'bias': False, **conv}), nn.BatchNorm2d(outputs)]


def conv_norm_relu(inputs: int, outputs: int, size: int, **conv: int | bool) -> nn.Sequential:
  """The same and ReLU."""
  return nn.Sequential(*conv_norm(inputs, outputs, size, **conv), nn.ReLU())


# Residual networks.


class Bottleneck(nn.Module):
  """1x1 - 3x3 - 1x1 with a skip; the stride is that of the first 1x1, or of the 3x3."""

  def __init__(
    self,
    inputs: int,
    planes: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    project: bool = False,
    stride_on_middle: bool = False,
  ):
    super().__init__()
    first, second = (1, stride) if stride_on_middle else (stride, 1)
    wide = {'stride': second, 'padding': dilation, 'dilation': dilation}
    self.conv1, self.bn1 = conv_norm(inputs, planes, 1, stride=first)
    self.conv2, self.bn2 = conv_norm(planes, planes, 3, **wide)
    self.conv3, self.bn3 = conv_norm(planes, 4 * planes, 1)
    if project:
      self.downsample = nn.Sequential(*conv_norm(inputs, 4 * planes, 1, stride=stride))
    else:
      self.downsample = nn.Identity()

  def forward(self, x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, 4 * planes, h, w]."""
    y = functional.relu(self.bn1(self.conv1(x)))
    y = functional.relu(self.bn2(self.conv2(y)))
    return functional.relu(self.downsample(x) + self.bn3(self.conv3(y)))


class ResNet(nn.Module):
  """Bottlenecks at output stride 8, without a head: DiGA's, or torchvision's as in HIAST."""

  def __init__(self, blocks: Sequence[int], width: int, torchvision: bool):
    super().__init__()
    stem = conv_norm(3, width, 7, stride=2, padding=3)
    if torchvision:
      self.conv1, self.bn1 = stem
    else:
      self.layer0 = nn.Sequential(*stem)
    self.torchvision, self.depth, inputs = torchvision, len(blocks), width
    dilations = (1, 1, 2, 4)
    firsts = (1, 1, 1, 2) if torchvision else dilations
    for stage, (count, stride) in enumerate(zip(blocks, (1, 2, 1, 1), strict=False)):
      row = []
      for i in range(count):
        row.append(
          Bottleneck(
            inputs,
            width * 2**stage,
            stride=1 if i else stride,
            dilation=dilations[stage] if i else firsts[stage],
            project=i == 0,
            stride_on_middle=torchvision,
          )
        )
        inputs = 4 * width * 2**stage
      setattr(self, f'layer{stage + 1}', nn.Sequential(*row))
    self.outputs = inputs

  def body(self, x: Tensor) -> Tensor:
    """[B, 3, H, W] -> [B, outputs, h, w]."""
    x = self.bn1(self.conv1(x)) if self.torchvision else self.layer0(x)
    x = functional.max_pool2d(functional.relu(x), 3, 2, 1, ceil_mode=not self.torchvision)
    for stage in range(self.depth):
      x = getattr(self, f'layer{stage + 1}')(x)
    return x

  forward = body


class SqueezeExcite(nn.Module):
  """Each channel times a gate that is computed of all channels' means."""

  def __init__(self, channels: int):
    super().__init__()
    hidden = max(channels // 16, 1)
    self.se = nn.Sequential(
      nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid()
    )

  def forward(self, x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C, H, W]."""
    return x * self.se(x.mean((2, 3)))[:, :, None, None]


class Head(nn.Module):
  """DiGA's: a 1x1 and four dilated 3x3 branches, squeeze-excite, a 3x3 fusion, a classifier."""

  def __init__(self, inputs: int, classes: int, feature: int, dropout: float):
    super().__init__()
    branches = [self.conv_norm(inputs, feature, 1)]
    for rate in (6, 12, 18, 24):
      branches.append(self.conv_norm(inputs, feature, 3, padding=rate, dilation=rate))
    self.conv2d_list = nn.ModuleList(nn.Sequential(*branch, nn.ReLU()) for branch in branches)
    wide = len(branches) * feature
    fusion = self.conv_norm(wide, feature, 3, padding=1)
    self.bottleneck = nn.Sequential(SqueezeExcite(wide), *fusion)
    self.head = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(feature, classes, 1, bias=False))

  def conv_norm(self, inputs: int, outputs: int, size: int, **conv: int) -> list[nn.Module]:
    """A convolution with bias and GroupNorm."""
    groups = math.gcd(32, outputs)
    return [nn.Conv2d(inputs, outputs, size, **conv), nn.GroupNorm(groups, outputs)]

  def forward(self, x: Tensor) -> Tensor:
    """[B, C, h, w] -> logits [B, classes, h, w]."""
    seen = torch.cat([branch(x) for branch in self.conv2d_list], 1)
    return self.head(self.bottleneck(seen))


class ResNetDeepLab(ResNet):
  """DeepLabV2 as in DiGA."""

  def __init__(
    self,
    classes: int,
    blocks: Sequence[int],
    width: int,
    feature: int,
    dropout: float,
    batch_norm: str,
  ):
    super().__init__(blocks, width, torchvision=False)
    self.final = Head(self.outputs, classes, feature, dropout)

  def forward(self, x: Tensor) -> Tensor:
    """Normalised BGR [B, 3, H, W] -> logits [B, classes, h, w]."""
    return self.final(self.body(x))


class Aspp(nn.Module):
  """DeepLabV2's own head: the sum of four dilated 3x3 convolutions."""

  def __init__(self, inputs: int, classes: int):
    super().__init__()
    self.conv2d_list = nn.ModuleList(
      nn.Conv2d(inputs, classes, 3, padding=rate, dilation=rate) for rate in (6, 12, 18, 24)
    )

  def forward(self, x: Tensor) -> Tensor:
    """[B, C, h, w] -> logits [B, classes, h, w]."""
    return functools.reduce(torch.add, [branch(x) for branch in self.conv2d_list])


class HiastDeepLab(nn.Module):
  """DeepLabV2 as in HIAST."""

  def __init__(self, classes: int, blocks: Sequence[int], width: int, batch_norm: str):
    super().__init__()
    self.backbone = ResNet(blocks, width, torchvision=True)
    self.aspp = Aspp(self.backbone.outputs, classes)

  def forward(self, x: Tensor) -> Tensor:
    """Normalised BGR [B, 3, H, W] -> logits [B, classes, h, w]."""
    return self.aspp(self.backbone(imagenet(x)))


# EfficientNet-Lite0.


class SameConv(nn.Conv2d):
  """A convolution that pads as TensorFlow's 'SAME': as many outputs as strides fit."""

  def forward(self, x: Tensor) -> Tensor:
    """[B, I, H, W] -> [B, O, ceil(H / stride), ceil(W / stride)]."""
    padding = []
    for axis in (1, 0):  # columns first, as `pad` wants them
      length, stride = x.shape[axis + 2], self.stride[axis]
      reach = (self.kernel_size[axis] - 1) * self.dilation[axis] + 1
      total = max((-(-length // stride) - 1) * stride + reach - length, 0)
      padding += [total // 2, total - total // 2]
    return super().forward(functional.pad(x, padding))


def same_conv_norm(inputs: int, outputs: int, size: int, **conv: int) -> list[nn.Module]:
  """A convolution and BatchNorm as TensorFlow has them."""
  return [SameConv(inputs, outputs, size, bias=False, **conv), nn.BatchNorm2d(outputs, eps=1e-3)]


class InvertedResidual(nn.Module):
  """1x1 expansion - depthwise - 1x1 projection, with a skip where shapes allow it."""

  def __init__(
    self, inputs: int, outputs: int, size: int, stride: int, dilation: int, expansion: int
  ):
    super().__init__()
    wide = inputs * expansion
    self.expands, self.skips = expansion > 1, stride == 1 and inputs == outputs
    if self.expands:
      self._expand_conv, self._bn0 = same_conv_norm(inputs, wide, 1)
    depthwise = {'stride': stride, 'dilation': dilation, 'groups': wide}
    self._depthwise_conv, self._bn1 = same_conv_norm(wide, wide, size, **depthwise)
    self._project_conv, self._bn2 = same_conv_norm(wide, outputs, 1)

  def forward(self, x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, outputs, h, w]."""
    y = functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
    y = functional.relu6(self._bn1(self._depthwise_conv(y)))
    y = self._bn2(self._project_conv(y))
    return x + y if self.skips else y


class Lite0(nn.Module):
  """EfficientNet-Lite0 without its classifier."""

  # (blocks, kernel, stride, expansion, channels) of each stage.
  STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
  )  # fmt: skip

  def __init__(self, output_stride: int):
    super().__init__()
    self._conv_stem, self._bn0 = same_conv_norm(3, 32, 3, stride=2)
    blocks, inputs, reached, dilation = [], 32, 2, 1
    for count, size, first, expansion, outputs in self.STAGES:
      for i in range(count):
        stride, rate = 1 if i else first, dilation
        if stride > 1 and reached == output_stride:  # what follows is dilated instead
          stride, dilation = 1, dilation * 2
        reached *= stride
        blocks.append(InvertedResidual(inputs, outputs, size, stride, rate, expansion))
        inputs = outputs
    self._blocks = nn.Sequential(*blocks)

  def forward(self, x: Tensor) -> Tensor:
    """(RGB - 127) / 128 [B, 3, H, W] -> [B, 320, h, w]."""
    return self._blocks(functional.relu6(self._bn0(self._conv_stem(x))))


class EfficientNetDeepLab(nn.Module):
  """DiGA's head on EfficientNet-Lite0."""

  def __init__(
    self, classes: int, output_stride: int, feature: int, dropout: float, batch_norm: str
  ):
    super().__init__()
    self.backbone = Lite0(output_stride)
    self.final = Head(self.backbone.STAGES[-1][-1], classes, feature, dropout)

  def forward(self, x: Tensor) -> Tensor:
    """Normalised BGR [B, 3, H, W] -> logits [B, classes, h, w]."""
    return self.final(self.backbone(tensorflow(x)))


# HRNetV2 with object-contextual representations.


class BasicBlock(nn.Module):
  """3x3 - 3x3 with a skip."""

  def __init__(self, channels: int):
    super().__init__()
    self.conv1, self.bn1 = conv_norm(channels, channels, 3, padding=1)
    self.conv2, self.bn2 = conv_norm(channels, channels, 3, padding=1)

  def forward(self, x: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, C, h, w]."""
    y = functional.relu(self.bn1(self.conv1(x)))
    return functional.relu(x + self.bn2(self.conv2(y)))


class Exchange(nn.Module):
  """Some blocks in every branch, and each branch plus all others at its size and width."""

  def __init__(self, widths: Sequence[int], depth: int):
    super().__init__()
    self.branches = nn.ModuleList(
      nn.Sequential(*(BasicBlock(width) for _ in range(depth))) for width in widths
    )
    numbers = range(len(widths))
    self.fuse_layers = nn.ModuleList(
      nn.ModuleList(self.path(widths, i, j) for j in numbers) for i in numbers
    )

  def path(self, widths: Sequence[int], i: int, j: int) -> nn.Module:
    """From branch j to branch i, but for the resize of a coarser one."""
    if j == i:
      return nn.Identity()
    if j > i:
      return nn.Sequential(*conv_norm(widths[j], widths[i], 1))
    half = {'stride': 2, 'padding': 1}
    halves = [conv_norm_relu(widths[j], widths[j], 3, **half) for _ in range(i - j - 1)]
    return nn.Sequential(*halves, nn.Sequential(*conv_norm(widths[j], widths[i], 3, **half)))

  def forward(self, branches: list[Tensor]) -> list[Tensor]:
    """[B, C, h, w] of each branch, finest first, to the same."""
    branches = [blocks(x) for blocks, x in zip(self.branches, branches, strict=True)]
    found = []
    for like, paths in zip(branches, self.fuse_layers, strict=True):
      size = like.shape[-2:]
      seen = [align_corners(path(x), size) for path, x in zip(paths, branches, strict=True)]
      found.append(functional.relu(functools.reduce(torch.add, seen)))
    return found


class HrNet(nn.Module):
  """Branches of several resolutions side by side, to the end."""

  def __init__(self, width: int, stem: int, modules: Sequence[int], depths: Sequence[int]):
    super().__init__()
    self.conv1, self.bn1 = conv_norm(3, stem, 3, stride=2, padding=1)
    self.conv2, self.bn2 = conv_norm(stem, stem, 3, stride=2, padding=1)
    first = [Bottleneck(4 * stem if i else stem, stem, project=not i) for i in range(depths[0])]
    self.stage1 = nn.Sequential(*first)
    self.widths, inputs = [width], 4 * stem
    for stage, (count, depth) in enumerate(zip(modules, depths[1:], strict=True), 2):
      finest, coarser = nn.Identity(), width * 2 ** (stage - 1)
      if stage == 2:
        finest = conv_norm_relu(inputs, width, 3, padding=1)
      new = conv_norm_relu(inputs, coarser, 3, stride=2, padding=1)
      others = [nn.Identity()] * (stage - 2)
      row = nn.ModuleList([finest, *others, nn.Sequential(new)])
      setattr(self, f'transition_stage_{stage - 1}_{stage}', row)
      self.widths.append(coarser)
      stage_modules = (Exchange(self.widths, depth) for _ in range(count))
      setattr(self, f'stage{stage}', nn.Sequential(*stage_modules))
      inputs = coarser

  def forward(self, x: Tensor) -> Tensor:
    """[B, 3, H, W] -> [B, sum of widths, h, w]: all branches at the finest one's size."""
    x = functional.relu(self.bn1(self.conv1(x)))
    branches = [self.stage1(functional.relu(self.bn2(self.conv2(x))))]
    for stage in range(2, len(self.widths) + 1):
      transition = getattr(self, f'transition_stage_{stage - 1}_{stage}')
      coarser = transition[-1](branches[-1])
      branches = [transition[0](branches[0]), *branches[1:], coarser]
      branches = getattr(self, f'stage{stage}')(branches)
    return torch.cat([align_corners(x, branches[0].shape[-2:]) for x in branches], 1)


class Relations(nn.Module):
  """What pixels and classes are compared by."""

  def __init__(self, feature: int, key: int):
    super().__init__()
    self.pixel_rep, self.obj_reg_rep = (
      nn.Sequential(*conv_norm_relu(feature, key, 1), *conv_norm_relu(key, key, 1))
      for _ in range(2)
    )


class OcrHead(nn.Module):
  """Each pixel attends to the mean feature of each class in a first segmentation."""

  def __init__(self, inputs: int, classes: int, feature: int, key: int, dropout: float):
    super().__init__()
    first = conv_norm_relu(inputs, inputs, 1, bias=True)
    self.soft_object_regions = nn.Sequential(*first, nn.Conv2d(inputs, classes, 1))
    self.pixel_representations = conv_norm_relu(inputs, feature, 3, padding=1, bias=True)
    self.pixel_region_relations = Relations(feature, key)
    self.value = conv_norm_relu(feature, key, 1)
    self.ocr_up = conv_norm_relu(key, feature, 1)
    self.augmented_rep = conv_norm_relu(2 * feature, feature, 1)
    self.dropout = nn.Dropout2d(dropout)
    self.segmentation_classes = nn.Sequential(nn.Conv2d(feature, classes, 1))
    self.key = key

  def forward(self, x: Tensor) -> Tensor:
    """[B, C, h, w] -> logits [B, classes, h, w]."""
    regions = self.soft_object_regions(x).flatten(2).softmax(2)
    pixels = self.pixel_representations(x)
    objects = (pixels.flatten(2) @ regions.transpose(1, 2))[..., None]
    query = self.pixel_region_relations.pixel_rep(pixels)
    key = self.pixel_region_relations.obj_reg_rep(objects)[..., 0]
    scores = query.flatten(2).transpose(1, 2) @ key * self.key**-0.5
    context = self.value(objects)[..., 0] @ scores.softmax(2).transpose(1, 2)
    context = self.ocr_up(context.unflatten(2, x.shape[-2:]))
    x = self.augmented_rep(torch.cat([context, pixels], 1))
    return self.segmentation_classes(self.dropout(x))


class HrNetOcr(nn.Module):
  """HRNetV2 with the OCR head."""

  def __init__(
    self,
    classes: int,
    width: int,
    stem: int,
    modules: Sequence[int],
    depths: Sequence[int],
    feature: int,
    key: int,
    dropout: float,
    pixels: str,
    batch_norm: str,
  ):
    super().__init__()
    self.pixels = PIXELS[pixels]
    self.hrnet = HrNet(width, stem, modules, depths)
    self.ocrnet = OcrHead(sum(self.hrnet.widths), classes, feature, key, dropout)

  def forward(self, x: Tensor) -> Tensor:
    """Normalised BGR [B, 3, H, W] -> logits [B, classes, h, w]."""
    return self.ocrnet(self.hrnet(self.pixels(x)))


# Mix Transformers.


def tokens(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
  """A layer for [..., C] on an image [B, C, h, w]."""
  return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Attention(nn.Module):
  """Attention of every pixel to the image at 1 / reduction of its size."""

  def __init__(self, channels: int, heads: int, reduction: int):
    super().__init__()
    self.heads, self.reduction = heads, reduction
    self.q, self.kv = nn.Linear(channels, channels), nn.Linear(channels, 2 * channels)
    self.proj = nn.Linear(channels, channels)
    if reduction > 1:
      self.sr = nn.Conv2d(channels, channels, reduction, reduction)
      self.norm = nn.LayerNorm(channels)

  def forward(self, x: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, C, h, w]."""
    seen = tokens(self.norm, self.sr(x)) if self.reduction > 1 else x
    query = self.q(x.flatten(2).transpose(1, 2)).unflatten(2, (self.heads, -1))
    both = self.kv(seen.flatten(2).transpose(1, 2)).unflatten(2, (2, self.heads, -1))
    query, key, value = (part.transpose(1, 2) for part in (query, both[:, :, 0], both[:, :, 1]))
    scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
    found = (scores.softmax(3) @ value).transpose(1, 2).flatten(2)
    return self.proj(found).transpose(1, 2).unflatten(2, x.shape[-2:])


class Depthwise(nn.Module):
  """A 3x3 convolution of each channel, which tells positions."""

  def __init__(self, channels: int):
    super().__init__()
    self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)


class MixMlp(nn.Module):
  """Linear - 3x3 depthwise - GELU - linear."""

  def __init__(self, channels: int):
    super().__init__()
    self.fc1, self.fc2 = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
    self.dwconv = Depthwise(4 * channels)

  def forward(self, x: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, C, h, w]."""
    return tokens(self.fc2, functional.gelu(self.dwconv.dwconv(tokens(self.fc1, x))))


class Block(nn.Module):
  """Attention and MLP, each after a norm."""

  def __init__(self, channels: int, heads: int, reduction: int):
    super().__init__()
    self.norm1, self.norm2 = (nn.LayerNorm(channels, eps=1e-6) for _ in range(2))
    self.attn, self.mlp = Attention(channels, heads, reduction), MixMlp(channels)

  def forward(self, x: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, C, h, w]."""
    x = x + self.attn(tokens(self.norm1, x))
    return x + self.mlp(tokens(self.norm2, x))


class Patches(nn.Module):
  """A strided convolution and a norm."""

  def __init__(self, inputs: int, outputs: int, size: int, stride: int):
    super().__init__()
    self.proj = nn.Conv2d(inputs, outputs, size, stride, size // 2)
    self.norm = nn.LayerNorm(outputs)

  def forward(self, x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, outputs, h, w]."""
    return tokens(self.norm, self.proj(x))


class MixTransformer(nn.Module):
  """Four stages at strides 4, 8, 16 and 32."""

  def __init__(self, widths: Sequence[int], depths: Sequence[int], heads: Sequence[int]):
    super().__init__()
    self.stages, inputs = len(widths), 3
    sizes = zip(widths, depths, heads, (8, 4, 2, 1), strict=True)
    for stage, (width, depth, count, reduction) in enumerate(sizes, 1):
      patches = Patches(inputs, width, *((7, 4) if stage == 1 else (3, 2)))
      blocks = nn.Sequential(*(Block(width, count, reduction) for _ in range(depth)))
      setattr(self, f'patch_embed{stage}', patches)
      setattr(self, f'block{stage}', blocks)
      setattr(self, f'norm{stage}', nn.LayerNorm(width, eps=1e-6))
      inputs = width

  def forward(self, x: Tensor) -> list[Tensor]:
    """[B, 3, H, W] -> [B, widths, h, w] of each stage, finest first."""
    found = []
    for stage in range(1, self.stages + 1):
      x = getattr(self, f'block{stage}')(getattr(self, f'patch_embed{stage}')(x))
      x = tokens(getattr(self, f'norm{stage}'), x)
      found.append(x)
    return found


class Linear(nn.Module):
  """A linear layer under the name proj, at the size of the finest stage."""

  def __init__(self, inputs: int, outputs: int):
    super().__init__()
    self.proj = nn.Linear(inputs, outputs)

  def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
    """[B, C, h, w] -> [B, outputs, *size]."""
    return half_pixel(tokens(self.proj, x), size)


class ConvNorm(nn.Module):
  """A convolution, BatchNorm and ReLU under the names conv and bn."""

  def __init__(self, inputs: int, outputs: int, size: int, **conv: int):
    super().__init__()
    self.conv, self.bn = conv_norm(inputs, outputs, size, **conv)

  def forward(self, x: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, outputs, h, w]."""
    return functional.relu(self.bn(self.conv(x)))


class SegFormerHead(nn.Module):
  """All stages at one width and size, mixed by a 1x1 convolution."""

  def __init__(self, widths: Sequence[int], classes: int, feature: int, dropout: float):
    super().__init__()
    for i, width in enumerate(widths, 1):
      setattr(self, f'linear_c{i}', Linear(width, feature))
    self.linear_fuse = ConvNorm(len(widths) * feature, feature, 1)
    self.dropout, self.linear_pred = nn.Dropout2d(dropout), nn.Conv2d(feature, classes, 1)

  def forward(self, stages: list[Tensor]) -> Tensor:
    """[B, widths, h, w] of each stage -> logits [B, classes, h, w]."""
    size = stages[0].shape[-2:]
    seen = [getattr(self, f'linear_c{i}')(x, size) for i, x in enumerate(stages, 1)]
    return self.linear_pred(self.dropout(self.linear_fuse(torch.cat(seen[::-1], 1))))


class Separable(nn.Module):
  """A dilated depthwise convolution and a 1x1."""

  def __init__(self, inputs: int, outputs: int, rate: int):
    super().__init__()
    wide = {'padding': rate, 'dilation': rate, 'groups': inputs}
    self.depthwise_conv = ConvNorm(inputs, inputs, 3, **wide)
    self.pointwise_conv = ConvNorm(inputs, outputs, 1)

  def forward(self, x: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, outputs, h, w]."""
    return self.pointwise_conv(self.depthwise_conv(x))


class Fusion(nn.Module):
  """An image seen at several dilations, and what they see mixed by a 3x3 convolution."""

  def __init__(self, inputs: int, feature: int):
    super().__init__()
    wide = [Separable(inputs, feature, rate) for rate in (6, 12, 18)]
    self.aspp_modules = nn.ModuleList([ConvNorm(inputs, feature, 1), *wide])
    self.bottleneck = ConvNorm((1 + len(wide)) * feature, feature, 3, padding=1)

  def forward(self, x: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, feature, h, w]."""
    return self.bottleneck(torch.cat([module(x) for module in self.aspp_modules], 1))


class DaFormerHead(nn.Module):
  """All stages at one width and size, seen at several dilations."""

  def __init__(self, widths: Sequence[int], classes: int, feature: int, dropout: float):
    super().__init__()
    self.embed_layers = nn.ModuleList(Linear(width, feature) for width in widths)
    self.fuse_layer = Fusion(len(widths) * feature, feature)
    self.dropout, self.conv_seg = nn.Dropout2d(dropout), nn.Conv2d(feature, classes, 1)

  def forward(self, stages: list[Tensor]) -> Tensor:
    """[B, widths, h, w] of each stage -> logits [B, classes, h, w]."""
    size, layers = stages[0].shape[-2:], self.embed_layers
    seen = [layer(x, size) for layer, x in zip(layers, stages, strict=True)]
    return self.conv_seg(self.dropout(self.fuse_layer(torch.cat(seen, 1))))


class SegFormer(nn.Module):
  """A Mix Transformer with SegFormer's head; stochastic depth in training is left out."""

  head = SegFormerHead

  def __init__(
    self,
    classes: int,
    widths: Sequence[int],
    depths: Sequence[int],
    heads: Sequence[int],
    feature: int,
    dropout: float,
    drop_path: float,
    pixels: str,
    batch_norm: str,
  ):
    super().__init__()
    self.pixels = PIXELS[pixels]
    self.backbone = MixTransformer(widths, depths, heads)
    self.decode_head = self.head(widths, classes, feature, dropout)

  def forward(self, x: Tensor) -> Tensor:
    """Normalised BGR [B, 3, H, W] -> logits [B, classes, h, w]."""
    return self.decode_head(self.backbone(self.pixels(x)))


class DaFormer(SegFormer):
  """A Mix Transformer with DAFormer's head."""

  head = DaFormerHead


NETWORKS = {
  kind.__name__: kind
  for kind in (ResNetDeepLab, HiastDeepLab, EfficientNetDeepLab, HrNetOcr, SegFormer, DaFormer)
}
