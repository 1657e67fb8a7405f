"""The search for patterns of a config in the names of layers."""

import signal

import pytest

from data_pipelines.errors import BadInput
from diga_jax import rules

NAME = 'layer1/0/conv1/kernel'


def test_a_pattern_is_searched_for_anywhere_in_a_name():
  assert rules.search(r'conv\d/', NAME) and not rules.search('^conv', NAME)


def test_a_pattern_that_takes_for_ever_is_given_up(monkeypatch):
  monkeypatch.setattr(rules, 'SECONDS', 0.05)
  handler = signal.getsignal(signal.SIGALRM)
  with pytest.raises(BadInput, match=r'takes too long .* without repeats within repeats'):
    rules.search(r'(.*.*)*$x', NAME * 3)
  assert rules.search('layer', NAME)
  assert signal.getsignal(signal.SIGALRM) is handler
  assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
