"""How large a program's whole numbers can get: from its jaxpr, whatever the size of its arrays."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

EXACT = 2**24  # float32 adds ones up to here, and no further

# What moves or picks values, without making larger ones.
_MOVES = {
  *('broadcast_in_dim', 'reshape', 'transpose', 'squeeze', 'expand_dims', 'slice', 'rev', 'copy'),
  *('dynamic_slice', 'gather', 'concatenate', 'pad', 'select_n', 'max', 'min', 'clamp', 'abs'),
  *('reduce_max', 'reduce_min', 'sort', 'convert_element_type', 'optimization_barrier', 'neg'),
  *('cummax', 'copy_p', 'sharding_constraint', 'split', 'stop_gradient', 'dynamic_update_slice'),
}
Found = list[str]


def overflows(function: Callable, *shapes) -> Found:
  """The operations of `function` that may pass the largest number of their type.

  Args:
    function: traced with `shapes`, trees of jax.ShapeDtypeStruct. Whole numbers that it is given
      may be as large as their type holds.

  Returns:
    A line for each sum over integers (`a + b` is none) and each product of bounded ones whose
    result may not fit, and for each float32 sum over more than `EXACT` whole numbers.
  """
  closed = jax.make_jaxpr(function)(*shapes)
  found: Found = []
  _walk(closed.jaxpr, [_limit(v.aval) for v in closed.jaxpr.invars], closed.consts, found)
  return found


def _limit(aval) -> float | None:
  """The largest number of a type; None for floats, of which nothing is known."""
  if jnp.issubdtype(aval.dtype, np.bool_):
    return 1
  return np.iinfo(aval.dtype).max if jnp.issubdtype(aval.dtype, np.integer) else None


def _largest(value) -> float | None:
  value = np.asarray(value)
  if value.dtype.kind not in 'biuf' or not value.size:
    return None
  whole = value.dtype.kind != 'f' or bool(np.all(value == np.round(value)))
  return float(np.abs(value.astype(np.float64)).max()) if whole else None


def _walk(jaxpr: Jaxpr, inputs: list, consts: list, found: Found) -> list:
  """The largest absolute value of each output (None: not known to be whole)."""
  bounds: dict[Var, float | None] = dict(zip(jaxpr.invars, inputs, strict=True))
  for variable, value in zip(jaxpr.constvars, consts, strict=True):
    known = hasattr(value, 'dtype') and not jnp.issubdtype(value.dtype, jax.dtypes.extended)
    bounds[variable] = _largest(value) if known else None

  def read(atom) -> float | None:
    return _largest(atom.val) if isinstance(atom, Literal) else bounds[atom]

  for eqn in jaxpr.eqns:
    operands = [read(atom) for atom in eqn.invars]
    inner = _inner(eqn)
    if inner:
      results = [_walk(sub, _inputs(eqn, sub, operands), values, found) for sub, values in inner]
      outputs = [_join(column) for column in zip(*results, strict=True)][: len(eqn.outvars)]
      if eqn.primitive.name in ('while', 'scan') or len(outputs) != len(eqn.outvars):
        outputs = [None] * len(eqn.outvars)
    else:
      outputs = [_result(eqn, operands, found)] * len(eqn.outvars)
    for variable, bound in zip(eqn.outvars, outputs, strict=True):
      bounds[variable] = _fitted(variable.aval, bound)
  return [read(atom) for atom in jaxpr.outvars]


def _fitted(aval, bound: float | None) -> float | None:
  """A bound that the type can hold; of an unknown integer its type's."""
  limit = _limit(aval)
  if limit is None:
    return bound
  return limit if bound is None else min(bound, limit)


def _join(column) -> float | None:
  return None if any(bound is None for bound in column) else max(column)


def _inner(eqn) -> list[tuple[Jaxpr, list]]:
  """The jaxprs that an equation runs, and their constants."""
  found = []
  for value in jax.tree.leaves(
    list(eqn.params.values()), is_leaf=lambda x: isinstance(x, (ClosedJaxpr, Jaxpr))
  ):
    if isinstance(value, ClosedJaxpr):
      found.append((value.jaxpr, value.consts))
    elif isinstance(value, Jaxpr) and not value.constvars:
      found.append((value, []))
  reducers = ('reduce', 'scatter', 'sort', 'reduce_window', 'custom_linear')
  return [] if eqn.primitive.name.startswith(reducers) else found


def _inputs(eqn, sub: Jaxpr, operands: list) -> list:
  """The operands of an inner jaxpr; in a loop, what it carries may be as large as its type."""
  if eqn.primitive.name == 'cond':
    return operands[1:]
  if eqn.primitive.name in ('while', 'scan') or len(sub.invars) != len(operands):
    return [_fitted(v.aval, None) for v in sub.invars]
  return operands


def _result(eqn, operands: list, found: Found) -> float | None:
  """The largest absolute value that an operation makes; notes it if its type cannot hold it."""
  name, aval = eqn.primitive.name, eqn.outvars[0].aval
  if jnp.issubdtype(aval.dtype, jax.dtypes.extended):
    return None
  shape = eqn.invars[0].aval.shape if eqn.invars else ()
  if name in ('argmax', 'argmin'):
    return max(shape[axis] for axis in eqn.params['axes']) - 1
  if name == 'iota':
    return max(aval.shape[eqn.params['dimension']] - 1, 0)
  if name in ('eq', 'ne', 'lt', 'le', 'gt', 'ge', 'sign', 'is_finite'):
    return 1
  if name in ('rem', 'and', 'div') and aval.dtype.kind in 'iu':
    return operands[0]
  if name in _MOVES:
    of_values = operands[1:] if name == 'select_n' else operands
    of_values = operands[:1] if name in ('gather', 'dynamic_slice', 'sort') else of_values
    return _join(of_values)
  terms = _terms(eqn, shape)
  if terms is None or None in operands:
    return None
  match name:
    case 'add' | 'sub':
      return sum(operands)
    case 'mul' | 'dot_general':
      bound = math.prod(operands) * terms
    case _:
      bound = operands[-1] * terms  # a scatter's last operand is what it adds
  limit = _limit(aval)
  line = f'{name} of {terms} terms in {aval.dtype}: up to {bound:.3g}'
  if limit is None:
    wrong = terms > EXACT
  else:  # Random bits wrap on purpose: they are unsigned. A product of unknown numbers is no count.
    counts = name != 'mul' or max(operands) < limit
    wrong = bound > limit and aval.dtype.kind == 'i' and counts
  if wrong:
    found.append(line)
  return bound


def _terms(eqn, shape: tuple[int, ...]) -> int | None:
  """How many numbers an addition adds up; None for an operation that is none."""
  name, params = eqn.primitive.name, eqn.params
  match name:
    case 'add' | 'sub' | 'mul':
      return 1
    case 'reduce_sum':
      return math.prod(shape[axis] for axis in params['axes'])
    case 'cumsum':
      return shape[params['axis']]
    case 'dot_general':
      return math.prod(shape[axis] for axis in params['dimension_numbers'][0][0])
    case 'scatter-add' | 'scatter_add':
      return math.prod(eqn.invars[1].aval.shape[:-1])
  return None
