"""Several processes with one study: real stages, and one of the processes is killed."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from diga_jax.storage import stage_folder

ROOT = pathlib.Path(__file__).parents[2]
VARIANTS = ('selector=none', 'selector=consensus')


def start(workdir: pathlib.Path, cache: pathlib.Path, log: pathlib.Path, *more: str):
  """A study of two variants and two seeds in a process of its own."""
  command = [
    sys.executable, '-m', 'diga_jax', 'study', '--config=tests/configs/tiny.py', '--seeds', '0',
    '1', f'--workdir={workdir}', f'--config.data.cache={cache}', '--config.translator.kind=fourier',
    "--config.recipe=('warmup','label_1','self_training_1')", '--against=warmup',
    '--vary=stages.self_training_1.selector=none,consensus', '--config.stages.warmup.steps=40',
    *more,
  ]  # fmt: skip
  environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '1'}
  with log.open('w') as file:
    return subprocess.Popen(
      command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
    )


def end(process: subprocess.Popen) -> None:
  with contextlib.suppress(ProcessLookupError):
    process.kill()
  process.wait()


def starts(workdir: pathlib.Path) -> list[tuple[str, list[str]]]:
  """(folder, stages that it worked on) of every start of a process in a cell."""
  return [
    (path.parent.relative_to(workdir).as_posix(), entry['stages'])
    for path in sorted(workdir.glob('*/seed_*/run.json'))
    for entry in json.loads(path.read_text())['starts']
  ]


@pytest.mark.exhaustive
def test_processes_share_a_study_and_a_killed_one_is_replaced(tmp_path):
  work, cache = tmp_path / 'work', tmp_path / 'cache'
  logs = [tmp_path / f'{number}.log' for number in range(2)]
  first = start(work, cache, logs[0], '--share=1/2')
  begun = work / VARIANTS[0] / 'seed_1' / 'warmup.partial' / 'checkpoints'
  second = start(work, cache, logs[1], '--share=0/2')
  try:
    until = time.monotonic() + 400
    while not list(begun.glob('[0-9]*')) and time.monotonic() < until:
      assert first.poll() is None and second.poll() is None, [log.read_text() for log in logs]
      time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert not (work / VARIANTS[0] / 'seed_1' / 'warmup').exists()  # in the middle of a stage
    assert second.wait(timeout=500) == 0, logs[1].read_text()
  finally:
    end(first)
    end(second)
  own, other = ([entry for entry in starts(work) if entry[0].startswith(v)] for v in VARIANTS)
  assert [stages for _, stages in own].count(['warmup']) == 1  # of the killed one
  assert {stage for _, stages in other for stage in stages} == {'self_training_1'}
  for seed in range(2):
    link = work / VARIANTS[1] / f'seed_{seed}' / 'warmup'
    assert link.is_symlink() and stage_folder.read_record(link)['result']['step'] == 40
  alone = start(tmp_path / 'alone', cache, logs[0])
  try:
    assert alone.wait(timeout=500) == 0, logs[0].read_text()
  finally:
    end(alone)
  numbers = [
    json.loads((place / 'study' / 'published.json').read_text())
    for place in (work, tmp_path / 'alone')
  ]
  assert numbers[0] == numbers[1]
