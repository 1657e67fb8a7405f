"""What a value of a config may be: small tests with the words that explain them."""

import math
import re
import signal
import threading
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from data_pipelines.errors import BadInput

# Of float32, in which everything is computed; smaller numbers are taken for 0.
SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
SECONDS = 1.0  # for a pattern and a name, where a microsecond is usual
PATH_LENGTH = 4096  # characters, Linux' PATH_MAX


class Rule(NamedTuple):
  """A test of a value, which raises nothing, and what follows 'it may be' in its message."""

  accepts: Callable[[object], bool]
  text: str


def words(*allowed: str | int) -> Rule:
  """One of the words, or of the numbers, that are listed."""

  def accepts(value: object) -> bool:
    return any(isinstance(value, type(word)) and value == word for word in allowed)

  return Rule(accepts, ', '.join(map(str, allowed)))


def whole(low: int, high: int | None = None, bits: int = 31) -> Rule:
  """An integer from `low` to `high`, both included; without `high` below 2**bits."""
  last = 2**bits - 1 if high is None else high

  def accepts(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= last

  if high is None:
    return Rule(accepts, f'a whole number, at least {low} and below 2**{bits}')
  return Rule(accepts, f'a whole number from {low} to {high:,}')


def number(low: float, high: float = math.inf, *, above: bool = False, below: bool = False) -> Rule:
  """A finite number from `low`, included but with `above`, to `high`, included but with `below`.

  What float32 rounds to an end that is not included is not included either.
  """

  def accepts(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= LARGEST:
      return False
    single = float(np.float32(value))
    inside = not (above and single < low + SMALLEST) and not (below and single >= high)
    return bool(inside and low <= value <= high)  # of NumPy's floats too

  least = f'above {low}' if above else f'of at least {low}'
  if high == math.inf:
    return Rule(accepts, f'a finite number {least}')
  without = [str(end) for end, left_out in ((low, above), (high, below)) if left_out]
  ends = f'a number between {low} and {high:,}' + f', but not {" or ".join(without)}' * bool(
    without
  )
  return Rule(accepts, ends)


def tuple_of(rule: Rule, *lengths: int, least: int = 0) -> Rule:
  """Values that each pass `rule`: as many as one of `lengths`, or without these `least` or more."""

  def accepts(value: object) -> bool:
    if not isinstance(value, tuple | list) or len(value) < least:
      return False
    return (not lengths or len(value) in lengths) and all(map(rule.accepts, value))

  count = ' or '.join(map(str, lengths)) if lengths else f'{least} or more'
  return Rule(accepts, f'a tuple of {count}, each {rule.text}')


def different(rule: Rule) -> Rule:
  """What a rule for a tuple of names accepts, if no two of them differ in case or blanks alone."""

  def accepts(value: object) -> bool:
    if not isinstance(value, tuple | list) or not rule.accepts(value):
      return False
    return len(set(map(fold, value))) == len(value)

  return Rule(accepts, f'{rule.text}, no two alike')


def fold(name: str) -> str:
  """A name without what two that look alike may differ in: case, blanks, forms of a letter."""
  return ' '.join(unicodedata.normalize('NFKC', name).casefold().split())


def rising(rule: Rule) -> Rule:
  """What a rule for a tuple of numbers accepts, if none is smaller than the one before."""

  def accepts(value: object) -> bool:
    if not isinstance(value, tuple | list) or not rule.accepts(value):
      return False
    return list(value) == sorted(value)

  return Rule(accepts, f'{rule.text}, the smaller one first')


def tuple_as(*rules: Rule) -> Rule:
  """As many values as rules, each of which passes its own."""

  def accepts(value: object) -> bool:
    if not isinstance(value, tuple | list) or len(value) != len(rules):
      return False
    return all(rule.accepts(part) for rule, part in zip(rules, value, strict=True))

  return Rule(accepts, f'({"; ".join(rule.text for rule in rules)})')


def either(*rules: Rule) -> Rule:
  """What one of the rules accepts."""
  return Rule(
    lambda value: any(rule.accepts(value) for rule in rules),
    ', or '.join(rule.text for rule in rules),
  )


def _is_text(value: object) -> bool:
  """Whether a value is text that a file may be called and a table may print."""
  return isinstance(value, str) and len(value) < PATH_LENGTH and not re.search(r'[\0-\x1f]', value)


def _compiles(value: object) -> bool:
  try:
    return isinstance(value, str) and _is_text(value) and bool(re.compile(value))
  except (re.error, OverflowError, RecursionError):
    return False


def _is_simple(value: object) -> bool:
  return (
    isinstance(value, str)
    and len(value) <= 60
    and bool(re.fullmatch('[A-Za-z0-9_][A-Za-z0-9_-]*', value))
  )


boolean = Rule(lambda value: isinstance(value, bool), 'True, False')
text = Rule(_is_text, 'text on one line')
title = Rule(lambda value: _is_text(value) and bool(fold(str(value))), 'a name')
# What becomes the name of a folder or file, and leaves the place that it is meant for by no means.
simple_name = Rule(_is_simple, "a name of up to 60 letters, digits, '_' and '-'")
pattern = Rule(_compiles, 'a regular expression')


def search(pattern: str, name: str) -> bool:
  """Whether a `pattern` of a config is found in a name.

  Raises:
    BadInput: it is not known after SECONDS: repeats within repeats are tried in every combination.
  """
  if threading.current_thread() is not threading.main_thread():
    return bool(re.search(pattern, name))  # a timer interrupts the main thread alone

  def give_up(*_: object) -> None:
    raise BadInput(
      f'the pattern {pattern!r} of the config takes too long to be searched for in {name!r}: write '
      'it without repeats within repeats'
    )

  before = signal.signal(signal.SIGALRM, give_up)
  signal.setitimer(signal.ITIMER_REAL, SECONDS)
  try:
    return bool(re.search(pattern, name))
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
