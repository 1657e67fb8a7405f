"""A network and data small enough to run all passes in a moment."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class Tiny(nn.Module):
  """Stride 4, five feature channels, BatchNorm; the signature of the package's networks."""

  classes: int = 4

  @nn.compact
  def __call__(self, images, train=False, keys=None):
    x = nn.Conv(8, (3, 3), 2, name='stem')(images)
    x = nn.relu(nn.BatchNorm(use_running_average=not train, name='bn')(x))
    feature = nn.Conv(5, (3, 3), 2, name='neck')(x)
    return {'logits': nn.Conv(self.classes, (1, 1), name='final')(feature), 'feature': feature}


def tiny(classes=4, seed=0):
  """(model, variables), with running statistics that are not the trivial ones."""
  model = Tiny(classes)
  variables = model.init(jax.random.key(seed), jnp.zeros((1, 16, 16, 3)))
  rng = np.random.default_rng(seed)
  stats = {
    'bn': {'mean': rng.normal(0, 0.2, 8).astype('f'), 'var': rng.uniform(0.5, 1.5, 8).astype('f')}
  }
  return model, {'params': variables['params'], 'batch_stats': stats}


@dataclasses.dataclass
class Source:
  """Random images and blocky labels, a function of the position."""

  count: int
  size: tuple[int, int] = (24, 32)
  classes: int = 4
  labelled: bool = True
  sizes: tuple = ()  # sizes by position, over and over; empty: always `size`

  @property
  def ids(self):
    return [f'city/{i:03d}' for i in range(self.count)]

  def __len__(self):
    return self.count

  def read(self, index):
    height, width = self.sizes[index % len(self.sizes)] if self.sizes else self.size
    rng = np.random.default_rng(index)
    small = rng.integers(0, 256, (-(-height // 4), -(-width // 4), 3), np.uint8)
    image = small.repeat(4, 0).repeat(4, 1)[:height, :width]
    label = rng.integers(0, self.classes, small.shape[:2], np.uint8)
    label[rng.random(label.shape) < 0.1] = 255
    return image, label.repeat(4, 0).repeat(4, 1)[:height, :width] if self.labelled else None
