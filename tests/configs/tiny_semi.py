"""Semi-supervised as configs/cityscapes_semi.py, with the smallest network: for the tests."""

from diga_jax.configs import cityscapes_semi, datasets
from tests.configs import tiny


def get_config():
  small, config = tiny.get_config(), cityscapes_semi.get_config('1_4')
  config.checkpoint_choice = 'last'
  config.recipe = ('warmup', 'label_1', 'self_training_1')
  for field in ('devices', 'save_every', 'log_every'):
    config[field] = small[field]
  config.model = small.model
  config.data.crop = (64, 96)
  camera = {'kind': 'scenes', 'look': 'camera', 'size': (96, 128), 'low_size': (80, 112)}
  config.data.sets = {
    'source': datasets.dataset(count=2, **camera),
    'target': datasets.dataset(first=2, count=4, **camera),
    'train': datasets.dataset(count=6, **camera),
    'camera_test': datasets.dataset(first=100, count=2, **camera),
  }
  for stage in config.stages.values():
    if stage.kind != 'label':
      stage.steps = 3
      stage.batch.low_rows, stage.batch.full_rows = 1, 1
  config.evaluation.sets = ('camera_test',)
  config.evaluation.pictures = 0
  return config
