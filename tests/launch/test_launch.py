"""The launch scripts: what they would run, and shellcheck."""

import os
import pathlib
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / 'launch').glob('*.sh')) + [ROOT / 'launch/slurm.sbatch', ROOT / '.ci/run']
COMMAND = ['run', '--config=configs/quickstart.py', '--workdir=/runs/a b', '--config.seed=1']


def dry_run(script: str, **environment: str) -> list[str]:
  done = subprocess.run(
    ['bash', f'launch/{script}', *COMMAND],
    cwd=ROOT,
    env=os.environ | {'DRY_RUN': '1', 'VENV': '/venv'} | environment,
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout.splitlines()


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
  shellcheck = pathlib.Path(sys.executable).parent / 'shellcheck'
  done = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stdout


def test_gpus_runs_one_process():
  *_, last = dry_run('gpus.sh')
  assert last.split(' ')[:4] == ['/venv/bin/python', '-m', 'diga_jax', 'run']
  assert '--workdir=/runs/a\\ b' in last and '--distributed' not in last


def test_slurm_runs_one_process_per_task():
  *_, last = dry_run('slurm.sbatch', SLURM_SUBMIT_DIR=str(ROOT))
  assert last.startswith('srun ') and last.rstrip().endswith('--distributed=auto')


POD = {'NAME': 'pod', 'ZONE': 'zone', 'TYPE': 'v4-32'}


def test_a_pod_is_made_installed_used_and_deleted():
  lines = dry_run('tpu_pod.sh', SPOT='1', MOUNTS='bucket:/runs', **POD)
  verbs = ['create', 'archive', 'scp', 'ssh', 'ssh', 'delete']
  assert len(lines) == len(verbs)
  assert all(verb in line for verb, line in zip(verbs, lines, strict=True))
  assert '--spot' in lines[0] and '--accelerator-type=v4-32' in lines[0]
  assert 'gcsfuse' in lines[3] and '--worker=all' in lines[3]
  assert '--distributed=auto' in lines[4] and '/runs/a' in lines[4]


def test_a_pod_that_is_there_is_used():
  lines = dry_run('tpu_pod.sh', DRY_STATE='READY', KEEP='1', **POD)
  assert len(lines) == 1 and 'diga_jax' in lines[0]


def test_a_preempted_pod_is_replaced():
  lines = dry_run('tpu_pod.sh', DRY_STATE='PREEMPTED', KEEP='1', **POD)
  assert 'delete' in lines[0] and 'create' in lines[1] and 'diga_jax' in lines[-1]


@pytest.mark.parametrize('script', ['gpus.sh', 'tpu_pod.sh', 'slurm.sbatch'])
def test_without_a_command_the_usage_is_shown(script):
  done = subprocess.run(
    ['bash', f'launch/{script}'], cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert done.returncode == 2
  assert f'launch/{script}' in done.stderr


def test_the_jobset_asks_for_all_chips():
  job = yaml.safe_load((ROOT / 'launch' / 'gke_jobset.yaml').read_text())
  spec = job['spec']['replicatedJobs'][0]['template']['spec']
  pod = spec['template']['spec']
  rows, columns = map(int, pod['nodeSelector']['cloud.google.com/gke-tpu-topology'].split('x'))
  chips = pod['containers'][0]['resources']['limits']['google.com/tpu']
  assert spec['parallelism'] * chips == rows * columns
  assert '--distributed=auto' in pod['containers'][0]['command'][-1]
