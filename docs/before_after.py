"""Draws docs/before_after.png from a complete quickstart: python docs/before_after.py WORKDIR.

The scene is the first of camera_test, whatever the networks make of it.
"""

import pathlib
import sys

import numpy as np

from data_pipelines import atomic
from diga_jax.config import config_file, read_config
from diga_jax.recipe.experiment import Run, class_names, palette
from diga_jax.report.pictures import comparison_panels

STAGES = {'source-only': 'source_only', 'after self-training': 'self_training_1'}


def draw(workdir: pathlib.Path, place: pathlib.Path) -> None:
  """Image, truth and the predictions of two stages' students."""
  config = read_config([f'--config={config_file("quickstart")}'])
  run = Run(config, workdir)
  image, truth = run.images('camera_test').read(0)

  def predict(stage: str) -> np.ndarray:
    predictor = run.predictor(stage, config.evaluation.network)
    return np.asarray(predictor.classes(predictor.place(image[None]), image.shape[:2])[0])

  predictions = {caption: predict(stage) for caption, stage in STAGES.items()}
  options = {'palette': palette(run), 'names': class_names(run)}
  panels = comparison_panels(image, truth=truth, predictions=predictions, **options)
  atomic.write_png(place, panels)


if __name__ == '__main__':
  draw(pathlib.Path(sys.argv[1]), pathlib.Path(__file__).with_suffix('.png'))
