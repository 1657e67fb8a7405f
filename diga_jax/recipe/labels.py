"""Label stages: pseudo-labels, their index, and class centroids."""

import functools
import itertools
import pathlib

import jax
import numpy as np
from absl import logging

from data_pipelines import atomic
from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder, from_pack
from data_pipelines.pack import Pack
from data_pipelines.random_crops import RandomCrops
from data_pipelines.transforms import generator
from diga_jax import mixing
from diga_jax.inference.feature_centroids import ImageMeans, View, image_means, running_mean
from diga_jax.inference.forward import Predictor
from diga_jax.inference.image_batches import Dataset
from diga_jax.inference.pseudo_labels import pseudo_labels
from diga_jax.models import translator
from diga_jax.parallel import processes
from diga_jax.parallel.example_keys import root_key
from diga_jax.parallel.mesh import to_local_mesh
from diga_jax.recipe import pass_balance, starts
from diga_jax.recipe.experiment import Run, class_names
from diga_jax.stages.kinds import NO_CENTROIDS, inputs
from diga_jax.storage import stage_folder
from diga_jax.types import Params, PyTree, Size

LABEL_SHARDS = 'shards'  # of a label stage's labels, beside labels/
INDEX = ('counts', 'confidence', 'thresholds')  # of a pass's statistics, those by which is pasted


def with_pseudo_labels(target: Folder, made: pathlib.Path) -> Folder:
  """The target with the labels of a complete label stage, from shards where they were packed.

  Raises:
    BadInput: if a label or a shard is not as it was written, or not of this stage.
  """
  if not (made / LABEL_SHARDS).exists():
    stage_folder.check_files(made, 'labels/*')
  labelled = target.with_labels(str(made / 'labels' / '{id}.png'))
  if not (made / LABEL_SHARDS).exists():
    return labelled
  pack, files = Pack(made / LABEL_SHARDS), stage_folder.read_record(made).get('files', {})
  labelled = from_pack(labelled, pack)
  for name in target.ids:
    if pack.digest(name, 'label') != files.get(f'labels/{name}.png'):
      raise BadInput(
        f'{pack.directory}: holds another label of {name} than the stage made: rename it, and '
        'pack the labels again if you like'
      )
  return labelled


def label_stage(experiment: Run, name: str, directory: pathlib.Path) -> dict[str, PyTree]:
  """The label pass in a folder: labels/ID.png for every target image, index.npz, centroids.npz."""
  stage, names = experiment.stage(name), class_names(experiment)
  root = experiment.config.seed, experiment.stream(name)
  target = experiment.images(stage.target, labelled=False)
  variables, rows = starts.local_variables_of(experiment, stage), experiment.rows(1)
  predictor = Predictor(experiment.model, variables, stage.scales, False, rows, experiment.put)
  found = pseudo_labels(
    predictor,
    target,
    directory / 'labels',
    experiment.config.data.classes,
    settings=stage,
    order=generator(*root, 'order').permutation(len(target)).tolist(),
    size=tuple(stage.image_size) or None,
    planned=experiment.shape_plan(stage.target, stage.image_size),
  )
  index = {field: getattr(found, field) for field in INDEX}
  save_arrays(directory / 'index.npz', ids=np.array(target.ids), **index)
  nowhere = 'the network predicts it nowhere, or its selector keeps none of it'
  warn_of_absent_classes(name, 'pseudo-label', found.counts.sum(0), names, nowhere)
  if stage.centroids_from != NO_CENTROIDS:
    means, counts = label_centroids(experiment, name, predictor)
    save_arrays(directory / 'centroids.npz', centroids=means, counts=counts)
    by = 'label shows' if inputs(stage, experiment.config).source else 'prediction holds'
    warn_of_absent_classes(name, 'centroid', counts, names, f'no {by} it')
  balance = pass_balance.describe(found, names)
  balance['warnings'] = pass_balance.warnings(experiment, name, found, names)
  if processes.is_main_process():
    arrays = pass_balance.histograms(found, names)
    pass_balance.tell(experiment, name, directory, balance, arrays)
  pixels = found.counts.sum(0).tolist()
  return {'images': len(target), 'pixels': pixels, 'class_balance': balance}


