"""`precision` reaches every product: read in the text that is lowered for each kind of device."""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import pytest

from data_pipelines.errors import BadInput
from diga_jax import models, resize
from diga_jax.inference import export
from diga_jax.inference.forward import Predictor
from diga_jax.models import translator
from tests.support import small

SMALL = {
  **{'blocks': (1, 1), 'width': 8, 'feature': 16, 'stem': 8, 'key': 8, 'modules': (1, 1, 1)},
  **{'widths': (8, 8, 16, 16), 'heads': (1, 1, 2, 2), 'depths': (1, 1, 1, 1)},
}


def build(name, **options):
  known = inspect.signature(models.SEGMENTATION[name]).parameters
  return models.build(name, 4, **{k: v for k, v in SMALL.items() if k in known}, **options)


# The published sizes of one network are one program here.
NETWORKS = {build(name): name for name in reversed(models.SEGMENTATION)}.values()


def precisions(text):
  """The precision of each product of a StableHLO text: one of each operand."""
  products = re.findall(r'stablehlo\.(?:dot_general|convolution)\b.*', text)
  found = [re.findall(r'\b(DEFAULT|HIGH|HIGHEST)\b', line) or ['DEFAULT'] * 2 for line in products]
  assert found and all(len(set(pair)) == 1 and len(pair) == 2 for pair in found)
  return [pair[0] for pair in found]


def lowered(function, *shapes):
  """The text for CPU and for TPU in one."""
  return jax.jit(function).trace(*shapes).lower(lowering_platforms=('cpu', 'tpu')).as_text()


def trained(network):
  """(gradient of a pass in training, its arguments as shapes)."""
  images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
  keys = jax.eval_shape(lambda key: jax.random.split(key, 2), jax.random.key(0))

  def loss(params, stats, images, keys):
    variables = {'params': params, 'batch_stats': stats}
    found, _ = network.apply(variables, images, train=True, keys=keys, mutable=['batch_stats'])
    return sum(jnp.sum(x) for x in jax.tree.leaves(found))

  variables = models.shapes(network)
  return jax.grad(loss), variables['params'], variables.get('batch_stats', {}), images, keys


@pytest.fixture
def without_resizing(monkeypatch):
  """Resizing asks for HIGHEST whatever the network is built for: here it makes no product."""
  monkeypatch.setattr(resize, '_bilinear', lambda x, size, _: resize.nearest(x, size))


@pytest.mark.parametrize('name', NETWORKS)
def test_every_product_of_a_network_and_of_its_gradient(name, without_resizing):
  for precision in ('default', 'highest'):
    text = lowered(*trained(build(name, precision=precision)))
    assert set(precisions(text)) == {precision.upper()}


def test_recomputed_blocks_and_the_default(without_resizing):
  for options, expected in (({'remat': True, 'precision': 'high'}, 'HIGH'), ({}, 'DEFAULT')):
    gradient, *shapes = trained(build('deeplab_resnet101', **options))
    with jax.default_matmul_precision('highest'):  # of what is around the network
      assert set(precisions(lowered(gradient, *shapes))) == {expected}


def test_resizing_keeps_its_own():
  gradient, *shapes = trained(build('mit_b0_segformer'))
  assert set(precisions(lowered(gradient, *shapes))) == {'DEFAULT', 'HIGHEST'}


def test_the_translator_and_its_discriminators():
  settings = small.experiment('warmup', 8).config.translator
  image = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
  for precision in ('default', 'highest'):
    for net in {*translator.networks(settings, precision).values(), vgg(precision)}:
      content = isinstance(net, translator.Decoder)
      x = jax.ShapeDtypeStruct((1, 4, 4, 32), jnp.float32) if content else image
      params = jax.eval_shape(net.init, jax.random.key(0), x)
      loss = functools.partial(lambda net, p, x: jnp.sum(jax.tree.leaves(net.apply(p, x))[0]), net)
      assert set(precisions(lowered(jax.grad(loss), params, x))) == {precision.upper()}


def vgg(precision):
  return models.build('vgg19_features', precision=precision)


def test_an_exported_program_has_it():
  network = build('deeplab_resnet101', precision='highest')
  variables = network.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
  text = export.stablehlo(Predictor(network, variables), (64, 64)).mlir_module()
  assert set(precisions(text)) == {'HIGHEST'}


def test_there_is_no_other_precision():
  with pytest.raises(BadInput, match="precision is 'default' or 'high' or 'highest', not 'best'"):
    models.build('deeplab_resnet101', precision='best')
