"""TensorFlow on the host alone, imported when it is needed: it takes seconds."""

import functools
from types import ModuleType


@functools.cache
def load() -> ModuleType:
  """The module tensorflow, which then leaves the accelerators and their memory to JAX."""
  import tensorflow as tf

  tf.config.set_visible_devices([], 'GPU')
  tf.config.set_visible_devices([], 'TPU')
  return tf
