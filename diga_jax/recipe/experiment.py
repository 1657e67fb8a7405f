"""What a config stands for: its devices, data sets and networks."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from data_pipelines import doctor, label_tables, sets
from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder
from diga_jax import models, weights
from diga_jax.config import check
from diga_jax.inference.forward import Predictor
from diga_jax.models import translator
from diga_jax.parallel.example_keys import initial_key
from diga_jax.parallel.mesh import AXIS, PARALLEL, local_mesh, make_mesh, replicate, to_local_mesh
from diga_jax.stages.kinds import inputs
from diga_jax.state import NETWORKS
from diga_jax.storage import checkpoint, stage_folder
from diga_jax.types import Params, PyTree, SegmentationNet, Variables


@dataclasses.dataclass
class Experiment:
  """What a config stands for, whatever folder it is carried out in.

  Raises (on construction):
    BadInput: a field holds what it may not, or settings contradict each other.
  """

  config: ConfigDict
  # When `doctor` inspected the data sets opened so far, for those that it inspected.
  examined: dict[str, str] = dataclasses.field(default_factory=dict, init=False)
  _opened: dict[tuple[str, bool], Folder] = dataclasses.field(default_factory=dict, init=False)

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
      BadInput: the config has no such set, or its files are wrong or not those that `doctor` saw.
    """
    data = self.config.data
    if name not in data.sets:
      raise BadInput(f'config.data.sets has no {name!r}: it has {", ".join(data.sets)}')
    if (name, labelled) in self._opened:
      return self._opened[name, labelled]
    settings = data.sets[name].to_dict()
    images = sets.open_set(
      settings, name=name, root=data.root, cache=data.cache, classes=data.classes, labelled=labelled
    )
    if settings['kind'] == 'folder':
      path = doctor.manifest_path(data.cache, name, settings, data.root)
      if found := doctor.check_manifest(path, images):
        self.examined[name] = found['made']
    self._opened[name, labelled] = images
    return images

  # Networks.

  def initial_variables(self, file: str = '') -> Variables:
    """The network's variables before any training: random, or from a file ('': `model.weights`).

    Raises:
      BadInput: if the file is missing, damaged or of another network.
    """
    key = initial_key(self.config.seed, 'network')
    variables = jax.jit(self.model.init)(key, jnp.zeros((1, 65, 65, 3)))
    settings = self.config.model
    if file := file or settings.weights:
      variables, _ = weights.load_weights_into(variables, file, settings.partial_weights)
    return replicate(variables, self.mesh)

  def predictor_of(self, variables: Variables) -> Predictor:
    """The network as the config's evaluation applies it, of variables on this process's devices."""
    settings = self.config.evaluation
    batch_size = self.rows(settings.batch_size)
    return Predictor(self.model, variables, settings.scales, settings.flip, batch_size, self.put)

  def initial_translator(self) -> Params:
    """The translator's networks before any training: random, but those that are given by files.

    Raises:
      BadInput: if a file is missing, damaged or of another network.
    """
    settings = self.config.translator
    key = initial_key(self.config.seed, 'translator')
    params = jax.jit(lambda key: translator.initial_params(key, settings, (64, 64)))(key)
    for name in ('enc_s', 'dec_s2t'):
      if settings[name]:
        made, _ = weights.load_weights_into({'params': params['generators'][name]}, settings[name])
        params['generators'][name] = made['params']
    return params

  def perceptual_parameters(self) -> Params | None:
    """VGG-19's parameters for the translator's perceptual term; None without a file of them."""
    file = self.config.translator.vgg
    if not file:
      logging.warning('translator.vgg is empty: training without the perceptual term')
      return None
    shapes = models.shapes(models.build('vgg19_features'))
    variables, _ = weights.load_weights_into(shapes, file, partial=True)
    return replicate(variables['params'], self.mesh)


@dataclasses.dataclass
class Run(Experiment):
  """An experiment in its working directory: what its complete stages have made."""

  workdir: pathlib.Path

  def network(self, stage: str, network: str = 'student') -> Variables:
    """The variables that a complete stage ended with: its student's or its EMA teacher's.

    Raises:
      BadInput: if the stage is not complete, or its checkpoint is damaged or of another network.
    """
    part = NETWORKS[network]
    abstract = {part: self.shapes['params'], 'batch_stats': self.shapes['batch_stats']}
    found = self._read(stage, abstract)
    return {'params': found[part], 'batch_stats': found['batch_stats']}

  def start_of(self, stage: ConfigDict) -> Variables:
    """The variables that a stage starts from: another stage's, those of a file, or random ones.

    Raises:
      BadInput: as `network` and `initial_variables`.
    """
    reads = inputs(stage, self.config)
    if reads.start:
      return self.network(reads.start, stage.get('network', 'student'))
    return self.initial_variables(reads.weights)

  def local_start_of(self, stage: ConfigDict) -> Variables:
    """As `start_of`, on this process's devices: for the passes over images."""
    return to_local_mesh(self.start_of(stage), self.local_mesh)

  def local_network(self, stage: str, network: str = 'student') -> Variables:
    """As `network`, on this process's devices: for the passes over images."""
    return to_local_mesh(self.network(stage, network), self.local_mesh)

  def predictor(self, stage: str, network: str) -> Predictor:
    """A complete stage's network as the config's evaluation applies it."""
    return self.predictor_of(self.local_network(stage, network))

  def translator(self, stage: str) -> Params:
    """The parameters of a complete translator stage that repaint source images."""
    settings = self.config.translator
    abstract = jax.eval_shape(
      lambda key: translator.initial_params(key, settings, (64, 64)), jax.random.key(0)
    )
    wanted = {name: abstract['generators'][name] for name in ('enc_s', 'dec_s2t')}
    return self._read(stage, {'params': {'generators': wanted}})['params']['generators']

  def _read(self, stage: str, abstract: dict[str, PyTree]) -> dict[str, PyTree]:
    directory = self.workdir / stage
    step = stage_folder.read_record(directory)['result']['step']
    placed = jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec())
    wanted = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed), abstract
    )
    return checkpoint.read_network(directory / 'checkpoints', step, wanted)


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
