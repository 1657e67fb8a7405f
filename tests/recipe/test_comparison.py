"""The networks of a recipe against one of them: from measurements on disk to the table."""

import numpy as np
import pytest

from data_pipelines.errors import BadInput
from diga_jax.recipe import cells, comparison, graph
from diga_jax.recipe.experiment import Run
from diga_jax.recipe.labels import save_arrays
from diga_jax.report import tables
from diga_jax.storage import stage_folder
from tests.configs import tiny

GAIN = {'warmup': 0.0, 'self_training_1': 0.1, 'self_training_2': 0.2}


def measured(workdir, seed: int, ids=('a', 'b', 'c'), names=GAIN) -> Run:
  """A run whose networks hit 30% of each class, and their gain."""
  config = tiny.get_config()
  config.seed = seed
  run = Run(config, workdir / f'seed_{seed}')
  for name in names:
    gain = GAIN[name]
    union = np.full((len(ids), 19), 1000)
    noise = np.random.default_rng([seed, len(name)]).integers(-20, 20, union.shape)
    hit = (union * (0.3 + gain)).astype(int) + noise

    def build(place, hit=hit, union=union):
      save_arrays(place / 'images.npz', ids=np.array(ids), intersection=hit, union=union)

    stage_folder.produce(graph.place_of(run, name, 'camera_test'), {}, build)
  return run


def study_of(runs) -> cells.Study:
  found = {('', run.config.seed): cells.Cell('', run.config.seed, run) for run in runs}
  return cells.Study(runs[0].workdir.parent, found)


def text_of(study: cells.Study, *named: str) -> str:
  bounds = comparison.bounds(study, *named)
  found = {'camera_test': comparison.compare(study, 'camera_test', bounds)}
  return tables.render_markdown(comparison.describe(found, bounds, len(study.seeds)))


def test_differences_are_of_every_network_but_the_reference(tmp_path):
  study = study_of([measured(tmp_path, seed) for seed in range(3)])
  found = comparison.compare(study, 'camera_test', comparison.Bounds('warmup', 'self_training_2'))
  assert list(found.scores) == list(GAIN)
  assert list(found.differences) == ['self_training_1', 'self_training_2']
  means = [row.mean for row in found.differences.values()]
  assert means == pytest.approx([0.1, 0.2], abs=0.01)
  assert found.gaps['self_training_1'].mean == pytest.approx(0.5, abs=0.05)
  text = text_of(study, 'warmup', None)
  assert 'camera_test: mIoU' in text and '| self_training_2 | +20' in text
  assert 'Fewer than' not in text and 'ap closed' not in text
  assert 'for 2 comparisons' in text and '50 (' in text_of(study, 'warmup', 'self_training_2')


@pytest.mark.parametrize(('seeds', 'words'), [(1, 'One seed: nothing'), (2, 'Fewer than 3 seeds')])
def test_few_seeds_are_told(tmp_path, seeds, words):
  assert words in text_of(study_of([measured(tmp_path, n) for n in range(seeds)]), 'warmup', None)


def test_a_reference_that_is_none_is_refused(tmp_path):
  study = study_of([Run(tiny.get_config(), tmp_path)])
  with pytest.raises(BadInput, match='--against=label_1: is no row of a network: there are warmup'):
    comparison.bounds(study, 'label_1', None)
  with pytest.raises(BadInput, match='--upper=x: is no row of a network'):
    comparison.bounds(study, 'warmup', 'x')


def test_the_means_are_those_of_the_evaluation(tmp_path):
  config = tiny.get_config()
  config.evaluation.mean = '13'
  found = comparison.average_of(Run(config, tmp_path))
  assert len(found.classes) == 13 and found.divisor is None
  config.evaluation.class_means = 'hiast'
  found = comparison.average_of(Run(config, tmp_path))
  assert len(found.classes) == 16 and found.divisor == 13
  config.evaluation.mean = ''
  assert comparison.average_of(Run(config, tmp_path)) == (range(19), 19)


def test_runs_on_other_images_are_not_compared(tmp_path):
  study = study_of([measured(tmp_path, 0), measured(tmp_path, 1, ('a', 'b', 'd'))])
  with pytest.raises(BadInput, match='measured on other images'):
    text_of(study, 'warmup', None)


def test_rows_on_other_images_are_not_compared(tmp_path):
  names = ('self_training_1', 'self_training_2')
  run = measured(tmp_path, 0, ('a', 'b', 'd'), ('warmup',))
  measured(tmp_path, 0, names=names)
  with pytest.raises(BadInput, match='self_training_1: was measured on other images'):
    text_of(study_of([run]), 'warmup', None)


def test_damaged_counts_are_refused(tmp_path):
  runs = [measured(tmp_path, seed) for seed in range(2)]
  path = graph.place_of(runs[1], 'warmup', 'camera_test') / 'images.npz'
  path.write_bytes(path.read_bytes()[:-9])
  with pytest.raises(BadInput, match=r'seed_1/.*images.npz: is damaged'):
    text_of(study_of(runs), 'warmup', None)


def test_measurements_without_counts_are_refused(tmp_path):
  run = measured(tmp_path, 0)
  place = graph.place_of(run, 'warmup', 'camera_test')
  record = stage_folder.read_record(place)
  stage_folder.write_record(place, {**record, 'files': {}})
  with pytest.raises(BadInput, match=r'again, with another config\.evaluation\.name'):
    text_of(study_of([run]), 'warmup', None)
