"""The curve of mIoU while a stage trains: its points, what survives, and that it costs no bit."""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from data_pipelines.errors import BadInput
from diga_jax import state
from diga_jax.__main__ import main
from diga_jax.inference import forward
from diga_jax.recipe import checks, evaluation, iou_curve
from diga_jax.recipe.experiment import Run
from tests.configs import tiny
from tests.end_to_end.test_recipe import final_state, stop_once
from tests.support.event_values import values_in

MEAN = 'mean_iou/camera_test'


@pytest.fixture(scope='module')
def cache(tmp_path_factory) -> pathlib.Path:
  return tmp_path_factory.mktemp('scenes')


@pytest.fixture
def make(cache, tmp_path):
  """make(changes by field) -> a run of the tiny recipe that is evaluated every 2 steps."""

  def run(changes=None) -> Run:
    config = tiny.get_config()
    config.data.cache, config.evaluate_every = str(cache), 2
    with config.unlocked(), config.ignore_type():
      config.update_from_flattened_dict(changes or {})
    return Run(config, tmp_path / 'run')

  return run


@pytest.fixture(scope='module')
def networks() -> list[state.TrainState]:
  """Two states of the tiny network at random."""
  model = Run(tiny.get_config(), pathlib.Path()).model

  def begin(seed: int) -> state.TrainState:
    variables = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, 65, 65, 3)))
    statistics = variables.get('batch_stats', {})
    made = state.create(
      jax.random.key(0), variables['params'], optax.sgd(1.0), batch_stats=statistics
    )
    return made.replace(teacher=jax.tree.map(lambda x: x * 0.5, variables['params']))

  return [begin(0), begin(1)]


def begun(run: Run, name: str = 'warmup') -> pathlib.Path:
  directory = run.workdir / f'{name}.partial'
  directory.mkdir(parents=True, exist_ok=True)
  return directory


def measure(run: Run, network: state.TrainState, step: int) -> list[str]:
  """A point as a process measures it that has just begun."""
  directory = begun(run)
  measurer = iou_curve.measurer(run, 'warmup', directory)
  assert measurer is not None
  writer = run.writer(directory, step)
  lines = measurer(network, step, writer)
  writer.close()
  return lines


def test_a_point_is_what_the_evaluation_gives(make, networks):
  run = make()
  (line,) = measure(run, networks[0], 2)
  curve = iou_curve.read(begun(run))
  (point,) = curve['points']
  wanted = evaluation.measure_network(
    run, iou_curve.predictor_of(run, networks[0]), 'camera_test', {}, run.workdir / 'x'
  )
  assert point['step'] == 2 and point['mean_iou'] == wanted['mean_iou'] > 0
  assert point['iou'] == wanted['iou'] and point['images'] == 3
  assert line == (
    f'warmup: step 2, mIoU {100 * point["mean_iou"]:.1f} on camera_test (measured on its labels, '
    'for the curve alone)'
  )
  found = {value.tag: value for value in values_in(begun(run))}
  np.testing.assert_allclose(found[MEAN].value, point['mean_iou'], rtol=1e-6)
  assert found[MEAN].step == 2
  assert {tag for tag in found if tag.startswith('iou/')} == {
    f'iou/camera_test/{name}' for name, value in point['iou'].items() if value is not None
  }
  # Of the set that label passes label, without a file of it in the stage's folder.
  assert sum(tag.startswith('target_pictures/') for tag in found) == 2
  assert not [*begun(run).rglob('*.png')]


def test_a_step_that_was_measured_is_not_measured_again(make, networks):
  run = make()
  assert measure(run, networks[0], 2) and measure(run, networks[1], 4)
  programs = forward.multi_scale._cache_size()
  before = (begun(run) / iou_curve.FILE).read_bytes()
  assert measure(make(), networks[0], 2) == measure(make(), networks[0], 4) == []
  assert (begun(run) / iou_curve.FILE).read_bytes() == before
  assert measure(make(), networks[0], 5)
  assert forward.multi_scale._cache_size() == programs
  values = values_in(begun(run))
  pictures = {value.tag for value in values if value.tag.startswith('target_pictures/')}
  for tag in (MEAN, *pictures):
    assert [value.step for value in values if value.tag == tag] == [2, 4, 5]


