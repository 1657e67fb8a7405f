"""The passes over the target before self-training: pseudo-labels and class centroids.

Sources: DiGA (arXiv 2304.02222), docs/method.md section 7; HIAST (arXiv 2302.06992), section 10.
The network always runs with its running statistics here, and nothing is trained.
"""

import functools
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.errors import BadInput
from diga_jax import centroids as centroid_math
from diga_jax import evaluate, files, hosts, selection, stream
from diga_jax import images as pixels
from diga_jax.progress import bar

# View(normalised images [B, h, w, 3], labels [B, h, w], indices [B]) -> images to look at.
View = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


class Selector(NamedTuple):
  """Which pseudo-labels are written; the others are 255 (docs/method.md section 10).

  Attributes:
    kind: 'none' (all of them) | 'constant' (one confidence) | 'cbst' (the most confident share of
      each class over the data set) | 'ias' (thresholds that each batch moves).
    threshold: of 'constant', and where those of 'ias' start.
    share: of 'cbst'.
    alpha, beta, gamma: of 'ias', see `selection.instance_adaptive`.
    batch: images between two moves of the thresholds, and of the mean confidences.
  """

  kind: str = 'none'
  threshold: float = 0.9
  share: float = 0.2
  alpha: float = 0.5
  beta: float = 0.9
  gamma: float = 8.0
  batch: int = 1


KEEP_ALL = Selector()


class Labelled(NamedTuple):
  """What a pass of pseudo-labels wrote, by image and class.

  Attributes:
    counts: int64 [N, C], pixels of each class in each image, in the source's order.
    confidence: float64 [C], moving mean over batches of the confidence of the written labels; 0 for
      a class without any.
    thresholds: float32 [C], those at the end.
  """

  counts: np.ndarray
  confidence: np.ndarray
  thresholds: np.ndarray


class Looked(NamedTuple):
  """What the network thinks of one image; arrays [h, w] at the size that it looked at."""

  index: int
  stored_size: tuple[int, int]
  confidence: Any
  predicted: Any


# How much of the moving mean confidence a batch leaves in place.
CONFIDENCE_DECAY = 0.99


def pseudo_labels(
  model: Any,
  variables: Any,
  source: stream.Source,
  directory: str | os.PathLike,
  *,
  classes: int,
  selector: Selector = KEEP_ALL,
  order: Sequence[int] | None = None,
  scales: Sequence[float] = evaluate.SCALES,
  fusion: str = 'max',
  flip: bool = False,
  image_size: tuple[int, int] | None = None,
  batch_size: int = 1,
  progress: bool = True,
  put: evaluate.Put = jnp.asarray,
) -> Labelled:
  """Labels every image with the forward pass of the evaluation (two scales, maximum, argmax).

  Writes `directory`/ID.png, uint8 train ids of the image's own size, for every id of the source
  ('/' in an id makes a sub-folder). Each file appears whole, under its name, or not at all. Several
  processes share the images; thresholds that move see all of them, in the given order.

  Args:
    model, variables: the network that labels.
    source: images; labels are not looked at.
    selector: which labels to keep.
    order: the images' positions in the order in which they are looked at; None: as they are.
    image_size: (h, w) at which the network looks and labels are selected, before they are brought
      to the image's own size (nearest); None: as stored.
    The rest as in `evaluate.evaluate`.

  Raises:
    BadInput: no images, a damaged file, wrong scales or fusion; images of one batch of 'ias' differ
      in size.
  """
  order = range(len(source)) if order is None else order
  look = functools.partial(
    _looked,
    evaluate.forward(model, scales, fusion, flip),
    variables,
    source,
    order,
    image_size=image_size,
    batch_size=batch_size,
    progress=progress,
    put=put,
  )
  thresholds = _first_thresholds(selector, classes, look)
  select = _adapted if selector.kind == 'ias' else _thresholded
  found = []
  for seen, labels, last in select(look('pseudo-labels'), thresholds, selector, len(source)):
    thresholds = last
    kept = np.asarray(labels)
    stored = stream.resized(kept, seen.stored_size, label=True)
    files.write_png(pathlib.Path(directory, f'{source.ids[seen.index]}.png'), stored)
    confidence = np.asarray(seen.confidence, np.float64).ravel()
    found.append(
      (
        _per_class(stored, classes).astype(np.int64),
        _per_class(kept, classes).astype(np.int64),
        _per_class(kept, classes, confidence),
      )
    )
  # With 'ias' a process without an image in the last round lacks its thresholds; the first has one.
  thresholds = hosts.exchange(thresholds)[0]
  everyone = hosts.in_order(hosts.exchange(found))
  counts, pixels_, sums = (np.stack(part) for part in zip(*everyone, strict=True))
  by_image = np.empty_like(counts)
  by_image[np.asarray(order)] = counts
  return Labelled(by_image, _mean_confidence(pixels_, sums, selector.batch), thresholds)


