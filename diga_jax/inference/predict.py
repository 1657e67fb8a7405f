"""Labels for any images: for each a file of train ids and a coloured picture."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from absl import logging

from data_pipelines import atomic, image_files
from data_pipelines.errors import BadInput, printable
from data_pipelines.image_files import MAX_PIXELS
from diga_jax.inference.forward import Predictor, check_classes
from diga_jax.inference.image_batches import Batch, for_each_batch
from diga_jax.report.pictures import overlay

SHOWN = 10  # names of files that are left out
SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.tif', '.tiff')


def find_images(paths: Sequence[str | os.PathLike]) -> list[pathlib.Path]:
  """Image files as given and those directly in the folders given, sorted within a folder.

  Warns of what else is in a folder, hidden files apart, since it is left out.

  Raises:
    BadInput: a path that does not exist, or no image at all.
  """
  found = []
  for path in map(pathlib.Path, paths):
    if path.is_dir():
      inside = sorted(p for p in path.iterdir() if not p.name.startswith('.'))
      images = [p for p in inside if p.suffix.lower() in SUFFIXES and p.is_file()]
      found += images
      if others := [printable(p.name) for p in inside if p not in set(images)]:
        more = f' and {len(others) - SHOWN} more' if len(others) > SHOWN else ''
        logging.warning(
          '%s: left out, since no image files: %s%s', path, ', '.join(others[:SHOWN]), more
        )
    elif path.exists():
      found.append(path)
    else:
      raise BadInput(f'{path}: no such image or folder')
  if not found:
    named = ', '.join(map(str, paths)) or 'no path given'
    raise BadInput(f'{named}: no image found (looked for {", ".join(SUFFIXES)})')
  return found


def _targets(
  images: Sequence[pathlib.Path], directory: pathlib.Path
) -> list[tuple[pathlib.Path, pathlib.Path]]:
  """[(label file, colour file)] of the images. Raises BadInput if two files would collide.

  Labels beside the images would be images to the next call, and may replace others of theirs.
  """
  for path in images if directory.exists() else ():
    if any(place.samefile(directory) for place in (path.parent, path.resolve().parent)):
      raise BadInput(
        f'{directory}: might overwrite images, as {path} is there; use another --output'
      )
  owners, targets = {}, []
  for path in images:
    pair = directory / f'{path.stem}.png', directory / f'{path.stem}_color.png'
    for target in pair:
      if target in owners:
        raise BadInput(f'{path}: would write {target}, as {owners[target]} does; rename one')
      owners[target] = path
    targets.append(pair)
  return targets


@dataclasses.dataclass(frozen=True)
class _Files:
  """Image files wherever they are, as the passes take them."""

  ids: list[str]
  max_pixels: int

  def __len__(self) -> int:
    return len(self.ids)

  def read(self, index: int) -> tuple[np.ndarray, None]:
    return image_files.read_image(self.ids[index], max_pixels=self.max_pixels), None


def predict_images(
  predictor: Predictor,
  paths: Sequence[str | os.PathLike],
  directory: str | os.PathLike,
  palette: np.ndarray,
  *,
  max_pixels: int = MAX_PIXELS,
  progress: bool = True,
) -> list[pathlib.Path]:
  """Labels image files as the evaluation does.

  Writes NAME.png (uint8 train ids) and NAME_color.png (class colours over the image), both of the
  image's own size, into `directory`.

  Args:
    predictor, progress: as of `evaluate.evaluate`.
    paths: image files, or folders of them.
    palette: uint8 [C, 3] RGB.
    max_pixels: of the largest image that is read.

  Returns:
    The label files, in the order of the images.

  Raises:
    BadInput: nothing to do, a path that does not exist, a file that is no image or is damaged,
      two images with one name, or an output that would overwrite an input.
  """
  images = find_images(paths)
  targets = _targets(images, pathlib.Path(directory))
  dataset = _Files([str(path) for path in images], max_pixels)

  def step(batch: Batch) -> jax.Array:
    return predictor.classes(predictor.place(batch.images), batch.stored_size)

  for batch, classes in for_each_batch(
    step, dataset, 'predict', progress, batch_size=predictor.batch_size
  ):
    check_classes(np.asarray(classes), [dataset.ids[index] for index in batch.indices])
    for index, image, labels in zip(batch.indices, batch.images, np.asarray(classes), strict=False):
      atomic.write_png(targets[index][0], labels)
      atomic.write_png(targets[index][1], overlay(image, labels, palette))
  return [target for target, _ in targets]
