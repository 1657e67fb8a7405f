"""Exported weights in a PyTorch network, where PyTorch is installed (extra `torch`)."""

import jax
import numpy as np
import pytest
import safetensors.numpy

from diga_jax import models, pixels, weights
from diga_jax.__main__ import main
from diga_jax.storage import checkpoint
from tests.support.stage_files import complete_stage

torch = pytest.importorskip('torch')
nn = torch.nn


class Bottleneck(nn.Module):
  """`first` and `second`: the strides of the 1x1 and of the 3x3 convolution."""

  def __init__(self, inside: int, planes: int, first: int, second: int, dilation: int):
    super().__init__()
    wide = 4 * planes
    self.conv1 = nn.Conv2d(inside, planes, 1, first, bias=False)
    self.bn1 = nn.BatchNorm2d(planes)
    self.conv2 = nn.Conv2d(planes, planes, 3, second, dilation, dilation, bias=False)
    self.bn2 = nn.BatchNorm2d(planes)
    self.conv3 = nn.Conv2d(planes, wide, 1, bias=False)
    self.bn3 = nn.BatchNorm2d(wide)
    self.downsample = None
    if inside != wide:
      skip = nn.Conv2d(inside, wide, 1, first * second, bias=False)
      self.downsample = nn.Sequential(skip, nn.BatchNorm2d(wide))

  def forward(self, x):
    y = self.bn1(self.conv1(x)).relu()
    y = self.bn2(self.conv2(y)).relu()
    skip = x if self.downsample is None else self.downsample(x)
    return (self.bn3(self.conv3(y)) + skip).relu()


class SqueezeExcite(nn.Module):
  def __init__(self, channels: int):
    super().__init__()
    inside = channels // 16
    self.se = nn.Sequential(
      nn.Linear(channels, inside), nn.ReLU(), nn.Linear(inside, channels), nn.Sigmoid()
    )

  def forward(self, x):
    return x * self.se(x.mean((2, 3)))[:, :, None, None]


class Head(nn.Module):
  def __init__(self, inside: int, feature: int, classes: int):
    super().__init__()

    def branch(size, dilation):
      conv = nn.Conv2d(inside, feature, size, 1, dilation * (size > 1), dilation)
      return nn.Sequential(conv, nn.GroupNorm(feature, feature), nn.ReLU())

    sizes = ((1, 1), (3, 6), (3, 12), (3, 18), (3, 24))
    self.conv2d_list = nn.ModuleList(branch(*size) for size in sizes)
    fused = nn.Conv2d(5 * feature, feature, 3, 1, 1)
    self.bottleneck = nn.Sequential(
      SqueezeExcite(5 * feature), fused, nn.GroupNorm(feature, feature)
    )
    self.head = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(feature, classes, 1, bias=False))

  def forward(self, x):
    x = torch.cat([branch(x) for branch in self.conv2d_list], 1)
    return self.head(self.bottleneck(x))


class DeepLab(nn.Module):
  """DeepLabV2 as docs/diga.md section 3 has it, one block a stage."""

  def __init__(self, width: int, feature: int, classes: int):
    super().__init__()
    self.layer0 = nn.Sequential(
      nn.Conv2d(3, width, 7, 2, 3, bias=False),
      nn.BatchNorm2d(width),
      nn.ReLU(),
      nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    )
    inside = width
    for stage, (stride, dilation) in enumerate(((1, 1), (2, 1), (1, 2), (1, 4)), 1):
      planes = width * 2 ** (stage - 1)
      setattr(self, f'layer{stage}', nn.Sequential(Bottleneck(inside, planes, stride, 1, dilation)))
      inside = 4 * planes
    self.final = Head(inside, feature, classes)

  def forward(self, x):
    for stage in range(5):
      x = getattr(self, f'layer{stage}')(x)
    return self.final(x)


