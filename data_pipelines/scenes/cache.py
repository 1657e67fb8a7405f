"""Rendered scenes kept as PNG files."""

import json
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterable

from PIL import Image

from data_pipelines import errors, processes
from data_pipelines.scenes.render import VERSION, _check, render

STALE = 600.0  # seconds after which a temporary file is taken to be left by a killed process


PNG_END = b'IEND\xaeB`\x82'


def materialise(
  directory: str | os.PathLike,
  look: str,
  indices: Iterable[int],
  size: tuple[int, int],
  seed: int = 0,
  workers: int | None = None,
  progress: Callable[[int, int], None] | None = None,
) -> tuple[str, str, list[str]]:
  """Renders the scenes that a folder does not hold yet, as images/ID.png and labels/ID.png.

  Every file is written under a temporary name and renamed, so that a file that is there is whole:
  after a kill the next call goes on, and two processes may fill one folder at the same time (both
  write the same bytes). The folder remembers what it holds and refuses anything else.

  Args:
    directory: the folder; its name should contain `VERSION`.
    look, size, seed: as for `render`.
    indices: which scenes.
    workers: processes, all cores by default. A script that calls this needs the
      usual `if __name__ == '__main__':` when there is much to render.
    progress: called with (scenes done, scenes to render) in this process.

  Returns:
    The absolute path patterns of images and labels, with '{id}', and the ids in order of `indices`.

  Raises:
    BadInput: wrong arguments, a folder of other scenes, or one that cannot be written.
  """
  root = pathlib.Path(directory).absolute()
  indices = [int(index) for index in indices]
  _check(min(indices, default=0), look, size, seed)
  try:
    _claim(root, dict(version=VERSION, look=look, size=[int(n) for n in size], seed=seed))
    missing = [index for index in dict.fromkeys(indices) if not _is_complete(root, index)]
    jobs = [(root, index, look, tuple(size), seed) for index in missing]
    # Processes are started only for what takes longer than their start.
    workers = min(workers or os.cpu_count() or 1, len(jobs) // 16)
    written = processes.in_order(_write_scene, jobs, workers, chunk=4)
    for done, _ in enumerate(written, start=1):
      if progress:
        progress(done, len(jobs))
  except OSError as error:
    raise errors.BadInput(
      f'{error.filename or root}: cannot be written ({error.strerror or error})'
    ) from None
  return str(root / 'images/{id}.png'), str(root / 'labels/{id}.png'), [_id(i) for i in indices]


def _write_scene(job: tuple) -> None:
  root, index, look, size, seed = job
  image, label = render(index, look, size, seed)
  for folder, pixels in (('labels', label), ('images', image)):
    path = root / folder / f'{_id(index)}.png'
    _write(path, lambda file, pixels=pixels: Image.fromarray(pixels).save(file, 'PNG'))


def _write(path: pathlib.Path, save: Callable) -> None:
  """Fills a file through `save(file)` under a temporary name, then renames it."""
  with tempfile.NamedTemporaryFile(
    dir=path.parent, prefix='.', suffix='.part', delete=False
  ) as file:
    try:
      save(file)
      file.close()
      os.replace(file.name, path)
    except BaseException:
      os.unlink(file.name)
      raise


def _claim(root: pathlib.Path, content: dict) -> None:
  """Makes the folder for these scenes, or checks that it was made for them; sweeps remains."""
  for folder in ('images', 'labels'):
    (root / folder).mkdir(parents=True, exist_ok=True)
    for part in (root / folder).glob('.*.part'):
      if part.stat().st_mtime < time.time() - STALE:
        part.unlink(missing_ok=True)
  stamp = root / 'scenes.json'
  if not stamp.exists():
    _write(stamp, lambda file: file.write(json.dumps(content).encode()))
  try:
    found = json.loads(stamp.read_bytes())
  except ValueError:
    raise errors.BadInput(f'{stamp}: is damaged; remove the folder {root}') from None
  if found != content:
    raise errors.BadInput(f'{stamp}: the folder holds {found}, not {content}; take another folder')


def _is_complete(root: pathlib.Path, index: int) -> bool:
  """Whether image and label are there and end as a PNG file does."""
  for folder in ('images', 'labels'):
    try:
      with open(root / folder / f'{_id(index)}.png', 'rb') as file:
        file.seek(-len(PNG_END), os.SEEK_END)
        if file.read() != PNG_END:
          return False
    except OSError:  # missing, or shorter than that
      return False
  return True


def _id(index: int) -> str:
  return f'{index:06d}'
