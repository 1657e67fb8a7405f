"""Files changed by a bit, and records written anew over files that a test has changed."""

import pathlib
import random

from diga_jax.storage import stage_folder


def flip(path: pathlib.Path, draw: random.Random) -> int:
  """Flips one bit of a file; returns its position."""
  data = bytearray(path.read_bytes())
  bit = draw.randrange(8 * len(data))
  data[bit // 8] ^= 1 << bit % 8
  path.write_bytes(data)
  return bit


def seal(stage: pathlib.Path) -> None:
  """Makes the record of a stage fit its files as they are now."""
  record = stage_folder.read_record(stage)
  found = stage_folder.digests_of(stage)
  stage_folder.write_record(stage, {**record, 'files': found})
