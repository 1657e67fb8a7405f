"""DiGA on a small real benchmark: rendered SynthCity scenes -> CamVid, 11 classes, two CPU cores.

`data.root` is the folder with synthcity/ and camvid/. All settings were fixed on SynthCity's
validation images; CamVid's labels are read for the final evaluation alone.
"""

from configs import default


def get_config():
  config = default.get_config()
  config.recipe = (
    'translator',
    'source_only',
    'warmup',
    'label_1',
    'self_training_1',
    'label_2',
    'self_training_2',
  )
  config.model.name = 'deeplab_efficientnet_lite0'
  config.model.weights = 'efficientnet_lite0'
  config.model.options = default.lite0_options(feature=128)
  config.translator.kind = 'fourier'

  data = config.data
  data.classes = 11
  data.names = 'camvid11'
  data.crop = (192, 256)
  synthcity = {
    'images': 'synthcity/images/{id}.jpg',
    'labels': 'synthcity/labels/{id}.png',
    'table': 'cityscapes_to_camvid11',
    'low_size': (240, 320),
  }
  camvid = {
    'images': 'camvid/images/{id}.jpg',
    'labels': 'camvid/labels/{id}.png',
    'table': 'camvid11',
    'low_size': (240, 320),
  }
  data.sets = {
    'source': default.dataset(list='synthcity/train.txt', **synthcity),
    'target': default.dataset(list='camvid/train.txt', **camvid),
    'synthcity_val': default.dataset(list='synthcity/val.txt', **synthcity),
    'camvid_test': default.dataset(list='camvid/test.txt', **camvid),
  }
  default.small_scale(
    config,
    steps={
      'source_only': 1440,
      'warmup': 250,
      'self_training_1': 150,
      'self_training_2': 150,
    },
  )
  config.evaluation.sets = ('camvid_test',)
  config.evaluation.batch = 4
  return config
