"""Class centroids from a pass over images (docs/method.md section 7)."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.errors import BadInput
from diga_jax import centroids as centroid_math
from diga_jax import pixels
from diga_jax.inference import forward, image_batches
from diga_jax.parallel import processes
from diga_jax.progress import bar

# View(normalised images [B, h, w, 3], labels [B, h, w], indices [B]) -> images to look at.
View = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


@functools.partial(jax.jit, static_argnames=('model', 'minimum'))
def _means(
  variables: Any,
  normalised: jax.Array,
  labels: jax.Array | None,
  *,
  model: Any,
  minimum: int,
) -> tuple[jax.Array, jax.Array]:
  """(means [B, C, D], valid [B, C]) of the feature."""
  output = model.apply(variables, normalised, train=False)
  if labels is not None:
    labels = centroid_math.labels_at(labels, output['feature'].shape[1:3])
  return centroid_math.class_means(output['feature'], output['logits'], labels, minimum=minimum)


_accumulate = jax.jit(centroid_math.accumulate, static_argnames='cap')


_normalise = jax.jit(pixels.normalise)


def _image_means(
  model: Any,
  variables: Any,
  source: image_batches.Source,
  *,
  view: View | None,
  use_labels: bool,
  size: tuple[int, int] | None,
  minimum: int,
  batch_size: int,
  progress: bool,
  put: forward.Put,
) -> list[tuple[np.ndarray, np.ndarray]]:
  """[(means [C, D], valid [C])] of the images in order, on the host; of all processes."""

  def step(batch: image_batches.Batch) -> tuple[jax.Array, jax.Array]:
    normalised, labels = _normalise(put(batch.images)), None
    if use_labels:
      if batch.labels is None:
        raise BadInput(f'{source.ids[batch.indices[0]]}: source centroids need labelled images')
      labels = put(batch.labels)
    if view is not None:
      indices = np.resize(np.asarray(batch.indices, np.int32), len(batch.images))
      normalised = view(normalised, labels, put(indices))
    return _means(variables, normalised, labels, model=model, minimum=minimum)

  kept = []
  batches = image_batches.batches(
    source, batch_size=batch_size, image_size=size, label_size=size, labelled=use_labels
  )
  with bar(len(processes.local_share(len(source))), 'centroids', progress) as shown:
    for batch, result in image_batches.computed(batches, step):
      # Padding rows are dropped here: every image counts once, whatever the batch size.
      means, valid = (x[: len(batch.indices)] for x in jax.device_get(result))
      kept.extend(zip(means, valid, strict=True))
      shown.update(len(batch.indices))
  return processes.in_order(processes.exchange(kept))


def _running_mean(
  kept: Sequence[tuple[np.ndarray, np.ndarray]], passes: int, cap: int
) -> tuple[jax.Array, jax.Array]:
  """The running mean over images, `passes` times over: (centroids [C, D], counts [C])."""
  means, valid = (jnp.asarray(np.stack(part)) for part in zip(*kept, strict=True))
  _, classes, channels = means.shape
  state = jnp.zeros((classes, channels)), jnp.zeros(classes)
  for _ in range(passes):
    state = _accumulate(*state, means, valid, cap=cap)
  return state


def centroids(
  model: Any,
  variables: Any,
  source: image_batches.Source,
  *,
  size: tuple[int, int] | None = None,
  passes: int = 5,
  cap: int = 3000,
  minimum: int = 5,
  batch_size: int = 1,
  progress: bool = True,
  put: forward.Put = jnp.asarray,
) -> tuple[jax.Array, jax.Array]:
  """One feature centroid per class from the target, labels unseen (docs/method.md section 7).

  Per image and class: the mean feature over the pixels whose argmax is that class, left out under
  `minimum` pixels or if the vector sums to 0; then the running mean over images, in order.

  The network gives the same features in every pass, so it runs once and the running mean is taken
  `passes` times over the kept means (20 kB of memory per image at 19 x 256). Passes after the
  first raise the counts and, below `cap`, change nothing else; past it the mean is a moving one.

  Args:
    source: target training images; labels are not looked at.
    size: (h, w) that images are resized to first, the low size of training; None: as stored.
    passes: times that the images are counted; published 5.
    cap: the largest count of a class; published 3000.
    minimum: feature pixels that a class needs in an image; published 5.
    batch_size: images at a time (published 1). Means are per image and taken in order, so the
      result is the same up to float rounding.

  Returns:
    (centroids [C, D], counts [C]), float32. A class never seen has count 0 and a zero centroid,
    which is a point like any other to the nearest-centroid rule: the caller decides.

  Raises:
    BadInput: no images, or a damaged file.
  """
  kept = _image_means(
    model,
    variables,
    source,
    view=None,
    use_labels=False,
    size=size,
    minimum=minimum,
    batch_size=batch_size,
    progress=progress,
    put=put,
  )
  return _running_mean(kept, passes, cap)


def centroids_from_source(
  model: Any,
  variables: Any,
  source: image_batches.Source,
  *,
  view: View | None = None,
  size: tuple[int, int] | None = None,
  passes: int = 5,
  cap: int = 3000,
  minimum: int = 5,
  batch_size: int = 1,
  progress: bool = True,
  put: forward.Put = jnp.asarray,
) -> tuple[jax.Array, jax.Array]:
  """As `centroids`, from labelled source images: over pixels whose argmax is their label.

  Args:
    view: view(images, labels, indices) -> images, called on normalised BGR [B, h, w, 3], labels
      [B, h, w] and the images' positions [B] (for keys of their own): mixes the images with
      their translation as the published option does. None: plain images.
    size: (h, w) that images and labels are resized to first (bicubic / nearest).

  Raises:
    BadInput: no images, no labels, or a damaged file.
  """
  kept = _image_means(
    model,
    variables,
    source,
    view=view,
    use_labels=True,
    size=size,
    minimum=minimum,
    batch_size=batch_size,
    progress=progress,
    put=put,
  )
  return _running_mean(kept, passes, cap)