def save_arrays(path: pathlib.Path, **arrays: jax.Array | np.ndarray) -> None:
  """Writes an .npz file, whole or not at all, by one process."""
  if processes.is_main_process():
    with atomic.replacing(path) as temporary, open(temporary, 'wb') as file:
      np.savez(file, allow_pickle=False, **arrays)


def warn_of_absent_classes(
  stage: str, what: str, counts: jax.Array | np.ndarray, names: tuple[str, ...], why: str
) -> None:
  """Warns of the classes without a label or centroid, and why; training continues without them."""
  absent = [names[i] for i in np.flatnonzero(np.asarray(counts) == 0)]
  if absent:
    logging.warning('%s: no %s for %s: %s', stage, what, ', '.join(absent), why)


def label_centroids(
  experiment: Run, name: str, predictor: Predictor
) -> tuple[jax.Array | np.ndarray, jax.Array | np.ndarray]:
  """(centroids [C, D], counts [C]): an earlier label stage's, or of target or source images."""
  stage, reads = experiment.stage(name), inputs(experiment.stage(name), experiment.config)
  if reads.earlier:
    return read_centroids(experiment.workdir / reads.earlier)
  mixture = None
  if reads.translator:
    params = to_local_mesh(experiment.translator(reads.translator), experiment.local_mesh)
    mixture = functools.partial(source_mixture, experiment, name, params)

  def means(number: int) -> ImageMeans:
    images, size = centroid_images(experiment, name, number)
    view = mixture and mixture(number)
    return image_means(predictor, images, labelled=bool(reads.source), view=view, size=size)

  if stage.centroid_crops:
    return running_mean(map(means, range(stage.passes)), stage.cap)
  return running_mean(itertools.repeat(means(0), stage.passes), stage.cap)


def centroid_images(experiment: Run, name: str, number: int) -> tuple[Dataset, Size | None]:
  """What a pass makes centroids of, and the size to which it is resized first."""
  config, stage = experiment.config, experiment.stage(name)
  reads = inputs(stage, config)
  key = reads.source or reads.images or reads.target
  images = experiment.images(key, labelled=bool(reads.source))
  low, full = (tuple(config.data.sets[key][f'{size}_size']) or None for size in ('low', 'full'))
  if not stage.centroid_crops:
    return images, low
  root = (config.seed, experiment.stream(name), 'centroids', number)
  return RandomCrops(images, (low, full), tuple(config.data.crop), root), None


def source_mixture(experiment: Run, name: str, params: Params, number: int) -> View:
  """Mixes source images with their translation, classes drawn by pass and the image's position."""
  root = root_key(experiment.config.seed, f'{experiment.stream(name)}/centroids/{number}')

  @jax.jit
  def view(images: jax.Array, truth: jax.Array, indices: jax.Array) -> jax.Array:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(root, indices)
    config = experiment.config
    translated = translator.translate(params, images, config.translator, config.model.precision)
    return mixing.paste(mixing.class_mask(keys, truth), images, translated)

  return view


def read_centroids(directory: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  """(centroids [C, D], counts [C]) of a complete label stage; raises BadInput as `read_arrays`."""
  found = read_arrays(directory / 'centroids.npz', 'centroids', 'counts')
  return found['centroids'], found['counts']


def read_arrays(path: pathlib.Path, *names: str) -> dict[str, np.ndarray]:
  """Arrays of an .npz file of a complete label stage; raises BadInput if it is damaged."""
  stage_folder.check_files(path.parent, path.name)
  with np.load(path) as found:
    return {name: found[name] for name in names}
