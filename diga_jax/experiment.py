"""What a config stands for: its devices, networks, data sets and pipelines."""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from data_pipelines import doctor, label_files, pipeline, sets
from data_pipelines import labels as label_tables
from data_pipelines.copy_paste import CopyPaste
from data_pipelines.errors import BadInput
from data_pipelines.sources import Folder
from diga_jax import artifact, checkpoint, models, pretrained, sharding, weights
from diga_jax.stages import translator

# The fields that hold one of a few words.
CHOICES = {
  'choose': ('last', 'oracle'),
  'network': ('student', 'teacher'),
  'names': tuple(label_tables.NAMES),
  'label_format': tuple(label_files.FORMATS),
  'on_bad_file': ('stop', 'skip'),
  'method': ('distill', 'source_only', 'adversarial'),
  'mixing': ('class', 'none'),
  'target_mixing': ('class', 'copy_paste', 'none'),
  'loss': ('cross_entropy', 'labelled_cross_entropy', 'ohem'),
  'selector': ('consensus', 'none', 'constant', 'cbst', 'ias'),
  'centroids_from': ('target', 'source', 'none'),
  'source_crop': pipeline.CUTS,
  'target_crop': pipeline.CUTS,
  'decay': ('poly', 'cosine'),
  'parallel': ('jit', 'pmap'),
}


def check(config: ConfigDict) -> None:
  """Refuses settings that no run could mean, before anything is made.

  Raises:
    BadInput: naming the field and what it may be.
  """
  for field, value in flatten(config.to_dict()).items():
    allowed = CHOICES.get(field.rpartition('.')[2])
    if field == 'translator.kind':
      allowed = ('network', 'fourier', 'none')
    if allowed and value not in allowed:
      raise BadInput(f'config.{field} is {value!r}: it may be {", ".join(allowed)}')
  for name, stage in config.stages.items():
    for wrong, reason in contradictions(config, stage):
      if wrong:
        raise BadInput(f'config.stages.{name}: {reason}')
  for field in ('class_names', 'palette'):
    if len(config.data[field]) not in (0, config.data.classes):
      raise BadInput(
        f'config.data.{field} has {len(config.data[field])} entries for {config.data.classes} '
        'classes: give one for each, or none'
      )
  if len(config.profile_steps) not in (0, 2):
    raise BadInput(f'config.profile_steps is {config.profile_steps}: give (first, last) or ()')
  if config.translator.kind == 'network' and any(side % 4 for side in config.data.crop):
    raise BadInput(
      f'config.data.crop is {tuple(config.data.crop)}: the translator needs multiples of 4'
    )


def contradictions(config: ConfigDict, stage: ConfigDict) -> Iterator[tuple[bool, str]]:
  """(whether a stage's settings make no sense together, why and what to set instead)."""
  if stage.kind == 'label':
    yield (
      stage.selector == 'consensus',
      "selector 'consensus' follows the teacher while it trains: set it in the self-training "
      "stage, and here 'none' or a selector by confidence",
    )
    shares = {name: stage[name] for name in ('threshold', 'share', 'alpha', 'beta')}
    for name, value in shares.items():
      yield not 0 <= value <= 1, f'{name} is {value}: give a share between 0 and 1'
    yield stage.batch < 1, f'batch is {stage.batch}: give at least 1 image'
  if stage.kind in ('self_training', 'hiast'):
    yield (
      stage.selector not in ('consensus', 'none'),
      f'selector {stage.selector!r} looks at confidences, which the stored labels lack: set it in '
      f"the label stage {stage.labels!r}, and here 'none'",
    )
    labels = config.stages.get(stage.labels)
    yield (
      labels is None or labels.kind != 'label',
      f'labels is {stage.labels!r}: name a stage of kind label',
    )
    yield (
      stage.selector == 'consensus' and labels is not None and labels.centroids_from == 'none',
      f"selector 'consensus' compares with centroids, and {stage.labels!r} makes none: set its "
      "centroids_from to 'target'",
    )
    classes = config.data.classes
    yield not 1 <= stage.rank <= classes, f'rank is {stage.rank}: give 1 to {classes}'
    yield (
      stage.target_mixing == 'copy_paste'
      and labels is not None
      and labels.target != stage.batch.target,
      f'copy-paste among {stage.batch.target!r} needs their labels, but {stage.labels!r} is of '
      f'{labels.target if labels else None!r}',
    )


