"""Networks as objects: `diga_jax.load` and what it gives."""

import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diga_jax
from data_pipelines.errors import BadInput
from diga_jax import weights
from diga_jax.inference.forward import Predictor
from diga_jax.recipe.networks import Network
from diga_jax.storage import checkpoint, run_record
from tests.configs import tiny
from tests.support.stage_files import complete_stage, tiny_network, write_stage
from tests.support.tiny import Source

CONFIG = 'tests/configs/tiny.py'


@pytest.fixture(scope='module')
def network():
  return tiny_network()


@pytest.fixture(scope='module')
def workdir(network, tmp_path_factory) -> pathlib.Path:
  """A working directory whose stage has two networks, as `run` leaves it."""
  place = tmp_path_factory.mktemp('run')
  config = tiny.get_config()
  config.evaluation.scales = (0.75,)
  config.devices = 99  # of a larger machine
  with run_record.recorded(place, config.to_dict()):
    write_stage(network[1], place)
    teacher = jax.tree.map(lambda leaf: -leaf, network[1]['params'])
    checkpoint.write_arrays(place / 'both/checkpoints', 0, {**network[1], 'teacher': teacher})
    complete_stage(place / 'both')
  return place


def test_a_stage_is_applied_as_its_config_says(workdir, network):
  image = Source(1).read(0)[0]
  model, variables = network
  expected = Predictor(model, variables, (0.75,)).classes(jnp.asarray(image)[None], (24, 32))[0]
  for found in (diga_jax.load(workdir, stage='stage'), diga_jax.load(workdir / 'stage')):
    assert (found.labels(image) == expected).all()
    assert found.predictor.scales == (0.75,) and len(found.names) == len(found.palette) == 19
  other = diga_jax.load(workdir, stage='stage', config=CONFIG)
  assert other.predictor.scales == (1.0, 0.5)


def test_the_teacher_is_another_network(workdir):
  image = Source(1).read(0)[0]
  student, teacher = (
    diga_jax.load(workdir, stage='both', network=name) for name in ('student', 'teacher')
  )
  assert (student.labels(image) != teacher.labels(image)).any()


def test_a_file_of_weights_needs_a_config(workdir, network, tmp_path):
  file = tmp_path / 'net.npz'
  weights.save(file, weights.state_dict_of(network[1]))
  image = Source(1).read(0)[0]
  config = tiny.get_config()
  config.evaluation.scales = (0.75,)
  found = diga_jax.load(file, config=config)
  assert (found.labels(image) == diga_jax.load(workdir, stage='stage').labels(image)).all()
  with pytest.raises(BadInput, match='needs the config of its network'):
    diga_jax.load(file)


def test_labels_and_probabilities(workdir):
  net = diga_jax.load(workdir, stage='stage')
  images = np.stack([Source(3).read(i)[0] for i in range(3)])
  labels, likely = net.predict(images)
  assert (labels.dtype, labels.shape) == (np.uint8, (3, 24, 32))
  assert (likely.dtype, likely.shape) == (np.float32, (3, 24, 32, 19))
  np.testing.assert_allclose(likely.sum(-1), 1, rtol=1e-5)
  assert (likely.argmax(-1) == labels).all()
  one = net.predict(images[1])
  assert (one[0] == labels[1]).all() and one[1].shape == (24, 32, 19)
  np.testing.assert_allclose(one[1], likely[1], atol=1e-6)
  assert (net.labels(list(images)) == labels).all()


def test_a_large_image_is_computed_by_windows(workdir):
  net = diga_jax.load(workdir, stage='stage')
  image = Source(1, size=(150, 140)).read(0)[0]
  labels, likely = net.predict(image, window=64)
  assert labels.shape == (150, 140) and (likely.argmax(-1) == labels).all()
  first = net.predictor.classes(jnp.asarray(image)[None, :64, :64], (64, 64))[0]
  assert (labels[:50, :50] == first[:50, :50]).all()
  with pytest.raises(BadInput, match='window is 0: give 64 pixels or more'):
    net.predict(image, window=0)


@pytest.mark.parametrize(
  'images, words',
  [
    (np.zeros((4, 4), np.uint8), r'uint8 \[4, 4\] is no image'),
    (np.zeros((4, 4, 4), np.uint8), r'uint8 \[4, 4, 4\] is no image'),
    (np.zeros((4, 4, 3)), r'float64 \[4, 4, 3\] is no image'),
    (np.zeros((0, 4, 4, 3), np.uint8), 'holds no pixel'),
    ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)], 'differ in size'),
    ('image.png', 'is no image'),
    (np.broadcast_to(np.uint8(0), (10**6, 4000, 4000, 3)), 'GiB .* give fewer images'),
  ],
)
def test_what_is_no_image_is_refused(workdir, images, words):
  with pytest.raises(BadInput, match=words):
    diga_jax.load(workdir, stage='stage').predict(images)


@pytest.mark.parametrize(
  'arguments, options, words',
  [
    (('{run}',), {}, 'name one of its stages, both, stage'),
    (('{run}', 'none'), {}, 'there is no such stage; .* has both, stage'),
    (('{run}/nowhere', 'stage'), {}, 'there is no such stage'),
    (('{run}', 'stage'), {'network': 'aunt'}, "it may be 'student' or 'teacher'"),
    (('{run}', 'stage'), {'network': 'teacher'}, 'stage'),
    (('{run}', 'stage'), {'config': 'nowhere'}, 'no shipped config'),
    (('{run}', 'stage'), {'config': 'gta5_to_cityscapes'}, 'another network'),
    (('{run}/none.pth',), {'config': CONFIG}, 'no such file'),
    (('{run}/run.json',), {'config': CONFIG}, 'not a readable file of weights'),
  ],
)
def test_what_cannot_be_loaded_is_one_line(workdir, arguments, options, words):
  with pytest.raises(BadInput, match=words) as caught:
    diga_jax.load(*(text.format(run=workdir) for text in arguments), **options)
  assert '\n' not in str(caught.value)


def test_a_working_directory_of_an_earlier_version_needs_a_config(network, tmp_path):
  write_stage(network[1], tmp_path)
  with pytest.raises(BadInput, match=r'run\.json: cannot be read'):
    diga_jax.load(tmp_path, stage='stage')
  with run_record.recorded(tmp_path):
    pass
  with pytest.raises(BadInput, match='holds no config, as it is of an earlier version; give the'):
    diga_jax.load(tmp_path, stage='stage')
  assert isinstance(diga_jax.load(tmp_path, stage='stage', config=CONFIG), Network)


def test_the_config_is_recorded_as_it_was(tmp_path):
  configs = [tiny.get_config().to_dict() | {'seed': seed} for seed in (0, 1, 2)]
  for config, stage in zip(configs, ('warmup', 'label_1', ''), strict=True):
    with run_record.recorded(tmp_path, config):
      if stage:
        run_record.note(tmp_path, stage, False)
  assert run_record.config_of(tmp_path, 'warmup') == configs[0]
  assert run_record.config_of(tmp_path, 'label_1') == configs[1]
  assert run_record.config_of(tmp_path, 'other') == configs[2]


def test_the_package_is_imported_in_a_moment():
  script = 'import sys, diga_jax; print(*{"jax", "numpy", "tensorflow"} & set(sys.modules))'
  found = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, check=True)
  assert found.stdout == '\n'
  with pytest.raises(AttributeError, match="no attribute 'lode'"):
    diga_jax.lode  # noqa: B018
