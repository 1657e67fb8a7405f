"""Procedural street scenes with exact labels in the 19 Cityscapes train ids: the embedded source.

`render` makes one scene, a function of (index, look, size, seed) only; `materialise` keeps many of
them as PNG files. `street` says what stands where, `shapes` and `textures` how it is drawn, `looks`
in which colours and light and with which camera.
"""

import functools
import json
import os
import pathlib
from collections.abc import Iterable

import numpy as np
from tqdm import tqdm

from data_pipelines import atomic, processes
from data_pipelines.errors import BadInput
from data_pipelines.scenes import looks, shapes
from data_pipelines.scenes.street import camera, lay_out

VERSION = 3  # of the pictures; belongs in the name of a cache's folder, raise it with every change
LOOKS = tuple(looks.LOOKS)
SHADOWS = 40.0  # metres along the street where things cast shadows
STALE = 600.0  # seconds after which a temporary file is taken to be left by a killed process
PNG_END = b'IEND\xaeB`\x82'


def render(
  index: int, look: str, size: tuple[int, int] = (128, 256), seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
  """Renders one scene: uint8 [height, width, 3] RGB, and its labels, uint8 [height, width], 0..18.

  Raises BadInput: unknown look, size under 16 pixels, negative index or seed.

  Args:
    index: which scene, >= 0; scenes of two looks with one index are different streets.
    look: a key of `looks.LOOKS`.
    size: (height, width) in pixels; the street does not depend on it.
    seed: another seed is another city, >= 0.
  """
  check_arguments(index, look, size, seed)
  style = looks.LOOKS[look]
  # Three streams, so that the layout is the same whatever the size and however much noise is drawn.
  layout, light, sensor = (
    np.random.default_rng([seed, index, LOOKS.index(look), part]) for part in range(3)
  )
  street = lay_out(layout, style)
  weather = style.weathers[light.integers(len(style.weathers))]
  canvas = shapes.Canvas(camera(street, size), *size)
  lamp = looks.draw_light(light, weather)
  looks.add_sky(canvas, weather, light)
  for quad in street.ground:
    shapes.paint(canvas, quad, lamp, style.grain)
  far_to_near = sorted(street.quads, key=lambda quad: -np.linalg.norm(quad.centre - street.eye))
  shapes.shade(
    canvas, [quad for quad in far_to_near if quad.centre[2] < SHADOWS], lamp.sun, weather.shadow
  )
  for quad in far_to_near:
    shapes.paint(canvas, quad, lamp, style.grain)
  looks.add_haze(canvas, weather, light)
  return looks.photograph(canvas.colour, style, sensor), canvas.label


def check_arguments(index: int, look: str, size: tuple[int, int], seed: int) -> None:
  """Raises BadInput for what `render` cannot draw."""
  if look not in LOOKS:
    raise BadInput(f'look {look!r} is not one of {", ".join(LOOKS)}')
  if len(size) != 2 or min(size) < 16:
    raise BadInput(f'scene size {size} is not (height, width) of at least 16 pixels each')
  if index < 0 or seed < 0:
    raise BadInput(f'scene index {index} and seed {seed} must not be negative')


def materialise(
  directory: str | os.PathLike[str],
  look: str,
  indices: Iterable[int],
  size: tuple[int, int],
  seed: int = 0,
  workers: int | None = None,
) -> tuple[str, str, list[str]]:
  """Renders the scenes that a folder does not hold yet, as images/ID.png and labels/ID.png.

  Returns the absolute path patterns of images and labels, with '{id}', and the ids of `indices`.
  Raises BadInput: wrong arguments, a folder of other scenes, or one that cannot be written.

  Files are written whole or not at all: after a kill the next call continues, and two processes may
  fill one folder at the same time (both write the same bytes). The folder remembers what it holds
  and refuses anything else.

  Args:
    directory: the folder; its name should contain `VERSION`.
    look, indices, size, seed: as for `render`.
    workers: processes, all cores by default; a script needs `if __name__ == '__main__':` for them.
  """
  root = pathlib.Path(directory).absolute()
  indices = [int(index) for index in indices]
  check_arguments(min(indices, default=0), look, size, seed)
  try:
    _claim(root, {'version': VERSION, 'look': look, 'size': [int(n) for n in size], 'seed': seed})
    missing = [index for index in dict.fromkeys(indices) if not _is_complete(root, index)]
    write = functools.partial(_write_scene, root, look, size, seed)
    # Processes are started only for what takes longer than their start.
    workers = min(workers or os.cpu_count() or 1, len(missing) // 16)
    written = processes.in_order(write, missing, workers, chunk=4)
    # The delay keeps the bar away when everything is there already.
    for _ in tqdm(written, f'rendering {look} scenes', len(missing), unit=' scenes', delay=1.0):
      pass
  except OSError as error:
    path, reason = error.filename or root, error.strerror or error
    raise BadInput(f'{path}: cannot be written ({reason})') from None
  return str(root / 'images/{id}.png'), str(root / 'labels/{id}.png'), [_id(i) for i in indices]


def _write_scene(
  root: pathlib.Path, look: str, size: tuple[int, int], seed: int, index: int
) -> None:
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
    raise BadInput(f'{stamp}: is damaged; restore it, or set another data.cache') from None
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
