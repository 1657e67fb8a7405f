"""Domain generalization on rendered street scenes: one look to learn from, three never seen.

The warm-up alone (docs/diga.md section 1) on clean "game" scenes, without translator and target
statistics, against the same network trained on the source for as many steps. Evaluated on scenes by
day, at dusk and in fog: `python -m diga_jax study --config=configs/quickstart_generalization.py
--seeds 0 1 2 --workdir=DIR`.
"""

from diga_jax.configs import datasets, quickstart
from diga_jax.configs.stages import photometric_view

UNSEEN = {'day': 'camera', 'dusk': 'dusk', 'fog': 'fog'}


def get_config():
  config = quickstart.get_config()
  config.recipe = ('source_only', 'warmup', 'source_only_longer')
  config.translator.kind = 'none'
  stages = config.stages
  stages.source_only_longer = stages.source_only.copy_and_resolve_references()
  stages.source_only_longer.start = 'source_only'
  stages.source_only_longer.steps = stages.warmup.steps
  for stage in stages.values():
    if stage.kind == 'warmup':
      stage.mixing = 'none'
      stage.target_statistics = False
      stage.view = photometric_view(sharpness=0.0)
  for name, look in UNSEEN.items():
    config.data.sets[name] = datasets.dataset(kind='scenes', look=look, first=10_000, count=40)
  config.evaluation.sets = tuple(UNSEEN)
  return config
