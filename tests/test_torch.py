"""Exported weights in a PyTorch network, where PyTorch is installed (extra `torch`)."""

import jax
import numpy as np
import pytest

from diga_jax import models, weights

torch = pytest.importorskip('torch')
nn = torch.nn


class Bottleneck(nn.Module):
  def __init__(self, inside: int, planes: int, stride: int, dilation: int):
    super().__init__()
    wide = 4 * planes
    self.conv1 = nn.Conv2d(inside, planes, 1, stride, bias=False)
    self.bn1 = nn.BatchNorm2d(planes)
    self.conv2 = nn.Conv2d(planes, planes, 3, 1, dilation, dilation, bias=False)
    self.bn2 = nn.BatchNorm2d(planes)
    self.conv3 = nn.Conv2d(planes, wide, 1, bias=False)
    self.bn3 = nn.BatchNorm2d(wide)
    skip = nn.Conv2d(inside, wide, 1, stride, bias=False)
    self.downsample = nn.Sequential(skip, nn.BatchNorm2d(wide))

  def forward(self, x):
    y = self.bn1(self.conv1(x)).relu()
    y = self.bn2(self.conv2(y)).relu()
    return (self.bn3(self.conv3(y)) + self.downsample(x)).relu()


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
  """DeepLabV2 as docs/method.md section 3 has it, one block a stage."""

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
      setattr(self, f'layer{stage}', nn.Sequential(Bottleneck(inside, planes, stride, dilation)))
      inside = 4 * planes
    self.final = Head(inside, feature, classes)

  def forward(self, x):
    for stage in range(5):
      x = getattr(self, f'layer{stage}')(x)
    return self.final(x)


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_pytorch_sees_what_we_see(tmp_path, suffix):
  options = {'blocks': (1, 1, 1, 1), 'width': 4, 'feature': 16}
  model = models.build('deeplab_resnet101', classes=5, **options)
  rng = np.random.default_rng(0)
  drawn = {
    name: (rng.uniform(0.5, 1.5, x.shape) if 'var' in name else rng.normal(0, 0.3, x.shape))
    for name, x in weights.state_dict_of(jax.tree.map(
      lambda x: np.zeros(x.shape, x.dtype), models.shapes(model)
    )).items() if not name.endswith('num_batches_tracked')
  }  # fmt: skip
  drawn = {name: value.astype(np.float32) for name, value in drawn.items()}
  variables = weights.from_torch('deeplab_resnet101', drawn, classes=5, **options)
  path = tmp_path / f'network.{suffix}'
  weights.save(path, weights.state_dict_of(variables))
  if suffix == 'pth':
    state_dict = torch.load(path, weights_only=True)
  else:
    state_dict = {name: torch.from_numpy(value) for name, value in weights.read(path).items()}
  theirs = DeepLab(4, 16, 5).eval()
  theirs.load_state_dict(state_dict)  # strict: no name is missing, none is left over
  images = rng.normal(size=(2, 65, 97, 3)).astype(np.float32)
  with torch.no_grad():
    found = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)
  expected = np.asarray(jax.jit(model.apply)(variables, images)['logits'])
  assert found.shape == expected.shape
  assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()
