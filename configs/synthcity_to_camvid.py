"""DiGA on a small real benchmark: rendered SynthCity scenes -> CamVid, 11 classes, two CPU cores.

`data.root` is the folder with synthcity/ and camvid/. All settings were fixed on SynthCity's
validation images; CamVid's labels are read for the final evaluation alone.

With `:study` behind the file's name the recipe also holds the rows to compare with: ablations,
source-only controls at equal steps and equal time, and a network trained on the target's labels.
"""

from diga_jax.configs import datasets, default, networks, recipes
from diga_jax.configs.fields import change

STEPS = {'source_only': 2000, 'warmup': 250, 'self_training_1': 250, 'self_training_2': 250}
# What a step and a label pass cost on two cores, in source-only steps (benchmarks/steps.py).
COST = {'warmup': 1.85, 'self_training': 2.72, 'label': 160}


def get_config(variant: str = ''):
  config = default.get_config()
  config.recipe = (
    'translator',
    'source_only',
    'warmup',
    'label_1',
    'self_training_1',
    'label_2',
    'self_training_2',
  )
  config.model.name = 'deeplab_efficientnet_lite0'
  config.model.weights = 'efficientnet_lite0'
  config.model.options = networks.lite0(feature=128)
  config.translator.kind = 'fourier'

  data = config.data
  data.classes = 11
  data.names = 'camvid11'
  data.crop = (192, 256)
  synthcity = {
    'images': 'synthcity/images/{id}.jpg',
    'labels': 'synthcity/labels/{id}.png',
    'table': 'cityscapes_to_camvid11',
    'low_size': (240, 320),
  }
  camvid = {
    'images': 'camvid/images/{id}.jpg',
    'labels': 'camvid/labels/{id}.png',
    'table': 'camvid11',
    'low_size': (240, 320),
    # A third of the height to nearly all of it, as published for larger images.
    'zoom_heights': (120, 351),
  }
  data.sets = {
    'source': datasets.dataset(list='synthcity/train.txt', **synthcity),
    'target': datasets.dataset(list='camvid/train.txt', **camvid),
    'synthcity_val': datasets.dataset(list='synthcity/val.txt', **synthcity),
    'camvid_test': datasets.dataset(list='camvid/test.txt', **camvid),
  }
  recipes.small_scale(config, STEPS)
  # On SynthCity's validation images, 250 steps: SGD 38.6 mIoU, Adam 40.2, Adam with hard pixels
  # 41.6 (thin and rare classes are learned earlier); Adam at twice the rate 38.8; more layers
  # trained 40.4.
  for stage in recipes.trained(config).values():
    rates = {'learning_rate': 2.5e-4, 'warmup': 20} if stage.start else {'learning_rate': 5e-4}
    adam = {'kind': 'adam', 'head_lr_multiplier': 10.0}
    change(stage, loss='ohem', ohem_min_kept=20_000, optimizer=adam | rates)
  config.evaluation.sets = ('camvid_test',)
  config.evaluation.batch_size = 4
  if variant == 'study':
    add_controls(config)
  elif variant:
    raise ValueError(f'no variant {variant!r}: there is study')
  return config


def add_controls(config) -> None:
  """Adds the stages of the study, which share the chain's where they can."""
  stages = config.stages
  rounds = STEPS['self_training_1'] + STEPS['self_training_2']
  longer = {
    'source_only_at_warmup': STEPS['warmup'],
    'source_only_equal_steps': STEPS['warmup'] + rounds,
    'source_only_equal_time': round(
      COST['warmup'] * STEPS['warmup'] + COST['self_training'] * rounds + 2 * COST['label']
    ),
  }
  for name, steps in longer.items():
    stages[name] = stages.source_only.copy_and_resolve_references()
    stages[name].start, stages[name].steps = 'source_only', steps
    stages[name].optimizer = stages.warmup.optimizer.copy_and_resolve_references()
  stages.warmup_unmixed = stages.warmup.copy_and_resolve_references()
  stages.warmup_unmixed.mixing = 'none'
  stages.self_training_1_all = stages.self_training_1.copy_and_resolve_references()
  stages.self_training_1_all.selector = 'none'
  stages.supervised = stages.source_only.copy_and_resolve_references()
  stages.supervised.batch.source = 'target_labelled'
  config.data.sets.target_labelled = config.data.sets.target.copy_and_resolve_references()
  config.recipe = (*config.recipe, *longer, 'warmup_unmixed', 'self_training_1_all', 'supervised')
