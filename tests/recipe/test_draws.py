"""Draws belong to (seed, stage, step, example): stages share none unless the config says so."""

import itertools
import pathlib

import jax
import numpy as np
import pytest

from data_pipelines.errors import BadInput
from diga_jax.config import check
from diga_jax.configs import default, quickstart
from diga_jax.parallel.example_keys import STREAMS, initial_key, root_key, stream_key
from diga_jax.recipe.experiment import Run
from tests.support import frozen


@pytest.fixture(autouse=True)
def no_files(monkeypatch):
  frozen.without_files(monkeypatch)


def config_of(make=quickstart.get_config):
  config = make()
  config.devices = 1
  return config


def draws(config, name):
  return frozen.draws(Run(config, pathlib.Path('nowhere')), name)


def checksums(found) -> set[int]:
  return {row for step in found.values() for rows in step.values() for row in rows}


def test_no_two_stages_share_a_draw():
  config = config_of(default.get_config)
  names = ('warmup', 'self_training_1', 'self_training_2')
  found = {name: checksums(draws(config, name)) for name in names}
  for one, other in itertools.combinations(names, 2):
    assert not found[one] & found[other]


def test_stages_of_one_stream_share_all_of_them():
  config = config_of()
  stages = config.stages
  stages.control = stages.source_only.copy_and_resolve_references()
  assert draws(config, 'control') != draws(config, 'source_only')
  stages.control.data_stream = 'source_only'
  assert draws(config, 'control') == draws(config, 'source_only')


def test_a_stream_of_no_stage_is_refused():
  config = config_of()
  config.stages.warmup.data_stream = 'source_onyl'
  with pytest.raises(BadInput, match=r"stages\.warmup\.data_stream is 'source_onyl': name a stage"):
    check(config)


def test_a_stages_draws_do_not_depend_on_the_rest_of_the_recipe():
  config, alone = config_of(), config_of()
  alone.recipe = ('source_only', 'warmup')
  for name in [name for name in alone.stages if name not in alone.recipe]:
    del alone.stages[name]
  assert draws(alone, 'warmup') == draws(config, 'warmup')


def test_another_seed_gives_other_draws():
  config, other = config_of(), config_of()
  other.seed = 1
  assert not checksums(draws(config, 'warmup')) & checksums(draws(other, 'warmup'))


def test_keys_of_stages_steps_and_initial_networks_differ():
  roots = [root_key(0, name) for name in ('warmup', 'self_training_1')]
  keys = [stream_key(root, np.int32(step), name)
          for root in roots for step in range(5) for name in STREAMS]  # fmt: skip
  keys += [initial_key(0, name) for name in ('network', 'translator')] + roots
  found = {tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in keys}
  assert len(found) == len(keys)
