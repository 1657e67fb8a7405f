"""Which GPUs a process of SLURM or Open MPI uses: JAX takes one for each process, always."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from data_pipelines.errors import BadInput

# Of CUDA and ROCm: what a process sees, by number or by UUID. What it sees is numbered from 0.
VISIBLE = ('CUDA_VISIBLE_DEVICES', 'HIP_VISIBLE_DEVICES', 'ROCR_VISIBLE_DEVICES')


class _Task(NamedTuple):
  """A process among those of its machine.

  Attributes:
    index, count: which of them it is, and how many there are.
    gpus: how many GPUs the launcher gives to it alone; 0 where it does not say.
    on_node: how many it gives to all of them; 0 where it does not say.
  """

  index: int
  count: int
  gpus: int = 0
  on_node: int = 0


def visible_devices(environment: Mapping[str, str]) -> str | None:
  """'all', or the positions of this process's GPUs among those that it can see, such as '2,3'.

  A process that is alone on its machine, or to which the launcher shows its own GPUs alone, uses
  all that it sees; processes that see the same GPUs share them evenly.

  Args:
    environment: the process's. None is returned if it is of neither launcher.

  Raises:
    BadInput: the GPUs do not divide over the processes of the machine.
  """
  if 'JAX_LOCAL_DEVICE_IDS' in environment:
    return environment['JAX_LOCAL_DEVICE_IDS']
  task = _task(environment)
  if task is None:
    return None
  seen = _seen(environment)
  if seen is None:  # a control group may hide those of the other tasks
    seen = task.gpus or task.on_node
  if task.count == 1 or seen <= max(task.gpus, 1):
    return 'all'
  if seen % task.count:
    raise BadInput(
      f'{task.count} processes on this machine share {seen} GPUs: start a number that divides them'
    )
  share = seen // task.count
  return ','.join(str(gpu) for gpu in range(task.index * share, (task.index + 1) * share))


def _task(environment: Mapping[str, str]) -> _Task | None:
  """This process of Open MPI, which may itself run under SLURM, or of SLURM."""
  if 'OMPI_COMM_WORLD_LOCAL_RANK' in environment:
    index, count = (int(environment[f'OMPI_COMM_WORLD_LOCAL_{x}']) for x in ('RANK', 'SIZE'))
    return _Task(index, count)
  if 'SLURM_LOCALID' not in environment:
    return None
  own = environment.get('SLURM_GPUS_PER_TASK', '')
  if not own:  # 'cpu:8,gres/gpu:h100:2' or 'gres/gpu=2'
    asked = re.search(r'gpu(?:[:=][^,]*)?', environment.get('SLURM_TRES_PER_TASK', ''))
    own = asked[0] if asked else ''
  on_node = environment.get('SLURM_GPUS_ON_NODE', '')
  index = int(environment['SLURM_LOCALID'])
  return _Task(index, _tasks(environment), _number(own), _number(on_node))


def _number(text: str) -> int:
  """How many GPUs '8', 'h100:8' or 'gpu:h100=8' are; 'gpu' is one, and '' none."""
  last = re.split('[:=]', text)[-1]
  return int(last) if last.isdecimal() else int(bool(text))


def _seen(environment: Mapping[str, str]) -> int | None:
  """How many GPUs a process sees; None if no variable says it."""
  for name in VISIBLE:
    if name in environment:
      seen = [gpu.strip() for gpu in environment[name].split(',')]
      ends = [i for i, gpu in enumerate(seen) if gpu in ('', '-1', 'NoDevFiles')]
      return min(ends, default=len(seen))  # what is behind such an entry is not seen
  return None


def _tasks(environment: Mapping[str, str]) -> int:
  """The number of processes on this node: SLURM writes '8(x2),4' for 8, 8 and 4."""
  text = environment.get('SLURM_STEP_TASKS_PER_NODE', environment.get('SLURM_TASKS_PER_NODE', '1'))
  counts: list[int] = []
  for count, times in re.findall(r'(\d+)(?:\(x(\d+)\))?', text):
    counts += [int(count)] * int(times or 1)
  node = int(environment.get('SLURM_NODEID', 0))
  return counts[node] if node < len(counts) else counts[-1]
