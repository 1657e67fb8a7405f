"""DiGA for domain generalization: the warm-up alone, on GTA5 alone (docs/diga.md section 1).

No target image is seen: no translator, no mixture of the two views, and the running statistics stay
the source's. The released run moved them by Cityscapes' training images, which lets the target in:
`--config.stages.warmup.target_statistics=True` does as released.
"""

from diga_jax.configs import datasets, default
from diga_jax.configs.stages import batch, photometric_view


def get_config():
  config = default.get_config()
  config.recipe = ('warmup',)
  config.translator.kind = 'none'
  warmup = config.stages.warmup
  warmup.mixing = 'none'
  warmup.target_statistics = False
  warmup.view = photometric_view(sharpness=0.0)
  warmup.batch = batch(low_rows=2, full_rows=2)

  sets = config.data.sets
  sets.bdd100k_val = datasets.bdd100k()
  sets.mapillary_val = datasets.mapillary()
  # Published: images and labels are resized, which is easier on the network than their own size.
  sets.bdd100k_val_resized = datasets.bdd100k(evaluation_size=(720, 1280))
  sets.mapillary_val_resized = datasets.mapillary(evaluation_size=(1080, 1920))
  config.evaluation.sets = (
    'cityscapes_val',
    'bdd100k_val',
    'bdd100k_val_resized',
    'mapillary_val',
    'mapillary_val_resized',
  )
  return config
