"""Steps and passes on 2, 4 and 8 devices, under jit and pmap, against the same on one."""

import functools

import jax
import numpy as np
import pytest

from benchmarks import steps
from data_pipelines.errors import BadInput
from diga_jax import criteria
from diga_jax.configs import default, optimizers
from diga_jax.configs.stages import adversarial_stage, hiast_stage, label_stage
from diga_jax.inference import evaluate, held_out, label_quality
from diga_jax.inference.feature_centroids import image_means, running_mean
from diga_jax.inference.forward import Predictor
from diga_jax.inference.pseudo_labels import pseudo_labels
from diga_jax.parallel.mesh import AXIS, compile_step, local_rows, make_mesh, replicate
from diga_jax.recipe.experiment import Experiment
from tests.support import small
from tests.support.tiny import Source, tiny

STEPS = 5
# Under their tests' names: a stage of the config.
ADAPTED = ('adversarial', 'hiast')
# Rounding decides the sign of a difference that is all but zero, and with it a hundredth of the
# gradient of the translator's L1 terms; it decides the sign of Adam's step where a gradient is all
# but zero. Without both, all that a step moves is determined to rounding.
SMOOTH_RULE = {'kind': 'sgd', 'learning_rate': 0.01}
SMOOTH_LOSS = {'cycle': 0.0, 'edge': 0.0, 'reconstruction': 0.0}
WAYS = [('jit', 2), ('jit', 4), ('jit', 8), ('pmap', 4)]
# A loss that ranks the pixels of the whole batch, and statistics moved by the target.
WARMUP = {'loss': 'ohem', 'ohem_min_kept': 1000, 'target_statistics': True}


def segmentation(stage: str, parallel: str):
  """The beginning of a stage of the published recipe, small."""
  changes = WARMUP if stage == 'warmup' else {}
  options = {'parallel': parallel, 'blocks': (1,)}
  return small.set_up(stage, 4, steps.run_compiled, changes, **options)


def adapted(stage: str, parallel: str):
  """The beginning of HIAST's self-training or of the adversarial warm-up, small."""
  config = default.get_config()
  config.update_from_flattened_dict(
    {
      'parallel': parallel,
      'model.options.blocks': (1,),
      'model.options.width': 4,
      'model.options.feature': 8,
    }
  )
  options = {'selector': 'consensus', 'target_mixing': 'class', 'centroid_momentum': 0.1}
  config.stages.hiast = hiast_stage('warmup', 'label_1', **options)
  # Adam makes a whole step of a gradient that is nothing but rounding.
  sgd = optimizers.uniform(learning_rate=0.01)
  config.stages.adversarial = adversarial_stage(discriminator_width=4, discriminator_optimizer=sgd)
  for name in ADAPTED:
    optimizer = config.stages.warmup.optimizer.copy_and_resolve_references()
    config.stages[name].optimizer = optimizer
  return steps.set_up(Experiment(config), stage)


def translation(rule=(), weights=()):
  """The beginning of the translator's stage, small; what differs in the optimizer and the loss."""
  config = default.get_config()
  config.translator.update(small.TRANSLATOR | {'width': 4} | dict(weights))
  config.stages.translator.optimizer.update({'decay_steps': STEPS} | dict(rule))
  return steps.set_up(Experiment(config), 'translator')


@functools.cache
def after_five_steps(stage: str, parallel: str, devices: int):
  """([metrics of each step], final state without its key), on the host."""
  if stage == 'translator':
    setup = translation()
  elif stage == 'least_squares':
    setup = translation(SMOOTH_RULE, SMOOTH_LOSS)
  elif stage in ADAPTED:
    setup = adapted(stage, parallel)
  else:
    setup = segmentation(stage, parallel)
  mesh = make_mesh(devices)
  state, frozen = replicate((setup.state, setup.frozen), mesh)
  step, seen = compile_step(setup.step, mesh, parallel), []
  for i in range(STEPS):
    state, metrics = step(state, small.batch(8, 32, 32, seed=i), frozen)
    seen.append(jax.device_get(metrics))
  assert len(state.step.sharding.device_set) == devices
  return seen, jax.device_get(state.replace(key=()))


def check_equal(found, wanted) -> None:
  """Every array equal within 1e-5 of the largest value of the tree."""
  tolerance = 1e-5 * max(np.abs(x).max() for x in jax.tree.leaves(wanted))
  wanted = jax.tree.leaves_with_path(wanted)
  for x, (path, y) in zip(jax.tree.leaves(found), wanted, strict=True):
    np.testing.assert_allclose(x, y, rtol=0, atol=tolerance, err_msg=jax.tree_util.keystr(path))


