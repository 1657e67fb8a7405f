"""Class mixing: paste the pixels of half of an image's classes over another image.

Source: DiGA (arXiv 2304.02222), docs/diga.md section 6.3.
"""

import jax
import jax.numpy as jnp

from data_pipelines.label_tables import IGNORE


def present_labels(labels: jax.Array) -> jax.Array:
  """Which of the 256 label values each image holds, 255 included: bool [B, 256].

  Args:
    labels: integer [B, H, W] in 0..255.
  """
  flat = labels.reshape(labels.shape[0], -1).astype(jnp.int32)
  return jax.vmap(lambda row: jnp.zeros(256, bool).at[row].set(True))(flat)


def draw_half(key: jax.Array, present: jax.Array) -> jax.Array:
  """Draws floor(n / 2) of the n values present, uniformly without replacement: bool [256].

  Args:
    key: one typed key.
    present: bool [256].
  """
  # Random scores and a sort instead of a choice: static shapes. Absent values sort last.
  scores = jnp.where(present, jax.random.uniform(key, present.shape), jnp.inf)
  rank = jnp.argsort(jnp.argsort(scores))
  return rank < present.sum() // 2


def drawn_mask(drawn: jax.Array, labels: jax.Array) -> jax.Array:
  """The pixels whose label was drawn, and all ignored pixels: bool [B, H, W].

  Args:
    drawn: bool [B, 256].
    labels: integer [B, H, W] in 0..255.
  """
  drawn = jnp.asarray(drawn).at[:, IGNORE].set(True)
  return jax.vmap(lambda row, values: row[values])(drawn, jnp.asarray(labels, jnp.int32))


def class_mask(key: jax.Array, labels: jax.Array) -> jax.Array:
  """The pixels of a random half of the labels present in each image, 255 always among them.

  Of the n label values in an image, 255 counted if present, floor(n / 2) are drawn without
  replacement; then 255 is added. An image without any label (all 255) is therefore masked
  everywhere: pasted over something else it stays whole, that is, unmixed.

  Args:
    key: one typed key, from which image i gets fold_in(key, i); or one typed key per image, [B].
    labels: integer [B, H, W] in 0..255.

  Returns:
    bool [B, H, W].
  """
  if key.ndim == 0:
    key = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(labels.shape[0]))
  return drawn_mask(jax.vmap(draw_half)(key, present_labels(labels)), labels)


def paste(mask: jax.Array, over: jax.Array, under: jax.Array) -> jax.Array:
  """`over` where mask [B, H, W] is true, else `under`: images [B, H, W, C] or labels [B, H, W]."""
  if over.ndim == mask.ndim + 1:
    mask = mask[..., None]
  return jnp.where(mask, over, under)
