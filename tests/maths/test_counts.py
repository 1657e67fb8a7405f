"""Counts fit their type whatever the batch: shown by shapes, and by types that hold little."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diga_jax import centroids, losses, metrics, mixing, selection
from tests.support.number_ranges import overflows

CLASSES, DEPTH = 19, 256
SIZE = (512, 1024)


def shapes(rows):
  """Every argument of the functions below as a shape, for a batch of `rows` images."""

  def floats(*shape):
    return jax.ShapeDtypeStruct((rows, *shape), jnp.float32)

  labels = jax.ShapeDtypeStruct((rows, *SIZE), jnp.uint8)
  logits = dict.fromkeys(
    ['logits', 'probabilities', 'teacher', 'student', 'weights']
    + [f'{who}_{view}' for who in ('teacher', 'student') for view in ('plain', 'mixed')],
    floats(*SIZE, CLASSES),
  )
  maps = dict.fromkeys(['real_maps', 'fake_maps'], [floats(*SIZE, 1)] * 3)
  features = dict.fromkeys(['features_a', 'features_b'], [floats(*SIZE, 64)] * 5)
  images = dict.fromkeys(['rgb_out', 'rgb_in', 'a', 'b'], floats(*SIZE, 3))
  return {
    **logits,
    **maps,
    **features,
    **images,
    'labels': labels,
    'predicted': labels,
    'prediction': labels,
    'confidence': floats(*SIZE),
    'nearest': jax.ShapeDtypeStruct((rows, *SIZE), jnp.int32),
    'thresholds': jax.ShapeDtypeStruct((CLASSES,), jnp.float32),
    'features': floats(*SIZE, DEPTH),
    'centroids': jax.ShapeDtypeStruct((CLASSES, DEPTH), jnp.float32),
    'means': floats(CLASSES, DEPTH),
    'valid': jax.ShapeDtypeStruct((rows, CLASSES), bool),
    'counts': jax.ShapeDtypeStruct((CLASSES,), jnp.float32),
    'key': jax.eval_shape(jax.random.key, 0),
  }


GIVEN = {'size': SIZE, 'classes': CLASSES, 'rank': 3, 'per_labelled': True}
ON_THE_HOST = (selection.class_balanced_thresholds,)


def public(*modules):
  """The functions of arrays that a module offers."""
  return [
    function
    for module in modules
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and name[0] != '_' and function not in ON_THE_HOST
  ]


def arguments(function, rows):
  """(function of a dict of its arrays, their shapes)."""
  known = inspect.signature(function).parameters
  given = {name: value for name, value in GIVEN.items() if name in known}
  needed = {name for name, p in known.items() if p.default is p.empty} - given.keys()
  found = shapes(rows)
  return functools.partial(call, function, given), {name: found[name] for name in needed}


def call(function, given, arrays):
  return function(**arrays, **given)


def name_of(function):
  return f'{function.__module__.removeprefix("diga_jax.")}.{function.__name__}'


@pytest.mark.parametrize(
  'function',
  [*public(losses, selection, centroids), metrics.confusion_matrix, mixing.class_mask],
  ids=name_of,
)
def test_no_count_of_256_images_overflows(function):
  assert not overflows(*arguments(function, 256))


@pytest.mark.parametrize('function', public(losses), ids=name_of)
def test_no_loss_of_more_pixels_than_int32_holds_overflows(function):
  assert not overflows(*arguments(function, 8192))


@pytest.mark.parametrize(
  'function', [f for f in public(losses) if 'axis_name' in inspect.signature(f).parameters]
)
def test_no_count_over_devices_overflows(function):
  share, arrays = arguments(functools.partial(function, axis_name='data'), 4)
  spread = jax.tree.map(lambda x: jax.ShapeDtypeStruct((2048, *x.shape), x.dtype), arrays)
  assert not overflows(jax.vmap(share, axis_name='data'), spread)


def test_what_would_overflow_is_found():
  few, many = (jax.ShapeDtypeStruct((n, *SIZE), bool) for n in (1, 256))
  values = jax.ShapeDtypeStruct((256, *SIZE, CLASSES), jnp.float32)
  wrong = [
    (lambda x: jnp.sum(x) * CLASSES, many),  # 2^27 pixels, but classes times as many
    (lambda x: jnp.sum(x != 0), values),
    (lambda x: jax.jit(jnp.sum)(jnp.where(x, CLASSES, 0)), many),
    (jnp.mean, many),  # in float32, one by one
    (lambda x: jnp.sum(x.astype(jnp.float32)), many),
    (lambda x: jnp.cumsum(x.ravel() * jnp.int32(CLASSES)), many),
    (lambda x: jnp.bincount(x.ravel() * 1, length=2) * CLASSES, many),
    (lambda x: jax.lax.cond(True, lambda x: x.sum() * CLASSES, lambda x: 0, x), many),
    (lambda x: x.sum(dtype=jnp.int16), few),
  ]
  assert [len(overflows(function, x)) > 0 for function, x in wrong] == [True] * len(wrong)
  right = [
    (jnp.sum, many),
    (lambda x: jnp.sum(x) * CLASSES, few),
    (losses._count, values),
    (lambda x: jnp.sum(x.sum((1, 2)) / 3), many),
  ]
  assert [overflows(function, x) for function, x in right] == [[]] * len(right)


def test_a_count_is_exact_where_float32_is():
  chosen = np.random.default_rng(0).random((3, 257, 511, 2)) < 0.7
  assert losses._count(jnp.asarray(chosen)) == np.count_nonzero(chosen)


def test_coverage_is_the_share_of_labelled_pixels():
  labels = np.random.default_rng(0).choice([0, 7, 255], (3, 31, 17))
  np.testing.assert_allclose(
    selection.coverage(jnp.asarray(labels)), np.mean(labels != 255), rtol=1e-6
  )