class HiastBody(nn.Module):
  """torchvision's names, the stride on the 3x3; a stage's dilation begins with its second block."""

  def __init__(self, width: int):
    super().__init__()
    self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    inside = width
    for stage, (stride, dilations) in enumerate(((1, (1,)), (2, (1,)), (1, (1, 2)), (1, (2,))), 1):
      planes, blocks = width * 2 ** (stage - 1), []
      for i, dilation in enumerate(dilations):
        blocks.append(Bottleneck(inside, planes, 1, stride if i == 0 else 1, dilation))
        inside = 4 * planes
      setattr(self, f'layer{stage}', nn.Sequential(*blocks))

  def forward(self, x):
    x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
    for stage in range(1, 5):
      x = getattr(self, f'layer{stage}')(x)
    return x


class Aspp(nn.Module):
  def __init__(self, inside: int, classes: int):
    super().__init__()
    self.conv2d_list = nn.ModuleList(
      nn.Conv2d(inside, classes, 3, 1, dilation, dilation) for dilation in (6, 12, 18, 24)
    )

  def forward(self, x):
    return sum(branch(x) for branch in self.conv2d_list)


class Hiast(nn.Module):
  """HIAST's DeepLabV2 (docs/hiast.md), one block a stage and two in the third."""

  def __init__(self, width: int, classes: int):
    super().__init__()
    self.backbone, self.aspp = HiastBody(width), Aspp(32 * width, classes)

  def forward(self, x):
    return self.aspp(self.backbone(x))


def drawn(model) -> dict[str, np.ndarray]:
  """A state dict of random values."""
  rng = np.random.default_rng(0)
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), models.shapes(model))
  values = {
    name: rng.uniform(0.5, 1.5, x.shape) if 'var' in name else rng.normal(0, 0.3, x.shape)
    for name, x in weights.state_dict_of(zeros).items()
    if not name.endswith('num_batches_tracked')
  }
  return {name: value.astype(np.float32) for name, value in values.items()}


def stage_of(variables, place):
  checkpoint.write_arrays(place / 'stage/checkpoints', 0, dict(variables))
  complete_stage(place / 'stage')
  return str(place / 'stage')


def normalised(bgr: np.ndarray) -> np.ndarray:
  """What HIAST's code feeds its network: RGB by torchvision's mean and deviation."""
  rgb = (bgr * np.asarray(pixels.SCALE) + np.asarray(pixels.MEAN_BGR))[..., ::-1] / 255
  return (rgb - np.array((0.485, 0.456, 0.406))) / np.array((0.229, 0.224, 0.225))


NETWORKS = {
  'deeplab_resnet101': (
    {'blocks': (1, 1, 1, 1), 'width': 4, 'feature': 16}, lambda: DeepLab(4, 16, 5), '', lambda x: x
  ),
  'hiast_resnet101': (
    {'blocks': (1, 1, 2, 1), 'width': 4}, lambda: Hiast(4, 5), 'seg_model.', normalised
  ),
}  # fmt: skip


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
@pytest.mark.parametrize('name', NETWORKS)
def test_pytorch_sees_what_we_see(tmp_path, name, suffix):
  options, build, prefix, fed = NETWORKS[name]
  model = models.build(name, classes=5, **options)
  variables = weights.from_torch(name, drawn(model), classes=5, **options)
  path = tmp_path / f'network.{suffix}'
  stage = stage_of(variables, tmp_path)
  assert main(['weights', 'export', stage, f'--output={path}', f'--prefix={prefix}']) == 0
  if suffix == 'pth':
    state_dict = torch.load(path, weights_only=True)
  else:
    found = safetensors.numpy.load_file(path)
    state_dict = {name: torch.from_numpy(value) for name, value in found.items()}
  theirs = nn.ModuleDict({prefix[:-1]: build()}) if prefix else build()
  theirs.eval().load_state_dict(state_dict)  # strict: no name is missing, none is left over
  theirs = theirs[prefix[:-1]] if prefix else theirs
  images = np.random.default_rng(1).normal(size=(2, 65, 97, 3)).astype(np.float32)
  given = torch.from_numpy(np.ascontiguousarray(fed(images).transpose(0, 3, 1, 2), np.float32))
  with torch.no_grad():
    found = theirs(given).numpy().transpose(0, 2, 3, 1)
  expected = np.asarray(jax.jit(model.apply)(variables, images)['logits'])
  assert found.shape == expected.shape
  assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()
