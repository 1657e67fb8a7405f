"""The pass over the target before self-training: pseudo-labels, class centroids, consensus.

Source: DiGA (arXiv 2304.02222); docs/method.md section 7. The network always runs with its running
statistics here, and nothing is trained.
"""

import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.errors import BadInput
from diga_jax import centroids as centroid_math
from diga_jax import evaluate, files, hosts, metrics, selection, stream
from diga_jax import images as pixels
from diga_jax.progress import bar

# View(normalised images [B, h, w, 3], labels [B, h, w], indices [B]) -> images to look at.
View = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def pseudo_labels(
  model: Any,
  variables: Any,
  source: stream.Source,
  directory: str | os.PathLike,
  *,
  classes: int,
  scales: Sequence[float] = evaluate.SCALES,
  fusion: str = 'max',
  flip: bool = False,
  image_size: tuple[int, int] | None = None,
  batch_size: int = 1,
  progress: bool = True,
  put: evaluate.Put = jnp.asarray,
) -> np.ndarray:
  """Labels every image with the forward pass of the evaluation (two scales, maximum, argmax).

  Writes `directory`/ID.png, uint8 train ids of the image's own size, for every id of the source
  ('/' in an id makes a sub-folder). Each file appears whole, under its name, or not at all. Several
  processes share the images.

  Args:
    model, variables: the network that labels (published: the student).
    source: images; labels are not looked at.
    image_size: (h, w) at which the network looks; None: as stored. Labels keep the stored size.
    The rest as in `evaluate.evaluate`.

  Returns:
    int64 [C], pixels given to each class.

  Raises:
    BadInput: no images, a damaged file, wrong scales or fusion.
  """
  predict = evaluate.predictor(model, scales, fusion, flip)
  total = np.zeros(classes, np.int64)

  def step(batch: stream.Batch) -> jax.Array:
    return predict(variables, put(batch.images), batch.stored_size)

  batches = stream.batches(source, batch_size=batch_size, image_size=image_size, labelled=False)
  with bar(len(hosts.own_share(len(source))), 'pseudo-labels', progress) as shown:
    for batch, prediction in stream.computed(batches, step):
      for index, labels in zip(batch.indices, np.asarray(prediction), strict=False):
        files.write_png(pathlib.Path(directory, f'{source.ids[index]}.png'), labels)
        total += np.bincount(labels.ravel(), minlength=classes)
      shown.update(len(batch.indices))
  return sum(hosts.exchange(total))


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


@functools.partial(jax.jit, static_argnames=('model',))
def consensus_labels(
  variables: Any, images: jax.Array, labels: jax.Array, centroids: jax.Array, *, model: Any
) -> jax.Array:
  """Pseudo-labels [B, h, w] where the nearest centroid agrees, else 255; running statistics.

  Args:
    images: uint8 RGB [B, H, W, 3].
    labels: pseudo-labels [B, h, w]; the distances are upsampled to their size.
    centroids: [C, D].
  """
  feature = model.apply(variables, pixels.normalise(images), train=False)['feature']
  nearest = selection.nearest_centroid(feature, centroids, labels.shape[1:3])
  return selection.bilateral_consensus(labels, nearest)


@functools.partial(jax.jit, static_argnames=('model', 'classes'))
def _consensus_counts(
  variables: Any,
  images: jax.Array,
  labels: jax.Array,
  truth: jax.Array,
  centroids: jax.Array,
  *,
  model: Any,
  classes: int,
) -> dict[str, jax.Array]:
  """Pixels of a batch: kept and rejected by (truth, label) [C, C]; all and kept by label [C]."""
  ignore = stream.IGNORE
  selected = consensus_labels(variables, images, labels, centroids, model=model)
  rejected = (selected == ignore) & (labels != ignore)

  def by_truth(mask: jax.Array) -> jax.Array:
    return metrics.confusion_matrix(labels, jnp.where(mask, truth, ignore), classes)

  def by_label(chosen: jax.Array) -> jax.Array:
    return jnp.diagonal(metrics.confusion_matrix(chosen, chosen, classes))

  return {
    'kept': by_truth(selected != ignore),
    'rejected': by_truth(rejected),
    'all_pixels': by_label(labels),
    'kept_pixels': by_label(selected),
  }


