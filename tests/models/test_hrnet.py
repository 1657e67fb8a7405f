"""HRNet-OCR against the published code's outputs, and its options on a small one."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diga_jax import models, weights
from diga_jax.models import hrnet, layers, ocr
from tests.models.test_models import assert_close, drawn, state_dict
from tests.support import golden_formula

NAME = 'hrnet_w48_ocr'
SMALL = dict(width=4, stem=4, feature=16, key=8)


def joined(**parts):
  """A whole network's tensors from those of its parts, each named as in `parts`."""
  return {f'{part}.{k}': v for part, tensors in parts.items() for k, v in tensors.items()}


@pytest.fixture(scope='module')
def published(golden):
  arrays = golden('hrnet_ocr')
  parts = {part: state_dict(arrays[f'{part}_keys'], f'{part}.') for part in ('hrnet', 'ocrnet')}
  tensors = joined(**parts)
  return arrays, tensors, weights.from_torch(NAME, tensors)


@pytest.mark.slow
def test_it_is_the_published_network(published):
  arrays, _, variables = published
  images = golden_formula.image('hrnet', tuple(arrays['shape']))

  def apply(variables, images):
    return models.build(NAME).apply(
      variables,
      images,
      capture_intermediates=lambda module, _: module.name == 'hrnet',
      mutable=['intermediates'],
    )

  out, seen = jax.jit(apply)(variables, images)
  assert_close(seen['intermediates']['hrnet']['__call__'][0], arrays['backbone'], 1e-5)
  assert set(out) == {'logits', 'feature', 'auxiliary_logits'}
  for key, got in out.items():
    assert_close(got, arrays[key], 1e-5)


def test_every_published_name_goes_there_and_back(published):
  _, tensors, variables = published
  back = weights.to_torch(NAME, variables)
  assert set(back) == set(tensors)
  for key, value in tensors.items():
    np.testing.assert_array_equal(back[key], value)


def test_it_starts_from_imagenets_weights(published):
  arrays, tensors, variables = published
  # As the classifier's file calls them: the first stage, and transitions by where they start.
  changed = {'stage1.': 'layer1.', 'transition_stage_1_2.': 'transition1.'}
  changed |= {'transition_stage_2_3.': 'transition2.', 'transition_stage_3_4.': 'transition3.'}
  file = {'classifier.weight': np.zeros((1000, 2048), np.float32)}
  for entry in arrays['hrnet_keys']:
    name = str(entry).partition('|')[0]
    start = next((start for start in changed if name.startswith(start)), '')
    file[changed.get(start, '') + name.removeprefix(start)] = tensors[f'hrnet.{name}']
  assert {'conv1.weight', 'layer1.3.bn3.bias', 'transition3.3.0.0.weight'} <= set(file)
  variables, rows = weights.initialise(
    jax.eval_shape(lambda: variables), file, may_differ=(weights.HEAD.pattern,)
  )
  status = {key: status for key, _, status in rows}
  assert {k for k in status if status[k] == 'unexpected'} == {'hrnet.classifier.weight'}
  assert {k.split('.')[0] for k in status if status[k] == 'missing'} == {'ocrnet'}
  np.testing.assert_array_equal(
    variables['params']['hrnet']['transition_stage_2_3.2.0.1']['scale'],
    tensors['hrnet.transition_stage_2_3.2.0.1.weight'],
  )


def test_sizes_are_rounded_up():
  model = models.build(NAME, classes=5, **SMALL, modules=(1, 1, 1), depths=[1] * 4)
  images = jax.ShapeDtypeStruct((4, 37, 52, 3), jnp.float32)
  out = jax.eval_shape(model.apply, models.shapes(model), images)
  # 37 -> 19 -> 10 and 52 -> 26 -> 13.
  assert {name: x.shape for name, x in out.items()} == {
    'logits': (4, 10, 13, 5),
    'feature': (4, 10, 13, 16),
    'auxiliary_logits': (4, 10, 13, 5),
  }


def tiny(**options):
  """The same layers in two branches only: less to compile."""
  return ocr.HrNetOcr(classes=5, **SMALL, modules=(1,), depths=(1, 1), **options)


def train(variables, images, keys, **options):
  model = tiny(dropout=0.5, **options)
  return model.apply(variables, images, train=True, keys=keys, mutable=['batch_stats'])


train_whole = jax.jit(train)


