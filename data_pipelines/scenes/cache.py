"""Rendered scenes kept as PNG files."""

import json
import os
import pathlib
from collections.abc import Iterable

from tqdm import tqdm

from data_pipelines import atomic, processes
from data_pipelines.errors import BadInput
from data_pipelines.scenes.render import VERSION, check_arguments, render

STALE = 600.0  # seconds after which a temporary file is taken to be left by a killed process
PNG_END = b'IEND\xaeB`\x82'


def materialise(
  directory: str | os.PathLike[str],
  look: str,
  indices: Iterable[int],
  size: tuple[int, int],
  seed: int = 0,
  workers: int | None = None,
) -> tuple[str, str, list[str]]:
  """Renders the scenes that a folder does not hold yet, as images/ID.png and labels/ID.png.

  Every file is written under a temporary name and renamed, so that a file that is there is whole:
  after a kill the next call goes on, and two processes may fill one folder at the same time (both
  write the same bytes). The folder remembers what it holds and refuses anything else.

  Args:
    directory: the folder; its name should contain `VERSION`.
    look, size, seed: as for `render`.
    indices: which scenes.
    workers: processes, all cores by default; a script needs `if __name__ == '__main__':` for them.

  Returns:
    The absolute path patterns of images and labels, with '{id}', and the ids in order of `indices`.

  Raises:
    BadInput: wrong arguments, a folder of other scenes, or one that cannot be written.
  """
  root = pathlib.Path(directory).absolute()
  indices = [int(index) for index in indices]
  check_arguments(min(indices, default=0), look, size, seed)
  try:
    _claim(root, {'version': VERSION, 'look': look, 'size': [int(n) for n in size], 'seed': seed})
    missing = [index for index in dict.fromkeys(indices) if not _is_complete(root, index)]
    jobs = [(root, index, look, tuple(size), seed) for index in missing]
    # Processes are started only for what takes longer than their start.
    workers = min(workers or os.cpu_count() or 1, len(jobs) // 16)
    written = processes.in_order(_write_scene, jobs, workers, chunk=4)
    # The delay keeps the bar away when everything is there already.
    for _ in tqdm(written, f'rendering {look} scenes', len(jobs), unit=' scenes', delay=1.0):
      pass
  except OSError as error:
    raise BadInput(
      f'{error.filename or root}: cannot be written ({error.strerror or error})'
    ) from None
  return str(root / 'images/{id}.png'), str(root / 'labels/{id}.png'), [_id(i) for i in indices]


def _write_scene(job: tuple[pathlib.Path, int, str, tuple[int, int], int]) -> None:
  root, index, look, size, seed = job
  image, label = render(index, look, size, seed)
  atomic.write_png(root / 'labels' / f'{_id(index)}.png', label)
  atomic.write_png(root / 'images' / f'{_id(index)}.png', image)


def _claim(root: pathlib.Path, content: dict[str, object]) -> None:
  """Makes the folder for these scenes, or checks that it was made for them."""
  for folder in ('images', 'labels'):
    (root / folder).mkdir(parents=True, exist_ok=True)
  atomic.sweep(root, age=STALE)
  stamp = root / 'scenes.json'
  if not stamp.exists():
    atomic.write_text(stamp, json.dumps(content))
  try:
    found = json.loads(stamp.read_bytes())
  except ValueError:
    raise BadInput(f'{stamp}: is damaged; remove the folder {root}') from None
  if found != content:
    raise BadInput(f'{stamp}: the folder holds {found}, not {content}; take another folder')


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
