"""The benchmark of this repository: rendered streets, from a game's look to a camera's.

Both domains hold the same kinds of streets; only paint, light, surfaces and the camera differ. The
network starts from ImageNet and is trained as published, on two CPU cores. Nothing is downloaded
but the ImageNet weights of EfficientNet-Lite0, which the extra `demo` brings.

`get_config()` holds DiGA's chain, the controls and the upper bound; `:all` adds the rows of both
papers' tables, `:choices` scores the chain's checkpoints by criteria without labels. `:search` is
the study by which the settings were found, on development images and seeds.
"""

from diga_jax.configs import datasets, default, networks
from diga_jax.configs.fields import change, follow
from diga_jax.configs.recipes import LITE0_FROZEN, adversarial_like, hiast_like, trained

STEPS = 500  # of the warm-up, and of each round
# What a step and a label pass cost on two cores, in source-only steps (benchmarks/steps.py).
COST = {'warmup': 1.9, 'self_training': 2.9, 'label': 300}
SCENE = {'kind': 'scenes', 'size': (192, 384), 'low_size': (96, 192)}
GAME, CAMERA = SCENE | {'look': 'game'}, SCENE | {'look': 'camera'}
OPTIMIZER = {
  'kind': 'adam',
  'learning_rate': 2e-4,
  'frozen': (r'_bn\d',),  # scales and biases of BatchNorm, as published
  'repeats': (),
}
CRITERIA = ('agreement', 'consensus', 'density', 'oracle')
SELECTORS = ('all', 'constant', 'cbst', 'ias')  # consensus is the chain's
# What is taken out of HIAST's self-training, one at a time.
ABLATIONS = {
  'hiast_no_paste': {'target_mixing': 'none'},
  'hiast_no_smoothing': {'smoothing': 0.0},
  'hiast_no_sharpening': {'sharpening': 0.0},
  'hiast_no_consistency': {'consistency': 0.0},
}


def both(*settings: str) -> tuple[str, ...]:
  """Settings of the warm-up, and with it of its controls, and of self-training."""
  return tuple(
    f'stages.{stage}.{text}' for stage in ('warmup', 'self_training_1') for text in settings
  )


# What the search tries, one factor at a time.
SEARCH = (
  ('base', ()),
  ('part_frozen', both(f'optimizer.frozen={LITE0_FROZEN}')),
  ('norms_trained', both('optimizer.frozen=()')),
  ('norms_fixed', ('model.options.batch_norm=running', 'stages.warmup.target_statistics=False')),
  ('source_statistics', ('stages.warmup.target_statistics=False',)),
  ('from_source_only', ('stages.warmup.start=source_only',)),
  ('decay_999', both('ema_decay_max=0.999')),
  ('rate_5e-5', both('optimizer.learning_rate=5e-5')),
  ('rate_5e-4', both('optimizer.learning_rate=5e-4')),
  ('sgd', both('optimizer.kind=sgd', 'optimizer.learning_rate=5e-3')),
  ('steps_250', both('steps=250')),
  ('steps_1000', both('steps=1000')),
  ('full_size', both('batch.low_rows=0', 'batch.full_rows=3')),
  ('no_translation', ('translator.kind=none',)),
  ('one_scale', ('stages.label_1.scales=(1.0,)',)),
  ('teacher_labels', ('stages.label_1.network=teacher',)),
  ('no_target_mixing', ('stages.self_training_1.target_mixing=none',)),
)


def get_config(variant: str = ''):
  config = default.get_config()
  config.model.name = 'deeplab_efficientnet_lite0'
  config.model.weights = 'efficientnet_lite0'
  config.model.options = networks.lite0(feature=128, batch_norm='batch')
  config.translator.kind = 'fourier'
  config.data.crop = (96, 192)
  config.data.sets = {
    'source': datasets.dataset(count=800, **GAME),
    'target': datasets.dataset(count=800, **CAMERA),
    'camera_dev': datasets.dataset(first=10_000, count=100, **CAMERA),
    'camera_test': datasets.dataset(first=20_000, count=200, **CAMERA),
  }
  config.data.sets.target_labelled = config.data.sets.target.copy_and_resolve_references()
  for stage in trained(config).values():
    change(stage, steps=STEPS, ema_decay_max=0.99, optimizer=OPTIMIZER)
  change(config.stages.label_1, passes=1)
  config.recipe = ('warmup', 'label_1', 'self_training_1', 'label_2', 'self_training_2')
  config.evaluation.sets = ('camera_test',)
  config.evaluation.batch_size = 4
  config.save_every = 100
  chain = config.recipe
  add_controls(config)
  if variant == 'all':
    add_rows(config)
  elif variant == 'search':
    config.recipe = ('source_only', *chain, 'source_statistics_equal_steps')
    config.evaluation.sets = ('camera_dev',)
    config.variants = SEARCH
  elif variant == 'choices':
    config.recipe = chain
    config.data.sets.camera_held = datasets.dataset(first=30_000, count=40, **CAMERA)
    change(config, criteria={'record': CRITERIA, 'set': 'camera_held'}, save_every=50)
    config.evaluation.checkpoints = ('last', *CRITERIA)
  elif variant:
    raise ValueError(f'no variant {variant!r}: there are all, choices, search')
  return config


def add_controls(config) -> None:
  """Adds networks that learn from no pseudo-label: source alone, and the target's labels."""
  stages, add = config.stages, adder(config)
  warmup, again = (stages[name].get_ref('steps') for name in ('warmup', 'self_training_1'))
  chain = warmup + again + again
  as_long = warmup * COST['warmup'] + again * (2 * COST['self_training'])
  add('source_only', stages.warmup, method='source_only', target_statistics=False, start='')
  add('source_only_equal_steps', stages.source_only, steps=chain)
  add('source_only_equal_time', stages.source_only, steps=(as_long + 2 * COST['label']).to_int())
  add('source_statistics', stages.source_only, target_statistics=True)
  add('source_statistics_equal_steps', stages.source_statistics, steps=chain)
  add('supervised', stages.source_only, steps=chain)
  add('supervised_longer', stages.source_only, steps=chain * 2)
  for name in ('supervised', 'supervised_longer'):
    stages[name].batch.source = 'target_labelled'


def add_rows(config) -> None:
  """Adds the other warm-ups, selectors, and HIAST with what is taken out of it."""
  stages, add = config.stages, adder(config)
  add('warmup_view', stages.warmup, mixing='none')
  add('warmup_adversarial', adversarial_like(stages.warmup), entropy_weight=0.03)
  for name in SELECTORS:
    selector = 'none' if name == 'all' else name
    by_confidence = {'selector': selector, 'selector_batch': 2, 'centroids_from': 'none'}
    start = 'warmup'
    for number in (1, 2):
      labels, trained_by = f'label_{name}_{number}', f'{name}_{number}'
      add(labels, stages.label_1, start=start, earlier='', **by_confidence)
      add(trained_by, stages.self_training_1, start=start, labels=labels, selector='none')
      start = trained_by
  hiast = hiast_like(stages.self_training_1, 'label_ias_1')
  add('hiast_1', hiast, start='warmup', labels='label_ias_1')
  add('label_hiast', stages.label_ias_1, start='hiast_1', network='teacher')
  add('hiast_2', hiast, start='hiast_1', labels='label_hiast')
  for name, without in ABLATIONS.items():
    add(name, stages.hiast_1, **without)


def adder(config):
  """A function that appends a stage to the recipe, which follows another one but for changes."""

  def add(name, stage, **changes):
    config.stages[name] = follow(stage, **changes)
    config.recipe += (name,)

  return add
