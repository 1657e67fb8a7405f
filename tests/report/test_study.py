"""Mean and spread over seeds; the study's rows share what they can and differ where they say."""

import json
import statistics

import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import BadInput
from diga_jax.__main__ import main
from diga_jax.configs import comparison, synthcity_to_camvid
from diga_jax.inference import evaluate
from diga_jax.metrics import Means
from diga_jax.recipe.experiment import Experiment
from diga_jax.report import charts, paired, study, tables

NAMES = ('road', 'car')


def _network(name, seed, hits, scales=(1.0, 0.5)):
  protocol = {'data': 'test', 'scales': list(scales), 'fusion': 'max', 'class_set': '2'}
  protocol |= {'network': 'student', 'step': 9, 'seed': seed, 'chosen_by': 'last'}
  confusion = np.diag(hits) + np.array([[0, 10], [0, 0]])
  found = evaluate.summarise(
    confusion, names=NAMES, means=Means({'2': (0, 1)}), images=5, protocol=protocol
  )
  return {'name': name, **found}


def _labels(seed, kept):
  return {
    'kind': 'labels',
    'name': 'label_1',
    'selector': 'consensus',
    'kept': kept,
    'per_class': {
      'road': {'coverage': kept / 2, 'accuracy_kept': 0.95},
      'car': {'coverage': None, 'accuracy_kept': 0.5},
    },
    'accuracy': 0.8,
    'accuracy_kept': 0.9,
    'accuracy_rejected': None,
    'protocol': {'seed': seed},
  }


def text_of(runs) -> str:
  return tables.render_markdown(study.summarise(runs))


def test_mean_and_sample_deviation_of_every_row():
  hits = [(50, 10), (60, 20), (90, 30)]
  runs = [[_network('warm-up', i, hit), _labels(i, 0.7 + i / 10)] for i, hit in enumerate(hits)]
  text = text_of(runs)
  road = [100 * hit[0] / (hit[0] + 10) for hit in hits]
  assert f'{statistics.mean(road):.1f} ± {statistics.stdev(road):.1f}' in text
  means = [100 * run[0]['mean_iou'] for run in runs]
  assert f'{statistics.mean(means):.1f} ± {statistics.stdev(means):.1f}' in text
  assert text.index('IoU of every class:') < text.index('Pseudo-labels')
  assert 'seeds 0, 1, 2' in text and 'max of 1x and 0.5x' in text
  assert 'Coverage' in text and '40.0 ± 5.0' in text and '95.0 ± 0.0' in text
  assert '80.0 ± 10.0' in text and '90.0 ± 0.0' in text
  assert tables.describe_labels(runs[0][1]).startswith('label_1: consensus keeps labels of 70.0%')
  assert '| - |' in ' '.join(text.split())


def test_protocols_are_kept_apart():
  rows = [_network('a', 0, (5, 5)), _network('b', 0, (5, 5), scales=(1.0,))]
  assert text_of([rows]).count('pixel acc.') == 2


def test_the_drawings_are_pictures(tmp_path):
  runs = [[_network('warm-up', i, (50 + i, 9)), _labels(i, 0.7)] for i in range(3)]
  names = []
  for name, draw in study.drawings(runs):
    draw(tmp_path / f'{name}.png')
    with Image.open(tmp_path / f'{name}.png') as picture:
      assert picture.size > (300, 100) and len(set(picture.convert('L').tobytes())) > 20
    names.append(name)
  assert names == ['labels']


def test_names_in_any_script_are_rows_of_a_drawing(tmp_path):
  names = ('source_only', 'übung', '道路')  # the last in letters that the font lacks: a warning
  found = {name: paired.Score([0.3, 0.4], 0.35, 0.35, 0.3, 0.4) for name in names}
  charts.scores('道路', found, {}, '道路', tmp_path / 'scores.png')
  with Image.open(tmp_path / 'scores.png') as picture:
    assert picture.format == 'PNG'


