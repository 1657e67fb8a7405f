"""HIAST, SYNTHIA -> Cityscapes (16 and 13 classes), with the published values.

Source: docs/hiast.md. Set data.root to a folder that holds SYNTHIA-RAND-CITYSCAPES/ and
cityscapes/, and model.weights to a ResNet-101 with torchvision's names.
"""

from diga_jax.configs import datasets, default, recipes
from diga_jax.configs.fields import change


def get_config():
  config = default.get_config()
  recipes.hiast(config)
  # As released: 19 outputs, and the benchmark's means by HIAST's own rule.
  config.data.sets.source = datasets.synthia(
    table='synthia16', full_size=(), zoom_heights=(341, 640)
  )
  config.evaluation.class_means = 'hiast'
  config.evaluation.mean = '16'
  for stage in config.stages.values():
    if stage.kind == 'hiast':
      # Terrain, truck, train: SYNTHIA lacks them.
      change(stage, copy_paste={'excluded_classes': (9, 14, 16)})
  return config
