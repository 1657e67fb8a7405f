"""HIAST's network and the discriminator of adversarial warm-up, drawn a second time from names."""

import jax
import jax.numpy as jnp
import numpy as np

from diga_jax import models, pixels, weights

BLOCKS = (1, 2, 2, 2)
# Stage: stride, dilation of the first block's 3x3, dilation of the others'.
LAYOUT = {1: (1, 1, 1), 2: (2, 1, 1), 3: (1, 1, 2), 4: (1, 2, 4)}


def conv(x, tensors, name, stride=1, padding=0, dilation=1):
  y = jax.lax.conv_general_dilated(
    x,
    tensors[f'{name}.weight'],
    (stride, stride),
    [(padding, padding)] * 2,
    rhs_dilation=(dilation, dilation),
    dimension_numbers=('NHWC', 'OIHW', 'NHWC'),
  )
  return y + jnp.reshape(tensors.get(f'{name}.bias', 0), (1, 1, 1, -1))


def norm(x, tensors, name):
  names = ('running_mean', 'running_var', 'weight', 'bias')
  mean, var, scale, bias = (tensors[f'{name}.{part}'][None, None, None] for part in names)
  return (x - mean) / jnp.sqrt(var + 1e-5) * scale + bias


def drawn(tensors, rgb):
  """Logits of the published network for RGB images in 0..255."""
  mean, deviation = np.array([(0.485, 0.456, 0.406), (0.229, 0.224, 0.225)])[:, None, None, None]
  x = (rgb / 255 - mean) / deviation
  x = jax.nn.relu(norm(conv(x.astype(np.float32), tensors, 'conv1', 2, 3), tensors, 'bn1'))
  x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))  # zeros, after a ReLU as good as -inf
  rows, columns = ((n - 3) // 2 + 1 for n in x.shape[1:3])
  windows = [
    x[:, i : i + 2 * rows : 2, j : j + 2 * columns : 2][:, :rows, :columns]
    for i in range(3)
    for j in range(3)
  ]
  x = jnp.max(jnp.stack(windows), 0)
  for stage, (stride, first, others) in LAYOUT.items():
    for block in range(BLOCKS[stage - 1]):
      at = f'layer{stage}.{block}'
      step, dilation = (stride, first) if block == 0 else (1, others)
      y = jax.nn.relu(norm(conv(x, tensors, f'{at}.conv1'), tensors, f'{at}.bn1'))
      y = conv(y, tensors, f'{at}.conv2', step, dilation, dilation)
      y = jax.nn.relu(norm(y, tensors, f'{at}.bn2'))
      y = norm(conv(y, tensors, f'{at}.conv3'), tensors, f'{at}.bn3')
      if block == 0:
        x = norm(conv(x, tensors, f'{at}.downsample.0', step), tensors, f'{at}.downsample.1')
      x = jax.nn.relu(x + y)
  heads = (6, 12, 18, 24)
  return sum(conv(x, tensors, f'aspp.{i}', 1, d, d) for i, d in enumerate(heads)), x


def small():
  model = models.build('hiast_resnet101', classes=5, blocks=BLOCKS, width=4)
  images = np.random.default_rng(0).integers(0, 256, (2, 50, 68, 3), np.uint8)
  variables = jax.jit(model.init)(jax.random.key(0), pixels.normalise(jnp.asarray(images)))
  rng = np.random.default_rng(1)
  stats = jax.tree.map(
    lambda x: rng.uniform(0.5, 1.5, x.shape).astype('f'), variables['batch_stats']
  )
  return model, {'params': variables['params'], 'batch_stats': stats}, images


def test_it_is_the_published_network():
  model, variables, images = small()
  out = jax.jit(model.apply)(variables, pixels.normalise(jnp.asarray(images)))
  tensors = {
    name.removeprefix('backbone.').replace('conv2d_list.', ''): value
    for name, value in weights.to_torch('hiast_resnet101', variables).items()
  }
  logits, feature = jax.jit(drawn)(tensors, images)
  assert out['logits'].shape == (2, 7, 9, 5)
  np.testing.assert_allclose(out['feature'], feature, atol=1e-4 * np.abs(feature).max())
  np.testing.assert_allclose(out['logits'], logits, atol=1e-4 * np.abs(logits).max())


def test_its_names_are_the_published_ones():
  shapes = models.shapes(models.build('hiast_resnet101'))
  names = weights.to_torch(
    'hiast_resnet101', jax.tree.map(lambda s: np.broadcast_to(np.float32(0), s.shape), shapes)
  )
  # torchvision's resnet101 has 104 convolutions without bias and 104 batch norms of 5 entries.
  assert len(names) == 104 + 5 * 104 + 4 * 2
  for name, shape in {
    'backbone.conv1.weight': (64, 3, 7, 7),
    'backbone.bn1.running_var': (64,),
    'backbone.layer1.0.downsample.1.weight': (256,),
    'backbone.layer3.22.conv2.weight': (256, 256, 3, 3),
    'aspp.conv2d_list.3.weight': (19, 2048, 3, 3),
    'aspp.conv2d_list.0.bias': (19,),
  }.items():
    assert names[name].shape == shape, name


def test_its_input_is_torchvisions():
  rgb = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3)).astype(np.uint8)
  got = pixels.imagenet(pixels.normalise(jnp.asarray(rgb)))
  want = (rgb / 255 - pixels.IMAGENET_MEAN) / pixels.IMAGENET_STD
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_the_discriminator_has_five_strided_convolutions():
  judge = models.build('output_discriminator', classes=7, width=4)
  variables = jax.jit(judge.init)(jax.random.key(0), jnp.zeros((1, 64, 96, 7)))
  assert jax.tree.map(jnp.shape, models.shapes(judge)) == jax.tree.map(jnp.shape, variables)
  x = jnp.asarray(np.random.default_rng(0).random((2, 64, 96, 7), np.float32))
  tensors = weights.to_torch('output_discriminator', variables)
  want = x
  for name in ('conv1', 'conv2', 'conv3', 'conv4'):
    want = conv(want, tensors, name, 2, 1)
    want = jnp.where(want > 0, want, 0.2 * want)
  want = conv(want, tensors, 'classifier', 2, 1)
  got = jax.jit(judge.apply)(variables, x)
  assert got.shape == (2, 2, 3, 1)
  np.testing.assert_allclose(got, want, atol=1e-5)
