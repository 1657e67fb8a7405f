"""A template for your own images: copy it, and change what is marked with <-. No code is needed.

    python -m diga_jax doctor --config=configs/my_data.py --config.data.root=DIR
    python -m diga_jax run --config=configs/my_data.py --config.data.root=DIR --workdir=runs/mine

The recipe is that of two CPU cores (EfficientNet-Lite0, no translator to train); for the published
network and sizes start from `default.get_config()` and change its data alone.
"""

from diga_jax.configs import datasets, default, networks, recipes

# What the networks learn, in the order of the train ids 0, 1, ...; 255 is ignored.      <-
CLASSES = ('road', 'building', 'vegetation', 'sky', 'person', 'vehicle')
COLOURS = ((128, 64, 128), (70, 70, 70), (107, 142, 35), (70, 130, 180), (220, 20, 60), (0, 0, 142))


def get_config():
  config = default.get_config()
  config.recipe = ('source_only', 'warmup', 'label_1', 'self_training_1')
  config.model.name = 'deeplab_efficientnet_lite0'
  config.model.weights = 'efficientnet_lite0'
  config.model.options = networks.lite0(feature=128)
  config.translator.kind = 'fourier'

  data = config.data
  data.classes = len(CLASSES)
  data.class_names = CLASSES
  data.palette = COLOURS
  data.crop = (192, 256)  # <-
  data.sets = {
    # Labelled images to learn from: here label files hold ids of another table, which pairs
    # (id in the file, train id) translate; an id without a pair is refused, not ignored.       <-
    'source': datasets.dataset(
      images='simulator/images/{id}.png',
      labels='simulator/labels/{id}.png',
      table=((0, 255), (1, 0), (2, 1), (3, 2), (4, 3), (5, 4), (6, 5), (7, 5)),
      low_size=(240, 320),
    ),
    # Images to adapt to, without labels; a list says which of the files.                       <-
    'target': datasets.dataset(
      images='street/images/{id}.jpg', list='street/train.txt', low_size=(240, 320)
    ),
    # Labelled images to measure on: here label files are pictures in the classes' colours.     <-
    'street_test': datasets.dataset(
      images='street/images/{id}.jpg',
      labels='street/colours/{id}.png',
      label_format='colour',
      table=(((0, 0, 0), 255), *zip(COLOURS, range(len(COLOURS)), strict=True)),
      list='street/test.txt',
    ),
  }
  recipes.small_scale(config, steps={'source_only': 2000, 'warmup': 250, 'self_training_1': 250})
  config.evaluation.sets = ('street_test',)
  return config
