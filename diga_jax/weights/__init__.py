"""Weights from files, into networks and out again, under PyTorch's names.

`read` a file, put it into a network with `from_torch` or `initialise`, and take it out again with
`to_torch`.
"""

from diga_jax.weights.comparison import activations, compare, format_comparison, format_report
from diga_jax.weights.files import (
  NETWORKS,
  file_digest,
  lite0_file,
  load_weights_into,
  read,
  read_stage,
  save,
  weights_file,
)
from diga_jax.weights.pretrained import StateDict
from diga_jax.weights.state_dict import (
  Row,
  from_torch,
  initialise,
  match,
  state_dict_of,
  to_torch,
)

__all__ = [
  'NETWORKS',
  'Row',
  'StateDict',
  'activations',
  'compare',
  'file_digest',
  'format_comparison',
  'format_report',
  'from_torch',
  'initialise',
  'lite0_file',
  'load_weights_into',
  'match',
  'read',
  'read_stage',
  'save',
  'state_dict_of',
  'to_torch',
  'weights_file',
]
