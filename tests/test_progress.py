"""What a run prints on stderr beside its results: warnings above the bars."""

import io
import logging
import sys

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
