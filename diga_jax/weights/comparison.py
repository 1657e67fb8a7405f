"""Two sets of weights layer by layer, and how a file and a network fit, as tables."""

import collections
import io
from collections.abc import Sequence

import jax
import numpy as np
import rich.console
import rich.table

from diga_jax.types import SegmentationNet, Variables
from diga_jax.weights.state_dict import COUNTER, Row, StateDict


def _print(table: rich.table.Table, totals: str, width: int) -> str:
  text = io.StringIO()
  console = rich.console.Console(file=text, width=width, markup=False, highlight=False)
  console.print(table)
  console.print(totals)
  return text.getvalue()


def format_report(rows: Sequence[Row]) -> str:
  """The rows of `match` as a table: name, shape and status, with the totals beneath."""
  table = rich.table.Table('name', 'shape', 'status')
  for key, shape, status in rows:
    table.add_row(key, 'x'.join(map(str, shape)) or 'scalar', status)
  kinds = ('of another shape' if row[2].startswith('shape') else row[2] for row in rows)
  counts = collections.Counter(kinds)
  return _print(table, ', '.join(f'{count} {kind}' for kind, count in counts.items()), 100)


def compare(first: StateDict, second: StateDict) -> list[tuple[str, ...]]:
  """Two state dicts layer by layer.

  Returns:
    One row per entry of either: name, shape, norm of the first, norm of the second, the largest
    difference and its share of the largest value; '-' where it is in one alone, the two shapes
    where they differ.
  """
  rows = []
  for name in dict.fromkeys([*first, *second]):
    if name.endswith(COUNTER):
      continue
    pair = [x[name].astype(np.float64) if name in x else None for x in (first, second)]
    norms = ['-' if x is None else f'{np.linalg.norm(x):.6g}' for x in pair]
    shapes = ['x'.join(map(str, x.shape)) or 'scalar' for x in pair if x is not None]
    one, two = pair
    if one is None or two is None or one.shape != two.shape:
      rows.append((name, ' != '.join(dict.fromkeys(shapes)), *norms, '-', '-'))
      continue
    largest = np.abs(one - two).max(initial=0)
    scale = max(np.abs(one).max(initial=0), 1e-30)
    rows.append((name, shapes[0], *norms, f'{largest:.3g}', f'{largest / scale:.3g}'))
  return rows


def activations(
  model: SegmentationNet, variables: Variables, images: jax.Array
) -> dict[str, np.ndarray]:
  """What every layer of a network gives in evaluation: PyTorch's name of the layer -> array."""
  _, seen = model.apply(
    variables, images, train=False, capture_intermediates=True, mutable=['intermediates']
  )
  found = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(seen['intermediates']):
    # A path ends in '__call__', the number of the call and, for a dict of outputs, its key.
    parts = jax.tree_util.keystr(path, simple=True, separator='/').split('/')
    found['.'.join(part for part in parts if part not in ('__call__', '0'))] = np.asarray(leaf)
  return found


def format_comparison(rows: Sequence[tuple[str, ...]]) -> str:
  """The rows of `compare` as a table, with the totals beneath."""
  heads = ('name', 'shape', 'norm of A', 'norm of B', 'largest difference', 'of the largest value')
  table = rich.table.Table(*heads)
  for column in table.columns[2:]:
    column.justify = 'right'
  for row in rows:
    table.add_row(*row)
  both = [row for row in rows if row[4] != '-']
  equal = sum(row[4] == '0' for row in both)
  totals = f'{equal} equal, {len(both) - equal} different, {len(rows) - len(both)} in one alone'
  return _print(table, totals, 140)
