"""The network of tests/configs/tiny.py, and a stage folder that holds one without training."""

import pathlib

import jax
import jax.numpy as jnp

from diga_jax import models
from diga_jax.storage import checkpoint, stage_folder
from tests.configs import tiny


def tiny_network():
  """(model, variables) of tests/configs/tiny.py, at random."""
  settings = tiny.get_config().model
  model = models.build(settings.name, **settings.options.to_dict())
  return model, jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))


def complete_stage(folder: pathlib.Path) -> None:
  """Writes the record of a folder that has a checkpoint of step 0."""
  files = stage_folder.digests_of(folder)
  stage_folder.write_record(folder, {'identity': {}, 'result': {'step': 0}, 'files': files})


def write_stage(variables, workdir: pathlib.Path) -> pathlib.Path:
  """The folder of a complete stage of the name 'stage' that ended with these variables."""
  checkpoint.write_arrays(workdir / 'stage/checkpoints', 0, dict(variables))
  complete_stage(workdir / 'stage')
  return workdir / 'stage'
