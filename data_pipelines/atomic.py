"""Files that are either whole or absent. With `errors`, what every module may import."""

import contextlib
import os
import pathlib
import secrets
import time
from collections.abc import Iterator

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from data_pipelines.errors import cannot_write

TEMPORARY = '.tmp'  # how the names of files end while they are written


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Gives a temporary name beside `path`; renames it to `path` if the block ends well.

  Missing folders are made. Whatever goes wrong inside the block, neither a half-written `path`
  nor the temporary file is left behind; an older `path` stays as it was. Several processes, also
  on several machines, may write one path at a time: the last one to end wins.

  Raises:
    BadInput: naming `path`, if it cannot be written: no space, no permission, too long a name.
  """
  path = pathlib.Path(path)
  temporary = path.with_name(f'.{path.name}.{secrets.token_hex(4)}{TEMPORARY}')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    yield temporary
    os.replace(temporary, path)
  except OSError as error:
    about = error.filename and pathlib.Path(os.fsdecode(error.filename))
    if about and about not in (path, temporary, *path.parents):  # a file that the block reads
      raise
    raise cannot_write(path, error) from None
  finally:
    with contextlib.suppress(OSError):  # the reason is known by now
      temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
  """Writes a text file."""
  with replacing(path) as temporary:
    temporary.write_text(text)


def write_png(path: str | os.PathLike[str], pixels: np.ndarray | Image.Image) -> None:
  """Writes uint8 [H, W] (grey) or [H, W, 3] (RGB) pixels, or a picture, as a PNG.

  Texts in the `info` of a picture become texts of the PNG.
  """
  picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))
  texts = PngInfo()
  for key, value in picture.info.items():
    if isinstance(value, str):
      texts.add_text(str(key), value)
  with replacing(path) as temporary:
    picture.save(temporary, format='PNG', pnginfo=texts)


def sweep(directory: str | os.PathLike[str], age: float = 0.0) -> None:
  """Removes what killed processes left in a folder: temporary files older than `age` seconds."""
  for left in pathlib.Path(directory).rglob(f'.*{TEMPORARY}'):
    with contextlib.suppress(FileNotFoundError):  # another process has just renamed it
      if left.stat().st_mtime <= time.time() - age:
        left.unlink()
