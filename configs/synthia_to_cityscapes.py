"""DiGA, SYNTHIA -> Cityscapes (16 and 13 classes), with the published values (docs/method.md).

Set data.root to a folder that holds SYNTHIA-RAND-CITYSCAPES/ and cityscapes/, and model.weights to
the ImageNet/COCO checkpoint of DeepLabV2-ResNet101.
"""

from diga_jax.configs import datasets, default
from diga_jax.configs.fields import change
from diga_jax.configs.stages import batch, photometric_view


def get_config():
  config = default.get_config()
  config.checkpoint_choice = 'oracle'
  config.data.sets.source = datasets.synthia()

  warmup = config.stages.warmup
  warmup.steps = 60_000  # and the decay is as long, though it begins after the 1000
  warmup.optimizer.warmup = 1000
  warmup.distillation = 0.25
  warmup.loss = 'ohem'
  warmup.view = photometric_view(jitter=0.7, grayscale=0.1)
  warmup.batch = batch(low_rows=1, full_rows=3, source_crop='plain')
  for name in ('self_training_1', 'self_training_2'):
    change(config.stages[name], batch={'low_rows': 1, 'full_rows': 2}, optimizer={'warmup': 1000})
  return config
