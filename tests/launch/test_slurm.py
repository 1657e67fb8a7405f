"""launch/slurm.sbatch under an srun that starts processes with the variables of SLURM's."""

import os
import pathlib
import shlex
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
# One node. FAKE_TASKS processes; FAKE_GPUS holds what each of them sees, with ';' between.
SRUN = """#!/usr/bin/env bash
while [[ "$1" == --* ]]; do shift; done
IFS=';' read -ra gpus <<<"${FAKE_GPUS:-}"
for ((i = 0; i < FAKE_TASKS; i++)); do
  seen=(); if [ ${#gpus[@]} -gt 0 ]; then seen=("CUDA_VISIBLE_DEVICES=${gpus[i]}"); fi
  env SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_NODEID=0 SLURM_NTASKS=$FAKE_TASKS \\
    SLURM_STEP_TASKS_PER_NODE=$FAKE_TASKS SLURM_STEP_NUM_NODES=1 SLURM_STEP_NODELIST=localhost \\
    "${seen[@]}" "$@" &
  started+=($!)
done
status=0
for process in "${started[@]}"; do wait "$process" || status=$?; done
exit $status
"""
SCONTROL = """#!/usr/bin/env bash
echo "JobId=$SLURM_JOB_ID JobName=diga_jax"
echo "   Command={root}/launch/slurm.sbatch run --config=quickstart"
"""
# In place of the Python of a virtual environment: installs nothing.
PYTHON = """#!/usr/bin/env bash
if [ "$2" = pip ]; then exit 0; fi
exec {python} "$@"
"""


def script(path: pathlib.Path, text: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  path.chmod(0o755)


@pytest.fixture
def cluster(tmp_path):
  """cluster(variables, *command) -> the finished job, submitted from a folder elsewhere."""
  script(tmp_path / 'bin/srun', SRUN)
  script(tmp_path / 'bin/scontrol', SCONTROL.replace('{root}', str(ROOT)))
  script(tmp_path / 'venv/bin/python', PYTHON.replace('{python}', shlex.quote(sys.executable)))
  script(tmp_path / 'spool/job7/slurm_script', (ROOT / 'launch/slurm.sbatch').read_text())
  (tmp_path / 'elsewhere').mkdir()

  def submit(variables: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    own = {'PATH': f'{tmp_path / "bin"}:/usr/bin:/bin', 'VENV': str(tmp_path / 'venv')}
    own |= {'SLURM_JOB_ID': str(os.getpid()), 'SLURM_SUBMIT_DIR': str(tmp_path / 'elsewhere')}
    own |= {'JAX_PLATFORMS': 'cpu', 'HOME': str(tmp_path)}
    return subprocess.run(
      ['bash', tmp_path / 'spool/job7/slurm_script', *command],
      cwd=tmp_path / 'elsewhere', env=own | variables, capture_output=True, text=True, check=False,
    )  # fmt: skip

  return submit


def test_it_is_found_from_any_folder(cluster, tmp_path):
  done = cluster({'DRY_RUN': '1'}, 'run', '--config=quickstart', '--workdir=runs/a')
  assert done.returncode == 0, done.stderr
  setup, _, last = done.stdout.splitlines()
  assert setup.split() == ['bash', f'{ROOT}/launch/setup.sh', 'demo']
  assert '--workdir=runs/a' in last  # of the folder it is submitted from
  (tmp_path / 'bin/scontrol').unlink()
  assert cluster({'DRY_RUN': '1', 'SLURM_SUBMIT_DIR': str(ROOT)}, 'run').returncode == 0
  lost = cluster({'DRY_RUN': '1'}, 'run')
  assert lost.returncode == 2 and 'from the folder of the repository' in lost.stderr


# What the processes of one node use of the GPUs that each of them sees.
SHAPES = {
  '--ntasks-per-node=1 --gpus-per-task=8': (1, '0,1,2,3,4,5,6,7', {'SLURM_GPUS_PER_TASK': '8'}),
  '--gpus-per-task=1': (2, '0;0', {'SLURM_GPUS_PER_TASK': '1', 'SLURM_GPUS_ON_NODE': '2'}),
  'without control groups': (2, '0;1', {'SLURM_GPUS_PER_TASK': '1'}),
  '--gpus-per-node=4': (2, '0,1,2,3;0,1,2,3', {'SLURM_GPUS_ON_NODE': '4'}),
  '--gpu-bind=none': (2, '0,1;0,1', {'SLURM_TRES_PER_TASK': 'cpu:8,gres/gpu:1'}),
}
USED = {
  '--ntasks-per-node=1 --gpus-per-task=8': ['all'],
  '--gpus-per-task=1': ['all', 'all'],
  'without control groups': ['all', 'all'],
  '--gpus-per-node=4': ['0,1', '2,3'],
  '--gpu-bind=none': ['0', '1'],
}
# A process as the command line connects it, and what JAX will then look for.
PROCESS = """
import os, jax
from diga_jax.parallel import launchers, processes
processes.connect('auto', launchers.visible_devices(os.environ))
found = jax.config.values['jax_cuda_visible_devices']
print(jax.process_index(), jax.process_count(), found, flush=True)
processes.close()
"""
EXHAUSTIVE = pytest.mark.exhaustive  # seconds each: importing JAX in two processes


@pytest.mark.parametrize(
  'shape', [name if '=1' in name[-9:] else pytest.param(name, marks=EXHAUSTIVE) for name in SHAPES]
)
def test_every_process_uses_its_gpus(tmp_path, shape):
  tasks, gpus, variables = SHAPES[shape]
  script(tmp_path / 'srun', SRUN)
  environment = {'PATH': '/usr/bin:/bin', 'JAX_PLATFORMS': 'cpu', 'FAKE_TASKS': str(tasks)}
  environment |= {'SLURM_JOB_ID': str(os.getpid()), 'FAKE_GPUS': gpus} | variables
  done = subprocess.run(
    [tmp_path / 'srun', '--kill-on-bad-exit=1', sys.executable, '-c', PROCESS],
    cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  wanted = [f'{index} {tasks} {used}' for index, used in enumerate(USED[shape])]
  assert sorted(line for line in done.stdout.splitlines() if line[:6] != '[Gloo]') == wanted


@pytest.mark.exhaustive
def test_a_job_of_two_processes(cluster, tmp_path):
  command = ['run', f'--config={ROOT}/tests/configs/tiny.py', '--workdir=runs/a', '--dry_run']
  command += [f'--config.data.cache={tmp_path / "scenes"}', '--config.devices=0']
  done = cluster({'FAKE_TASKS': '2', 'FAKE_GPUS': '0;0'}, *command)
  assert done.returncode == 0, done.stderr
  assert done.stderr.splitlines()[0].endswith('(2 x cpu in 2 processes)'), done.stderr
  assert done.stdout.count('time left: not known') == 1  # by one of them
  wrong = cluster({'FAKE_TASKS': '2'}, *command, '--config.evaluation.sets=("none",)')
  assert wrong.returncode == 2 and 'Traceback' not in wrong.stderr
