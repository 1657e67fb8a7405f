"""What a value of a config may be: small tests with the words that explain them."""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

LARGEST = 3.4028234663852886e38  # float32, in which everything is computed


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
  return Rule(accepts, f'a whole number from {low} to {high}')


def number(low: float, high: float = math.inf, *, above: bool = False, below: bool = False) -> Rule:
  """A finite number from `low`, included but with `above`, to `high`, included but with `below`."""

  def accepts(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= LARGEST:
      return False
    return low <= value <= high and not (above and value == low) and not (below and value == high)

  least = f'above {low}' if above else f'of at least {low}'
  if high == math.inf:
    return Rule(accepts, f'a finite number {least}')
  return Rule(accepts, f'a number between {low} and {high}' + f', but not {high}' * below)


def tuple_of(rule: Rule, *lengths: int, least: int = 0) -> Rule:
  """Values that each pass `rule`: as many as one of `lengths`, or without these `least` or more."""

  def accepts(value: object) -> bool:
    if not isinstance(value, tuple | list) or len(value) < least:
      return False
    return (not lengths or len(value) in lengths) and all(map(rule.accepts, value))

  count = ' or '.join(map(str, lengths)) if lengths else f'{least} or more'
  return Rule(accepts, f'a tuple of {count}, each {rule.text}')


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


def _compiles(value: object) -> bool:
  try:
    return isinstance(value, str) and bool(re.compile(value))
  except (re.error, OverflowError, RecursionError):
    return False


def _is_simple(value: object) -> bool:
  return (
    isinstance(value, str)
    and len(value) <= 60
    and bool(re.fullmatch('[A-Za-z0-9_][A-Za-z0-9_-]*', value))
  )


boolean = Rule(lambda value: isinstance(value, bool), 'True, False')
text = Rule(lambda value: isinstance(value, str), 'text')
# What becomes the name of a folder or file, and leaves the place that it is meant for by no means.
simple_name = Rule(_is_simple, "a name of up to 60 letters, digits, '_' and '-'")
pattern = Rule(_compiles, 'a regular expression')
