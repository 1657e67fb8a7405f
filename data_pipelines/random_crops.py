"""Random crops of a data set's images, at the low and the full size: what centroids are made of."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipelines import transforms
from data_pipelines.folder import Folder


@dataclasses.dataclass(frozen=True)
class RandomCrops:
  """Two crops of every image, side by side: one at the low size, one at the full size.

  Attributes:
    source: the images.
    sizes: (low, full), to which the images are resized first; None leaves them as they are.
    crop: size of the crops.
    root: (seed, names and numbers): other roots give other crops.
  """

  source: Folder
  sizes: tuple[transforms.Size | None, transforms.Size | None]
  crop: transforms.Size
  root: tuple

  @property
  def ids(self) -> Sequence[str]:
    """The id of each crop's image."""
    return [name for name in self.source.ids for _ in self.sizes]

  def __len__(self) -> int:
    return len(self.sizes) * len(self.source)

  def read(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Image [h, w, 3] and label [h, w] or None of a crop; raises BadInput as `Folder.read`."""
    image, label = self.source.read(index // len(self.sizes))
    pair = transforms.picture(image), None if label is None else transforms.picture(label)
    size = self.sizes[index % len(self.sizes)]
    if size is not None:
      pair = transforms.resize(pair, size)
    image, label = transforms.crop(pair, self.crop, transforms.generator(*self.root, index))
    return image.whole(), None if label is None else label.whole()
