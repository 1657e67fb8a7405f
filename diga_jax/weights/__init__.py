"""Weights from files, into networks and out again, under PyTorch's names.

`read` a file, put it into a network with `from_torch` or `initialise`, and take it out again with
`to_torch`.
"""

from diga_jax.weights.comparison import activations, compare, format_comparison, format_report
from diga_jax.weights.files import (
  RANDOM,
  Loaded,
  file_digest,
  find,
  find_pair,
  fit,
  load_weights_into,
  path_of,
  read,
  read_stage,
  save,
  split,
)
from diga_jax.weights.state_dict import (
  HEAD,
  describe_fit,
  fill,
  from_torch,
  initialise,
  match,
  only_arrays,
  shapes_of,
  state_dict_of,
  to_torch,
)

__all__ = [
  'HEAD', 'RANDOM', 'Loaded', 'activations', 'compare', 'describe_fit', 'file_digest', 'fill',
  'find', 'find_pair', 'fit', 'format_comparison', 'format_report', 'from_torch', 'initialise',
  'load_weights_into', 'match', 'only_arrays', 'path_of', 'read', 'read_stage', 'save', 'shapes_of',
  'split', 'state_dict_of', 'to_torch',
]  # fmt: skip
