"""DiGA, GTA5 -> Cityscapes, on MiT-B5 with DAFormer's head.

The recipe and its sizes are those of gta5_to_cityscapes.py; network, AdamW and its rates are those
of DAFormer (arXiv 2111.14887). DiGA on HRDA's multi-resolution crops is not built. Set
model.weights to an ImageNet checkpoint of MiT-B5.
"""

from diga_jax.configs import gta5_to_cityscapes, networks, optimizers, recipes
from diga_jax.configs.fields import change


def get_config():
  config = gta5_to_cityscapes.get_config()
  config.model.name = 'mit_b5_daformer'
  config.model.options = networks.mix_transformer()
  for stage in recipes.trained(config).values():
    change(stage, optimizer=optimizers.transformer())
  return config
