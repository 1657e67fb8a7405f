"""Which GPUs a process of SLURM or Open MPI uses: JAX takes one for each process, always."""

import re
from collections.abc import Mapping

from data_pipelines.errors import BadInput


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
  if 'SLURM_LOCALID' in environment:
    local = int(environment['SLURM_LOCALID'])
    tasks = _tasks(environment)
    gpus = environment.get('CUDA_VISIBLE_DEVICES', environment.get('SLURM_GPUS_ON_NODE', ''))
  elif 'OMPI_COMM_WORLD_LOCAL_RANK' in environment:
    local = int(environment['OMPI_COMM_WORLD_LOCAL_RANK'])
    tasks = int(environment['OMPI_COMM_WORLD_LOCAL_SIZE'])
    gpus = environment.get('CUDA_VISIBLE_DEVICES', '')
  else:
    return None
  count = len(gpus.split(',')) if ',' in gpus or not gpus.isdecimal() else int(gpus)
  if 'CUDA_VISIBLE_DEVICES' in environment:
    count = len([gpu for gpu in gpus.split(',') if gpu])
  bound = any(name in environment for name in ('SLURM_GPUS_PER_TASK', 'SLURM_TRES_PER_TASK'))
  if tasks == 1 or count <= 1 or bound:
    return 'all'
  if count % tasks:
    raise BadInput(
      f'{tasks} processes on this machine share {count} GPUs: start a number that divides them'
    )
  share = count // tasks
  return ','.join(str(gpu) for gpu in range(local * share, (local + 1) * share))


def _tasks(environment: Mapping[str, str]) -> int:
  """The number of processes on this node: SLURM writes '8(x2),4' for 8, 8 and 4."""
  text = environment.get('SLURM_STEP_TASKS_PER_NODE', environment.get('SLURM_TASKS_PER_NODE', '1'))
  counts: list[int] = []
  for count, times in re.findall(r'(\d+)(?:\(x(\d+)\))?', text):
    counts += [int(count)] * int(times or 1)
  node = int(environment.get('SLURM_NODEID', 0))
  return counts[node] if node < len(counts) else counts[-1]
