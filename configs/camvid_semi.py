"""DiGA, semi-supervised, on a small real benchmark: CamVid with a quarter of its training labels.

Every fourth of the 367 training images is labelled; 11 classes, two CPU cores. The stages are those
of cityscapes_semi.py, the network and the optimizer those of synthcity_to_camvid.py. `data.root` is
the folder with camvid/. The last stage is the control: labelled images alone, as many steps.
"""

from diga_jax.configs import datasets, recipes, synthcity_to_camvid

LABELLED = 'camvid_labelled_1-4'
STEPS = {'source_only': 1000, 'warmup': 250, 'self_training_1': 250}


def get_config():
  config = synthcity_to_camvid.get_config()
  config.recipe = ('source_only', 'warmup', 'label_1', 'self_training_1', 'source_only_longer')
  recipes.semi_supervised(config)

  data, stages = config.data, config.stages
  camvid = data.sets.target.to_dict()
  data.sets.source = datasets.dataset(**camvid | {'list': LABELLED})
  data.sets.target = datasets.dataset(**camvid | {'without': LABELLED})
  data.sets.train = datasets.dataset(**camvid | {'labels': ''})
  del data.sets.synthcity_val
  for name, steps in STEPS.items():
    stages[name].steps = steps
  stages.source_only_longer = stages.source_only.copy_and_resolve_references()
  stages.source_only_longer.start = 'source_only'
  stages.source_only_longer.steps = STEPS['warmup'] + STEPS['self_training_1']
  stages.source_only_longer.optimizer = stages.warmup.optimizer.copy_and_resolve_references()
  return config
