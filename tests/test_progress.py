"""What a run prints on stderr beside its results: warnings above the bars."""

import io
import logging
import sys
import time
import warnings

import pytest

from diga_jax import progress


class Terminal(io.StringIO):
  def isatty(self) -> bool:
    return True


def shown() -> list[str]:
  """The lines on stderr, also those that others have replaced."""
  lines = [line.strip() for line in sys.stderr.getvalue().replace('\r', '\n').split('\n')]
  return [line for line in lines if line]


@pytest.mark.parametrize('stream', [io.StringIO, Terminal])
def test_a_warning_is_one_plain_line(monkeypatch, stream):
  monkeypatch.setattr(sys, 'stderr', stream())
  logger = logging.Logger('absl')
  logger.addHandler(progress.Warnings())
  with progress.bar(3, 'warmup', unit='steps') as bar:
    bar.update()
    before = shown()
    logger.warning('warmup: %d files', 2)
    after = shown()
  assert [line for line in after if 'files' in line] == ['warning: warmup: 2 files']
  again = len(after) - 1 - len(before)  # of the bar, which a log does not repeat
  assert again == (stream is Terminal)


@pytest.mark.parametrize('stream', [io.StringIO, Terminal])
def test_compiling_has_a_line_and_no_part_in_the_rate(monkeypatch, stream):
  monkeypatch.setattr(sys, 'stderr', stream())
  with progress.bar(3, 'warmup', unit='steps') as bar:
    with progress.compiling(bar, 'warmup'):
      assert 'compiling' not in shown()[-1]
      time.sleep(1.2)
      assert shown()[-1] == 'compiling warmup ...'  # while it goes on
    bar.update(3)
    assert bar.format_dict['elapsed'] < 0.5
  assert 'compiling warmup ... 1 s' in shown()


def test_a_mistake_while_compiling_leaves_its_line(monkeypatch):
  monkeypatch.setattr(sys, 'stderr', io.StringIO())
  with (
    pytest.raises(ValueError, match='mine'),
    progress.bar(3, 'warmup') as bar,
    progress.compiling(bar, 'warmup'),
  ):
    time.sleep(1.2)
    raise ValueError('mine')
  assert 'compiling warmup ... 1 s' in shown()


@pytest.mark.parametrize('stream', [io.StringIO, Terminal])
def test_a_program_that_is_there_has_no_line(monkeypatch, stream):
  monkeypatch.setattr(sys, 'stderr', stream())
  with progress.bar(3, 'evaluate') as bar:
    for _ in range(3):
      with progress.compiling(bar, 'evaluate'):
        pass
  time.sleep(1.2)
  assert not [line for line in shown() if 'compiling' in line]


def test_other_processes_are_silent(monkeypatch):
  monkeypatch.setattr(sys, 'stderr', io.StringIO())
  with progress.bar(3, 'warmup', show=False) as bar, progress.compiling(bar, 'warmup'):
    pass
  assert shown() == []


def test_a_librarys_warning_is_one_line(monkeypatch):
  monkeypatch.setattr(warnings, 'formatwarning', warnings.formatwarning)
  progress.show_warnings()
  text = warnings.formatwarning(UserWarning('a\nb'), UserWarning, 'file.py', 3)
  assert text == 'warning: a b\n'


def test_a_bar_says_what_it_is_part_of(monkeypatch):
  monkeypatch.setattr(sys, 'stderr', io.StringIO())
  with progress.within(''), progress.within('seed 0', 'published/warmup/test'):
    progress.bar(2, 'evaluate').close()
  progress.bar(2, 'evaluate').close()
  names = [line.partition(':')[0] for line in shown()]
  assert set(names) == {'seed 0 published/warmup/test evaluate', 'evaluate'}


def test_a_log_has_no_empty_lines(monkeypatch):
  monkeypatch.setattr(sys, 'stderr', io.StringIO())
  with progress.bar(2, 'evaluate') as bar:
    bar.update(2)
  sys.stderr.write('warning: after it\n')
  first, last, after, end = sys.stderr.getvalue().split('\n')
  assert first.startswith('evaluate:') and '2/2' in last
  assert (after, end) == ('warning: after it', '')


def test_a_line_of_a_log_has_room_for_all_of_it(monkeypatch):
  monkeypatch.setattr(sys, 'stderr', io.StringIO())
  with progress.within('no_mixing', 'seed 1234'):
    bar = progress.bar(100_000, 'source_only_equal_steps', unit='steps')
    bar.set_postfix(loss='12.345', wait='100%')
    bar.close()
  assert shown()[-1].endswith('wait=100%]')
