"""The published configs: they build, and their steps trace (shapes only); how rounds follow."""

import pickle

import jax
import pytest

from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder
from diga_jax import optimizer
from diga_jax.config import flatten, read_config
from diga_jax.configs import (
  cityscapes_semi,
  datasets,
  default,
  gta5_generalization,
  gta5_to_cityscapes,
  gta5_to_cityscapes_mit_b5,
  hiast_gta5,
  hiast_robotcar,
  hiast_synthia,
  networks,
  optimizers,
  stages,
  synthcity_to_camvid,
  synthia_to_cityscapes,
)
from diga_jax.configs.fields import change, follow
from diga_jax.plan import roofline
from diga_jax.recipe.experiment import Experiment
from diga_jax.stages.setup import schedule
from tests.support import frozen

DIGA = (gta5_to_cityscapes, synthia_to_cityscapes, gta5_generalization)
TRACED = []
HIAST = (hiast_gta5, hiast_synthia, hiast_robotcar)


@pytest.mark.slow
@pytest.mark.parametrize(
  'module',
  [
    gta5_to_cityscapes,
    gta5_generalization,
    hiast_gta5,
    # Of other sizes and numbers of classes.
    *(
      pytest.param(module, marks=pytest.mark.exhaustive)
      for module in (synthia_to_cityscapes, hiast_synthia, hiast_robotcar)
    ),
  ],
  ids=lambda module: module.__name__.split('.')[-1],
)
def test_every_step_traces_and_keeps_its_shapes(module):
  experiment = Experiment(module.get_config())
  model = str((experiment.config.model.to_dict(), experiment.config.data.to_dict()['crop']))
  kinds = {}
  for name in experiment.config.recipe:
    kinds.setdefault(experiment.stage(name).kind, name)
  kinds.pop('label', None)
  for name in kinds.values():
    if (model, experiment.stage(name)) in TRACED:  # by another config
      continue
    TRACED.append((model, experiment.stage(name)))
    batch = experiment.stage(name).batch
    rows = batch.low_rows + batch.full_rows
    step, *shapes = roofline.abstract_step(experiment.config, name, rows)
    after, metrics = jax.eval_shape(step, *shapes)
    assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, shapes[0])
    assert metrics['loss'].shape == ()


def test_published_values():
  gta5, synthia, general = (module.get_config() for module in DIGA)
  assert gta5.stages.warmup.steps == gta5.stages.self_training_2.steps == 80_000
  assert gta5.stages.translator.steps == 50_000
  assert gta5.stages.self_training_1.view.beta == 0.3
  assert (
    gta5.stages.self_training_1.batch.low_rows,
    gta5.stages.self_training_1.batch.full_rows,
  ) == (2, 1)
  warmup, trained = synthia.stages.warmup, synthia.stages.self_training_2
  assert warmup.optimizer.warmup == warmup.steps == 60_000
  assert (warmup.loss, trained.loss, trained.target_loss) == ('ohem', 'ohem', 'ohem')
  assert (warmup.distillation, warmup.reverse, trained.reverse) == (0.25, 0.25, 0.25)
  assert trained.optimizer.warmup == 0 and synthia.translator.reconstruction == 0.025
  assert (synthia.data.classes, synthia.data.sets.source.full_size) == (16, (1140, 1920))
  assert general.stages.warmup.view.sharpness == 0
  assert (general.stages.warmup.mixing, general.stages.warmup.target_statistics) == ('none', False)
  second = gta5.stages.label_2  # keeps the centroids of the warm-up
  assert (second.centroids_from, second.earlier, second.passes) == ('earlier', 'label_1', 5)


def test_the_rate_that_was_meant_for_synthias_warmup(golden):
  config = read_config(
    ['--config=configs/synthia_to_cityscapes.py', '--config.stages.warmup.optimizer.warmup=1000']
  )
  stage, steps = config.stages.warmup, golden('schedules')['step'][:3]
  settings = schedule(stage.optimizer, stage.steps)
  wanted = optimizer.poly(steps, 2.5e-4, 60_000, 0.9, warmup=1000)
  assert (optimizer.learning_rate(settings, steps) == wanted).all()


@pytest.mark.parametrize('name', frozen.CONFIGS)
def test_label_tables_fit_the_classes(name):
  data = frozen.CONFIGS[name]().data
  for images in data.sets.values():
    options = {name: images[name] for name in ('table', 'label_format')}
    Folder('{id}', ids=['a'], classes=data.classes, **options)  # raises BadInput for ids beyond


