"""Domain generalization, as small as it gets: for the tests."""

from diga_jax.configs import datasets, quickstart_generalization
from tests.configs import tiny


def get_config():
  config = tiny.get_config()
  config.recipe = ('warmup',)
  config.translator.kind = 'none'
  config.stages.warmup.target_statistics = False
  for name, look in quickstart_generalization.UNSEEN.items():
    config.data.sets[name] = datasets.dataset(
      kind='scenes', look=look, first=100, count=3, size=(48, 96)
    )
  config.evaluation.sets = tuple(quickstart_generalization.UNSEEN)
  return config
