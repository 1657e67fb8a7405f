"""HIAST and mixtures of both methods from the command line: whole, stopped and wrong runs."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import BadInput
from diga_jax.__main__ import main
from diga_jax.configs import default
from diga_jax.configs.stages import adversarial_stage, hiast_stage, warmup_stage
from diga_jax.recipe.experiment import Experiment
from tests.configs import tiny_hiast
from tests.end_to_end.test_recipe import final_state, refused, stop_once
from tests.support import damage

CONFIG = 'tests/configs/tiny_hiast.py'
TRAINED = ('source_only', 'warmup', 'hiast_1', 'hiast_2', 'diga_cbst', 'hiast_consensus')


@pytest.fixture(scope='module')
def cache(tmp_path_factory) -> pathlib.Path:
  return tmp_path_factory.mktemp('scenes')


def run(command: str, workdir: pathlib.Path, cache: pathlib.Path, *more: str) -> int:
  return main(
    [command, f'--config={CONFIG}', f'--workdir={workdir}', f'--config.data.cache={cache}', *more]
  )


@pytest.fixture(scope='module')
def finished(tmp_path_factory, cache) -> pathlib.Path:
  workdir = tmp_path_factory.mktemp('finished') / 'run'
  assert run('run', workdir, cache) == 0
  return workdir


def index_of(stage: pathlib.Path) -> dict[str, np.ndarray]:
  with np.load(stage / 'index.npz') as found:
    return dict(found)


@pytest.mark.slow
def test_a_run_leaves_what_it_promises(finished):
  for name in TRAINED:
    record = json.loads((finished / name / 'stage.json').read_text())
    assert record['result']['step'] == 3
  for name in ('label_1', 'label_2', 'label_cbst'):
    index = index_of(finished / name)
    files = sorted((finished / name / 'labels').glob('*.png'))
    assert [file.stem for file in files] == sorted(index['ids'])
    for i, stem in enumerate(index['ids']):
      written = np.asarray(Image.open(finished / name / 'labels' / f'{stem}.png'))
      assert written.shape == (48, 96)
      counts = np.bincount(written.ravel(), minlength=256)
      # Counted before they are brought to the image's size, by repeating rows and columns.
      np.testing.assert_array_equal(index['counts'][i] > 0, counts[:19] > 0)
    kept = index['counts'].sum() / (4 * 40 * 80)
    assert 0 < kept < 1
    assert ((index['confidence'] > 0) == (index['counts'].sum(0) > 0)).all()
  assert (index_of(finished / 'label_1')['thresholds'] != np.float32(0.05)).any()
  assert not (finished / 'label_1' / 'centroids.npz').exists()
  assert (finished / 'label_cbst' / 'centroids.npz').exists()
  place = finished / 'evaluation' / 'published'
  found = json.loads((place / 'label_1' / 'target' / 'metrics.json').read_text())
  assert found['selector'] == 'ias' and 0 < found['kept'] < 1 and 0 <= found['accuracy_kept'] <= 1
  found = json.loads((place / 'label_cbst' / 'target' / 'metrics.json').read_text())
  assert found['selector'] == 'cbst + consensus'


@pytest.mark.exhaustive  # the kind is held by tests/end_to_end/test_recipe.py
@pytest.mark.slow
def test_a_stopped_run_ends_bit_equal(finished, cache, tmp_path, monkeypatch):
  stop_once(monkeypatch, **{name: 1 + i % 2 for i, name in enumerate(TRAINED)})
  stops = 0
  while True:
    try:
      assert run('run', tmp_path / 'run', cache) == 0
      break
    except KeyboardInterrupt:
      stops += 1
  assert stops == len(TRAINED)
  for name in TRAINED:
    wanted, found = final_state(finished / name), final_state(tmp_path / 'run' / name)
    for key, value in wanted.items():
      np.testing.assert_array_equal(found[key], value, err_msg=f'{name} {key}')
  for name in ('label_2', 'label_cbst'):
    wanted, found = index_of(finished / name), index_of(tmp_path / 'run' / name)
    for key, value in wanted.items():
      np.testing.assert_array_equal(found[key], value, err_msg=f'{name} {key}')


@pytest.mark.slow
def test_labels_come_from_the_teacher_and_training_from_the_student(finished, cache, tmp_path):
  copy = tmp_path / 'run'
  for name in ('warmup', 'label_1', 'hiast_1'):
    shutil.copytree(finished / name, copy / name)
  option = '--config.stages.label_2.network=student'
  assert run('label', copy, cache, '--stage=label_2', option) == 0
  by_student, by_teacher = index_of(copy / 'label_2'), index_of(finished / 'label_2')
  assert (by_student['thresholds'] != by_teacher['thresholds']).any()


@pytest.mark.slow
def test_an_index_of_other_images_or_a_damaged_one_is_refused(finished, cache, tmp_path, capsys):
  copy = tmp_path / 'run'
  for name in ('warmup', 'label_1'):
    shutil.copytree(finished / name, copy / name)
  path = copy / 'label_1' / 'index.npz'
  index = index_of(copy / 'label_1')
  np.savez(path, **index | {'ids': index['ids'][::-1]})
  refused(capsys, run('train', copy, cache, '--stage=hiast_1'), 'index.npz', 'damaged')
  damage.seal(copy / 'label_1')
  status = run('train', copy, cache, '--stage=hiast_1')
  refused(capsys, status, 'index.npz', 'data.sets.target', 'label again')
  np.savez(path, **index | {'counts': index['counts'] * 0})
  damage.seal(copy / 'label_1')
  refused(capsys, run('train', copy, cache, '--stage=hiast_1'), 'no image holds', 'hard class')
  assert not (copy / 'hiast_1').exists()


@pytest.mark.slow
def test_labels_of_another_network_are_refused(finished, cache, tmp_path, capsys):
  copy = tmp_path / 'run'
  for name in ('warmup', 'label_1', 'hiast_1', 'label_2'):
    shutil.copytree(finished / name, copy / name)
  shutil.rmtree(copy / 'hiast_1')
  option = '--config.stages.hiast_1.consistency=0.0'
  assert run('train', copy, cache, '--stage=hiast_1', option) == 0
  status = run('run', copy, cache, option)
  refused(capsys, status, 'label_2', 'input.hiast_1')


@pytest.mark.slow
def test_classes_without_any_label_are_named_and_training_goes_on(
  finished, cache, tmp_path, caplog
):
  copy = tmp_path / 'run'
  shutil.copytree(finished / 'warmup', copy / 'warmup')
  options = ('--config.stages.label_1.selector=constant', '--config.stages.label_1.threshold=0.3')
  assert run('label', copy, cache, '--stage=label_1', *options) == 0
  empty = index_of(copy / 'label_1')['counts'].sum(0) == 0
  assert empty.any()
  assert 'label_1: no pseudo-label for' in caplog.text


WRONG = {
  'label_1.selector': ('consensus', 'follows the teacher'),
  'hiast_1.selector': ('ias', "set it in the label stage 'label_1'"),
  'hiast_1.labels': ('warmup', 'name a stage of kind label'),
  'hiast_consensus.labels': ('label_1', "centroids_from to 'target'"),
  'hiast_consensus.rank': (20, 'give 1 to 19'),
  'label_1.alpha': (1.5, 'between 0 and 1'),
  'label_1.selector_batch': (0, 'from 1 to 1,024'),
  'warmup.mixing': ('copy_paste', 'there is no such field'),
  'hiast_1.batch.target': ('camera_test', 'copy-paste among'),
}


@pytest.mark.parametrize('field', WRONG)
def test_combinations_without_sense_are_refused_with_the_reason(field):
  config = tiny_hiast.get_config()
  value, words = WRONG[field]
  config.update_from_flattened_dict({f'stages.{field}': value})
  with pytest.raises(BadInput, match=words) as error:
    Experiment(config)
  assert field.partition('.')[0] in str(error.value)


def test_every_warmup_selector_and_mixing_can_be_chosen():
  warmups = warmup_stage(method='source_only'), warmup_stage(), adversarial_stage()
  for warmup in warmups:
    for selector in ('none', 'constant', 'cbst', 'ias', 'consensus'):
      for mixing in ('none', 'class', 'copy_paste'):
        config = default.get_config()
        config.stages.hiast_1 = hiast_stage('warmup', 'label_1')
        config.stages.warmup = warmup
        consensus = selector == 'consensus'
        config.stages.label_1.selector = 'none' if consensus else selector
        for name in ('self_training_1', 'hiast_1'):
          config.stages[name].selector = 'consensus' if consensus else 'none'
          config.stages[name].target_mixing = mixing
        Experiment(config)
