"""Label stages: pseudo-labels, their index, and class centroids."""

import pathlib
import zipfile

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from data_pipelines import atomic
from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder, from_pack
from data_pipelines.pack import Pack
from diga_jax import mixing
from diga_jax.inference.feature_centroids import View, image_means, running_mean
from diga_jax.inference.forward import Predictor
from diga_jax.inference.pseudo_labels import pseudo_labels
from diga_jax.models import translator
from diga_jax.parallel import processes
from diga_jax.parallel.mesh import to_local_mesh
from diga_jax.recipe.experiment import Run, class_names
from diga_jax.types import Params, PyTree

LABEL_SHARDS = 'shards'  # of a label stage's labels, beside labels/


def with_pseudo_labels(target: Folder, made: pathlib.Path) -> Folder:
  """The target with the labels of a complete label stage, from shards where they were packed."""
  labelled = target.with_labels(str(made / 'labels' / '{id}.png'))
  if not (made / LABEL_SHARDS).exists():
    return labelled
  return from_pack(labelled, Pack(made / LABEL_SHARDS))


def label_stage(experiment: Run, name: str, directory: pathlib.Path) -> dict[str, PyTree]:
  """The label pass in a folder: labels/ID.png for every target image, index.npz, centroids.npz."""
  stage, names = experiment.stage(name), class_names(experiment)
  target = experiment.images(stage.target, labelled=False)
  predictor = Predictor(
    experiment.model,
    experiment.local_start_of(stage),
    stage.scales,
    batch_size=experiment.rows(1),
    place=experiment.put,
  )
  seeds = np.random.SeedSequence([experiment.config.seed, 0])
  found = pseudo_labels(
    predictor,
    target,
    directory / 'labels',
    experiment.config.data.classes,
    settings=stage,
    order=np.random.Generator(np.random.PCG64(seeds)).permutation(len(target)).tolist(),
    size=tuple(stage.image_size) or None,
  )
  save_arrays(directory / 'index.npz', ids=np.array(target.ids), **found._asdict())
  warn_of_absent_classes(name, 'pseudo-label', found.counts.sum(0), names)
  if stage.centroids_from != 'none':
    means, counts = label_centroids(experiment, stage, predictor)
    save_arrays(directory / 'centroids.npz', centroids=means, counts=counts)
    warn_of_absent_classes(name, 'centroid', counts, names)
  return {'images': len(target), 'pixels': found.counts.sum(0).tolist()}


def save_arrays(path: pathlib.Path, **arrays: jax.Array | np.ndarray) -> None:
  """Writes an .npz file, whole or not at all, by one process."""
  if processes.is_main_process():
    with atomic.replacing(path) as temporary, open(temporary, 'wb') as file:
      np.savez(file, allow_pickle=False, **arrays)


def warn_of_absent_classes(
  stage: str, what: str, counts: jax.Array | np.ndarray, names: tuple[str, ...]
) -> None:
  """Warns of the classes without a label or centroid; training continues without them."""
  absent = [names[i] for i in np.flatnonzero(np.asarray(counts) == 0)]
  if absent:
    logging.warning('%s: no %s for %s: no image shows it', stage, what, ', '.join(absent))


def label_centroids(
  experiment: Run, stage: ConfigDict, predictor: Predictor
) -> tuple[jax.Array, jax.Array]:
  """(centroids [C, D], counts [C]) from target or from labelled source images."""
  config, from_source = experiment.config, stage.centroids_from == 'source'
  name, view = stage.source if from_source else stage.target, None
  if from_source and config.translator.kind == 'network':
    params = to_local_mesh(experiment.translator(stage.translator), experiment.local_mesh)
    view = source_mixture(experiment, params)
  means = image_means(
    predictor,
    experiment.images(name, labelled=from_source),
    labelled=from_source,
    view=view,
    size=tuple(config.data.sets[name].low_size) or None,
  )
  return running_mean(means, stage.passes, stage.cap)


def source_mixture(experiment: Run, params: Params) -> View:
  """Mixes source images with their translation, classes drawn by the image's position."""
  root = jax.random.fold_in(jax.random.key(experiment.config.seed), 2)

  @jax.jit
  def view(images: jax.Array, truth: jax.Array, indices: jax.Array) -> jax.Array:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(root, indices)
    translated = translator.translate(params, images, experiment.config.translator)
    return mixing.paste(mixing.class_mask(keys, truth), images, translated)

  return view


def read_centroids(directory: pathlib.Path) -> np.ndarray:
  """The centroids [C, D] of a complete label stage; raises BadInput if the file is damaged."""
  return _read_arrays(directory / 'centroids.npz', 'centroids')['centroids']


def read_index(directory: pathlib.Path) -> dict[str, np.ndarray]:
  """What a complete label stage's labels hold: ids [N], counts [N, C], confidence [C]."""
  return _read_arrays(directory / 'index.npz', 'ids', 'counts', 'confidence')


def _read_arrays(path: pathlib.Path, *names: str) -> dict[str, np.ndarray]:
  try:
    with path.open('rb') as file, np.load(file) as found:
      return {name: found[name] for name in names}
  except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
    raise BadInput(f'{path}: missing or damaged; delete {path.parent} to label again') from error
