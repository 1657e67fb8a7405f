"""HIAST's recipe, as small as it gets, and stages that mix both methods: for the tests."""

from diga_jax.configs import default, recipes
from diga_jax.configs.stages import hiast_stage, label_stage, self_training_stage
from tests.configs import tiny


def get_config():
  config = default.get_config()
  recipes.hiast(config)
  config.devices = 1
  config.model.weights = 'random'
  config.model.options.update({'blocks': (1, 1), 'width': 4})
  config.data.crop = (32, 48)
  config.data.sets = tiny.get_config().data.sets
  for dataset in config.data.sets.values():
    dataset.zoom_heights = (30, 44)
  stages = config.stages
  for name in ('label_3', 'hiast_3'):
    del stages[name]
  # DiGA's self-training on labels by another selector, with HIAST's copy-paste; HIAST's with
  # DiGA's consensus and class mix.
  stages.label_cbst = label_stage('warmup', selector='cbst', share=0.5)
  stages.diga_cbst = self_training_stage(
    'warmup', 'label_cbst', selector='none', mixing='none', target_mixing='copy_paste'
  )
  stages.hiast_consensus = hiast_stage(
    'warmup', 'label_cbst', selector='consensus', rank=2, target_mixing='class'
  )
  stages.diga_cbst.optimizer = stages.hiast_1.optimizer.copy_and_resolve_references()
  config.recipe = ('source_only', 'warmup', 'label_1', 'hiast_1', 'label_2', 'hiast_2',
                   'label_cbst', 'diga_cbst', 'hiast_consensus')  # fmt: skip
  for stage in stages.values():
    if stage.kind == 'label':
      # An untrained network is not sure of anything: half of what it sees, from the first batch on.
      stage.threshold, stage.beta, stage.gamma = 0.05, 0.1, 0.0
      stage.image_size = (40, 80)
      continue
    if 'copy_paste' in stage:
      stage.copy_paste.hard_classes = 19  # it may see road everywhere
    stage.steps = 3
    stage.batch.low_rows, stage.batch.full_rows = 0, 2
    stage.optimizer.learning_rate = 1e-3
  config.evaluation.sets = ('camera_test',)
  config.evaluation.scales = (1.0,)
  config.evaluation.pictures = 2
  config.save_every = 2
  config.log_every = 2
  return config
