"""The network of a card as an ONNX file, made of its PyTorch form and compared with Flax.

jax2onnx 0.17.1, which would need no PyTorch, asks for orbax-checkpoint below 0.11.37, and this
package for 0.12.8: pip installs no environment with both.
"""

import contextlib
import importlib
import logging
import pathlib
import types
import warnings
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from data_pipelines.errors import BadInput, one_line
from diga_jax import models
from diga_jax.card.folder import ONNX
from diga_jax.inference.forward import Predictor
from diga_jax.parallel import mesh
from diga_jax.recipe.experiment import Experiment
from diga_jax.types import Size, Variables

OPSET = 18
LARGEST = 1e-3  # difference of logits, as a share of the largest one where that is above 1
MODULES = ('torch', 'onnx', 'onnxscript', 'onnxruntime')
ROWS = 2  # images that are compared; the file takes any number


def check_possible(size: Size, classes: int) -> None:
  """Raises BadInput where a package is missing, or logits of this size do not fit into memory."""
  for name in MODULES:
    module(name)
  height, width = size
  mesh.check_memory(
    2 * ROWS * classes * height * width * np.dtype('float32').itemsize,
    f'--onnx: logits of {ROWS} images of {height}x{width}, of two networks that are compared',
    'give a smaller size',
  )


def module(name: str) -> types.ModuleType:
  """A module of the extra `onnx`; raises BadInput where it is missing."""
  try:
    return importlib.import_module(name)
  except ImportError:
    raise BadInput(f"--onnx: {name} is missing: pip install '.[onnx]'") from None


def write(folder: pathlib.Path, experiment: Experiment, variables: Variables, size: Size) -> float:
  """Writes model.onnx of the card in a folder; its largest difference from the network in Flax.

  RGB float32 [B, 3, H, W], 0 to 255, -> logits [B, classes, H, W], at all scales of the config.

  Args:
    folder: that has config.json and model.safetensors.
    experiment, variables: of the network.
    size: (H, W), which are fixed; B is free.

  Raises:
    BadInput: a package is missing, the network cannot be written, or the difference is too large.
  """
  torch = module('torch')
  network = importlib.import_module('diga_jax.card.network').load(folder)
  images = np.random.default_rng(0).integers(0, 256, (ROWS, *size, 3)).astype(np.uint8)
  planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2).astype(np.float32))
  names = {'input_names': ['images'], 'output_names': ['logits']}
  try:
    with quiet():
      program = torch.onnx.export(
        network,
        (torch.from_numpy(planes),),
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        dynamic_shapes={'images': {0: torch.export.Dim('batch')}},
        **names,
      )
      program.save(str(folder / ONNX), external_data=False)
  except Exception as error:  # of whatever kind the exporter has
    raise BadInput(f'--onnx: PyTorch cannot write this network ({one_line(error)})') from None
  got = run(folder / ONNX, planes)
  return difference(got, logits(experiment, variables, images, size))


def run(path: pathlib.Path, planes: np.ndarray) -> np.ndarray:
  """[B, classes, H, W] by an ONNX file, of float32 [B, 3, H, W]; raises BadInput."""
  runtime = module('onnxruntime')
  try:
    session = runtime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    (got,) = session.run(None, {'images': planes})
  except Exception as error:  # of a kind of its own: too little memory, an operation it lacks
    raise BadInput(f'--onnx: ONNX Runtime cannot run {path.name} ({one_line(error)})') from None
  return np.asarray(got)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Without what the exporter says of packages that this network does not need."""
  logger = logging.getLogger('torch.onnx')
  before = logger.level
  logger.setLevel(logging.ERROR)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      yield
  finally:
    logger.setLevel(before)


def logits(
  experiment: Experiment, variables: Variables, images: np.ndarray, size: Size
) -> np.ndarray:
  """[B, classes, H, W] by the network in Flax, in float32 whatever the config's `dtype` is."""
  model, settings = experiment.config.model, experiment.config.evaluation
  network = models.build(
    model.name,
    classes=experiment.config.data.classes,
    precision='highest',
    **model.options.to_dict(),
  )
  predictor = Predictor(network, variables, settings.scales, settings.flip, len(images))
  return np.asarray(predictor.logits(jnp.asarray(images), size)).transpose(0, 3, 1, 2)


def difference(got: np.ndarray, wanted: np.ndarray) -> float:
  """The largest difference; raises BadInput where it is too large."""
  found = float(np.max(np.abs(got - wanted))) if got.shape == wanted.shape else np.inf
  if not found <= LARGEST * max(float(np.max(np.abs(wanted))), 1.0):
    raise BadInput(
      f'--onnx: {ONNX} gives other logits than the network, by up to {found:.2g}: leave out --onnx'
    )
  return found
