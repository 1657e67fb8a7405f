"""What the networks of a checkpoint make of held-out images, whose labels are not read.

Source of the criteria: `diga_jax.criteria`; docs/checkpoints.md.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.transforms import generator
from diga_jax import criteria, pixels, resize, selection
from diga_jax.inference.forward import check_classes, classes_of
from diga_jax.inference.image_batches import Batch, Dataset, for_each_batch, pad
from diga_jax.parallel import mesh, processes
from diga_jax.types import SegmentationNet, Size, Variables

PIXELS = 100  # of each image, for the density; as published


class Networks(NamedTuple):
  """The networks of a checkpoint, on this process's devices.

  Attributes:
    student, teacher: variables.
    centroids: [C, D], or None for a stage without.
  """

  student: Variables
  teacher: Variables
  centroids: jax.Array | None = None


def measure(
  networks: Networks,
  dataset: Dataset,
  wanted: Sequence[str],
  *,
  model: SegmentationNet,
  rank: int = 1,
  batch_size: int = 1,
  size: Size | None = None,
  place: Callable[[np.ndarray], jax.Array] = jnp.asarray,
) -> dict[str, float]:
  """The criteria of a checkpoint, each the mean over the images.

  The networks run at scale 1 with running statistics; predictions are compared at the images' size.

  Args:
    networks: of the checkpoint.
    dataset: images; several processes share them, and each gets the result of all.
    wanted: names in `criteria.UNLABELLED`; 'consensus' needs centroids.
    model: the module of both networks.
    rank: of the stage's consensus.
    batch_size, place: as of `forward.Predictor`.
    size: (h, w) that images are resized to; None: as stored.

  Raises:
    BadInput: no images, a damaged file, or logits that are not finite.
  """

  def step(batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
    rows, height, width, _ = batch.images.shape
    mesh.check_memory(
      4 * rows * height * width * model.classes,
      f'{rows} images of {height}x{width} with {model.classes} classes',
      'lower evaluation.batch_size',
    )
    sampled = pad([sample(index, (height, width)) for index in batch.indices], rows, 0)
    images, positions = place(batch.images), place(sampled)
    return _of_images(networks, images, positions, model=model, wanted=tuple(wanted), rank=rank)

  options = {'batch_size': batch_size, 'size': size, 'labelled': False}
  found: list[dict[str, float]] = []
  for batch, result in for_each_batch(step, dataset, 'criteria', False, **options):
    largest, values = jax.device_get(result)
    real = len(batch.indices)
    check_classes(largest[:real], [dataset.ids[index] for index in batch.indices])
    found += [{name: float(values[name][row]) for name in wanted} for row in range(real)]
  everyones = processes.in_order(processes.exchange(found))
  return {name: float(np.mean([row[name] for row in everyones])) for name in wanted}


def sample(index: int, size: Size) -> np.ndarray:
  """Positions of an image's pixels for the density, int32: the same ones for every checkpoint.

  They are drawn without replacement by the image's position in its data set, whatever the seed of
  the run; all pixels of an image with fewer than `PIXELS`.
  """
  total = size[0] * size[1]
  draw = generator(0, 'density', index)
  return draw.choice(total, min(PIXELS, total), replace=False).astype(np.int32)


@functools.partial(jax.jit, static_argnames=('model', 'wanted', 'rank'))
def _of_images(
  networks: Networks,
  images: jax.Array,
  positions: jax.Array,
  *,
  model: SegmentationNet,
  wanted: tuple[str, ...],
  rank: int,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """(largest predicted class [B], which is 255 where a logit is not finite, {criterion: [B]})."""
  normalised = pixels.normalise(images)
  rows, height, width, _ = normalised.shape
  found = {}

  def apply(variables: Variables) -> tuple[jax.Array, jax.Array]:
    output = model.apply(variables, normalised, train=False)
    logits = output['logits'].astype(jnp.float32)
    return resize.align_corners(logits, (height, width)), output['feature']

  logits, _ = apply(networks.student)
  predicted = largest = classes_of(logits)
  if criteria.DENSITY in wanted:
    flat = logits.reshape(rows, height * width, -1)
    sampled = jnp.take_along_axis(flat, positions[..., None], 1)
    found[criteria.DENSITY] = criteria.density(jax.nn.softmax(sampled))
  if {criteria.AGREEMENT, criteria.CONSENSUS} & {*wanted}:
    logits, feature = apply(networks.teacher)
    theirs = classes_of(logits)
    largest = jnp.maximum(largest, theirs)
    found[criteria.AGREEMENT] = criteria.agreement(predicted, theirs)
  if criteria.CONSENSUS in wanted:
    assert networks.centroids is not None
    weights = selection.centroid_weights(feature, networks.centroids, (height, width))
    found[criteria.CONSENSUS] = criteria.consensus(predicted, weights, rank)
  return largest.max((1, 2)), found
