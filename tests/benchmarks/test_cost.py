"""What a training step costs: FLOPs, compilations, traffic with the host."""

import logging
import re

import jax
import pytest

from benchmarks import steps
from diga_jax.parallel.mesh import make_mesh, replicate
from diga_jax.train import Options, train
from tests.support import small
from tests.support.tiny import Tiny

STAGES = ('warmup', 'self_training_1')


@pytest.mark.slow
@pytest.mark.parametrize('stage', STAGES)
def test_a_step_is_hardly_more_than_its_passes(stage):
  blocks = {'blocks': (1, 1, 1, 1)}  # of a size with the translator
  setup, batch = small.set_up(stage, 16, jax.eval_shape, **blocks), small.batch(2, 64, 64)
  parts = steps.part_flops(setup, batch)
  # Each of the passes is large enough for a second one to be noticed.
  assert min(parts.values()) > 0.06 * sum(parts.values())
  assert steps.step_flops(setup, batch) <= 1.05 * sum(parts.values())


@pytest.mark.parametrize('stage', STAGES)
def test_a_step_does_not_call_the_host(stage):
  setup, batch = small.set_up(stage, 4, jax.eval_shape), small.batch(1, 32, 32)

  def talking(state, batch, frozen):
    jax.debug.callback(lambda step: None, state.step)
    return setup.step(state, batch, frozen)

  def calls(step):
    text = jax.jit(step).lower(setup.state, batch, setup.frozen).as_text()
    return re.findall(r'callback|infeed|outfeed|stablehlo\.(?:send|recv)\b', text)

  assert not calls(setup.step)
  assert calls(talking)


@pytest.mark.parametrize('stage', STAGES)
def test_a_run_compiles_its_step_once(stage, tmp_path, caplog):
  experiment, mesh = small.experiment(stage, 4), make_mesh(4)
  # A network that compiles in a moment: states and batches come and go as with any other.
  experiment.model = Tiny(19)
  optimizer = experiment.stage(stage).optimizer
  optimizer.frozen, optimizer.repeats = ('^bn',), ()
  setup = steps.set_up(experiment, stage)
  state, frozen = replicate((setup.state, setup.frozen), mesh)

  def counted_step(*args, **options):
    return setup.step(*args, **options)

  with jax.log_compiles(), caplog.at_level(logging.DEBUG):
    train(
      counted_step,
      state,
      frozen,
      lambda start: (small.batch(4, 32, 32, i) for i in range(4)),
      Options(stage, 4, tmp_path, mesh, 'jit', lambda step: 0.0, save_every=2, log_every=2),
    )
  compiled = [text for text in caplog.messages if re.match('Compiling.*counted_step', text)]
  assert len(compiled) == 1
