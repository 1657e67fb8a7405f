"""Training stages, where no whole run is needed to see it."""

import types

import pytest

from data_pipelines.errors import BadInput
from diga_jax.recipe import training
from diga_jax.recipe.experiment import Run
from tests.configs import tiny


def test_an_oracle_without_a_labelled_pixel_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(Run, 'images', lambda *_: None)
  monkeypatch.setattr(Run, 'predictor_of', lambda *_: None)
  monkeypatch.setattr(training.evaluate, 'evaluate', lambda *_, **__: {'mean_iou': None})
  score = training.oracle(Run(tiny.get_config(), tmp_path))
  with pytest.raises(BadInput, match="'camera_test' has no labelled pixel"):
    score(types.SimpleNamespace(params={}, batch_stats={}))