@pytest.mark.slow
@pytest.mark.parametrize(
  ('stage', 'parallel', 'devices'),
  [
    (stage, *way)
    for stage in ('least_squares', 'warmup', 'self_training_1', *ADAPTED)
    for way in WAYS
  ],
)
def test_steps_do_not_depend_on_the_devices(stage, parallel, devices):
  metrics, state = after_five_steps(stage, parallel, devices)
  alone_metrics, alone = after_five_steps(stage, 'jit', 1)
  check_equal(metrics, alone_metrics)
  check_equal(state.params, alone.params)
  for field in ('teacher', 'batch_stats', 'centroids', 'discriminator'):
    if jax.tree.leaves(getattr(alone, field)):
      check_equal(getattr(state, field), getattr(alone, field))
  assert alone_metrics[0]['loss'] != alone_metrics[-1]['loss']


@pytest.mark.slow
@pytest.mark.parametrize(('parallel', 'devices'), [('jit', 8), ('pmap', 4)])
def test_the_published_translators_losses_do_not_depend_on_the_devices(parallel, devices):
  """All terms, against discriminators that Adam has moved; later steps see SMOOTH_LOSS's jumps."""
  (found, *_), _ = after_five_steps('translator', parallel, devices)
  (wanted, *_), _ = after_five_steps('translator', 'jit', 1)
  for name, value in wanted.items():
    check_equal(found[name], value)


# Every threshold moves, half of the pixels are kept; tests/inference/test_ties.py looks for ties.
IAS = label_stage('', selector='ias', threshold=0.3, gamma=0.0, selector_batch=2)


@pytest.fixture(scope='module')
def passes():
  """devices -> what the passes find, five images spread over so many devices."""

  @functools.cache
  def found(devices: int, directory):
    mesh = make_mesh(devices)
    placed = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))
    model, variables = tiny()
    variables = replicate(variables, mesh)
    options = {'batch_size': devices, 'place': lambda rows: jax.device_put(rows, placed)}
    predictor, source = Predictor(model, variables, **options), Source(5)
    means, counts = running_mean([image_means(predictor, source, minimum=1, progress=False)])
    select = functools.partial(
      label_quality.consensus_labels, variables, centroids=means, model=model
    )
    selected = pseudo_labels(predictor, source, directory / 'ias', 4, settings=IAS, progress=False)
    return {
      'confusion': evaluate.evaluate(predictor, source, '0123', progress=False)['confusion'],
      'labels': pseudo_labels(predictor, source, directory / 'all', 4, progress=False).counts,
      'selected': selected.counts,
      'thresholds': selected.thresholds,
      'centroids': np.asarray(means),
      'counts': np.asarray(counts),
      'consensus': label_quality.measure(
        source, '0123', select=select, truth=source, progress=False, **options
      ),
      'criteria': held_out.measure(
        held_out.Networks(variables, replicate(tiny(seed=1)[1], mesh), means),
        source,
        criteria.UNLABELLED,
        model=model,
        **options,
      ),
      'files': [path.read_bytes() for path in sorted(directory.rglob('*.png'))],
    }

  return found


@pytest.mark.parametrize('devices', [2, 4, 8])
def test_passes_do_not_depend_on_the_devices(passes, tmp_path, tmp_path_factory, devices):
  found, alone = passes(devices, tmp_path), passes(1, tmp_path_factory.mktemp('alone'))
  for key in ('confusion', 'labels', 'selected', 'thresholds', 'counts', 'files', 'consensus'):
    assert np.all(found[key] == alone[key]), key
  check_equal(found['centroids'], alone['centroids'])
  for name, value in alone['criteria'].items():
    np.testing.assert_allclose(found['criteria'][name], value, rtol=1e-5, err_msg=name)
  labelled = sum(np.sum(Source(5).read(i)[1] != 255) for i in range(5))
  assert np.sum(found['confusion']) == labelled  # each pixel once


def test_a_batch_that_does_not_divide_is_refused_with_its_sizes():
  with pytest.raises(BadInput, match='a batch of 6 does not divide over 4 devices'):
    local_rows(6, make_mesh(4))


def test_more_devices_than_there_are_is_refused():
  with pytest.raises(BadInput, match=r'config.devices is 99'):
    make_mesh(99)
