"""JSON files that hold the SHA-256 of their own content: one changed bit of them is noticed."""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from data_pipelines import atomic
from data_pipelines.errors import BadInput

DIGEST = 'record_sha256'  # the last key of a record: of everything before it


def write(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
  """Writes a record, whole or not at all."""
  atomic.write_text(path, _text(content))


def read(path: str | os.PathLike[str], redo: str, *keys: str) -> Any:
  """The content of a record, as `write` was given it.

  Args:
    path: the file.
    redo: how to get it again, for the message.
    keys: what it has to hold.

  Raises:
    BadInput: it is missing or no file, was written without a digest, is not as it was written, or
      is another record.
  """
  if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for
    raise BadInput(f'{path}: is no file; {redo}')
  try:
    text = pathlib.Path(path).read_text(encoding='utf-8')
    content = json.loads(text)
    if not isinstance(content, dict):
      raise ValueError
  except OSError as error:
    raise BadInput(f'{path}: cannot be read ({error.strerror}); {redo}') from None
  except (ValueError, RecursionError):
    raise BadInput(f'{path}: is damaged: it is no record of this package; {redo}') from None
  if DIGEST not in content:
    raise BadInput(
      f'{path}: has no {DIGEST} of its content: it is damaged, or of an earlier version of this '
      f'package; {redo}'
    )
  del content[DIGEST]
  if _text(content) != text:
    raise BadInput(f'{path}: is damaged, or was edited: its {DIGEST} is another one; {redo}')
  if missing := set(keys).difference(content):
    raise BadInput(f'{path}: is the record of something else: it has no {min(missing)}; {redo}')
  return content


def _text(content: Mapping[str, Any]) -> str:
  found = hashlib.sha256(json.dumps(content).encode()).hexdigest()
  return json.dumps({**content, DIGEST: found}, indent=1) + '\n'
