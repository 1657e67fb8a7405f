"""Labels for any images: one file of train ids and one to look at for each."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines import atomic
from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder
from diga_jax.inference import forward, image_batches
from diga_jax.parallel import processes
from diga_jax.progress import bar
from diga_jax.report import pictures

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


def _targets(images: Sequence[pathlib.Path], directory: pathlib.Path) -> list[tuple]:
  """[(label file, colour file)] of the images. Raises BadInput if two files would collide."""
  inputs = {path.resolve() for path in images}
  owners, targets = {}, []
  for path in images:
    pair = directory / f'{path.stem}.png', directory / f'{path.stem}_color.png'
    for target in pair:
      if target.resolve() in inputs:
        raise BadInput(f'{target}: would overwrite an image; choose another output folder')
      if target in owners:
        raise BadInput(f'{path}: would write {target}, as {owners[target]} does; rename one')
      owners[target] = path
    targets.append(pair)
  return targets


def predict(
  model: Any,
  variables: Any,
  paths: Sequence[str | os.PathLike],
  directory: str | os.PathLike,
  palette: Any,
  scales: Sequence[float] = forward.SCALES,
  *,
  fusion: str = 'max',
  flip: bool = False,
  image_size: tuple[int, int] | None = None,
  batch_size: int = 1,
  progress: bool = True,
  put: forward.Put = jnp.asarray,
) -> list[pathlib.Path]:
  """Labels image files with the forward pass of the evaluation.

  Writes NAME.png (uint8 train ids) and NAME_color.png (class colours over the image), both of the
  image's own size, into `directory`.

  Args:
    model, variables: the network.
    paths: image files, or folders of them.
    palette: uint8 [C, 3] RGB.
    image_size: (h, w) at which the network looks; None: as stored.
    The rest as in `evaluate.evaluate`.

  Returns:
    The label files, in the order of the images.

  Raises:
    BadInput: nothing to do, a path that does not exist, a file that is no image or is damaged,
      two images with one name, an output that would overwrite an input, wrong scales or fusion.
  """
  images = find_images(paths)
  targets = _targets(images, pathlib.Path(directory))
  label = forward.predictor(model, scales, fusion, flip)
  source = Folder('{id}', ids=[str(path) for path in images])

  def step(batch: image_batches.Batch) -> jax.Array:
    return label(variables, put(batch.images), batch.stored_size)

  batches = image_batches.batches(source, batch_size=batch_size, image_size=image_size)
  with bar(len(processes.local_share(len(source))), 'predict', progress) as shown:
    for batch, prediction in image_batches.computed(batches, step):
      for row, (index, labels) in enumerate(
        zip(batch.indices, np.asarray(prediction), strict=False)
      ):
        image = image_batches.resized(batch.images[row], batch.stored_size)
        atomic.write_png(targets[index][0], labels)
        atomic.write_png(targets[index][1], pictures.overlay(image, labels, palette))
      shown.update(len(batch.indices))
  return [target for target, _ in targets]
