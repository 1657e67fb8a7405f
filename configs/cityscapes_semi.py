"""DiGA, semi-supervised: Cityscapes with 1/16, 1/8, 1/4 or 1/2 of its labels, HRNetV2-W48 + OCR.

`configs/cityscapes_semi.py:1_16` and so on. The published values (docs/diga.md): no translator,
no mixture of views, one learning rate for all parameters, the auxiliary output's losses at a tenth,
centroids from all training images. Set data.root to a folder that holds cityscapes/ and
model.weights to an ImageNet checkpoint of HRNetV2-W48.
"""

from diga_jax.configs import datasets, default, networks, optimizers, recipes
from diga_jax.configs.fields import change

PARTS = ('1_16', '1_8', '1_4', '1_2')


def get_config(part: str = '1_16'):
  if part not in PARTS:
    raise ValueError(f'no part {part!r}: there are {", ".join(PARTS)}')
  config = default.get_config()
  config.checkpoint_choice = 'oracle'
  config.model.name = 'hrnet_w48_ocr'
  config.model.options = networks.hrnet()

  data, split = config.data, f'cityscapes_labelled_{part.replace("_", "-")}'
  data.crop = (512, 1024)
  data.sets.source = datasets.cityscapes('train', list=split)
  data.sets.target = datasets.cityscapes('train', labelled=False, without=split)
  data.sets.train = datasets.cityscapes('train', labelled=False)
  recipes.semi_supervised(config)
  rates = optimizers.uniform(learning_rate=1e-3, power=1.0)
  for stage in recipes.trained(config).values():
    change(stage, optimizer=rates, batch={'low_rows': 1, 'full_rows': 2})
  return config
