"""run.json: what it holds of each start, and what is said of a stage that goes on elsewhere."""

import json
import os
import pathlib
import random
import shutil
import subprocess

import pytest

from diga_jax.parallel import devices
from diga_jax.storage import run_record, stage_folder
from tests.support import damage


def starts(workdir: pathlib.Path) -> list[dict]:
  return json.loads((workdir / 'run.json').read_text())['starts']


def test_every_start_has_an_entry(tmp_path, monkeypatch):
  monkeypatch.setenv('NCCL_ALGO', 'Ring')
  monkeypatch.setenv('MY_TOKEN', 'secret')
  for stages in (['a'], ['a', 'b']):
    with run_record.recorded(tmp_path):
      for stage in stages:
        run_record.note(tmp_path, stage, resumed=False)
  first, second = starts(tmp_path)
  assert first['stages'] == ['a'] and second['stages'] == ['a', 'b']
  assert first['command'] and first['date'] and first['host'] and first['hours'] >= 0
  conditions = first['conditions']
  assert conditions['NCCL_ALGO'] == 'Ring' and conditions['devices'] == '8 x cpu'
  assert conditions['cores'] == len(os.sched_getaffinity(0)) and conditions['jax'].count('.') == 2
  assert 'secret' not in (tmp_path / 'run.json').read_text()


def test_the_commit_is_that_of_the_program():
  found = run_record.commit()
  place = pathlib.Path(run_record.__file__).parent
  command = ['git', '-C', str(place), 'rev-parse', 'HEAD']
  try:
    wanted = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    pytest.skip('not in a git repository')
  assert found.rstrip('+') == wanted


@pytest.fixture
def git(tmp_path, monkeypatch):
  """git(arguments) -> its output, in a new repository that the program seems to be in."""

  def call(*arguments: str) -> str:
    own = ('-c', 'user.name=a', '-c', 'user.email=a@b')
    command = ['git', *own, '-C', str(tmp_path), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

  if shutil.which('git') is None:
    pytest.skip('needs git')
  monkeypatch.setattr(run_record, '__file__', str(tmp_path / 'a' / 'b' / 'c.py'))
  call('init')
  return call


def test_asking_for_the_commit_writes_nothing(tmp_path, git):
  (tmp_path / 'file').write_text('a')
  git('add', 'file')
  git('commit', '-m', 'a')
  os.utime(tmp_path / 'file', (1, 1))  # of which the index would take note
  before = (tmp_path / '.git' / 'index').read_bytes()
  assert len(run_record.commit()) == 40
  assert (tmp_path / '.git' / 'index').read_bytes() == before


def test_the_program_is_the_same_at_commits_of_other_files(tmp_path, git):
  commits = []
  for name in ('diga_jax/a.py', 'docs/b.md', 'data_pipelines/c.py'):
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text('a')
    git('add', name)
    git('commit', '-m', 'a')
    commits.append(git('rev-parse', 'HEAD'))
  first, page, other = commits
  assert run_record.same_program(first, page) and run_record.same_program('', '')
  assert run_record.same_program(f'{page}+', f'{page}+')
  wrong = [
    (page, other),
    (first, f'{page}+'),
    (first, ''),
    (first, '0' * 40),
    (first, '--no-index'),
  ]
  assert not [pair for pair in wrong if run_record.same_program(*pair)]


def test_versions_are_those_that_the_process_began_with(monkeypatch):
  before = run_record.versions()
  monkeypatch.setattr(run_record, 'commit', lambda: 'of what was checked out since')
  assert run_record.versions() == before


def test_a_stage_that_goes_on_elsewhere_says_what_differs(tmp_path, monkeypatch, caplog):
  monkeypatch.setattr(devices, 'cores', lambda: 2)
  with run_record.recorded(tmp_path):
    run_record.note(tmp_path, 'warmup', resumed=False)
  monkeypatch.setattr(devices, 'cores', lambda: 1)
  monkeypatch.setenv('NCCL_ALGO', 'Tree')
  with run_record.recorded(tmp_path):
    run_record.note(tmp_path, 'warmup', resumed=True)
    run_record.note(tmp_path, 'label_1', resumed=False)
  [record] = caplog.records
  said = record.getMessage()
  assert 'warmup goes on under other conditions' in said and 'cores: 2 then, 1 now' in said
  assert 'NCCL_ALGO: unset then, Tree now' in said
  caplog.clear()
  with run_record.recorded(tmp_path):
    run_record.note(tmp_path, 'warmup', resumed=True)
  assert not caplog.records  # the last start that worked on it was like this one


@pytest.mark.parametrize(
  'text',
  [
    '', '{', '[]', '{}', '{"starts": 1}', '{"starts": [1]}', '{"starts": [{}]}', '\x00',
    '[' * 10**5,
    '{"starts": [{"date": "x", "conditions": {}, "stages": []}]}',
    '{"starts": [{"date": 1, "conditions": {}, "stages": []}]}',
    '{"starts": [{"date": "2026-01-01T00:00:00", "conditions": {}, "stages": []}]}',
    '{"starts": [{"date": "2026-01-01T00:00:00+00:00", "conditions": [], "stages": []}]}',
    '{"starts": [{"date": "2026-01-01T00:00:00+00:00", "conditions": {}, "stages": [1, "a"]}]}',
  ],
)  # fmt: skip
def test_a_damaged_file_is_set_aside(tmp_path, caplog, text):
  (tmp_path / 'run.json').write_text(text)
  with run_record.recorded(tmp_path):
    run_record.note(tmp_path, 'a', resumed=True)
  assert len(starts(tmp_path)) == 1
  assert (tmp_path / 'run.json.damaged.1').read_text() == text
  assert [record.getMessage().count('set aside') for record in caplog.records] == [1]


def test_a_flipped_bit_is_noticed(tmp_path, caplog):
  with run_record.recorded(tmp_path):
    pass
  damage.flip(tmp_path / 'run.json', random.Random(0))
  with run_record.recorded(tmp_path):
    pass
  assert len(starts(tmp_path)) == 1 and 'run.json: is damaged' in caplog.text


def test_what_is_no_text_is_set_aside(tmp_path, caplog):
  (tmp_path / 'run.json').write_bytes(b'\xff\xfe')
  with run_record.recorded(tmp_path):
    pass
  (tmp_path / 'run.json').unlink()
  os.mkfifo(tmp_path / 'run.json')
  with run_record.recorded(tmp_path):
    pass
  (tmp_path / 'run.json').unlink()
  (tmp_path / 'run.json').mkdir()
  with run_record.recorded(tmp_path):
    pass
  assert len(caplog.records) == 3 and len(starts(tmp_path)) == 1


def test_a_start_that_made_nothing_leaves_nothing(tmp_path):
  place = tmp_path / 'run'
  with stage_folder.lock(place), run_record.recorded(place):
    pass
  assert not place.exists()


def test_hours_add_up_by_stage_also_when_one_ends_badly(tmp_path, monkeypatch):
  clock = iter([0, 3600, 3600, 5400, 5400, 9000])
  with run_record.recorded(tmp_path):
    monkeypatch.setattr(run_record.time, 'monotonic', lambda: next(clock))
    with run_record.timed(tmp_path, 'a'):
      pass
    with pytest.raises(KeyboardInterrupt), run_record.timed(tmp_path, 'a'):
      raise KeyboardInterrupt
    with run_record.timed(tmp_path, 'b'):
      pass
    monkeypatch.undo()
  (found,) = starts(tmp_path)
  assert found['hours_of'] == {'a': 1.5, 'b': 1.0}
