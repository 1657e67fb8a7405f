"""The launch scripts: what they would run, and shellcheck."""

import os
import pathlib
import shutil
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
  places = f'{os.path.dirname(sys.executable)}:{os.environ["PATH"]}'
  shellcheck = shutil.which('shellcheck', path=places)
  if not shellcheck:
    pytest.skip('shellcheck is not installed: it has no wheel for this machine')
  done = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stdout


# A Python that makes environments of itself, has pip, and writes down what pip is asked for.
PYTHON = """#!/bin/sh
case "$*" in
  '-m pip --version') exit 0 ;;
  '-m venv --clear '*)
    rm -rf "$4"
    mkdir -p "$4/bin"
    cp "$0" "$4/bin/python"
    : > "$4/pyvenv.cfg" ;;
  *install*) echo "$*" >> "$LOG" ;;
esac
"""


@pytest.fixture
def set_up(tmp_path):
  """set_up(**environment) -> the finished process of launch/setup.sh, with a Python of ours."""
  (tmp_path / 'python').write_text(PYTHON)
  (tmp_path / 'python').chmod(0o755)

  def run(**more: str) -> subprocess.CompletedProcess[str]:
    places = {'VENV': tmp_path / 'venv', 'PYTHON': tmp_path / 'python', 'LOG': tmp_path / 'log'}
    return subprocess.run(
      ['bash', ROOT / 'launch/setup.sh', 'test'],
      env=os.environ | {k: str(v) for k, v in places.items()} | more,
      capture_output=True,
      text=True,
      check=False,
    )

  return run


def without_pip(venv: pathlib.Path) -> None:
  (venv / 'bin').mkdir(parents=True)
  (venv / 'pyvenv.cfg').touch()
  (venv / 'bin' / 'python').write_text('#!/bin/sh\nexit 1\n')
  (venv / 'bin' / 'python').chmod(0o755)


def without_python(venv: pathlib.Path) -> None:
  (venv / 'bin').mkdir(parents=True)
  (venv / 'pyvenv.cfg').touch()
  (venv / 'bin' / 'python').symlink_to('/gone/python')


@pytest.mark.parametrize(
  'there', [lambda venv: None, pathlib.Path.mkdir, without_pip, without_python]
)
def test_an_environment_that_is_half_made_is_made_anew(set_up, tmp_path, there):
  there(tmp_path / 'venv')
  done = set_up()
  assert done.returncode == 0 and 'making the virtual environment' in done.stdout
  assert '--editable .[test]' in (tmp_path / 'log').read_text()
  again = set_up()
  assert again.returncode == 0 and 'making' not in again.stdout


def test_a_folder_that_is_no_environment_is_left_alone(set_up, tmp_path):
  (tmp_path / 'venv').mkdir()
  (tmp_path / 'venv' / 'thesis.tex').write_text('mine')
  done = set_up()
  assert done.returncode == 2 and 'is no virtual environment: set VENV' in done.stderr
  assert (tmp_path / 'venv' / 'thesis.tex').read_text() == 'mine'


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
