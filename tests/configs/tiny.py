"""The whole recipe, as small as it gets: for the tests."""

from diga_jax.configs import datasets, default


def get_config():
  config = default.get_config()
  config.recipe = (
    'translator',
    'warmup',
    'label_1',
    'self_training_1',
    'label_2',
    'self_training_2',
  )
  config.devices = 1
  config.model.weights = 'random'
  config.model.options = {
    'blocks': (1, 1),
    'width': 4,
    'feature': 16,
    'dropout': 0.1,
    'batch_norm': 'batch',
  }
  config.translator.update(
    {'width': 4, 'blocks': 1, 'discriminator_width': 4, 'discriminator_layers': 2}
  )
  data = config.data
  data.crop = (32, 48)
  scenes = {'kind': 'scenes', 'size': (48, 96), 'low_size': (40, 80)}
  data.sets = {
    'source': datasets.dataset(look='game', count=5, **scenes),
    'target': datasets.dataset(look='camera', count=4, **scenes),
    'camera_test': datasets.dataset(look='camera', first=100, count=3, **scenes),
  }
  for stage in config.stages.values():
    if stage.kind != 'label':
      stage.steps = 5
      stage.batch.low_rows, stage.batch.full_rows = 1, 1
      stage.optimizer.learning_rate = 1e-3
  config.evaluation.sets = ('camera_test',)
  config.evaluation.pictures = 2
  config.save_every = 2
  config.log_every = 2
  return config
