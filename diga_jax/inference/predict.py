"""Labels for any images: for each a file of train ids and a coloured picture."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from data_pipelines import atomic, image_files
from data_pipelines.errors import BadInput
from diga_jax.inference.forward import Predictor
from diga_jax.inference.image_batches import Batch, for_each_batch
from diga_jax.report.pictures import overlay

SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.tif', '.tiff')


def find_images(paths: Sequence[str | os.PathLike]) -> list[pathlib.Path]:
  """Image files as given and those directly in the folders given, sorted within a folder.

  Raises:
    BadInput: a path that does not exist, or no image at all.
  """
  found = []
  for path in map(pathlib.Path, paths):
    if path.is_dir():
      inside = (p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
      found += sorted(p for p in inside if not p.name.startswith('.'))
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

  def __len__(self) -> int:
    return len(self.ids)

  def read(self, index: int) -> tuple[np.ndarray, None]:
    return image_files.read_image(self.ids[index]), None


def predict_images(
  predictor: Predictor,
  paths: Sequence[str | os.PathLike],
  directory: str | os.PathLike,
  palette: np.ndarray,
  *,
  progress: bool = True,
) -> list[pathlib.Path]:
  """Labels image files as the evaluation does.

  Writes NAME.png (uint8 train ids) and NAME_color.png (class colours over the image), both of the
  image's own size, into `directory`.

  Args:
    predictor, progress: as of `evaluate.evaluate`.
    paths: image files, or folders of them.
    palette: uint8 [C, 3] RGB.

  Returns:
    The label files, in the order of the images.

  Raises:
    BadInput: nothing to do, a path that does not exist, a file that is no image or is damaged,
      two images with one name, or an output that would overwrite an input.
  """
  images = find_images(paths)
  targets = _targets(images, pathlib.Path(directory))
  dataset = _Files([str(path) for path in images])

  def step(batch: Batch) -> jax.Array:
    return predictor.classes(predictor.place(batch.images), batch.stored_size)

  for batch, classes in for_each_batch(
    step, dataset, 'predict', progress, batch_size=predictor.batch_size
  ):
    for index, image, labels in zip(batch.indices, batch.images, np.asarray(classes), strict=False):
      atomic.write_png(targets[index][0], labels)
      atomic.write_png(targets[index][1], overlay(image, labels, palette))
  return [target for target, _ in targets]
