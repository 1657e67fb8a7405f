"""DiGA, SYNTHIA -> Cityscapes (16 and 13 classes), as released (docs/diga.md).

Set data.root to a folder that holds SYNTHIA-RAND-CITYSCAPES/ and cityscapes/, and model.weights to
the ImageNet/COCO checkpoint of DeepLabV2-ResNet101.

The network has 16 outputs, and pixels of the three classes that SYNTHIA lacks are ignored.
Published quirk: the released warm-up's learning rate rises in a straight line to its last step;
what was meant is `--config.stages.warmup.optimizer.warmup=1000`.
"""

from diga_jax.configs import datasets, default
from diga_jax.configs.fields import change
from diga_jax.configs.stages import batch, photometric_view


def get_config():
  config = default.get_config()
  config.checkpoint_choice = 'oracle'
  config.translator.reconstruction = 0.025
  data = config.data
  data.classes = 16
  data.names = 'synthia16'
  data.sets.source = datasets.synthia()
  for name in ('target', 'cityscapes_val'):
    data.sets[name].table = 'cityscapes16_packed'

  warmup = config.stages.warmup
  warmup.steps = 60_000
  warmup.optimizer.warmup = warmup.get_ref('steps')
  change(warmup, distillation=0.25, reverse=0.25, loss='ohem')
  warmup.view = photometric_view(jitter=0.7, grayscale=0.1)
  warmup.batch = batch(low_rows=1, full_rows=3, source_crop='plain')
  for name in ('self_training_1', 'self_training_2'):
    change(
      config.stages[name],
      reverse=0.25,
      loss='ohem',
      target_loss='ohem',
      batch={'low_rows': 1, 'full_rows': 2},
    )
  return config