def _first_thresholds(
  selector: Selector, classes: int, look: Callable[[str], Iterator[Looked]]
) -> np.ndarray:
  """The thresholds [C] before the first image is selected from; 'cbst' looks at all for them."""
  if selector.kind == 'cbst':
    counts = sum(_counted(seen, classes) for seen in look('confidences'))
    counts = sum(hosts.exchange(np.asarray(counts)))
    return selection.class_balanced_thresholds(counts, selector.share)
  return np.full(classes, 0.0 if selector.kind == 'none' else selector.threshold, np.float32)


def _per_class(labels: np.ndarray, classes: int, weights: np.ndarray | None = None) -> np.ndarray:
  return np.bincount(labels.ravel(), weights, minlength=256)[:classes]


@jax.jit
def _confidence(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The largest softmax probability, float32, and its class, uint8, of logits [B, h, w, C]."""
  largest = jnp.max(logits, -1, keepdims=True)
  confidence = 1 / jnp.sum(jnp.exp(logits - largest), -1)
  return confidence, jnp.argmax(logits, -1).astype(jnp.uint8)


def _looked(
  forward: Any,
  variables: Any,
  source: stream.Source,
  order: Sequence[int],
  title: str,
  *,
  image_size: tuple[int, int] | None,
  batch_size: int,
  progress: bool,
  put: evaluate.Put,
) -> Iterator[Looked]:
  """What the network thinks of this process's images, one by one in the given order."""

  def step(batch: stream.Batch) -> tuple[jax.Array, jax.Array]:
    return _confidence(forward(variables, put(batch.images), image_size or batch.stored_size))

  batches = stream.batches(
    source, batch_size=batch_size, image_size=image_size, labelled=False, order=order
  )
  with bar(len(hosts.own_share(len(source))), title, progress) as shown:
    for batch, result in stream.computed(batches, step):
      rows = zip(batch.indices, *jax.device_get(result), strict=False)
      for index, confidence, predicted in rows:
        shown.update()
        yield Looked(index, batch.stored_size, confidence, predicted)


@functools.partial(jax.jit, static_argnames='classes')
def _counts(confidence: jax.Array, predicted: jax.Array, classes: int) -> jax.Array:
  return selection.confidence_counts(confidence, predicted, classes)


def _counted(seen: Looked, classes: int) -> np.ndarray:
  return np.asarray(_counts(seen.confidence, seen.predicted, classes), np.int64)


_by_threshold = jax.jit(selection.by_threshold)
_instance_adaptive = jax.jit(
  selection.instance_adaptive, static_argnames=('alpha', 'beta', 'gamma')
)
Selected = tuple[Looked, Any, np.ndarray]


def _thresholded(
  images: Iterator[Looked], thresholds: np.ndarray, selector: Selector, count: int
) -> Iterator[Selected]:
  """(image, labels [h, w], thresholds) with the same thresholds for all images."""
  for seen in images:
    labels = seen.predicted
    if selector.kind != 'none':
      labels = _by_threshold(seen.confidence, labels, thresholds)
    yield seen, labels, thresholds


def _adapted(
  images: Iterator[Looked], thresholds: np.ndarray, selector: Selector, count: int
) -> Iterator[Selected]:
  """The same with thresholds that every batch of images moves before they select from it.

  The network's work is shared among the processes, but the thresholds need all images in order: in
  each round every process looks at a batch of its own, and they tell each other what they saw.
  """
  processes, size = jax.process_count(), selector.batch
  for _ in range(-(-count // (processes * size))):
    own = list(itertools.islice(images, size))
    everyone = hosts.in_order(hosts.exchange([seen[2:] for seen in own]))
    labels = []
    for start in range(0, len(everyone), size):
      confidence, predicted = zip(*everyone[start : start + size], strict=True)
      sizes = {f'{x.shape[1]}x{x.shape[0]}' for x in confidence}
      if len(sizes) > 1:
        raise BadInput(
          f'images that are selected from together differ in size ({", ".join(sorted(sizes))}): '
          "set the label stage's image_size"
        )
      chosen, thresholds = _instance_adaptive(
        np.stack(confidence),
        np.stack(predicted),
        thresholds,
        alpha=selector.alpha,
        beta=selector.beta,
        gamma=selector.gamma,
      )
      labels += list(np.asarray(chosen))
    for position, seen in enumerate(own):
      yield seen, labels[position * processes + jax.process_index()], np.asarray(thresholds)


def _mean_confidence(counts: np.ndarray, sums: np.ndarray, batch: int) -> np.ndarray:
  """The moving mean over batches of images of the mean confidence of each class: [C].

  Args:
    counts, sums: [N, C], pixels and their summed confidence, in the order of looking.
    batch: images in a batch; one without a class leaves its mean alone, the first one sets it.
  """
  mean = np.zeros(counts.shape[1])
  for start in range(0, len(counts), batch):
    pixels_, total = (x[start : start + batch].sum(0) for x in (counts, sums))
    now = total / np.maximum(pixels_, 1)
    moved = np.where(mean > 0, CONFIDENCE_DECAY * mean + (1 - CONFIDENCE_DECAY) * now, now)
    mean = np.where(pixels_ > 0, moved, mean)
  return mean


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
  source: stream.Source,
  *,
  view: View | None,
  use_labels: bool,
  size: tuple[int, int] | None,
  minimum: int,
  batch_size: int,
  progress: bool,
  put: evaluate.Put,
) -> list[tuple[np.ndarray, np.ndarray]]:
  """[(means [C, D], valid [C])] of the images in order, on the host; of all processes."""

  def step(batch: stream.Batch) -> tuple[jax.Array, jax.Array]:
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
  batches = stream.batches(
    source, batch_size=batch_size, image_size=size, label_size=size, labelled=use_labels
  )
  with bar(len(hosts.own_share(len(source))), 'centroids', progress) as shown:
    for batch, result in stream.computed(batches, step):
      # Padding rows are dropped here: every image counts once, whatever the batch size.
      means, valid = (x[: len(batch.indices)] for x in jax.device_get(result))
      kept.extend(zip(means, valid, strict=True))
      shown.update(len(batch.indices))
  return hosts.in_order(hosts.exchange(kept))


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
  source: stream.Source,
  *,
  size: tuple[int, int] | None = None,
  passes: int = 5,
  cap: int = 3000,
  minimum: int = 5,
  batch_size: int = 1,
  progress: bool = True,
  put: evaluate.Put = jnp.asarray,
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
  source: stream.Source,
  *,
  view: View | None = None,
  size: tuple[int, int] | None = None,
  passes: int = 5,
  cap: int = 3000,
  minimum: int = 5,
  batch_size: int = 1,
  progress: bool = True,
  put: evaluate.Put = jnp.asarray,
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
