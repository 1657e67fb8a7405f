"""The program of a network, run where this package is not."""

import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.errors import BadInput
from diga_jax import models
from diga_jax.__main__ import main
from diga_jax.inference import export, forward
from diga_jax.storage import checkpoint, stage_folder
from tests.configs import tiny

SIZE = (48, 64)
ALONE = """
import sys, jax, numpy as np
from jax import export
program = export.deserialize(open(sys.argv[1], 'rb').read())
images = np.load(sys.argv[2])
np.save(sys.argv[3], np.concatenate([program.call(images[:1]), program.call(images[1:])]))
assert not [name for name in sys.modules if name.startswith(('diga_jax', 'data_pipelines', 'flax'))]
"""
IN_TENSORFLOW = """
import sys, numpy as np, tensorflow as tf
program = tf.saved_model.load(sys.argv[1])
images = np.load(sys.argv[2])
np.save(sys.argv[3], np.concatenate([program.predict(images[:1]), program.predict(images[1:])]))
assert not [name for name in sys.modules if name.startswith(('diga_jax', 'flax'))]
"""


@pytest.fixture(scope='module')
def network():
  settings = tiny.get_config().model
  model = models.build(settings.name, **settings.options.to_dict())
  return model, jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))


def stage_of(variables, place: pathlib.Path) -> pathlib.Path:
  checkpoint.write_arrays(place / 'stage/checkpoints', 0, dict(variables))
  stage_folder.write_record(place / 'stage', {'identity': {}, 'result': {'step': 0}})
  return place / 'stage'


@pytest.mark.parametrize('kind, alone', [('stablehlo', ALONE), ('savedmodel', IN_TENSORFLOW)])
def test_it_runs_alone_on_any_batch_and_sees_what_we_see(network, tmp_path, kind, alone):
  model, variables = network
  stage, program = stage_of(variables, tmp_path), tmp_path / 'program'
  command = ['weights', 'export', str(stage), '--config=tests/configs/tiny.py']
  command += ['--size', *map(str, SIZE), f'--output={program}', f'--format={kind}']
  assert main(command) == 0
  images = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), np.uint8)
  np.save(tmp_path / 'images.npy', images)
  paths = [str(tmp_path / name) for name in (program.name, 'images.npy', 'classes.npy')]
  subprocess.run([sys.executable, '-c', alone, *paths], check=True, cwd=tmp_path)
  found = np.load(tmp_path / 'classes.npy')
  expected = forward.predictor(model)(variables, jnp.asarray(images), SIZE)
  assert found.dtype == np.uint8 and found.shape == (3, *SIZE)
  assert (found != np.asarray(expected)).mean() < 1e-3  # a logit nearer to another than rounding
  assert len(np.unique(found)) > 1
  if kind == 'savedmodel':
    assert main(command) == 2  # nothing is overwritten


def test_it_names_its_platforms(network):
  assert set(export.PLATFORMS) == {'cpu', 'cuda', 'tpu'}
  model, variables = network
  program = export.stablehlo(model, variables, (16, 24), scales=(1.0,))
  assert program.platforms == export.PLATFORMS
  assert str(program.in_avals[0].shape) == '(b, 16, 24, 3)'


def test_sizes_that_are_none_are_refused(network):
  with pytest.raises(BadInput, match='--size'):
    export.stablehlo(*network, (0, 4))


def test_the_wrong_config_is_refused(network, tmp_path, capsys):
  _, variables = network
  command = [
    'weights',
    'export',
    str(stage_of(variables, tmp_path)),
    '--config=tests/configs/tiny.py',
    '--format=stablehlo',
  ]
  command += ['--config.model.options.width=8', '--size', '16', '16']
  assert main([*command, f'--output={tmp_path / "x"}']) == 2
  assert 'do not fit this network' in capsys.readouterr().err
  assert not pathlib.Path(tmp_path / 'x').exists()


def test_a_program_needs_a_config_and_a_size(network, tmp_path, capsys):
  stage = str(stage_of(network[1], tmp_path))
  command = ['weights', 'export', stage, '--format=stablehlo', f'--output={tmp_path / "x"}']
  assert main(command) == 2
  assert 'give the --config of the network and a --size' in capsys.readouterr().err
