"""Working directories that hold all that a page shows, made in no time: nothing is trained."""

import contextlib
import pathlib

import numpy as np
import pytest
from clu import metric_writers

from data_pipelines import atomic
from diga_jax.__main__ import main
from diga_jax.recipe import evaluation, labels, training
from diga_jax.recipe.experiment import class_names, palette
from diga_jax.report.pictures import comparison_panels
from tests.support.quick_stages import without_training

RECIPE = ('warmup', 'label_1', 'self_training_1', 'label_2', 'self_training_2')
COLLAPSED = 'car'  # in label_2


def write_events(directory: pathlib.Path, steps: int = 5, **curves: float) -> None:
  """An event file with a loss that falls, and more curves that do not change."""
  with contextlib.closing(metric_writers.SummaryWriter(str(directory))) as writer:
    for step in range(1, steps + 1):
      common = {'loss': 2.0 / step, 'learning_rate': 0.1, 'kept_share/road': 0.5}
      writer.write_scalars(step, common | curves)


def write_picture(run, key: str, folder: pathlib.Path, **panels: np.ndarray) -> None:
  """The picture of a data set's first image."""
  images = run.images(key)
  image, truth = images.read(0)
  made = comparison_panels(
    image, truth=truth, palette=palette(run), names=class_names(run), **panels
  )
  atomic.write_png(folder / f'{images.ids[0]}.png', made)


def with_traces(patch: pytest.MonkeyPatch) -> None:
  """Stages and measurements as of `without_training` that leave curves, pictures and counts."""
  without_training(patch)
  train, measure = training.train_stage, evaluation.evaluate_network
  measure_labels = evaluation.measure_labels

  def train_and_log(run, name, directory):
    write_events(directory, seconds_per_step=0.5, input_wait_per_step=0.1, cross_entropy=1.0)
    return train(run, name, directory)

  def label(run, name, directory):
    names = class_names(run)
    counts = {each: 0 if each == COLLAPSED and name == 'label_2' else 100 for each in names}
    warnings = [f'{name}: {COLLAPSED} falls'] * (name == 'label_2')
    by_class = {each: {'predicted': 1 / len(names), 'kept': 0.5} for each in names}
    balance = {'by_class': by_class, 'warnings': warnings}
    return {'images': 4, 'pixels': list(counts.values()), 'class_balance': balance}

  def measure_and_draw(run, name, key, directory):
    shape = run.images(key).read(0)[1].shape
    shown = np.full(shape, 1 if name == 'warmup' else 2)
    write_picture(run, key, directory / 'pictures', predictions={'prediction': shown})
    folder = directory / evaluation.TARGET_PICTURES
    write_picture(run, 'target', folder, predictions={'prediction': shown})
    return measure(run, name, key, directory)

  def measure_and_draw_labels(run, name, key, directory):
    shown = np.zeros(run.images(key).read(0)[1].shape, int)
    options = {'pseudo': shown, 'consensus': shown == 0}
    write_picture(run, key, directory / 'pictures', **options)
    return measure_labels(run, name, key, directory)

  patch.setattr(training, 'train_stage', train_and_log)
  patch.setattr(labels, 'label_stage', label)
  patch.setattr(evaluation, 'evaluate_network', measure_and_draw)
  patch.setattr(evaluation, 'measure_labels', measure_and_draw_labels)


@pytest.fixture(scope='session')
def finished(tmp_path_factory) -> pathlib.Path:
  """A folder with the finished runs a, b (the same, seed 1) and c (another selector)."""
  place, cache = tmp_path_factory.mktemp('runs'), tmp_path_factory.mktemp('scenes')
  changes = {
    'a': ['--config.seed=0'],
    'b': ['--config.seed=1'],
    'c': ['--config.stages.self_training_1.selector=none'],
  }
  with pytest.MonkeyPatch.context() as patch:
    with_traces(patch)
    for name, options in changes.items():
      command = ['run', '--config=tests/configs/tiny.py', f'--workdir={place / name}']
      command += [f'--config.data.cache={cache}', '--config.translator.kind=fourier', *options]
      assert main([*command, f'--config.recipe={RECIPE}']) == 0
  return place
