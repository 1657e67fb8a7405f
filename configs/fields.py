"""Groups of settings: made with changes, changed later, and followed by a later round."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference


def fields(defaults: Mapping[str, Any], changes: Mapping[str, Any]) -> ConfigDict:
  """A group with these defaults, some of them changed.

  Raises:
    ValueError: for a change of a field that the group does not have.
  """
  for name in changes:
    _check(name, defaults)
  return ConfigDict({**defaults, **changes})


def _check(name: str, known: Collection[str]) -> None:
  if name not in known:
    near = ', '.join(difflib.get_close_matches(name, known))
    alike = f', the nearest are {near}' if near else ''
    raise ValueError(f'no field {name!r}{alike}: there are {", ".join(known)}')


def change(group: ConfigDict, **changes: Any) -> None:
  """Sets fields, also of the groups in a group, where they differ from what they are.

  A field that already has the value is left alone: after the first round, a later one that follows
  it has the value and still follows.

  Raises:
    ValueError: for a field that the group does not have.
  """
  for name, value in changes.items():
    _check(name, group)
    if isinstance(value, Mapping | ConfigDict):
      change(group[name], **value)
    elif group[name] != value:
      group[name] = value


def follow(first: ConfigDict, **changes: Any) -> ConfigDict:
  """A later round: every field but the changed ones is the first round's until it is set itself.

  What is set in the first round (by field, not by a new group in a group's place) holds in all;
  what is set in a later round holds there alone.
  """
  followed = {
    name: follow(value) if isinstance(value, ConfigDict) else FieldReference(first.get_ref(name))
    for name, value in first.items()
  }
  return fields(followed, changes)
