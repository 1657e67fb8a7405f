"""DiGA for domain generalization: the warm-up alone, on GTA5 alone (docs/method.md section 1).

No target image is seen: no translator, and the running statistics stay the source's
(`target_statistics` off; the published run left it on, which lets the target in).
"""

from configs import default


def get_config():
  config = default.get_config()
  config.recipe = ('warmup',)
  config.translator.kind = 'none'
  warmup = config.stages.warmup
  warmup.target_statistics = False
  warmup.view = default.photometric_view(sharpness=0.0)
  warmup.batch = default.batch(low=2, full=2)

  sets = config.data.sets
  sets.bdd100k_val = default.dataset(
    images='bdd100k/images/10k/val/{id}.jpg',
    labels='bdd100k/labels/sem_seg/masks/val/{id}.png',
    table='bdd100k',
    evaluation_size=(720, 1280),  # published: images and labels are resized
  )
  sets.mapillary_val = default.dataset(
    images='mapillary/validation/images/{id}.jpg',
    labels='mapillary/validation/v1.2/labels/{id}.png',
    table='mapillary',
    evaluation_size=(1080, 1920),
  )
  config.evaluation.sets = ('cityscapes_val', 'bdd100k_val', 'mapillary_val')
  return config
