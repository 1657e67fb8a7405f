"""The program of a network, run where this package is not."""

import pathlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.errors import BadInput
from diga_jax.__main__ import main
from diga_jax.inference import export
from diga_jax.inference.forward import Predictor
from tests.support.stage_files import tiny_network, write_stage
from tests.support.tiny import Source, tiny

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
  return tiny_network()


@pytest.mark.parametrize(
  'kind, alone, flip',
  [('stablehlo', ALONE, False), ('stablehlo', ALONE, True), ('savedmodel', IN_TENSORFLOW, True)],
)
def test_it_runs_alone_on_any_batch_and_sees_what_we_see(network, tmp_path, kind, alone, flip):
  model, variables = network
  stage, program = write_stage(variables, tmp_path), tmp_path / 'program'
  command = ['weights', 'export', str(stage), '--config=tests/configs/tiny.py']
  command += ['--size', *map(str, SIZE), f'--output={program}', f'--format={kind}']
  command += [f'--config.evaluation.flip={flip}']
  assert main(command) == 0
  images = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), np.uint8)
  np.save(tmp_path / 'images.npy', images)
  paths = [str(tmp_path / name) for name in (program.name, 'images.npy', 'classes.npy')]
  subprocess.run([sys.executable, '-c', alone, *paths], check=True, cwd=tmp_path)
  found = np.load(tmp_path / 'classes.npy')
  expected, other = (
    np.asarray(Predictor(model, variables, flip=x).classes(jnp.asarray(images), SIZE))
    for x in (flip, not flip)
  )
  assert found.dtype == np.uint8 and found.shape == (3, *SIZE)
  assert (found != expected).mean() < 1e-3  # a logit nearer to another than rounding
  assert (found != other).mean() > 1e-2
  assert len(np.unique(found)) > 1
  if kind == 'savedmodel':
    assert main(command) == 2  # nothing is overwritten


def images_without_ties():
  """Of one size; tests/inference/test_ties.py looks at their logits."""
  return np.stack([Source(5, size=(27, 35)).read(i)[0] for i in range(5)])


@pytest.mark.parametrize('flip', [False, True])
def test_a_program_gives_the_classes_of_the_predictor(flip):
  images, predictor = images_without_ties(), Predictor(*tiny(), flip=flip)
  found = export.stablehlo(predictor, (27, 35)).call(images)
  np.testing.assert_array_equal(found, predictor.classes(jnp.asarray(images), (27, 35)))


@pytest.mark.slow
@pytest.mark.parametrize('flip', [False, True])
def test_a_saved_model_gives_the_classes_of_the_predictor(tmp_path, flip):
  import tensorflow as tf

  images, predictor = images_without_ties(), Predictor(*tiny(), flip=flip)
  export.write_saved_model(tmp_path / 'program', predictor, (27, 35))
  found = tf.saved_model.load(str(tmp_path / 'program')).predict(images)
  np.testing.assert_array_equal(found, predictor.classes(jnp.asarray(images), (27, 35)))


def test_it_names_its_platforms(network):
  assert set(export.PLATFORMS) == {'cpu', 'cuda', 'tpu'}
  program = export.stablehlo(Predictor(*network, scales=(1.0,)), (16, 24))
  assert program.platforms == export.PLATFORMS
  assert str(program.in_avals[0].shape) == '(b, 16, 24, 3)'


def test_sizes_that_are_none_are_refused(network):
  with pytest.raises(BadInput, match='--size'):
    export.stablehlo(Predictor(*network), (0, 4))


def test_the_wrong_config_is_refused(network, tmp_path, capsys):
  _, variables = network
  command = [
    'weights',
    'export',
    str(write_stage(variables, tmp_path)),
    '--config=tests/configs/tiny.py',
    '--format=stablehlo',
  ]
  command += ['--config.model.options.width=8', '--size', '16', '16']
  assert main([*command, f'--output={tmp_path / "x"}']) == 2
  assert 'do not fit this network' in capsys.readouterr().err
  assert not pathlib.Path(tmp_path / 'x').exists()


def test_a_program_needs_a_config_and_a_size(network, tmp_path, capsys):
  stage = str(write_stage(network[1], tmp_path))
  command = ['weights', 'export', stage, '--format=stablehlo', f'--output={tmp_path / "x"}']
  assert main(command) == 2
  assert 'give the --config of the network and a --size' in capsys.readouterr().err
