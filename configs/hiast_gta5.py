"""HIAST, GTA5 -> Cityscapes, with the published values (docs/hiast.md).

Set data.root to a folder that holds GTA5/ and cityscapes/, and model.weights to a ResNet-101 with
torchvision's names.
"""

from diga_jax.configs import datasets, default, recipes


def get_config():
  config = default.get_config()
  recipes.hiast(config)
  config.data.sets.source = datasets.gta5(
    without='gta5_unusable_25', full_size=(), zoom_heights=(341, 950)
  )
  return config