def flatten(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  """Nested dicts -> one dict with dotted keys."""
  flat = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      flat |= flatten(value, f'{prefix}{key}.')
    else:
      flat[prefix + key] = value
  return flat


def weights_file(name: str) -> pathlib.Path:
  """The file of a `weights` field: a path, or 'efficientnet_lite0'."""
  return weights.lite0_file() if name == 'efficientnet_lite0' else pathlib.Path(name)


def file_digest(name: str) -> str:
  """SHA-256 of the file of a `weights` field; raises BadInput if it is missing."""
  path = weights_file(name)
  if path.is_dir():  # of a stage or an import, which knows what it was made from
    path = path / artifact.RECORD
  if not path.is_file():
    raise BadInput(f'{path}: no such weights file')
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def filled(variables: Any, name: str, partial: bool = False) -> tuple[dict, list[weights.Row]]:
  """`weights.initialise` from the file of a `weights` field, which its complaints name.

  Raises:
    BadInput: if the file is missing, damaged or of another network.
  """
  path = weights_file(name)
  found = weights.read(path)
  if partial and path.is_file() and pretrained.is_whole(found):
    logging.warning('%s: %s', path, pretrained.HEAD_COMES_WITH_IT)
  try:
    return weights.initialise(variables, found, partial)
  except BadInput as error:
    raise BadInput(f'{path}: {error}') from None


@dataclasses.dataclass
class Experiment:
  """A config and the folder that it is carried out in."""

  config: ConfigDict
  workdir: pathlib.Path

  def __post_init__(self) -> None:
    check(self.config)

  @functools.cached_property
  def mesh(self) -> jax.sharding.Mesh:
    return sharding.make_mesh(self.config.devices)

  @functools.cached_property
  def own_mesh(self) -> jax.sharding.Mesh:
    """The devices of this process, over which the passes spread their images."""
    return sharding.own_mesh(self.mesh)

  def rows(self, batch: int) -> int:
    """The smallest number of rows that holds a batch and divides over this process's devices."""
    return -(-batch // self.own_mesh.size) * self.own_mesh.size

  def put(self, rows: np.ndarray) -> jax.Array:
    """Spreads rows over this process's devices."""
    placed = jax.sharding.NamedSharding(self.own_mesh, jax.sharding.PartitionSpec(sharding.AXIS))
    return jax.device_put(rows, placed)

  @functools.cached_property
  def model(self) -> Any:
    model = self.config.model
    return models.build(
      model.name,
      classes=self.config.data.classes,
      dtype=model.dtype,
      remat=self.config.remat,
      axis_name=sharding.AXIS if self.config.parallel == 'pmap' else None,
      **model.options.to_dict(),
    )

  @functools.cached_property
  def shapes(self) -> dict[str, Any]:
    """The network's variables as jax.ShapeDtypeStruct."""
    return models.shapes(self.model)

  def stage(self, name: str) -> ConfigDict:
    """The settings of a stage; raises BadInput if there is none of that name."""
    if name not in self.config.stages:
      raise BadInput(f'config.stages has no {name!r}: it has {", ".join(self.config.stages)}')
    return self.config.stages[name]

  def uses_translation(self, stage: ConfigDict) -> bool:
    """Whether a step of the stage looks at translated source images."""
    return stage.get('mixing') == 'class' and stage.get('method', 'distill') == 'distill'

  def uses_source(self, stage: ConfigDict) -> bool:
    """Whether a training step of the stage looks at source images."""
    return stage.kind != 'hiast' or stage.target_mixing == 'class'

  def uses_labels(self, stage: ConfigDict) -> bool:
    """Whether a training step of the stage learns from pseudo-labels."""
    return stage.kind in ('self_training', 'hiast')

  def uses_centroids(self, stage: ConfigDict) -> bool:
    """Whether a training step of the stage compares features with class centroids."""
    return self.uses_labels(stage) and stage.selector == 'consensus'

  def uses_target(self, stage: ConfigDict) -> bool:
    """Whether a training step of the stage looks at target images."""
    if stage.kind != 'warmup' or stage.method == 'adversarial':
      return True
    fourier = self.config.translator.kind == 'fourier'
    return stage.target_statistics or (fourier and self.uses_translation(stage))

  # Data.

  @functools.cached_property
  def _opened(self) -> dict[tuple[str, bool], Folder]:
    return {}

  def images(self, name: str, labelled: bool = True) -> Folder:
    """The data set of that name, checked and, if rendered, on disk.

    Raises:
      BadInput: if the config has no such set, or its files are wrong.
    """
    data = self.config.data
    if name not in data.sets:
      raise BadInput(f'config.data.sets has no {name!r}: it has {", ".join(data.sets)}')
    if (name, labelled) not in self._opened:
      self._opened[name, labelled] = sets.open_set(
        data.sets[name].to_dict(),
        name=name,
        root=data.root,
        cache=data.cache,
        classes=data.classes,
        labelled=labelled,
      )
      self._compare(name, self._opened[name, labelled])
    return self._opened[name, labelled]

  @functools.cached_property
  def examined(self) -> dict[str, str]:
    """When `doctor` looked at the data sets that have been opened, where it did."""
    return {}

  def _compare(self, name: str, images: Folder) -> None:
    """Raises BadInput if a set's files are not those that `doctor` saw."""
    data = self.config.data
    settings = data.sets[name].to_dict()
    if settings['kind'] == 'folder':
      path = doctor.manifest_path(data.cache, name, settings, data.root)
      if found := doctor.check_manifest(path, images):
        self.examined[name] = found['made']

  def batches(
    self, stage: ConfigDict, target: Folder | None, copy_paste: CopyPaste | None = None
  ) -> Callable[[int], Iterator[dict[str, np.ndarray]]]:
    """start step -> the batches of a stage from there on."""
    settings, data = stage.batch, self.config.data
    rows = sharding.own_rows(settings.low + settings.full, self.mesh)

    def view(name: str, images: Folder, crop: str, **more: Any) -> pipeline.View:
      return pipeline.View(
        images,
        low=settings.low,
        full=settings.full,
        low_size=tuple(data.sets[name].low_size) or None,
        crop=tuple(data.crop),
        cut=crop,
        heights=tuple(data.sets[name].zoom_heights),
        **more,
      )

    wanted = {}
    if self.uses_source(stage):
      source = self.images(settings.source)
      wanted['source'] = view(settings.source, source, settings.source_crop, redraw=settings.redraw)
    if target is not None:
      wanted['target'] = view(settings.target, target, settings.target_crop, copy_paste=copy_paste)
    skipped = self.skipped if data.on_bad_file == 'skip' else None
    return lambda start: pipeline.batches(
      wanted, seed=self.config.seed, start=start, rows=rows, skipped=skipped
    )

  @functools.cached_property
  def skipped(self) -> dict[str, str]:
    """The image files that a stage could not read, and why (data.on_bad_file = 'skip')."""
    return {}

  # Networks.

  def initial_variables(self) -> dict[str, Any]:
    """The network's variables before any training: random, or from `model.weights`.

    Raises:
      BadInput: if the file is missing, damaged or of another network.
    """
    key = jax.random.fold_in(jax.random.key(self.config.seed), 0)
    variables = jax.jit(self.model.init)(key, jnp.zeros((1, 65, 65, 3)))
    settings = self.config.model
    if settings.weights:
      variables, _ = filled(variables, settings.weights, partial=settings.partial_weights)
    return sharding.replicate(variables, self.mesh)

  def network(self, stage: str, network: str = 'student') -> dict[str, Any]:
    """The variables that a complete stage ended with: its student's or its EMA teacher's.

    Raises:
      BadInput: if the stage is not complete, or its checkpoint is damaged or of another network.
    """
    part = {'student': 'params', 'teacher': 'teacher'}[network]
    like = {part: self.shapes['params'], 'batch_stats': self.shapes['batch_stats']}
    found = self._read(stage, like)
    return {'params': found[part], 'batch_stats': found['batch_stats']}

  def trained(self, stage: str, network: str = 'student') -> dict[str, Any]:
    """As `network`, on this process's devices: for the passes over images."""
    return sharding.onto(self.network(stage, network), self.own_mesh)

  def translator(self, stage: str) -> Any:
    """The parameters of a complete translator stage that repaint source images."""
    settings = self.config.translator
    like = jax.eval_shape(
      lambda key: translator.initial_params(key, settings, (64, 64)), jax.random.key(0)
    )
    wanted = {name: like['generators'][name] for name in ('enc_s', 'dec_s2t')}
    return self._read(stage, {'params': {'generators': wanted}})['params']['generators']

  def initial_translator(self) -> dict[str, Any]:
    """The translator's networks before any training: random, but those that are given by files.

    Raises:
      BadInput: if a file is missing, damaged or of another network.
    """
    settings = self.config.translator
    key = jax.random.fold_in(jax.random.key(self.config.seed), 1)
    params = jax.jit(lambda key: translator.initial_params(key, settings, (64, 64)))(key)
    for name in ('enc_s', 'dec_s2t'):
      if settings[name]:
        made, _ = filled({'params': params['generators'][name]}, settings[name])
        params['generators'][name] = made['params']
    return params

  def perceptual_network(self) -> tuple[Any, Any]:
    """(module, parameters) of VGG-19's features; parameters None without weights."""
    vgg = models.build('vgg19_features')
    if not self.config.translator.vgg:
      return vgg, None
    variables, _ = filled(models.shapes(vgg), self.config.translator.vgg, partial=True)
    return vgg, sharding.replicate(variables['params'], self.mesh)

  def _read(self, stage: str, like: dict[str, Any]) -> dict[str, Any]:
    directory = self.workdir / stage
    step = artifact.read_record(directory)['result']['step']
    placed = jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec())
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed), like)
    return checkpoint.read_network(directory / 'checkpoints', step, like)
