"""Class centroids from passes over images: `running_mean([image_means(predictor, dataset)])`.

Per image and class: the mean feature over the pixels whose argmax is that class, left out under a
minimum of pixels or if the vector sums to 0; then the running mean over images, in order.

Source: docs/diga.md section 7.
"""

import functools
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.errors import BadInput
from diga_jax import pixels, resize
from diga_jax.centroids import accumulate, class_means
from diga_jax.inference.forward import Predictor
from diga_jax.inference.image_batches import Batch, BatchOptions, Dataset, for_each_batch
from diga_jax.parallel import processes
from diga_jax.types import SegmentationNet, Size, Variables

# View(normalised images [B, h, w, 3], labels [B, h, w], indices [B]) -> images for the network.
View = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
ImageMeans = Sequence[tuple[np.ndarray, np.ndarray]]  # (means [C, D], valid [C]) of images in order


@functools.partial(jax.jit, static_argnames=('model', 'minimum'))
def _class_means(
  variables: Variables,
  normalised: jax.Array,
  labels: jax.Array | None,
  *,
  model: SegmentationNet,
  minimum: int,
) -> tuple[jax.Array, jax.Array]:
  """(means [B, C, D], valid [B, C]) of the feature."""
  output = model.apply(variables, normalised, train=False)
  if labels is not None:
    labels = resize.nearest(labels, output['feature'].shape[1:3])
  return class_means(output['feature'], output['logits'], labels, minimum=minimum)


_accumulate = jax.jit(accumulate, static_argnames='cap')
_normalise = jax.jit(pixels.normalise)


def image_means(
  predictor: Predictor,
  dataset: Dataset,
  *,
  labelled: bool = False,
  view: View | None = None,
  size: Size | None = None,
  minimum: int = 5,
  progress: bool = True,
) -> ImageMeans:
  """The mean feature of every class in every image; the network runs at scale 1.

  Args:
    predictor: the network; the published batch size is 1, and others agree up to float rounding.
    dataset: training images.
    labelled: only pixels whose argmax is their label count (centroids from the source); False:
      labels are not read (from the target).
    view: (normalised BGR [B, h, w, 3], labels [B, h, w], positions [B] for keys) -> images, where
      `labelled`: mixes them with their translation, the published option. None: plain images.
    minimum: feature pixels that a class needs in an image; published 5.
    size, progress: as of `evaluate.evaluate`; the size is the low one of training.

  Returns:
    [(means [C, D], valid [C])] of all images in order, those of all processes, on the host.

  Raises:
    BadInput: no images, labels wanted and not there, or a damaged file.
  """

  def step(batch: Batch) -> tuple[jax.Array, jax.Array]:
    normalised, labels = _normalise(predictor.place(batch.images)), None
    if labelled:
      if batch.labels is None:
        raise BadInput(f'{dataset.ids[batch.indices[0]]}: source centroids need labelled images')
      labels = predictor.place(batch.labels)
    if view is not None and labels is not None:
      indices = np.resize(np.asarray(batch.indices, np.int32), len(batch.images))
      normalised = view(normalised, labels, predictor.place(indices))
    return _class_means(
      predictor.variables, normalised, labels, model=predictor.model, minimum=minimum
    )

  options: BatchOptions = {'batch_size': predictor.batch_size, 'size': size, 'labelled': labelled}
  found = []
  for batch, result in for_each_batch(step, dataset, 'centroids', progress, **options):
    # Padding rows are dropped here: every image counts once, whatever the batch size.
    means, valid = (x[: len(batch.indices)] for x in jax.device_get(result))
    found.extend(zip(means, valid, strict=True))
  return processes.in_order(processes.exchange(found))


def running_mean(passes: Iterable[ImageMeans], cap: int = 3000) -> tuple[jax.Array, jax.Array]:
  """The running mean over the images of one pass after the other.

  Passes over the same whole images give the same features: the network need run only once, and
  those after the first change nothing but the counts until these have reached `cap`. From there on
  the mean is a moving one.

  Args:
    passes: what `image_means` found in each; 20 kB of memory per image at 19 x 256.
    cap: the largest count of a class; published 3000.

  Returns:
    (centroids [C, D], counts [C]), float32. A class never seen has count 0 and a zero centroid,
    which is a point like any other to the nearest-centroid rule: the caller decides.
  """
  centroids = counts = None
  for found in passes:
    means, valid = (jnp.asarray(np.stack(part)) for part in zip(*found, strict=True))
    if centroids is None or counts is None:
      centroids, counts = jnp.zeros(means.shape[1:]), jnp.zeros(means.shape[1])
    centroids, counts = _accumulate(centroids, counts, means, valid, cap=cap)
  assert centroids is not None and counts is not None  # there is at least one pass
  return centroids, counts
