"""The cost of a step, from what the compiler dumps before it generates machine code."""

import importlib.util
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from data_pipelines.errors import BadInput
from diga_jax.parallel.mesh import AXIS, make_mesh
from diga_jax.plan import compiler

SIDE, ROWS = 64, 12


def shapes():
  """(state, batch, frozen) of `step`."""
  square = jax.ShapeDtypeStruct((SIDE, SIDE), jnp.float32)
  return square, jax.ShapeDtypeStruct((ROWS, SIDE), jnp.float32), None


def step(state, batch, frozen):
  return state + jnp.tanh(batch).T @ batch, {'loss': batch.sum()}


def make():
  return step, *shapes()


def make_badly():
  raise ArithmeticError('on purpose')


@pytest.fixture
def compiled_anew():
  """Nothing comes from the cache of compiled programs."""
  jax.config.update('jax_enable_compilation_cache', False)
  yield
  jax.config.update('jax_enable_compilation_cache', True)


def test_the_dump_agrees_with_the_finished_program(tmp_path, compiled_anew):
  devices = make_mesh(2)
  everywhere = NamedSharding(devices, PartitionSpec())
  split = NamedSharding(devices, PartitionSpec(AXIS))
  state, batch, frozen = shapes()
  state = jax.ShapeDtypeStruct(state.shape, state.dtype, sharding=everywhere)
  batch = jax.ShapeDtypeStruct(batch.shape, batch.dtype, sharding=split)
  jitted = jax.jit(step, donate_argnums=0, out_shardings=everywhere)
  program = jitted.lower(state, batch, frozen).compile({'xla_dump_to': str(tmp_path)})
  cost, memory = program.cost_analysis(), program.memory_analysis()
  found = compiler.parse_dump(tmp_path)
  assert found.arguments == memory.argument_size_in_bytes == 4 * SIDE * (SIDE + ROWS // 2)
  assert found.temporaries == memory.temp_size_in_bytes > 0
  assert found.flops == cost['flops'] >= 2 * SIDE * SIDE * ROWS // 2
  assert found.accessed == cost['bytes accessed']
  assert found.total >= found.arguments + found.temporaries
  assert found.collectives == compiler.collectives(program.as_text())
  assert found.collectives['all-reduce'][1] == 4 * (SIDE * SIDE + 1)
  assert compiler.compile_cost(make, 'cpu:2') == found


def test_there_may_be_more_devices_than_this_process_has():
  assert compiler.compile_cost(make, 'cpu:12').arguments == 4 * SIDE * (SIDE + 1)


@pytest.mark.skipif(not importlib.util.find_spec('libtpu'), reason='needs the extra plan')
def test_a_tpu_that_is_not_there():
  found = compiler.compile_cost(make, 'v5e:2x2')
  assert found.arguments >= 4 * SIDE * (SIDE + ROWS // 4)
  assert set(found.collectives) == {'all-reduce'}


def test_a_compiler_that_fails_is_reported(capfd):
  with pytest.raises(RuntimeError, match='compiler for cpu ended with status 1'):
    compiler.compile_cost(make_badly, 'cpu')
  assert 'on purpose' in capfd.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec('libtpu'), reason='libtpu is installed')
def test_without_the_tpu_compiler_it_is_asked_for():
  with pytest.raises(BadInput, match=r'topology=v5e-8.*pip install'):
    compiler.compile_cost(make, 'v5e-8')


def make_forever(path):
  """Lets `path` grow as long as the process lives."""
  while True:
    with open(path, 'a') as file:
      file.write('.')
    time.sleep(0.05)


def test_a_compiler_does_not_outlive_who_waits_for_it(tmp_path):
  path = tmp_path / 'alive'
  program = (
    'import functools\n'
    'from diga_jax.plan import compiler\n'
    'from tests.plan.test_compiler import make_forever\n'
    f'compiler.compile_cost(functools.partial(make_forever, {str(path)!r}), "cpu")'
  )
  waiting = subprocess.Popen([sys.executable, '-c', program])
  until(path.exists)
  waiting.kill()
  waiting.wait()

  def ended():
    size = path.stat().st_size
    time.sleep(1)
    return path.stat().st_size == size

  until(ended)


def until(condition, seconds=60):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.1)