def test_a_seed_that_a_row_lacks_is_told():
  rows = [_network('a', 0, (5, 5)), _network('b', 0, (5, 5))]
  for runs in ([rows, [_network('a', 3, (5, 5))]], [[_network('a', 3, (5, 5))], rows]):
    with pytest.raises(BadInput, match='b: has no seed 3, and others have'):
      study.summarise(runs)


def test_an_oracle_may_choose_other_steps_for_other_seeds():
  runs = [[_network('a', seed, (5, 5))] for seed in range(2)]
  runs[1][0]['protocol']['step'] = 4
  assert '| a ' in text_of(runs)


def test_seeds_of_different_protocols_are_not_averaged():
  runs = [[_network('a', 0, (5, 5))], [_network('a', 1, (5, 5), scales=(1.0,))]]
  with pytest.raises(BadInput, match=r'a: scales is \[1.0\] in seed 1 and \[1.0, 0.5\] in seed 0'):
    study.summarise(runs)


def test_the_rows_of_the_camvid_study():
  config = synthcity_to_camvid.get_config('study')
  stages, steps = config.stages, synthcity_to_camvid.STEPS
  assert set(config.recipe) == set(stages)
  chain = steps['warmup'] + steps['self_training_1'] + steps['self_training_2']
  assert stages.source_only_equal_steps.steps == chain
  assert stages.source_only_equal_time.steps > chain
  assert stages.supervised.batch.source == 'target_labelled'
  assert config.data.sets.target_labelled.labels and stages.supervised.start == ''
  for name, twin, field in (
    ('warmup_unmixed', 'warmup', 'mixing'),
    ('self_training_1_all', 'self_training_1', 'selector'),
  ):
    one, other = stages[name].to_dict(), stages[twin].to_dict()
    assert [key for key in one if one[key] != other[key]] == [field]


def test_the_comparison_is_at_equal_budget():
  config = comparison.get_config()
  Experiment(config)
  stages = config.stages
  assert set(config.recipe) == set(stages)
  trained = [s for s in stages.values() if s.kind in ('self_training', 'hiast')]
  assert len(trained) == 2 + 1 + 3 + 4 + 3
  for stage in trained:
    assert stage.steps == stages.self_training_1.steps
    assert stage.batch.low_rows + stage.batch.full_rows == 4
    assert stage.optimizer.to_dict() == stages.self_training_1.optimizer.to_dict()
  for name in ('warmup', 'warmup_source_only', 'warmup_adversarial'):
    assert stages[name].start == 'source_only' and stages[name].steps == stages.warmup.steps
  seen = []
  for name in config.recipe:  # every stage comes after those that it reads
    stage = stages[name]
    needed = {stage.get('start'), stage.get('labels')} - {None, ''}
    assert needed <= set(seen), name
    seen.append(name)


@pytest.mark.slow
def test_a_study_from_the_command_line(tmp_path, capsys):
  status = main(
    [
      'study',
      '--seeds',
      '3',
      '4',
      '--config=tests/configs/tiny.py',
      f'--workdir={tmp_path / "study"}',
      f'--config.data.cache={tmp_path / "scenes"}',
      "--config.recipe=('warmup', 'label_1')",
      '--config.translator.kind=none',
      '--config.stages.warmup.method=source_only',
      '--config.stages.warmup.target_statistics=False',
    ]
  )
  assert status == 0
  shown = capsys.readouterr().out
  assert 'seeds 3, 4' in shown and 'warmup  ' in shown and 'label_1  ' in shown
  numbers = json.loads((tmp_path / 'study' / 'study' / 'published.json').read_text())
  runs = numbers['runs']
  assert [run[0]['protocol']['seed'] for run in runs] == [3, 4]
  text = (tmp_path / 'study' / 'study' / 'published.md').read_text()
  assert (tmp_path / 'study' / 'study' / 'published_networks.png').stat().st_size > 1000
  assert study.spread(run[0]['mean_iou'] for run in runs) in text
  assert numbers['rows']['warmup'] == pytest.approx([run[0]['mean_iou'] for run in runs])
