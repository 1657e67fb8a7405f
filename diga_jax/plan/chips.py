"""Chips as their makers publish them, and the names of topologies."""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from data_pipelines.errors import BadInput

GIB = 2**30
# How often a product of two float32 values goes through a TPU's bfloat16 unit, by precision.
TPU_PASSES = {'default': 1, 'high': 3, 'highest': 6}


class Chip(NamedTuple):
  """One chip.

  Attributes:
    memory: bytes.
    flops: of dense bfloat16 products, per second.
    bandwidth: of the memory, bytes per second.
    interconnect: of all links together, bytes per second.
    passes: precision -> how many times as long as a bfloat16 product one of float32 values takes.
  """

  memory: float
  flops: float
  bandwidth: float
  interconnect: float
  passes: Mapping[str, float] = TPU_PASSES


# cloud.google.com/tpu/docs/system-architecture-tpu-vm
TPUS = {
  'v4': Chip(32 * GIB, 275e12, 1228e9, 300e9),
  'v5e': Chip(16 * GIB, 197e12, 819e9, 200e9),
  'v5p': Chip(95 * GIB, 459e12, 2765e9, 600e9),
  'v6e': Chip(32 * GIB, 918e12, 1640e9, 448e9),
}
# NVIDIA's data sheets of the SXM modules with 80 GB. Products of float32 values are TF32's, at half
# the rate; with 'highest' they leave the tensor cores.
GPUS = {
  'a100': Chip(80e9, 312e12, 2039e9, 600e9, {'default': 2, 'high': 2, 'highest': 312 / 19.5}),
  'h100': Chip(80e9, 989e12, 3350e9, 900e9, {'default': 2, 'high': 2, 'highest': 989 / 67}),
}
HOST = 8  # GPUs that NVLink joins
CHIPS = TPUS | GPUS
# Slices by the names they are rented by (v4 and v5p count cores, two on a chip).
SLICES = {
  'v4-8': 'v4:2x2x1', 'v5e-8': 'v5e:2x4', 'v5e-64': 'v5e:8x8', 'v5p-8': 'v5p:2x2x1',
  'v6e-8': 'v6e:2x4',
}  # fmt: skip


def parse_topology(topology: str) -> tuple[str, str, int]:
  """(kind, layout, chips) of 'v5e:4x4', a slice of `SLICES`, 'h100:8' or 'cpu:4'; alone, one.

  Raises:
    BadInput: it is none of these, or more GPUs than a host has.
  """
  kind, _, layout = SLICES.get(topology, topology).partition(':')
  layout = layout or '1' * (kind not in TPUS)
  number = r'[1-9]\d{0,2}'
  form = rf'{number}(x{number})*' if kind in TPUS else number
  if kind not in (*CHIPS, 'cpu') or not re.fullmatch(form, layout):
    raise BadInput(
      f'--topology={topology}: give cpu, {", ".join(SLICES)}, a kind of TPU and its chips, such as '
      f'v5e:4x4 (kinds: {", ".join(TPUS)}), or of GPU and their number, such as h100:8 (kinds: '
      f'{", ".join(GPUS)})'
    )
  chips = math.prod(map(int, layout.split('x')))
  if kind in GPUS and chips > HOST:
    raise BadInput(f'--topology={topology}: GPUs are estimated for one host, 1 to {HOST} of them')
  return kind, layout, chips
