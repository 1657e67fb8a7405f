"""Semi-supervised: part of one domain with labels, the rest without."""

import json

import numpy as np
import pytest

from data_pipelines import image_ids
from diga_jax.__main__ import main
from diga_jax.configs import camvid_semi, cityscapes_semi
from diga_jax.recipe.experiment import Run
from diga_jax.recipe.labels import read_centroids
from tests.configs import tiny_semi


@pytest.mark.slow
def test_a_few_labels_and_many_images(tmp_path, capsys):
  workdir = tmp_path / 'run'
  command = [
    'run',
    '--config=tests/configs/tiny_semi.py',
    f'--workdir={workdir}',
    f'--config.data.cache={tmp_path / "scenes"}',
  ]
  assert main(command) == 0
  assert 'self_training_1' in capsys.readouterr().out
  experiment = Run(tiny_semi.get_config(), workdir)
  labelled, unlabelled = (set(experiment.images(name).ids) for name in ('source', 'target'))
  assert labelled and unlabelled and not labelled & unlabelled
  # Only what has no labels is labelled; the centroids are those of all images.
  made = image_ids.find_files(str(workdir / 'label_1/labels/{id}.png'))[0]
  assert set(made) == unlabelled
  centroids, _ = read_centroids(workdir / 'label_1')
  feature = experiment.config.model.options.feature
  assert centroids.shape == (19, feature) and np.isfinite(centroids).all()
  identity = json.loads((workdir / 'label_1/stage.json').read_text())['identity']
  assert {'images.target', 'images.train'} <= set(identity) and 'images.source' not in identity
  for name in ('warmup', 'self_training_1'):
    place = workdir / f'evaluation/published/{name}/camera_test/metrics.json'
    assert json.loads(place.read_text())['images'] == 2


def test_the_small_benchmark_is_the_published_protocol():
  small, published = camvid_semi.get_config(), cityscapes_semi.get_config('1_4')
  assert len(image_ids.read_list(str(image_ids.LISTS / f'{camvid_semi.LABELLED}.txt'))) == 92
  assert small.data.sets.source.list == small.data.sets.target.without == camvid_semi.LABELLED
  assert small.data.sets.target.list == 'camvid/train.txt'
  for name in ('warmup', 'self_training_1'):
    ours, theirs = small.stages[name], published.stages[name]
    for field in ('source_crop', 'target_crop', 'redraw'):
      assert ours.batch[field] == theirs.batch[field]
    assert ours.mixing == theirs.mixing == 'none' and ours.view == theirs.view
  assert small.stages.self_training_1.distillation == published.stages.self_training_1.distillation
  assert small.stages.label_1 == published.stages.label_1
  assert small.data.sets.train.list == 'camvid/train.txt'
  # Of a network whose statistics never move.
  assert published.stages.warmup.target_statistics and not small.stages.warmup.target_statistics
  longer = small.stages.source_only_longer
  assert longer.steps == small.stages.warmup.steps + small.stages.self_training_1.steps
  assert longer.optimizer == small.stages.warmup.optimizer
