"""Mix Transformers and their two heads against the published code, and their options."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.errors import BadInput
from diga_jax import models, weights
from diga_jax.models import layers, mit, segformer
from tests.models.test_models import assert_close, drawn, state_dict
from tests.support import golden_formula

HEADS = {'segformer': segformer.SegFormer, 'daformer': segformer.DaFormer}
# Two stages instead of four: less to compile.
SMALL = dict(classes=5, widths=(8, 12), depths=(1, 2), heads=(1, 2), feature=12)
DEEP = 0.6, 0.3  # Rates of dropout and of the last block's stochastic depth that show.


@pytest.fixture(scope='module')
def published(golden):
  """published('b0') -> (arrays, images, {head: (the network's tensors, variables)})."""

  @functools.cache
  def read(size):
    arrays = golden(f'mit_{size}')
    body = state_dict(arrays['keys'], f'mit_{size}.')
    networks = {}
    for head in HEADS:
      decoder = state_dict(arrays[f'{head}_keys'], f'{head}_head.')
      tensors = {f'backbone.{k}': v for k, v in body.items()}
      tensors |= {f'decode_head.{k}': v for k, v in decoder.items()}
      networks[head] = tensors, weights.from_torch(f'mit_{size}_{head}', tensors)
    return arrays, golden_formula.image(f'mit_{size}', tuple(arrays['shape'])), networks

  return read


def run(name, variables, images):
  """(outputs, the body's stages) of a network in evaluation."""

  def apply(variables, images):
    return models.build(name).apply(
      variables,
      images,
      capture_intermediates=lambda module, _: module.name == 'backbone',
      mutable=['intermediates'],
    )

  out, seen = jax.jit(apply)(variables, images)
  return out, seen['intermediates']['backbone']['__call__'][0]


@pytest.mark.parametrize('size', ['b0', pytest.param('b5', marks=pytest.mark.slow)])
def test_it_is_the_published_network(published, size):
  arrays, images, networks = published(size)
  out, stages = run(f'mit_{size}_segformer', networks['segformer'][1], images)
  for number, stage in enumerate(stages, 1):
    if f'stage{number}' in arrays:
      assert_close(stage, arrays[f'stage{number}'], 1e-5)
  assert_close(out['logits'], arrays['segformer_logits'], 1e-5)
  assert out['feature'].shape == (1, 16, 24, 768)
  # The other network has the same body: no need to compile that again.
  variables = {kind: tree['decode_head'] for kind, tree in networks['daformer'][1].items()}
  head = segformer.DaFormerHead(19, 256, 0.1)
  out = jax.jit(lambda variables, x: head.apply(variables, x, None))(variables, stages)
  assert_close(out['logits'], arrays['daformer_logits'], 1e-5)
  assert out['feature'].shape == (1, 16, 24, 256)


@pytest.mark.parametrize('size', ['b0', pytest.param('b5', marks=pytest.mark.slow)])
@pytest.mark.parametrize('head', HEADS)
def test_every_published_name_goes_there_and_back(published, size, head):
  tensors, variables = published(size)[2][head]
  back = weights.to_torch(f'mit_{size}_{head}', variables)
  assert set(back) == set(tensors)
  for key, value in tensors.items():
    np.testing.assert_array_equal(back[key], value)


def test_a_body_alone_starts_a_network(published):
  tensors, variables = published('b0')[2]['daformer']
  # As ImageNet's weights come: without the prefix, with a classifier.
  file = {k.removeprefix('backbone.'): v for k, v in tensors.items() if k.startswith('backbone.')}
  file |= {'head.weight': np.zeros((1000, 256), np.float32), 'head.bias': np.zeros(1000)}
  shapes = jax.eval_shape(lambda: variables)
  started, rows = weights.initialise(shapes, file, may_differ=(weights.HEAD.pattern,))
  jax.tree.map(
    np.testing.assert_array_equal, started['params']['backbone'], variables['params']['backbone']
  )
  missing = {key.split('.')[0] for key, _, status in rows if status == 'missing'}
  assert missing == {'decode_head'}


# Millions of parameters of SegFormer for ADE20K's 150 classes, from its paper.
@pytest.mark.parametrize(
  'size, feature, millions',
  [
    ('b0', 256, 3.8),
    ('b1', 256, 13.7),
    ('b2', 768, 27.5),
    ('b3', 768, 47.3),
    ('b4', 768, 64.1),
    ('b5', 768, 84.7),
  ],
)
def test_the_sizes_are_the_published_ones(size, feature, millions):
  model = models.build(f'mit_{size}_segformer', classes=150, feature=feature)
  count = sum(leaf.size for leaf in jax.tree.leaves(models.shapes(model)['params']))
  assert round(count / 1e6, 1) == millions


@pytest.fixture(scope='module')
def small():
  """(variables by head, images [4, 37, 52, 3])."""
  variables = {head: drawn(models.shapes(kind(**SMALL))) for head, kind in HEADS.items()}
  return variables, jnp.asarray(golden_formula.image('small', (4, 37, 52, 3)))


@functools.cache
def training(head, **options):
  model = HEADS[head](**SMALL, **options)

  def train(variables, images, keys):
    return model.apply(variables, images, train=True, keys=keys, mutable=['batch_stats'])

  return jax.jit(train)


evaluate = jax.jit(segformer.SegFormer(**SMALL).apply)


@pytest.mark.parametrize('head', HEADS)
def test_training_moves_all_statistics_and_drops_by_the_examples_keys(small, head):
  variables, images = small[0][head], small[1]
  train = training(head, dropout=DEEP[0], drop_path=DEEP[1])
  keys = jax.random.split(jax.random.key(3), 4)
  out, moved = train(variables, images, keys)
  # 37 -> 10 and 52 -> 13.
  assert out['logits'].shape == (4, 10, 13, 5) and out['feature'].shape == (4, 10, 13, 12)
  before, after = (jax.tree.leaves(v['batch_stats']) for v in (variables, moved))
  assert all((x != y).any() for x, y in zip(before, after, strict=True))
  turned, _ = train(variables, images[::-1], keys[::-1])
  assert_close(np.asarray(turned['logits'])[::-1], np.asarray(out['logits']), 1e-4)
  same = np.zeros(4, int)
  one_draw, _ = train(variables, images[same], keys[same])
  assert_close(one_draw['logits'][1:], one_draw['logits'][:1].repeat(3, 0), 1e-5)
  own_draws, _ = train(variables, images[same], keys)
  kept = np.asarray(own_draws['feature'] != 0).any((1, 2))
  assert len({row.tobytes() for row in kept}) == 4


def test_every_draw_has_keys_of_its_own(small, monkeypatch):
  variables, images = small[0]['segformer'], small[1]
  used = {}

  def draws(keys):
    def note(x, rate, keys, whole=False):
      if rate > 0:
        used[len(used)] = rate, jax.random.key_data(keys)
      return x

    monkeypatch.setattr(layers, 'dropout', note)
    model = segformer.SegFormer(dropout=0.5, drop_path=0.4, **SMALL)
    model.apply(variables, images, train=True, keys=keys, mutable=['batch_stats'])
    return [data for _, data in used.values()]

  keys = jax.random.split(jax.random.key(3), 4)
  data = np.asarray(jax.jit(draws)(keys))
  # Both halves of all blocks but the first, whose rate is 0, then the feature.
  rates = [float(rate) for rate, _ in used.values()]
  np.testing.assert_allclose(rates, [0.2, 0.2, 0.4, 0.4, 0.5])
  assert len({row.tobytes() for row in data.reshape(-1, data.shape[-1])}) == 5 * 4
  np.testing.assert_array_equal(jax.jit(draws)(keys[::-1]), data[:, ::-1])


def test_dropout_of_whole_examples_keeps_the_expectation():
  keys = jax.random.split(jax.random.key(0), 4000)
  out = np.asarray(layers.dropout(jnp.ones((4000, 1, 2, 3)), 0.2, keys, whole=True))
  assert set(np.unique(out)) == {0, np.float32(1.25)}
  assert (out == out[:, :1, :1, :1]).all()
  np.testing.assert_allclose(out.mean(), 1, atol=0.03)


def test_without_draws_and_batch_statistics_training_is_evaluation(small):
  variables, images = small[0]['segformer'], small[1]
  keys = jax.random.split(jax.random.key(0), 4)
  train = training('segformer', dropout=0.0, drop_path=0.0, batch_norm='running', pixels='rgb')
  got, moved = train(variables, images[..., ::-1], keys)
  want = evaluate(variables, images)
  jax.tree.map(lambda a, b: assert_close(a, b, 1e-5), got, want)  # two programs: to rounding
  jax.tree.map(np.testing.assert_array_equal, moved['batch_stats'], variables['batch_stats'])


def test_bfloat16_stays_inside(small):
  variables, images = small[0]['segformer'], small[1]
  low = segformer.SegFormer(dtype=jnp.bfloat16, **SMALL)
  made = jax.eval_shape(low.init, jax.random.key(0), images)
  assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype('float32')}
  got, want = jax.jit(low.apply)(variables, images), evaluate(variables, images)
  for name in want:
    assert got[name].dtype == jnp.float32
    error = np.max(np.abs(got[name] - want[name])) / np.max(np.abs(want[name]))
    assert 1e-4 < error < 0.1


def test_training_in_bfloat16_goes_the_same_way(small):
  variables, images = small[0]['segformer'], small[1]
  fixed = {'dropout': 0.0, 'drop_path': 0.0, 'batch_norm': 'running'}

  def gradient(dtype):
    model = segformer.SegFormer(dtype=dtype, **SMALL, **fixed)

    def loss(params):
      both = variables | {'params': params}
      return jnp.mean(jnp.square(model.apply(both, images)['logits']))

    return jnp.concatenate(
      [leaf.ravel() for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(variables['params']))]
    )

  low, exact = gradient(jnp.bfloat16), gradient(jnp.float32)
  assert low.dtype == jnp.float32 and bool(jnp.isfinite(low).all())
  assert jnp.vdot(low, exact) > 0.99 * jnp.linalg.norm(low) * jnp.linalg.norm(exact)


def test_images_that_are_too_small_are_refused(small):
  model, variables = segformer.SegFormer(**SMALL), small[0]['segformer']
  with pytest.raises(BadInput, match='images of 28x64 pixels are too small'):
    jax.eval_shape(model.apply, variables, jnp.zeros((1, 28, 64, 3)))
  jax.eval_shape(model.apply, variables, jnp.zeros((1, 29, 64, 3)))


def test_remat_wraps_every_block(small):
  keys = jax.random.split(jax.random.key(0), 4)
  for remat in (False, True):
    model = segformer.SegFormer(remat=remat, **SMALL)
    apply = functools.partial(model.apply, train=True, keys=keys, mutable=['batch_stats'])
    text = str(jax.make_jaxpr(apply)(small[0]['segformer'], small[1]))
    assert text.count('remat') == 3 * remat


def test_remat_changes_no_gradient():
  x = jnp.asarray(golden_formula.image('block', (4, 3, 4, 6)))
  keys = jax.random.split(jax.random.key(0), 4)

  def gradient(kind, params):
    return jax.grad(lambda p: jnp.sum(kind(2, 1, 0.5).apply(p, x, keys) ** 3))(params)

  shapes = jax.eval_shape(lambda: mit.Block(2, 1, 0.5).init(jax.random.key(0), x, keys))
  kept, again = (
    jax.jit(functools.partial(gradient, kind))(drawn(shapes))
    for kind in (mit.Block, nn.remat(mit.Block))
  )
  largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(kept))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * largest), again, kept)


@pytest.mark.parametrize('kind', [segformer.SegFormerHead, segformer.DaFormerHead])
def test_a_batch_on_several_devices_is_one_batch(kind):
  stages = [jnp.asarray(golden_formula.image(f's{n}', (4, 8 // n, 8 // n, 6))) for n in (1, 2, 4)]
  whole, spread = (kind(3, 8, 0.1, layers.Settings(True, axis)) for axis in (None, 'data'))
  variables = drawn(jax.eval_shape(lambda: whole.init(jax.random.key(0), stages, None)))

  def apply(head, stages):
    return head.apply(variables, stages, None, mutable=['batch_stats'])

  shares = [x.reshape(2, 2, *x.shape[1:]) for x in stages]
  per_device = jax.vmap(functools.partial(apply, spread), axis_name='data')
  got, moved = jax.jit(per_device)(shares)
  want, want_moved = jax.jit(functools.partial(apply, whole))(stages)
  assert_close(got['logits'].reshape(want['logits'].shape), want['logits'], 1e-4)
  jax.tree.map(lambda a, b: assert_close(a[0], b, 1e-4), moved, want_moved)
