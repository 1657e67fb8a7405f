"""HIAST, Cityscapes -> Oxford RobotCar (9 classes), with the published values.

Source: docs/hiast.md. Set data.root to a folder that holds cityscapes/ and
Oxford_Robot_ICCV19/, and model.weights to a ResNet-101 with torchvision's names.
"""

from diga_jax.configs import datasets, default, recipes
from diga_jax.configs.fields import change


def get_config():
  config = default.get_config()
  recipes.hiast(config)
  data = config.data
  data.classes = 9
  data.names = 'robotcar9'
  data.crop = (768, 1024)
  data.sets = {
    'source': datasets.cityscapes('train', table='cityscapes_to_robotcar9'),
    'target': datasets.robotcar('train'),
    'robotcar_val': datasets.robotcar('val'),
  }
  for stage in config.stages.values():
    if stage.kind == 'label':
      change(stage, image_size=())  # 960x1280, as they are
  config.evaluation.sets = ('robotcar_val',)
  config.evaluation.scales = (1.0,)
  return config
