"""A trained network and all that labelling takes: of a stage, or of a file of weights."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from data_pipelines.errors import BadInput
from diga_jax.config import config_file, read_config
from diga_jax.inference import label_images, shapes
from diga_jax.inference.forward import Predictor, check_classes
from diga_jax.parallel import mesh
from diga_jax.recipe import hub_config, starts
from diga_jax.recipe.experiment import Experiment, Run, class_names, palette
from diga_jax.state import NETWORKS
from diga_jax.storage import run_record, stage_folder
from diga_jax.weights import formats, path_of

Images = np.ndarray | Sequence[np.ndarray]
SMALLEST = 64  # pixels: the side of the smallest window


@dataclasses.dataclass(frozen=True)
class Network:
  """A trained network that labels images of any size, as the config's evaluation applies it.

  Attributes:
    predictor: the network, its scales and flip.
    names: of the C classes, by train id.
    palette: their colours, uint8 [C, 3] RGB.
    taken: of a file of weights, what of it is this network, in words.
  """

  predictor: Predictor
  names: tuple[str, ...]
  palette: np.ndarray
  taken: str = ''

  def predict(self, images: Images, window: int = shapes.WINDOW) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities of one image or of several of one size.

    An image is computed at its own size, for which a program is compiled when the size is met
    first; one of more than 4 * window^2 pixels by overlapping windows.

    Args:
      images: uint8 RGB [H, W, 3] or [B, H, W, 3].
      window: the side of the windows, in pixels.

    Returns:
      (train ids, uint8 [H, W]; softmax of the logits, float32 [H, W, C]); of several images with
      B in front.

    Raises:
      BadInput: arrays of another type or shape, probabilities that do not fit into memory, or a
        network that computes numbers that are not finite.
    """
    labels, probabilities = self._apply(images, window, np.dtype('float32'))
    assert probabilities is not None
    return labels, probabilities

  def labels(self, images: Images, window: int = shapes.WINDOW) -> np.ndarray:
    """The labels of `predict` alone, which take a byte a pixel; exactly those of the evaluation."""
    return self._apply(images, window, None)[0]

  def _apply(
    self, images: Images, window: int, kind: np.dtype | None
  ) -> tuple[np.ndarray, np.ndarray | None]:
    stack, channels = _stack(images), self.predictor.model.classes
    if window < SMALLEST:
      raise BadInput(f'window is {window}: give {SMALLEST} pixels or more')
    count, *size = stack.shape[:3]
    mesh.check_memory(
      count * size[0] * size[1] * (1 if kind is None else 1 + kind.itemsize * channels),
      f'labels and probabilities of {channels} classes for {count} images of {size[0]}x{size[1]}',
      'give fewer images, or take .labels(images)',
    )
    classes = np.empty((count, *size), np.uint8)
    likely = None if kind is None else np.empty((count, *size, channels), kind)
    shape = shapes.plan([tuple(size)], 0, window)[tuple(size)]
    found = label_images.label_each(self.predictor, stack, shape, window=window, probabilities=kind)
    for index, (_, labelled) in enumerate(found):
      check_classes(labelled.classes, [f'image {index}'])
      classes[index] = labelled.classes
      if likely is not None:
        likely[index] = labelled.probabilities
    one = np.ndim(images) == 3
    return classes[0] if one else classes, likely[0] if one and likely is not None else likely


def _stack(images: Images) -> np.ndarray:
  """uint8 [B, H, W, 3] of what `Network.predict` takes; raises BadInput."""
  try:
    found = np.asarray(images)
  except ValueError:  # of several sizes
    raise BadInput('images differ in size: give those of one size at a time') from None
  if found.dtype != np.uint8 or found.ndim not in (3, 4) or found.shape[-1:] != (3,):
    raise BadInput(
      f'an array {found.dtype} {list(found.shape)} is no image: give uint8 RGB [H, W, 3], or '
      '[B, H, W, 3] of several'
    )
  if not found.size:
    raise BadInput(f'an array {list(found.shape)} holds no pixel')
  return found if found.ndim == 4 else found[None]


def load(
  path: str | os.PathLike[str],
  stage: str | None = None,
  *,
  config: str | ConfigDict | None = None,
  network: str | None = None,
) -> Network:
  """The network of a complete stage, or of a file of weights.

  Args:
    path: a working directory, the folder of a stage, one that `export-card` has written, or a file
      of weights (.pth, .safetensors, .npz, or the folder of an import).
    stage: the stage, where `path` is a working directory.
    config: name or file of a config, or one that `diga_jax.config.read_config` has made. None: that
      which the stage was made with (run.json), or that of the card (config.json); a file of weights
      needs one. Its network, classes and `evaluation` (scales, flip) are used.
    network: 'student' or 'teacher'; None: as `config.evaluation.network`. A card has one of them.

  Raises:
    BadInput: there is no such stage or file, it is damaged or of another network, or it needs a
      config.
  """
  place = path_of(str(path))
  if stage is None and config is None and (place.parent / run_record.NAME).is_file():
    place, stage = place.parent, place.name  # the folder of a stage, in its working directory
  known = (place / stage_folder.RECORD).exists() or formats.hub_files(place)
  if stage is None and place.is_dir() and not known:
    raise BadInput(f'{place}: {stage_folder.why_no_stage(place)} (stage=...)')
  card = hub_config.read(place) if stage is None and config is None else None
  settings = settings_of(place, stage, config if card is None else card)
  if network is not None:
    if network not in NETWORKS:
      raise BadInput(f'network is {network!r}: it may be {" or ".join(map(repr, NETWORKS))}')
    if card is not None and network != card.evaluation.network:
      raise BadInput(f'{place}: holds the {card.evaluation.network}, not the {network}')
    settings.evaluation.network = network
  return of_file(settings, str(path)) if stage is None else of_stage(settings, place, stage)


def settings_of(
  place: pathlib.Path, stage: str | None, config: str | ConfigDict | None
) -> ConfigDict:
  """A config of the caller's own, for this machine; arguments and errors as of `load`."""
  if stage is not None and os.path.basename(stage) != stage:
    raise BadInput(f'{stage!r} is no name of a stage: give one that {place} holds, without folders')
  if isinstance(config, str):
    found = read_config([f'--config={config_file(config)}'])
  elif config is not None:
    found = config.copy_and_resolve_references()
  elif stage is None:
    raise BadInput(f'{place}: a file of weights needs the config of its network: config=NAME')
  else:
    stage_folder.network_of(place / stage)  # says what is there instead
    found = ConfigDict(run_record.config_of(place, stage_folder.stage_and_choice(stage)[0]))
  if found.devices > len(jax.devices()):  # of the machine that trained it
    found.devices = 0
  return found


def of_stage(config: ConfigDict, workdir: pathlib.Path, stage: str) -> Network:
  """The network of a complete stage of a working directory; raises BadInput as `load`."""
  run = Run(config, workdir)
  return _network(run, run.predictor(stage, config.evaluation.network))


def of_file(config: ConfigDict, file: str) -> Network:
  """The network of a file of weights, which has to hold all of it; raises BadInput as `load`.

  Of the folder of a stage it is the student.
  """
  experiment = Experiment(config)
  variables, taken = starts.local_variables_in(experiment, file)
  return _network(experiment, experiment.predictor_of(variables), taken)


def _network(experiment: Experiment, predictor: Predictor, taken: str = '') -> Network:
  return Network(predictor, tuple(class_names(experiment)), palette(experiment), taken)
