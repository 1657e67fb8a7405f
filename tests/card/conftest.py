"""A finished run whose stages hold networks, made in no time: nothing is trained."""

import pathlib

import jax
import numpy as np
import pytest

from diga_jax.__main__ import main
from diga_jax.recipe import training
from diga_jax.storage import checkpoint
from tests.page.conftest import with_traces
from tests.support.stage_files import tiny_network

RECIPE = ('warmup', 'label_1', 'self_training_1')
STEP = 5


def with_networks(patch: pytest.MonkeyPatch, chosen_by: str = 'last') -> None:
  """Stages and measurements as of `with_traces`; the stages end with networks drawn at random."""
  with_traces(patch)
  _, variables = tiny_network()

  def train(run, name, directory):
    random = np.random.default_rng(len(name))
    drawn = jax.tree.map(lambda x: x + random.uniform(0, 0.2, x.shape).astype('f'), variables)
    teacher = jax.tree.map(lambda x: 1.5 * x, drawn['params'])
    checkpoint.write_arrays(directory / 'checkpoints', STEP, {**drawn, 'teacher': teacher})
    return {'step': STEP, 'steps': STEP, 'chosen_by': chosen_by}

  patch.setattr(training, 'train_stage', train)


def make_run(
  workdir: pathlib.Path, cache: pathlib.Path, *options: str, command: str = 'run'
) -> None:
  """Carries out a command with the tiny config in a working directory."""
  line = [command, '--config=tests/configs/tiny.py', f'--workdir={workdir}', *options]
  line += [f'--config.data.cache={cache}', '--config.translator.kind=fourier']
  assert main([*line, f'--config.recipe={RECIPE}']) == 0


@pytest.fixture(scope='session')
def cache(tmp_path_factory) -> pathlib.Path:
  """A folder for rendered scenes."""
  return tmp_path_factory.mktemp('scenes')


@pytest.fixture(scope='session')
def finished(tmp_path_factory, cache) -> pathlib.Path:
  """The working directory of a finished run; not to be changed."""
  place = tmp_path_factory.mktemp('run') / 'run'
  with pytest.MonkeyPatch.context() as patch:
    with_networks(patch)
    make_run(place, cache)
  return place
