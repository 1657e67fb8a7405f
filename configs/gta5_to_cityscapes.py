"""DiGA, GTA5 -> Cityscapes, with the published values (docs/diga.md).

Set data.root to a folder that holds GTA5/ and cityscapes/, and model.weights to the ImageNet/COCO
checkpoint of DeepLabV2-ResNet101.
"""

from diga_jax.configs import default


def get_config():
  config = default.get_config()
  # Published: the weights with the best score on the labelled validation images are kept.
  config.checkpoint_choice = 'oracle'
  return config
