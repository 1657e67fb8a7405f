"""Recipes: which stages there are, in which order, and what changes with the data's kind or scale.

What a recipe sets in the first round holds in the later ones, which follow it (`configs.fields`).
"""

from collections.abc import Mapping

from ml_collections import ConfigDict

from diga_jax.configs import networks
from diga_jax.configs.fields import change, follow
from diga_jax.configs.stages import (
  adversarial_stage,
  hiast_label_stage,
  hiast_stage,
  label_stage,
  self_training_stage,
  translator_stage,
  warmup_stage,
)

DIGA = ('translator', 'warmup', 'label_1', 'self_training_1', 'label_2', 'self_training_2')
HIAST = ('source_only', 'warmup', 'label_1', 'hiast_1', 'label_2', 'hiast_2', 'label_3', 'hiast_3')
# Of EfficientNet-Lite0: BatchNorm's scales and biases, and the stem and the first stages as a
# whole.
LITE0_FROZEN = (r'_bn\d', r'_conv_stem', r'_blocks\.[0-4]/')


def diga_stages() -> ConfigDict:
  """Translator, warm-up, and two rounds of (label, self-train)."""
  label = label_stage('warmup')
  train = self_training_stage('warmup', 'label_1')
  return ConfigDict(
    {
      'translator': translator_stage(),
      'warmup': warmup_stage(),
      'label_1': label,
      'self_training_1': train,
      'label_2': follow(
        label, start='self_training_1', weights='', centroids_from='earlier', earlier='label_1'
      ),
      'self_training_2': follow(train, start='self_training_1', weights='', labels='label_2'),
    }
  )


def hiast_stages() -> ConfigDict:
  """Source alone, adversarial warm-up, three rounds of (label by the teacher, train the student).

  Published are the rounds' settings. The warm-up starts from a source-only network, which the code
  asserts, but no settings of the two are published: those of the warm-up are the code's defaults
  (utils/default_config.py), and the source-only stage has the same steps, batch and optimizer.
  """
  warmup = adversarial_stage(start='source_only')
  source = warmup_stage(
    method='source_only',
    loss=warmup.loss,
    steps=warmup.steps,
    target_statistics=False,
    batch=warmup.batch.copy_and_resolve_references(),
    optimizer=warmup.optimizer.copy_and_resolve_references(),
  )
  label, train = hiast_label_stage('warmup'), hiast_stage('warmup', 'label_1')
  stages = ConfigDict(
    {
      'source_only': source,
      'warmup': warmup,
      'label_1': label,
      'hiast_1': train,
    }
  )
  for number, rate in ((2, 2e-6), (3, 1e-6)):
    before, labels = f'hiast_{number - 1}', f'label_{number}'
    stages[labels] = follow(label, start=before, weights='', network='teacher')
    stages[f'hiast_{number}'] = follow(train, start=before, weights='', labels=labels)
    stages[f'hiast_{number}'].optimizer.learning_rate = rate
  return stages


def hiast(config: ConfigDict) -> None:
  """Turns a config into HIAST's recipe on its network; data sets are left as they are."""
  config.recipe = HIAST
  config.stages = hiast_stages()
  config.model.name = 'hiast_resnet101'
  config.model.options = networks.hiast()
  config.translator.kind = 'none'
  config.data.crop = (512, 1024)
  # 768x1536 pixels of Cityscapes, one scale. Published are the sums of softmax maps; with one scale
  # only the interpolation of logits instead of probabilities differs.
  config.evaluation.scales = (0.75,)


def small_scale(config: ConfigDict, steps: Mapping[str, int]) -> None:
  """Turns the recipe into one for EfficientNet-Lite0 on two CPU cores.

  A source-only stage comes first: the published network starts from ImageNet/COCO and has 80,000
  steps, a small one gains from the warm-up only when it has seen its source. The teacher's decay
  is at most 0.99: 0.999 is a plain average over runs this short.
  """
  config.stages.source_only = warmup_stage(method='source_only')
  config.stages.warmup.start = 'source_only'
  for name, stage in trained(config).items():
    change(
      stage,
      ema_decay_max=0.99,
      steps=steps.get(name, stage.steps),
      batch={'low_rows': 2, 'full_rows': 2},
      optimizer={
        'learning_rate': 5e-3,
        'head_lr_multiplier': 20.0,
        'frozen': LITE0_FROZEN,
        'repeats': (),
      },
    )
    if stage.kind == 'warmup':
      stage.target_statistics = False  # the statistics never move
  config.save_every = 100


def semi_supervised(config: ConfigDict) -> None:
  """Turns the recipe into one for images of one domain, of which some have labels.

  The second view is the photometric one as a whole. Labelled crops are plain, unlabelled ones are
  scaled in self-training; centroids are of crops of all images, the set 'train', by predictions
  alone (docs/diga.md, semi-supervised).
  """
  config.translator.kind = 'none'
  config.recipe = tuple(name for name in config.recipe if name != 'translator')
  change(config.stages.label_1, centroid_set='train', centroid_crops=True)
  for stage in trained(config).values():
    change(stage, mixing='none', batch={'source_crop': 'plain', 'redraw': False})
    if stage.kind == 'warmup':
      change(stage, batch={'target_crop': 'plain'})
    else:
      change(stage, distillation=0.5, view={'beta': 0.4}, batch={'target_crop': 'sized'})


def adversarial_like(twin: ConfigDict) -> ConfigDict:
  """The adversarial warm-up with the start, steps, loss, rate and batch of the distilled one."""
  stage, followed = adversarial_stage(), follow(twin)
  for field in ('start', 'steps', 'ema_decay_max', 'loss', 'ohem_min_kept'):
    stage[field] = followed.get_ref(field)
  stage.optimizer, stage.batch = followed.optimizer, followed.batch
  return stage


def hiast_like(twin: ConfigDict, labels: str) -> ConfigDict:
  """HIAST's self-training with the steps, rate and batch size of DiGA's."""
  stage, followed = hiast_stage(twin.start, labels), follow(twin)
  stage.steps, stage.ema_decay = (followed.get_ref(field) for field in ('steps', 'ema_decay_max'))
  stage.optimizer = followed.optimizer
  stage.batch.full_rows = followed.batch.get_ref('low_rows') + followed.batch.get_ref('full_rows')
  return stage


def trained(config: ConfigDict) -> dict[str, ConfigDict]:
  """DiGA's stages that train the segmentation network, by name, first rounds first."""
  kinds = ('warmup', 'self_training')
  return {name: stage for name, stage in config.stages.items() if stage.kind in kinds}
