"""Weights from files, into networks and out again, under PyTorch's names.

`read` a file, put it into a network with `from_torch` or `initialise`, and take it out again with
`to_torch`.
"""

from diga_jax.weights.comparison import activations, compare, format_comparison, format_report
from diga_jax.weights.files import (
  RANDOM,
  file_digest,
  fit,
  load_weights_into,
  path_of,
  read,
  read_stage,
  save,
)
from diga_jax.weights.state_dict import (
  HEAD,
  describe_fit,
  fill,
  from_torch,
  initialise,
  match,
  only_arrays,
  state_dict_of,
  to_torch,
)

__all__ = [
  'HEAD', 'RANDOM', 'activations', 'compare', 'describe_fit', 'file_digest', 'fill', 'fit',
  'format_comparison', 'format_report', 'from_torch', 'initialise', 'load_weights_into', 'match',
  'only_arrays', 'path_of', 'read', 'read_stage', 'save', 'state_dict_of', 'to_torch',
]  # fmt: skip
