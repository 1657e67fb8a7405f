"""The networks of a recipe against one of them: from measurements on disk to the table."""

import numpy as np
import pytest

from data_pipelines.errors import BadInput
from diga_jax.recipe import comparison, graph
from diga_jax.recipe.experiment import Run
from diga_jax.recipe.labels import save_arrays
from diga_jax.storage import stage_folder
from tests.configs import tiny

GAIN = {'warmup': 0.0, 'self_training_1': 0.1, 'self_training_2': 0.2}


def measured(workdir, seed: int, ids=('a', 'b', 'c')) -> Run:
  """A run whose networks hit 30% of each class, and their gain."""
  config = tiny.get_config()
  config.seed = seed
  run = Run(config, workdir / f'seed_{seed}')
  for name, gain in GAIN.items():
    union = np.full((len(ids), 19), 1000)
    noise = np.random.default_rng([seed, len(name)]).integers(-20, 20, union.shape)
    hit = (union * (0.3 + gain)).astype(int) + noise

    def build(place, hit=hit, union=union):
      save_arrays(place / 'images.npz', ids=np.array(ids), intersection=hit, union=union)

    stage_folder.produce(graph.place_of(run, name, 'camera_test'), {}, build)
  return run


def test_differences_are_of_every_network_but_the_reference(tmp_path):
  runs = [measured(tmp_path, seed) for seed in range(3)]
  comparison.check(runs[0], 'warmup')
  found = comparison.differences(runs, 'warmup')['camera_test']
  assert list(found) == ['self_training_1', 'self_training_2']
  assert [row.mean for row in found.values()] == pytest.approx([0.1, 0.2], abs=0.01)
  text = comparison.describe(runs, 'warmup')
  assert 'camera_test: mIoU' in text and '| self_training_2 | +20' in text
  assert 'Of fewer than' not in text
  assert 'Of fewer than 3 seeds' in comparison.describe(runs[:2], 'warmup')


def test_a_reference_that_is_none_is_refused(tmp_path):
  config = tiny.get_config()
  with pytest.raises(BadInput, match='--against=label_1: is no row of a network: there are warmup'):
    comparison.check(Run(config, tmp_path), 'label_1')
  config.evaluation.class_means = 'hiast'
  with pytest.raises(BadInput, match=r"config.evaluation.class_means to 'present'"):
    comparison.check(Run(config, tmp_path), 'warmup')


def test_runs_on_other_images_are_not_compared(tmp_path):
  runs = [measured(tmp_path, 0), measured(tmp_path, 1, ('a', 'b', 'd'))]
  with pytest.raises(BadInput, match='measured on other images'):
    comparison.differences(runs, 'warmup')


def test_damaged_counts_are_refused(tmp_path):
  runs = [measured(tmp_path, seed) for seed in range(2)]
  path = graph.place_of(runs[1], 'warmup', 'camera_test') / 'images.npz'
  path.write_bytes(path.read_bytes()[:-9])
  with pytest.raises(BadInput, match=r'seed_1/.*images.npz: is damaged'):
    comparison.differences(runs, 'warmup')