def test_the_network_is_that_of_the_protocol(make, networks):
  run = make({'evaluation.network': 'teacher'})
  found = iou_curve.predictor_of(run, networks[0]).variables['params']
  jax.tree.map(np.testing.assert_array_equal, found, jax.device_get(networks[0].teacher))


def test_a_damaged_curve_begins_anew(make, networks, caplog):
  run = make()
  measure(run, networks[0], 2)
  (begun(run) / iou_curve.FILE).write_text('{')
  assert measure(make(), networks[0], 4)
  assert 'is damaged' in caplog.messages[-1] and 'the curve is begun anew' in caplog.messages[-1]
  assert [point['step'] for point in iou_curve.read(begun(run))['points']] == [4]


def test_a_curve_of_another_protocol_is_refused(make, networks):
  measure(make(), networks[0], 2)
  for change in ({'evaluation.flip': True}, {'evaluation.sets': ('source',)}):
    with pytest.raises(
      BadInput, match=r"iou_curve.json: .* 'camera_test' was .*: set it back"
    ) as e:
      checks.check_folders(make(change), ['warmup'], [])
    assert '\n' not in str(e.value)
  checks.check_folders(make(), ['warmup'], [])
  checks.check_folders(make({'evaluation.flip': True, 'evaluate_every': 0}), ['warmup'], [])


def test_stages_without_a_network_have_no_curve(make):
  run = make()
  assert iou_curve.measurer(run, 'translator', begun(run)) is None
  assert iou_curve.measurer(make({'evaluate_every': 0}), 'warmup', begun(run)) is None


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'evaluate_every': -1}, 'config.evaluate_every is -1: it may be'),
    ({'evaluate_every': 6}, 'config.evaluate_every is 6, and the longest stage has 5 steps'),
    ({'evaluation.sets': ()}, 'config.evaluate_every is 2, and config.evaluation.sets'),
  ],
)
def test_mistakes_are_refused(make, changes, words):
  with pytest.raises(BadInput, match=words):
    make(changes)


def test_sets_without_labels_are_refused_before_the_first_step(make, tmp_path):
  changes = {
    'data.sets.camera_test.kind': 'folder', 'data.sets.camera_test.images': str(tmp_path),
  }  # fmt: skip
  with pytest.raises(BadInput, match=r'config\.data\.sets\.camera_test\.labels is empty'):
    checks.check_recipe(make(changes))


# A real training.


def train(workdir: pathlib.Path, cache: pathlib.Path, every: int) -> int:
  return main(
    [
      'train', '--config=tests/configs/tiny.py', f'--workdir={workdir}', '--stage=warmup',
      f'--config.data.cache={cache}', '--config.translator.kind=none',
      f'--config.evaluate_every={every}', '--config.keep_checkpoints=all',
    ]
  )  # fmt: skip


@pytest.mark.exhaustive
def test_a_run_is_the_same_with_a_curve_and_after_a_kill(tmp_path, cache, monkeypatch, capsys):
  assert train(tmp_path / 'without', cache, 0) == 0
  assert train(tmp_path / 'with', cache, 2) == 0
  said = capsys.readouterr().err
  assert said.count('for the curve alone') == 3
  stop_once(monkeypatch, warmup=3)  # step 3, when step 2 is saved and evaluated
  with pytest.raises(KeyboardInterrupt):
    train(tmp_path / 'killed', cache, 2)
  assert train(tmp_path / 'killed', cache, 2) == 0
  assert capsys.readouterr().err.count('for the curve alone') == 3
  identity, *others = (
    json.loads((tmp_path / name / 'warmup' / 'stage.json').read_text())['identity']
    for name in ('without', 'with', 'killed')
  )
  assert others == [identity] * 2
  wanted = final_state(tmp_path / 'without' / 'warmup')
  for name in ('with', 'killed'):
    for key, value in final_state(tmp_path / name / 'warmup').items():
      np.testing.assert_array_equal(value, wanted[key], err_msg=key)
  curves = [iou_curve.read(tmp_path / name / 'warmup') for name in ('with', 'killed')]
  assert curves[0] == curves[1] and [p['step'] for p in curves[0]['points']] == [2, 4, 5]
  for name in ('with', 'killed'):
    values = values_in(tmp_path / name / 'warmup')
    assert [value.step for value in values if value.tag == MEAN] == [2, 4, 5]
  # A folder of before goes on with and without.
  shutil.copytree(tmp_path / 'without', tmp_path / 'again')
  assert train(tmp_path / 'again', cache, 2) == 0
