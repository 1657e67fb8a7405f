"""Files that are either whole or not there."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

TEMPORARY = '.tmp'  # how the names of files end while they are written


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Gives a temporary name beside `path`; renames it to `path` if the block ends well.

  Missing folders are made. Whatever goes wrong inside the block, neither a half-written `path`
  nor the temporary file is left behind; an older `path` stays as it was.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'.{path.name}.{os.getpid()}{TEMPORARY}')
  try:
    yield temporary
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def write_png(path: str | os.PathLike, pixels: np.ndarray | Image.Image) -> None:
  """Writes uint8 [H, W] (grey) or [H, W, 3] (RGB) pixels, or a picture, as a PNG."""
  picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))
  with replacing(path) as temporary:
    picture.save(temporary, format='PNG')
