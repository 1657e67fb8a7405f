"""Domain generalization: trained on one look, measured on several that were never seen."""

import json

import pytest

from diga_jax.__main__ import main
from diga_jax.configs import quickstart_generalization
from diga_jax.recipe.experiment import Experiment
from diga_jax.stages.kinds import inputs


@pytest.mark.slow
def test_one_look_in_several_looks_out(tmp_path, capsys):
  command = [
    'run',
    '--config=tests/configs/tiny_generalization.py',
    f'--workdir={tmp_path / "run"}',
    f'--config.data.cache={tmp_path / "scenes"}',
  ]
  assert main(command) == 0
  said = capsys.readouterr().out
  for name in quickstart_generalization.UNSEEN:
    place = tmp_path / 'run/evaluation/published/warmup' / name / 'metrics.json'
    found = json.loads(place.read_text())
    assert found['protocol']['data'] == name and found['images'] == 3
    assert f'{name}, 3 images' in said  # a table of its own: other images, other numbers
  identity = json.loads((tmp_path / 'run/warmup/stage.json').read_text())['identity']
  assert not [key for key in identity if key.startswith(('data.sets.target', 'images.target'))]


def test_no_stage_looks_at_a_target(tmp_path):
  experiment = Experiment(quickstart_generalization.get_config())
  for name in experiment.config.recipe:
    stage = experiment.stage(name)
    assert not inputs(stage, experiment.config).target and not stage.target_statistics
  warm, longer = (experiment.stage(name) for name in ('warmup', 'source_only_longer'))
  assert warm.steps == longer.steps and longer.start == warm.start == 'source_only'
  assert warm.optimizer == longer.optimizer and warm.method != longer.method