def _ratio(part: Any, whole: Any) -> float | None:
  return float(part) / float(whole) if whole else None


def _accuracy(counts: np.ndarray, column: int | None = None) -> float | None:
  """Share of right labels in counts [C, C] (rows: truth), of all or of one label."""
  if column is None:
    return _ratio(np.trace(counts), counts.sum())
  return _ratio(counts[column, column], counts[:, column].sum())


def _truth_of(truth: stream.Source | None, batch: stream.Batch) -> np.ndarray:
  """True labels for a batch, all 255 if there are none. Raises BadInput if sizes differ."""
  if truth is None:
    return np.full_like(batch.labels, stream.IGNORE)
  rows = [truth.read(index)[1] for index in batch.indices]
  for index, row in zip(batch.indices, rows, strict=True):
    if row is None or row.shape != batch.labels.shape[1:]:
      raise BadInput(
        f'{truth.ids[index]}: consensus needs a true label of the size of the pseudo-label'
      )
  return stream.pad(rows, len(batch.labels), stream.IGNORE)


def consensus(
  model: Any,
  variables: Any,
  centroids: jax.Array,
  source: stream.Source,
  *,
  truth: stream.Source | None = None,
  names: Sequence[str] | None = None,
  image_size: tuple[int, int] | None = None,
  batch_size: int = 1,
  progress: bool = True,
  put: evaluate.Put = jnp.asarray,
) -> dict[str, Any]:
  """How much of the pseudo-labels bilateral consensus keeps, and how right it is. For reports only.

  The true target labels serve this measurement and nothing else: no weight, centroid,
  pseudo-label or choice of a model may depend on what comes out.

  Self-training asks the moving teacher on crops; this asks one network, with running statistics,
  on whole images and with the centroids given.

  Args:
    centroids: [C, D].
    source: target images whose labels are the pseudo-labels.
    truth: the same images with their true labels, of the same size; None: only shares are known.
    names: C class names; None: the numbers.
    image_size: (h, w) at which the network looks; None: as stored.

  Returns:
    {'kept': share of the labelled pixels, 'accuracy', 'accuracy_kept', 'accuracy_rejected': share
    of right labels where the truth is known, 'per_class': {name: the same by pseudo-label, and
    'pixels'}, 'images'}. None stands for the share of an empty set.

  Raises:
    BadInput: no images, no pseudo-labels, true labels missing or of another size, a damaged file.
  """
  if truth is not None and list(truth.ids) != list(source.ids):
    raise BadInput('consensus: the true labels are not those of the same images: use one list')
  classes = len(centroids)

  def step(batch: stream.Batch) -> dict[str, jax.Array]:
    evaluate.check_labels(batch, source, classes)
    return _consensus_counts(
      variables,
      put(batch.images),
      put(batch.labels),
      put(_truth_of(truth, batch)),
      centroids,
      model=model,
      classes=classes,
    )

  total = {}
  batches = stream.batches(source, batch_size=batch_size, image_size=image_size)
  with bar(len(hosts.own_share(len(source))), 'consensus', progress) as shown:
    for batch, counts in stream.computed(batches, step):
      for name, value in counts.items():
        total[name] = total.get(name, 0) + np.asarray(value).astype(np.int64)
      shown.update(len(batch.indices))
  everyone = hosts.exchange(total)
  total = {name: sum(found[name] for found in everyone if found) for name in everyone[0]}
  return {**_rates(total, names or list(map(str, range(classes)))), 'images': len(source)}


def _rates(total: dict[str, np.ndarray], names: Sequence[str]) -> dict[str, Any]:
  """What `consensus` returns, from its summed counts."""
  kept, rejected = total['kept'], total['rejected']

  def rates(column: int | None = None) -> dict[str, Any]:
    pixels_all, pixels_kept = (
      total[key].sum() if column is None else total[key][column]
      for key in ('all_pixels', 'kept_pixels')
    )
    return {
      'pixels': int(pixels_all),
      'kept': _ratio(pixels_kept, pixels_all),
      'accuracy': _accuracy(kept + rejected, column),
      'accuracy_kept': _accuracy(kept, column),
      'accuracy_rejected': _accuracy(rejected, column),
    }

  return {**rates(), 'per_class': {name: rates(i) for i, name in enumerate(names)}}
