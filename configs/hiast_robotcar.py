"""HIAST, Cityscapes -> Oxford RobotCar (9 classes), with the published values.

Source: docs/method.md section 10. Set data.root to a folder that holds cityscapes/ and robotcar/,
and model.weights to a ResNet-101 with torchvision's names.
"""

from configs import default


def get_config():
  config = default.get_config()
  default.use_hiast(config)
  data = config.data
  data.classes = 9
  data.names = 'robotcar9'
  data.crop = (768, 1024)
  robotcar = {'images': 'robotcar/{id}.png', 'zoom_heights': (341, 900)}
  data.sets = {
    'source': default.dataset(
      images='cityscapes/leftImg8bit/train/{id}_leftImg8bit.png',
      labels='cityscapes/gtFine/train/{id}_gtFine_labelIds.png',
      table='cityscapes_to_robotcar9',
    ),
    'target': default.dataset(list='robotcar/train.txt', **robotcar),
    'robotcar_val': default.dataset(
      list='robotcar/val.txt', labels='robotcar/labels/{id}.png', table='robotcar9', **robotcar
    ),
  }
  for stage in config.stages.values():
    if stage.kind == 'label':
      stage.image_size = ()  # 960x1280, as they are
  config.evaluation.sets = ('robotcar_val',)
  config.evaluation.scales = (1.0,)
  return config
