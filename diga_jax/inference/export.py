"""A trained network as a program that needs nothing of this package: images in, classes out."""

import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import export

from data_pipelines import host_tensorflow
from data_pipelines.errors import BadInput
from diga_jax.inference.forward import Predictor
from diga_jax.types import Size

PLATFORMS = ('cpu', 'cuda', 'tpu')


def stablehlo(predictor: Predictor, size: Size) -> export.Exported:
  """The predictor as StableHLO, weights, scales and flip inside, for every platform.

  `jax.export.deserialize(data).call(images)` runs it where only JAX is installed.

  Args:
    predictor: the network; its batch size plays no part.
    size: (h, w) of the images.

  Returns:
    A program from uint8 RGB [B, h, w, 3] to each pixel's class, uint8 [B, h, w], for any B.

  Raises:
    BadInput: a size that is not positive.
  """
  (batch,) = export.symbolic_shape('b')
  shape = jax.ShapeDtypeStruct((batch, *size, 3), jnp.uint8)
  return export.export(jax.jit(_classes_at(predictor, size)), platforms=list(PLATFORMS))(shape)


def write_saved_model(directory: pathlib.Path, predictor: Predictor, size: Size) -> None:
  """As `stablehlo`, for TensorFlow: a SavedModel whose `serving_default` takes `images`.

  Raises:
    BadInput: a size that is not positive, or the folder is there already.
  """
  tf = host_tensorflow.load()
  from jax.experimental import jax2tf

  if directory.exists():
    raise BadInput(f'{directory} exists already: give another --output')
  classes = jax2tf.convert(
    _classes_at(predictor, size),
    polymorphic_shapes=[f'(b, {size[0]}, {size[1]}, 3)'],
    with_gradient=False,
    native_serialization_platforms=PLATFORMS,
  )
  images = tf.TensorSpec((None, *size, 3), tf.uint8, 'images')

  class Program(tf.Module):
    def __init__(self) -> None:
      super().__init__()
      self.predict = tf.function(classes, autograph=False, input_signature=[images])

  module = Program()
  tf.saved_model.save(module, str(directory), signatures={'serving_default': module.predict})


def _classes_at(predictor: Predictor, size: Size) -> Callable[[jax.Array], jax.Array]:
  if min(size) < 1:
    raise BadInput(f'--size {size}: give a height and a width')
  return lambda images: predictor.classes(images, size)