LATE_OPERANDS = """HloModule late, is_scheduled=true

%sum (a: f32[8], b: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %b = f32[8]{0} parameter(1)
  ROOT %ab = f32[8]{0} add(%a, %b)
}, execution_thread="sparsecore"

ENTRY %main (x: f32[8], y: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %begun = ((), (), u32[]) async-start(), async_execution_thread="sparsecore", calls=%sum
  %y = f32[8]{0} parameter(1)
  %all = ((f32[8]{0}, f32[8]{0}), f32[8]{0}, u32[]) async-update(%begun, %x, %y), metadata={}
  ROOT %done = f32[8]{0} async-done(%all)
}
"""


# Every turn of the loop ends the addition that the turn before has begun; one turn is counted.
CARRIED = """HloModule carried, is_scheduled=true

%sum (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  ROOT %aa = f32[8]{0} add(%a, %a)
}, execution_thread="sparsecore"

%sum.1 (b: f32[8]) -> f32[8] {
  %b = f32[8]{0} parameter(0)
  ROOT %bb = f32[8]{0} add(%b, %b)
}, execution_thread="sparsecore"

%body (c: (s32[], ((f32[8]), f32[8], u32[]))) -> (s32[], ((f32[8]), f32[8], u32[])) {
  %c = (s32[], ((f32[8]{0}), f32[8]{0}, u32[])) parameter(0)
  %n = s32[] get-tuple-element(%c), index=0
  %under-way = ((f32[8]{0}), f32[8]{0}, u32[]) get-tuple-element(%c), index=1
  %done = f32[8]{0} async-done(%under-way), backend_config={"x":"0"}
  %next = ((f32[8]{0}), f32[8]{0}, u32[]) async-start(%done), calls=%sum.1
  ROOT %carry = (s32[], ((f32[8]{0}), f32[8]{0}, u32[])) tuple(%n, %next)
}

%more (d: (s32[], ((f32[8]), f32[8], u32[]))) -> pred[] {
  %d = (s32[], ((f32[8]{0}), f32[8]{0}, u32[])) parameter(0)
  ROOT %yes = pred[] constant(true)
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %zero = s32[] constant(0)
  %first = ((f32[8]{0}), f32[8]{0}, u32[]) async-start(%x), calls=%sum
  %in = (s32[], ((f32[8]{0}), f32[8]{0}, u32[])) tuple(%zero, %first)
  %out = (s32[], ((f32[8]{0}), f32[8]{0}, u32[])) while(%in), condition=%more, body=%body
  %last = ((f32[8]{0}), f32[8]{0}, u32[]) get-tuple-element(%out), index=1
  ROOT %end = f32[8]{0} async-done(%last)
}
"""


# An addition reads and writes 3 x 32 bytes. An awaited result is read once more, with the three
# pointers to it; a tuple of two writes 16; what is picked out of a loop's is free.
@pytest.mark.parametrize(
  ('text', 'flops', 'accessed'),
  [(LATE_OPERANDS, 8, 96 + 32 + 3 * 8), (CARRIED, 8 + 8, 2 * (96 + 16))],
)
def test_operations_under_way_that_jaxlib_cannot_read(text, flops, accessed, tmp_path):
  (tmp_path / 'm.after_optimizations.txt').write_text(text)
  (tmp_path / 'm.after_optimizations-buffer-assignment.txt').write_text(
    'allocation 0: size 32, parameter 0, shape |f32[8]| at ShapeIndex {}:\n'
    'allocation 1: size 64, color 1, preallocated-temp:\n'
    'allocation 2: size 128, preallocated-temp:\n'
  )
  found = compiler.parse_dump(tmp_path)
  assert (found.flops, found.accessed) == (flops, accessed)
  assert (found.arguments, found.temporaries, found.total) == (32, 128, 160)


def test_the_exchanges_of_a_text():
  text = '\n'.join(
    [
      '  %all-reduce.1 = f32[16]{0} all-reduce(%x), channel_id=1',
      '  %s = (f32[4,2]{1,0}, bf16[3]{0}) all-reduce-start(%a, %b), channel_id=2',
      '  %d = f32[4,2]{1,0} all-reduce-done(%s)',
      '  ROOT %g = pred[4,19]{1,0} all-gather(%y), dimensions={0}',
      '  %fusion = f32[8]{0} fusion(%all-reduce.1), calls=%all-to-all_like',
    ]
  )
  assert compiler.collectives(text) == {'all-reduce': (2, 64 + 32 + 6), 'all-gather': (1, 76)}