@pytest.fixture(scope='module')
def evaluated():
  """(variables of tiny(), images [4, 37, 52, 3], a key for each, the outputs)."""
  model, images = tiny(), jnp.asarray(golden_formula.image('small', (4, 37, 52, 3)))
  variables = drawn(models.shapes(model))
  keys = jax.random.split(jax.random.key(3), 4)
  return variables, images, keys, jax.jit(model.apply)(variables, images)


def test_training_moves_all_statistics_and_drops_by_the_examples_keys(evaluated):
  variables, images, keys, _ = evaluated
  out, moved = train_whole(variables, images, keys)
  before, after = (jax.tree.leaves(v['batch_stats']) for v in (variables, moved))
  assert all((x != y).any() for x, y in zip(before, after, strict=True))
  turned, _ = train_whole(variables, images[::-1], keys[::-1])
  for name in out:
    assert_close(np.asarray(turned[name])[::-1], np.asarray(out[name]), 1e-4)
  other, _ = train_whole(variables, images, keys[::-1])
  np.testing.assert_array_equal(other['auxiliary_logits'], out['auxiliary_logits'])
  kept, others = ((x['feature'] != 0).any((1, 2)) for x in (out, other))
  assert 0.2 < kept.mean() < 0.8 and (kept != others).any(1).all()


def test_without_draws_and_batch_statistics_training_is_evaluation(evaluated):
  variables, images, keys, want = evaluated
  model = tiny(batch_norm='running', dropout=0.0, pixels='rgb')

  def train(variables, images, keys):
    return model.apply(variables, images, train=True, keys=keys, mutable=['batch_stats'])

  got, moved = jax.jit(train)(variables, images[..., ::-1], keys)
  jax.tree.map(lambda a, b: assert_close(a, b, 1e-5), got, want)  # two programs: to rounding
  jax.tree.map(np.testing.assert_array_equal, moved['batch_stats'], variables['batch_stats'])


def test_a_batch_on_several_devices_is_one_batch(evaluated):
  variables, images, keys, _ = evaluated
  share = functools.partial(train, axis_name='data')
  spread = jax.jit(jax.vmap(share, (None, 0, 0), axis_name='data'))
  got, moved = spread(variables, images.reshape(2, 2, *images.shape[1:]), keys.reshape(2, 2))
  want, want_moved = train_whole(variables, images, keys)
  assert_close(got['logits'].reshape(want['logits'].shape), want['logits'], 1e-4)
  jax.tree.map(lambda a, b: assert_close(a[0], b, 1e-4), moved, want_moved)


def test_bfloat16_stays_inside(evaluated):
  variables, images, _, want = evaluated
  low = tiny(dtype=jnp.bfloat16)
  made = jax.eval_shape(low.init, jax.random.key(0), images)
  assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype('float32')}
  got = jax.jit(low.apply)(variables, images)
  for name in want:
    assert got[name].dtype == jnp.float32
    error = np.max(np.abs(got[name] - want[name])) / np.max(np.abs(want[name]))
    assert 1e-4 < error < 0.1


def test_remat_wraps_every_block(evaluated):
  variables, images, _, _ = evaluated
  for remat in (False, True):
    text = str(jax.make_jaxpr(tiny(remat=remat).apply)(variables, images))
    assert text.count('remat') == 3 * remat  # The bottleneck and a block in each branch.


def test_remat_changes_no_gradient():
  x = jnp.asarray(golden_formula.image('block', (2, 4, 5, 6)))

  def gradient(kind, variables):
    def loss(variables):
      return jnp.sum(kind(settings).apply(variables, x, mutable=['batch_stats'])[0] ** 3)

    return jax.grad(loss)(variables)

  kinds, settings = (hrnet.BasicBlock, nn.remat(hrnet.BasicBlock)), layers.Settings(True)
  shapes = jax.eval_shape(lambda: hrnet.BasicBlock().init(jax.random.key(0), x))
  kept, again = (jax.jit(functools.partial(gradient, kind))(drawn(shapes)) for kind in kinds)
  largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(kept))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * largest), again, kept)


def test_classes_are_means_of_pixels_weighted_over_the_image():
  rng = np.random.default_rng(0)
  pixels, logits = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 3, 4, 2))
  shares = np.exp(logits) / np.exp(logits).sum((1, 2), keepdims=True)
  want = (shares[..., None] * pixels[:, :, :, None]).sum((1, 2))
  got = ocr.class_means(jnp.asarray(pixels, jnp.float32), jnp.asarray(logits, jnp.float32))
  np.testing.assert_allclose(got, want, rtol=1e-4)
