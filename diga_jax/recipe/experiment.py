"""What a config stands for: its devices, data sets and networks."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from data_pipelines import doctor, label_signs, label_tables, sets
from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder, fingerprint
from diga_jax import models, progress
from diga_jax.config import RESERVED, check, flatten
from diga_jax.inference.forward import Predictor
from diga_jax.inference.shapes import Plan, plan
from diga_jax.models import translator
from diga_jax.parallel import processes
from diga_jax.parallel.mesh import AXIS, PARALLEL, local_mesh, make_mesh, to_local_mesh
from diga_jax.state import NETWORKS
from diga_jax.storage import checkpoint, stage_folder
from diga_jax.tracking import writers
from diga_jax.tracking.tracked import Tracked
from diga_jax.types import Params, PyTree, SegmentationNet, Variables

if TYPE_CHECKING:
  from clu.metric_writers import MetricWriter


class _Hashed(NamedTuple):
  """The fingerprint of a data set, and when `doctor` inspected these files ('' = not)."""

  fingerprint: str
  examined: str


@dataclasses.dataclass
class Experiment:
  """What a config stands for, whatever folder it is carried out in.

  Raises (on construction):
    BadInput: a field holds what it may not, or settings contradict each other.
  """

  config: ConfigDict
  # When `doctor` inspected the data sets that were hashed, for those that it inspected.
  examined: dict[str, str] = dataclasses.field(default_factory=dict, init=False)
  _opened: dict[tuple[str, bool], Folder] = dataclasses.field(default_factory=dict, init=False)
  _sizes: dict[str, list[tuple[int, int]]] = dataclasses.field(default_factory=dict, init=False)

  def __post_init__(self) -> None:
    check(self.config)

  @functools.cached_property
  def mesh(self) -> jax.sharding.Mesh:
    return make_mesh(self.config.devices)

  @functools.cached_property
  def local_mesh(self) -> jax.sharding.Mesh:
    """The devices of this process, over which the passes spread their images."""
    return local_mesh(self.mesh)

  def rows(self, batch: int) -> int:
    """The smallest number of rows that holds a batch and divides over this process's devices."""
    return -(-batch // self.local_mesh.size) * self.local_mesh.size

  def put(self, rows: np.ndarray) -> jax.Array:
    """Spreads rows over this process's devices."""
    placed = jax.sharding.NamedSharding(self.local_mesh, jax.sharding.PartitionSpec(AXIS))
    return jax.device_put(rows, placed)

  @functools.cached_property
  def model(self) -> SegmentationNet:
    model = self.config.model
    return models.build(
      model.name,
      classes=self.config.data.classes,
      dtype=model.dtype,
      precision=model.precision,
      remat=self.config.remat,
      axis_name=PARALLEL[self.config.parallel][1],
      **model.options.to_dict(),
    )

  @functools.cached_property
  def shapes(self) -> Variables:
    """The network's variables as jax.ShapeDtypeStruct."""
    return models.shapes(self.model)

  def stage(self, name: str) -> ConfigDict:
    """The settings of a stage; raises BadInput if there is none of that name."""
    if name not in self.config.stages:
      raise BadInput(f'config.stages has no {name!r}: it has {", ".join(self.config.stages)}')
    return self.config.stages[name]

  def stream(self, name: str) -> str:
    """The name of a stage's draws: its own, unless its `data_stream` names another one's."""
    return self.stage(name).get('data_stream') or name

  # Data.

  def images(self, name: str, labelled: bool = True) -> Folder:
    """The data set of that name, checked and, if rendered, on disk.

    Raises:
      BadInput: the config has no such set, or its files are wrong.
    """
    data = self.config.data
    if name not in data.sets:
      raise BadInput(f'config.data.sets has no {name!r}: it has {", ".join(data.sets)}')
    if (name, labelled) in self._opened:
      return self._opened[name, labelled]
    settings = data.sets[name].to_dict()
    read_whole = (*self.config.evaluation.sets, self.config.criteria.set)
    images = sets.open_set(
      settings,
      name=name,
      root=data.root,
      cache=data.cache,
      classes=data.classes,
      labelled=labelled,
      check=data.on_bad_file == 'stop' or name in read_whole,
      max_pixels=data.max_pixels,
    )
    if settings['kind'] == 'folder' and labelled:
      self._look_at_labels(name, images)
    self._opened[name, labelled] = images
    return images

  def fingerprint(self, name: str, labelled: bool = True, afresh: tuple[str, ...] = ()) -> str:
    """`folder.fingerprint` of a data set; new and changed files are hashed, and those `afresh`.

    All processes must ask. Process 0 does it and tells the others, if they seem to see its files;
    on disks of their own each does it.

    Raises:
      BadInput: as `images`, a file is not what `doctor` saw, or the processes see other files.
    """
    images = self.images(name, labelled)
    apart = jax.process_count() > 1 and len(set(processes.exchange(images.glance()))) > 1
    try:
      own = self._hash(name, images, afresh) if apart or processes.is_main_process() else None
    except BadInput as error:
      own = error
    hashed: list[_Hashed] = []
    for index, found in enumerate(processes.exchange(own)):
      if isinstance(found, BadInput):
        raise found
      hashed += [found] if found else []
      if found and found.fingerprint != hashed[0].fingerprint:
        raise BadInput(
          f'config.data.sets.{name}: its files are others in process {index} than in process 0: '
          'give all processes the same list and files in config.data.root'
        )
    found = hashed[0]  # process 0's
    if found.examined:
      self.examined[name] = found.examined
    return found.fingerprint

  def shape_plan(self, name: str, size: Sequence[int] = ()) -> Plan | None:
    """The shapes that a data set's images are computed in as a whole (`inference.shapes.plan`).

    None where each has its own: they are resized to `size`, there are no more sizes than programs
    may be compiled, or `programs` is 0.

    Raises:
      BadInput: as `images`, or the head of a file cannot be read.
    """
    if size or not self.config.programs:
      return None
    if name not in self._sizes:
      self._sizes[name] = self.images(name, labelled=False).sizes()
    if len(set(self._sizes[name])) <= self.config.programs:
      return None
    return plan(self._sizes[name], self.config.programs)

  def _hash(self, name: str, images: Folder, afresh: tuple[str, ...]) -> _Hashed:
    data = self.config.data
    bar = functools.partial(progress.bar, description=f'hashing {name}', unit='files')
    skip = data.on_bad_file == 'skip'
    now = images.file_digests(digest_memory(self.config), afresh, bar, skip)
    settings, manifest = data.sets[name], None
    if settings.kind == 'folder':
      path = doctor.manifest_path(data.cache, name, settings, data.root)
      manifest = doctor.check_manifest(path, images, now)
    return _Hashed(fingerprint(now), manifest['made'] if manifest else '')

  def _look_at_labels(self, name: str, images: Folder) -> None:
    """Refuses a set whose labels contradict its table; warns of what is odd about them."""
    for sign in label_signs.look_at(images, class_names(self)):
      if sign.fatal:
        raise BadInput(f'config.data.sets.{name}: {sign.text}')
      if processes.is_main_process():
        logging.warning('config.data.sets.%s: %s', name, sign.text)

  # Networks.

  def predictor_of(self, variables: Variables) -> Predictor:
    """The network as the config's evaluation applies it, of variables on this process's devices."""
    settings = self.config.evaluation
    batch_size = self.rows(settings.batch_size)
    return Predictor(self.model, variables, settings.scales, settings.flip, batch_size, self.put)


@dataclasses.dataclass
class Run(Experiment):
  """An experiment in its working directory: what its complete stages have made."""

  workdir: pathlib.Path

  def images(self, name: str, labelled: bool = True) -> Folder:
    """As of `Experiment`; raises BadInput as well if stages would be written among its files."""
    known, config = (name, labelled) in self._opened, self.config
    found = super().images(name, labelled)
    if known:
      return found
    names = (*config.stages, *(f'{stage}.partial' for stage in config.stages), *RESERVED)
    places = [str(self.workdir / place) for place in names]
    sets.check_apart(found, config.data.sets[name], name, places)
    return found

  def network(self, stage: str, network: str = 'student') -> Variables:
    """The variables that a complete stage ended with: its student's or its EMA teacher's.

    Raises:
      BadInput: if the stage is not complete, or its checkpoint is damaged or of another network.
    """
    part = NETWORKS[network]
    abstract = {part: self.shapes['params'], 'batch_stats': self.shapes.get('batch_stats', {})}
    found = self._read(stage, abstract)
    return {'params': found[part], 'batch_stats': found['batch_stats']}

  def local_network(self, stage: str, network: str = 'student') -> Variables:
    """As `network`, on this process's devices: for the passes over images."""
    return check_finite(to_local_mesh(self.network(stage, network), self.local_mesh), stage)

  def predictor(self, stage: str, network: str) -> Predictor:
    """A complete stage's network as the config's evaluation applies it; STAGE or STAGE@CHOICE."""
    return self.predictor_of(self.local_network(stage, network))

  def writer(self, directory: pathlib.Path, step: int = 0) -> 'MetricWriter':
    """Writes what is tracked of a stage or a measurement; by the main process, to be closed.

    Args:
      directory: its folder, complete or not.
      step: at which the config is written.
    """
    name = directory.relative_to(self.workdir).as_posix().removesuffix('.partial')
    config = flatten(self.config.to_dict())
    tracked = Tracked(self.config.trackers, str(self.workdir), name, config)
    return writers.open_writer(directory, tracked, step)

  def translator(self, stage: str) -> Params:
    """The parameters of a complete translator stage that repaint source images."""
    generators = translator.shapes(self.config.translator)['generators']
    wanted = {name: generators[name] for name in ('enc_s', 'dec_s2t')}
    return self._read(stage, {'params': {'generators': wanted}})['params']['generators']

  def _read(self, stage: str, abstract: dict[str, PyTree]) -> dict[str, PyTree]:
    directory, step, _ = stage_folder.network_of(self.workdir / stage)
    if step is None:
      raise BadInput(f'{directory}: is a label pass, which trains no network: name another stage')
    stage_folder.check_files(directory, stage_folder.CHECKPOINTS.replace('*', str(step)))
    placed = jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec())
    wanted = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed), abstract
    )
    return checkpoint.read_network(directory / 'checkpoints', step, wanted)


def digest_memory(config: ConfigDict) -> str:
  """The folder where the digests of the data sets' files are remembered."""
  return os.path.join(os.path.expanduser(config.data.cache), 'digests')


def say(text: str) -> None:
  """Prints a line, by one of the processes."""
  if processes.is_main_process():
    print(text, flush=True)


def check_finite(variables: Variables, what: str) -> Variables:
  """The variables of a network, of which every number is finite; raises BadInput."""
  if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables)):
    raise BadInput(f'{what}: the network holds numbers that are not finite: take another')
  return variables


def class_names(experiment: Experiment) -> tuple[str, ...]:
  """The names of the C classes, by train id."""
  data = experiment.config.data
  return tuple(data.class_names) or label_tables.NAMES[data.names]


def palette(experiment: Experiment) -> np.ndarray:
  """The colours of the classes by train id: uint8 [C, 3] RGB."""
  data = experiment.config.data
  return np.array(data.palette, np.uint8) if data.palette else label_tables.PALETTE[data.names]


def has_labels(experiment: Experiment, key: str) -> bool:
  """Whether a data set has labels by its settings."""
  settings = experiment.config.data.sets[key]
  return settings.kind == 'scenes' or bool(settings.labels)
