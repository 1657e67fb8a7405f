"""network.py, the PyTorch form of every network, against Flax."""

import ast
import dataclasses
import importlib
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diga_jax import models, weights
from diga_jax.card import write
from diga_jax.inference.forward import Predictor
from diga_jax.recipe.hub_config import COMMON

FILE = pathlib.Path(write.__file__).with_name('network.py')
CLASSES = 7
_MIT = {'feature': 32, 'widths': (8, 16, 32, 32), 'depths': (1, 1, 2, 1), 'heads': (1, 2, 4, 4)}
_RESNET = {'blocks': (1, 2, 1, 1), 'width': 8}
# What of a network, in which size, at which scales, mirrored or not.
SMALL = {
  'deeplab_resnet101': (_RESNET | {'feature': 16}, (65, 97), (1.0, 0.5), True),
  'hiast_resnet101': (_RESNET, (64, 97), (0.7, 1.0), False),
  'deeplab_efficientnet_lite0': ({'feature': 16}, (65, 97), (1.0, 0.5), False),
  'hrnet_w48_ocr': (
    {
      'width': 8, 'stem': 8, 'modules': (1, 2, 1), 'depths': (2, 1, 2, 1), 'feature': 16, 'key': 8,
      'pixels': 'rgb',
    },
    (65, 97), (1.0,), False,
  ),
  'mit_b0_segformer': (_MIT | {'pixels': 'imagenet'}, (65, 97), (1.0,), False),
  'mit_b1_daformer': (_MIT, (65, 98), (1.0, 0.75), False),
}  # fmt: skip
SLOW = ('hrnet_w48_ocr', 'deeplab_efficientnet_lite0')  # to compile


def drawn(model) -> dict:
  """Variables of a network that are not the trivial ones, such as variances of 1."""
  random = np.random.default_rng(0)

  def draw(path, x):
    if path[-1].key in ('var', 'scale'):
      return random.uniform(0.8, 1.2, x.shape).astype('f')
    spread = max(np.prod(x.shape[:-1]), 100) ** -0.5
    return random.normal(0, spread, x.shape).astype('f')

  return jax.tree_util.tree_map_with_path(draw, models.shapes(model))


def test_it_needs_torch_and_safetensors_alone():
  tree = ast.parse(FILE.read_text(encoding='utf-8'))
  names = {
    alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
  }
  names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
  outside = {name.split('.')[0] for name in names} - sys.stdlib_module_names
  assert outside == {'torch', 'safetensors'}


def test_every_network_has_a_form_in_pytorch():
  kinds = {type(models.build(name)) for name in SMALL}
  assert kinds == set(write.IN_PYTORCH) and SMALL.keys() <= models.SEGMENTATION.keys()
  classes = {
    node.name
    for node in ast.parse(FILE.read_text(encoding='utf-8')).body
    if isinstance(node, ast.ClassDef)
  }
  assert {kind.__name__ for kind in kinds} <= classes


@pytest.mark.parametrize(
  'name',
  [pytest.param(name, marks=[pytest.mark.exhaustive] * (name in SLOW)) for name in SMALL],
)
def test_it_computes_what_flax_computes(name):
  torch = pytest.importorskip('torch', reason='PyTorch, the extra `torch`, is not installed')
  network = importlib.import_module('diga_jax.card.network')
  options, size, scales, flip = SMALL[name]
  model = models.build(name, classes=CLASSES, **options)
  variables = drawn(model)
  every = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
  every = {key: value for key, value in every.items() if key not in COMMON}
  made = network.NETWORKS[type(model).__name__](CLASSES, **every)
  arrays = weights.state_dict_of(variables)
  made.load_state_dict({key: torch.tensor(value) for key, value in arrays.items()})
  image = np.random.default_rng(1).integers(0, 256, (1, *size, 3), np.uint8)
  wanted = np.asarray(Predictor(model, variables, scales, flip).logits(jnp.asarray(image), size))
  with torch.inference_mode():
    planes = torch.tensor(image.transpose(0, 3, 1, 2))
    found = network.Segmentation(made, scales, flip).eval()(planes).numpy().transpose(0, 2, 3, 1)
  assert found.shape == wanted.shape == (1, *size, CLASSES)
  assert np.max(np.abs(found - wanted)) <= 1e-4 * max(np.max(np.abs(wanted)), 1)
  assert np.std(wanted) > 1e-3 * np.max(np.abs(wanted))
