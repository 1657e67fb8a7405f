"""Both forms of a convolution are one function, and the right one is lowered."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diga_jax.models import convolution


def arrays(*shapes):
  rng = np.random.default_rng(0)
  return [jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes]


def value_and_gradients(form, x, kernel, window):
  out, pull = jax.vjp(lambda x, kernel: form(x, kernel, window), x, kernel)
  weights = jnp.asarray(np.random.default_rng(1).normal(size=out.shape), jnp.float32)
  return out, *pull(weights)


@st.composite
def convolutions(draw):
  """(input shape, kernel shape, strides, padding, dilation, groups) with at least one output."""
  pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
  taps, strides, dilation = (
    draw(st.sampled_from([(1, 1), (3, 3), (5, 5), (2, 3)])),
    draw(pair),
    draw(st.sampled_from([(1, 1), (2, 2), (1, 3), (6, 6)])),
  )
  reach = [(k - 1) * d + 1 for k, d in zip(taps, dilation, strict=True)]
  # No window sees padding alone: no network has such a layer, and the gradient of one now and then
  # holds what was in memory before, in XLA's own convolution for CPU.
  pads = [st.integers(0, min(6, r - 1)) for r in reach]
  padding = tuple(draw(st.tuples(pad, pad)) for pad in pads)
  size = [
    draw(st.integers(max(1, r - sum(p)), max(1, r - sum(p)) + 7))
    for r, p in zip(reach, padding, strict=True)
  ]
  groups = draw(st.sampled_from([1, 4]))
  inputs, outputs = draw(st.sampled_from([(4, 4), (4, 8)]))
  return (
    (2, *size, inputs),
    (*taps, inputs // groups, outputs),
    strides,
    padding,
    dilation,
    groups,
  )


@settings(max_examples=15, deadline=None)
@given(convolutions())
def test_the_cpu_form_is_the_plain_convolution(case):
  x, kernel = arrays(*case[:2])
  plain = value_and_gradients(convolution.plain, x, kernel, convolution.Window(*case[2:]))
  cpu = value_and_gradients(convolution.for_cpu, x, kernel, convolution.Window(*case[2:]))
  for a, b in zip(cpu, plain, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  'case',
  [
    ((2, 7, 9, 6), (1, 1, 6, 4), (2, 2), ((0, 0), (0, 0)), (1, 1), 1),
    ((2, 7, 9, 6), (5, 5, 1, 6), (2, 2), ((1, 2), (2, 2)), (1, 1), 6),
    ((2, 7, 9, 6), (3, 3, 6, 4), (1, 1), ((12, 12), (12, 12)), (12, 12), 1),
    ((2, 7, 9, 6), (3, 3, 6, 4), (2, 2), ((1, 1), (1, 1)), (1, 1), 1),
  ],
)
def test_conv2d_and_its_gradients(case):
  x, kernel = arrays(*case[:2])
  plain = value_and_gradients(convolution.plain, x, kernel, convolution.Window(*case[2:]))
  ours = value_and_gradients(convolution.conv2d, x, kernel, convolution.Window(*case[2:]))
  for a, b in zip(ours, plain, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  'case',
  [
    ((2, 17, 19, 32), (1, 1, 32, 4), (2, 2), ((0, 0), (0, 0)), (1, 1), 1),
    ((2, 17, 19, 16), (5, 5, 1, 16), (2, 2), ((1, 2), (2, 2)), (1, 1), 16),
    ((2, 17, 19, 32), (3, 3, 32, 4), (1, 1), ((4, 4), (4, 4)), (4, 4), 1),
    ((2, 17, 19, 32), (3, 3, 32, 4), (2, 2), ((1, 1), (1, 1)), (1, 1), 1),
  ],
  ids=['pointwise', 'depthwise', 'dilated', 'plain'],
)
def test_in_bfloat16_every_result_on_cpu_is_rounded_once(case):
  x, kernel = (x.astype(jnp.bfloat16) for x in arrays(*case[:2]))
  window = convolution.Window(*case[2:])

  @jax.jit
  def found(x, kernel):
    out, pull = jax.vjp(lambda x, kernel: convolution.conv2d(x, kernel, window), x, kernel)
    grad = jnp.asarray(np.random.default_rng(1).normal(size=out.shape), jnp.bfloat16)
    return out, *pull(grad.astype(out.dtype))

  exact = found(x.astype(jnp.float32), kernel.astype(jnp.float32))
  for rounded, value in zip(found(x, kernel), map(np.asarray, exact), strict=True):
    assert rounded.dtype == jnp.bfloat16
    error = np.asarray(rounded, np.float32) - value
    # Half a unit of 8 binary digits, and what float32 itself loses where terms cancel.
    assert np.all(np.abs(error) <= 2**-8 * np.abs(value) + 1e-5 * np.std(value))
    assert np.std(error) < 0.002 * np.std(value)


@pytest.mark.parametrize('platform', ['cpu', 'tpu', 'cuda'])
def test_accelerators_get_the_plain_convolution_forward_and_backward(platform):
  x, kernel = arrays((1, 8, 8, 4), (3, 3, 1, 4))
  window = convolution.Window(padding=((1, 1), (1, 1)), groups=4)

  def loss(x, kernel):
    return jnp.sum(convolution.conv2d(x, kernel, window) ** 2)

  traced = jax.jit(jax.grad(loss, argnums=(0, 1))).trace(x, kernel)
  text = traced.lower(lowering_platforms=(platform,)).as_text()
  assert text.count('stablehlo.convolution') == (0 if platform == 'cpu' else 3)


def test_the_choice_leaves_no_condition_in_the_program():
  x, kernel = arrays((1, 8, 8, 4), (1, 1, 4, 4))
  lowered = jax.jit(lambda x, k: convolution.conv2d(x, k, convolution.Window())).lower(x, kernel)
  compiled = lowered.compile().as_text()
  assert ' conditional(' not in compiled
  assert ' dot(' in compiled


@pytest.mark.parametrize('length, taps, stride, rate', [(8, 3, 2, 1), (7, 5, 2, 1), (6, 3, 1, 4)])
def test_same_padding_is_tensorflows(length, taps, stride, rate):
  x, kernel = arrays((1, length, length, 2), (taps, taps, 2, 3))
  want = jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    'SAME',
    rhs_dilation=(rate, rate),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  pads = convolution.same_padding(length, taps, stride, rate)
  window = convolution.Window((stride, stride), (pads, pads), (rate, rate))
  got = convolution.conv2d(x, kernel, window)
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