def test_published_values_of_hiast():
  gta5, synthia, robotcar = (module.get_config() for module in HIAST)
  rates = [gta5.stages[f'hiast_{i}'].optimizer.learning_rate for i in (1, 2, 3)]
  assert rates == [3e-6, 2e-6, 1e-6]
  first, second = gta5.stages.label_1, gta5.stages.label_2
  assert (first.start, first.network) == ('warmup', 'student')
  assert (second.start, second.network) == ('hiast_1', 'teacher')
  assert gta5.stages.hiast_2.start == 'hiast_1' and gta5.stages.hiast_2.labels == 'label_2'
  assert (first.selector, first.alpha, first.beta, first.gamma, first.selector_batch) == (
    'ias', 0.5, 0.9, 8.0, 2,
  )  # fmt: skip
  assert first.image_size == (768, 1536)
  stage = gta5.stages.hiast_3
  assert (stage.smoothing, stage.sharpening, stage.consistency) == (0.1, 1.0, 0.5)
  assert (stage.steps, stage.batch.full_rows, stage.copy_paste.hard_classes) == (8000, 6, 14)
  assert stage.copy_paste.max_donors == 1
  assert (first.resizing, second.resizing) == ('bilinear', 'bilinear')
  assert gta5.recipe[:2] == ('source_only', 'warmup')
  assert gta5.stages.warmup.start == 'source_only'
  assert gta5.data.sets.source.zoom_heights == (341, 950)
  assert gta5.data.sets.target.zoom_heights == (341, 1000)
  assert synthia.data.sets.source.zoom_heights == (341, 640)
  assert synthia.stages.hiast_1.copy_paste.excluded_classes == (9, 14, 16)
  assert (robotcar.data.classes, robotcar.data.crop) == (9, (768, 1024))


ROUNDS = [
  (module, kind, 2)
  for module in (
    gta5_to_cityscapes, synthia_to_cityscapes, gta5_to_cityscapes_mit_b5, cityscapes_semi,
    synthcity_to_camvid,
  )
  for kind in ('label', 'self_training')
]  # fmt: skip
ROUNDS += [(config, kind, n) for config in HIAST for kind in ('label', 'hiast') for n in (2, 3)]
OWN = {
  'start',
  'labels',
  'network',
  'optimizer.learning_rate',
  'centroids_from',
  'earlier',
  'weights',
}  # what a later round sets itself


@pytest.mark.parametrize(('module', 'kind', 'last'), ROUNDS)
def test_later_rounds_follow_the_first(module, kind, last):
  config = module.get_config()
  first, later = config.stages[f'{kind}_1'], config.stages[f'{kind}_{last}']
  for field, value in flatten(first.to_dict()).items():
    if field in OWN:
      continue
    other = value + {str: 'x', tuple: (7,)}.get(type(value), 1)
    with config.ignore_type():
      first.update_from_flattened_dict({field: other})
    assert flatten(later.to_dict())[field] == other, field


def test_a_later_round_may_differ_alone():
  file = '--config=configs/gta5_to_cityscapes.py'
  field = '--config.stages.self_training_{}.optimizer.power={}'
  config = read_config([file, field.format(2, 0.5), field.format(1, 0.7)])
  powers = [config.stages[f'self_training_{i}'].optimizer.power for i in (1, 2)]
  assert powers == [0.7, 0.5]
  config = read_config([file, '--config.stages.label_2.scales=(1.0,)'])
  assert (config.stages.label_1.scales, config.stages.label_2.scales) == ((1.0, 0.5), (1.0,))


def test_a_config_with_rounds_is_copied_pickled_and_compared():
  config = read_config(
    ['--config=configs/gta5_to_cityscapes.py', '--config.stages.self_training_1.steps=5']
  )
  for twin in (
    config.copy_and_resolve_references(),
    pickle.loads(pickle.dumps(config)),
  ):
    assert twin == config and twin.to_dict() == config.to_dict()
    assert flatten(twin.to_dict())['stages.self_training_2.steps'] == 5
  still_following = pickle.loads(pickle.dumps(config))
  still_following.stages.self_training_1.steps = 6
  assert still_following.stages.self_training_2.steps == 6
  assert config.stages.self_training_2.steps == 5


def test_following_ends_where_a_value_is_set():
  first = stages.label_stage('warmup')
  later = follow(first, start='other')
  change(later, passes=first.passes, cap=1)
  first.passes = first.cap = 2
  assert (later.passes, later.cap, later.start, first.start) == (2, 1, 'other', 'warmup')


@pytest.mark.parametrize(
  ('build', 'field'),
  [
    (lambda: datasets.dataset(imagess='a'), 'imagess'),
    (lambda: datasets.cityscapes('train', lists='a'), 'lists'),
    (lambda: stages.warmup_stage(foo=1), 'foo'),
    (lambda: stages.batch(low=1), 'low'),
    (lambda: stages.photometric_view(hue=1), 'hue'),
    (lambda: stages.label_stage('warmup', steps=1), 'steps'),
    (lambda: stages.self_training_stage('a', 'b', passes=1), 'passes'),
    (lambda: stages.hiast_stage('a', 'b', mixing='none'), 'mixing'),
    (lambda: optimizers.transformer(rate=1), 'rate'),
    (lambda: networks.lite0(features=1), 'features'),
    (lambda: follow(stages.label_stage('a'), steps=1), 'steps'),
    (lambda: change(default.get_config().model, wights=''), 'wights'),
    (lambda: change(default.get_config(), model={'wights': ''}), 'wights'),
  ],
)
def test_an_unknown_field_is_refused_at_once(build, field):
  with pytest.raises(ValueError, match=f"no field '{field}'(, the nearest are .*)?: there are "):
    build()


def test_an_unknown_field_in_a_config_file_is_one_line(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text(
    'from diga_jax.configs import datasets, default\n\ndef get_config():\n'
    '  config = default.get_config()\n'
    "  config.data.sets.source = datasets.dataset(imagess='a/{id}.png')\n  return config\n"
  )
  with pytest.raises(BadInput, match=r"mine\.py, line 5: .*no field 'imagess'.*: there are kind"):
    read_config([f'--config={path}'])
