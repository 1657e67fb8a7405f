"""The published configs: they build, and their steps trace (shapes only); how rounds follow."""

import pickle

import jax
import pytest

from data_pipelines.errors import BadInput
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
from diga_jax.plan import steps
from diga_jax.recipe.experiment import Experiment

DIGA = (gta5_to_cityscapes, synthia_to_cityscapes, gta5_generalization)
TRACED = []
HIAST = (hiast_gta5, hiast_synthia, hiast_robotcar)


@pytest.mark.slow
@pytest.mark.parametrize('module', DIGA + HIAST, ids=lambda m: m.__name__.split('.')[-1])
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
    step, *shapes = steps.abstract_step(experiment, name, batch.low_rows + batch.full_rows)
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
  assert synthia.stages.warmup.optimizer.warmup == 1000
  assert synthia.stages.warmup.loss == 'ohem'
  assert general.stages.warmup.view.sharpness == 0
  assert not general.stages.warmup.target_statistics


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
  'weights',
  'labels',
  'network',
  'optimizer.learning_rate',
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
  with pytest.raises(ValueError, match=f"no field '{field}': there are "):
    build()


def test_an_unknown_field_in_a_config_file_is_one_line(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text(
    'from diga_jax.configs import datasets, default\n\ndef get_config():\n'
    '  config = default.get_config()\n'
    "  config.data.sets.source = datasets.dataset(imagess='a/{id}.png')\n  return config\n"
  )
  with pytest.raises(BadInput, match="--config: no field 'imagess': there are kind, images"):
    read_config([f'--config={path}'])
