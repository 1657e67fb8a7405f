"""A trained network as a program that needs nothing of this package: images in, classes out."""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from data_pipelines.errors import BadInput
from diga_jax import evaluate, files

PLATFORMS = ('cpu', 'cuda', 'tpu')


def stablehlo(
  model: Any,
  variables: Any,
  size: tuple[int, int],
  *,
  scales: Sequence[float] = evaluate.SCALES,
  platforms: Sequence[str] = PLATFORMS,
) -> export.Exported:
  """The published prediction as StableHLO, its weights inside.

  `jax.export.deserialize(data).call(images)` runs it where only JAX is installed.

  Args:
    model, variables: see `evaluate.forward`.
    size: (h, w) of the images.
    scales: at which the images are looked at; fused by the maximum of the logits.
    platforms: that it can run on.

  Returns:
    A program from uint8 RGB [B, h, w, 3] to each pixel's class, uint8 [B, h, w], for any B.

  Raises:
    BadInput: a size or a scale that is not positive.
  """
  if min(size) < 1:
    raise BadInput(f'--size {size}: give a height and a width')
  predict = evaluate.predictor(model, scales)

  def classes(images: jax.Array) -> jax.Array:
    return predict(variables, images, size)

  (batch,) = export.symbolic_shape('b')
  shape = jax.ShapeDtypeStruct((batch, *size, 3), jnp.uint8)
  return export.export(jax.jit(classes), platforms=list(platforms))(shape)


def write(path: pathlib.Path, program: export.Exported) -> None:
  """Writes the program, whole or not at all."""
  with files.replacing(path) as temporary:
    temporary.write_bytes(program.serialize())
