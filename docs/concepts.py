"""Draws the pictures of docs/concepts.md: python docs/concepts.py WORKDIR [--config.FIELD=VALUE].

WORKDIR is a complete run of the quickstart, whose warm-up, pseudo-labels and centroids are shown;
all else is computed by the functions that training calls, on the run's own scenes.
"""

import argparse
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from data_pipelines.copy_paste import CopyPaste
from data_pipelines.label_tables import IGNORE
from diga_jax import augment, fourier, mixing, pixels, selection, strong_augment
from diga_jax.config import config_file, read_config
from diga_jax.recipe.experiment import Run, class_names, palette
from diga_jax.recipe.labels import read_arrays, read_centroids, with_pseudo_labels
from diga_jax.report.pictures import colour_labels

PLACE = pathlib.Path(__file__).with_suffix('')  # docs/concepts/
DPI, QUALITY = 110, 82  # of WebP
REJECTED = np.array((214, 214, 214), np.uint8)  # labels that are not used
SCENE, TARGET = 1, 1  # positions in their sets
HARD = 8  # classes that may be pasted, of those that have pseudo-labels
DRAWS = 8  # of donors, of which the one with most to paste is shown
STRENGTH = 0.2  # of a strong operation alone, within its range


class Scenes(NamedTuple):
  """One labelled source image and one target image, uint8 [H, W, 3], and how labels are drawn."""

  source: np.ndarray
  labels: np.ndarray
  target: np.ndarray
  palette: np.ndarray
  names: Sequence[str]


class Figure(NamedTuple):
  """Captioned uint8 RGB panels, and the class ids that the legend explains."""

  panels: Mapping[str, np.ndarray]
  classes: np.ndarray = np.array([], np.uint8)
  columns: int = 3


def shown(normalised: jax.Array) -> np.ndarray:
  """A normalised BGR image [H, W, 3] as uint8 RGB; values beyond a byte are clipped."""
  values = np.asarray(normalised) * pixels.SCALE + np.asarray(pixels.MEAN_BGR)
  return np.clip(np.round(values), 0, 255).astype(np.uint8)[..., ::-1]


def coloured(labels: np.ndarray, scenes: Scenes) -> np.ndarray:
  """Class colours, light grey where there is no label."""
  return np.where((labels == IGNORE)[..., None], REJECTED, colour_labels(labels, scenes.palette))


def photometric(image: np.ndarray, number: int) -> jax.Array:
  """The photometric view, normalised [H, W, 3], by the published probabilities and strength."""
  keys = jax.random.split(jax.random.key(number), 2)
  return augment.photometric_view(
    keys[:1], pixels.normalise(jnp.asarray(image[None])), order_key=keys[1]
  )[0]


def views(scenes: Scenes) -> Figure:
  """One image as it is and in photometric views; its labels fit all of them."""
  panels = {'the image': scenes.source}
  panels |= {
    f'a photometric view ({i})': shown(photometric(scenes.source, i)) for i in (1, 2, 3, 4)
  }
  panels['the labels of all of them'] = coloured(scenes.labels, scenes)
  return Figure(panels, np.unique(scenes.labels))


def mixture(scenes: Scenes) -> Figure:
  """The cross-domain mixture: drawn classes from the photometric view, the rest translated."""
  source, target = (
    pixels.normalise(jnp.asarray(image[None])) for image in (scenes.source, scenes.target)
  )
  translated = fourier.amplitude_swap(source, target)
  view = photometric(scenes.source, 4)
  mask = mixing.class_mask(jax.random.key(3), jnp.asarray(scenes.labels[None]))
  mixed = mixing.paste(mask, view[None], translated)
  drawn = np.where(np.asarray(mask[0]), scenes.labels, IGNORE)
  panels = {
    'source image': scenes.source,
    'target image': scenes.target,
    "source in the target's colours": shown(translated[0]),
    'photometric view of the source': shown(view),
    'half of its classes, drawn': coloured(drawn, scenes),
    'the mixture': shown(mixed[0]),
  }
  return Figure(panels, np.setdiff1d(drawn, [IGNORE]))


def consensus(scenes: Scenes, run: Run) -> Figure:
  """Two opinions on a target image: the stored pseudo-label, and the nearest class centroid."""
  made = run.workdir / 'label_1'
  stored = with_pseudo_labels(run.images('target'), made).read(TARGET)[1]
  assert stored is not None
  truth = run.images('target').read(TARGET)[1]
  outputs = run.model.apply(
    run.network('warmup'), pixels.normalise(jnp.asarray(scenes.target[None])), train=False
  )
  nearest = selection.nearest_centroid(
    outputs['feature'], jnp.asarray(read_centroids(made)[0]), stored.shape
  )
  kept = np.asarray(selection.bilateral_consensus(jnp.asarray(stored[None]), nearest)[0])
  share = np.mean(kept != IGNORE)
  panels = {
    'target image': scenes.target,
    'what the classifier says': coloured(stored, scenes),
    'whose centroid is nearest': coloured(np.asarray(nearest[0]), scenes),
    f'where both agree: {share:.0%} kept': coloured(kept, scenes),
  }
  if truth is not None:
    panels[f'kept and right: {np.mean(truth[kept != IGNORE] == kept[kept != IGNORE]):.0%}'] = (
      coloured(np.where(kept == truth, kept, IGNORE), scenes)
    )
    panels['the truth, which training never reads'] = coloured(truth, scenes)
  return Figure(panels, np.setdiff1d(stored, [IGNORE]))


def copy_paste(scenes: Scenes, run: Run) -> Figure:
  """Hard classes of another target image, with their pseudo-labels, over this one."""
  made = run.workdir / 'label_1'
  index = read_arrays(made / 'index.npz', 'counts', 'confidence')
  absent = np.flatnonzero(index['counts'].sum(0) == 0)
  chosen = CopyPaste(index['counts'], index['confidence'], HARD, absent.tolist())
  labelled = with_pseudo_labels(run.images('target'), made)
  drawn = [int(chosen.draw(np.random.default_rng(i))[0]) for i in range(DRAWS)]
  donor = max(drawn, key=lambda number: index['counts'][number, chosen.hard].sum())
  image, labels = labelled.read(donor)
  under = labelled.read(TARGET)[1]
  assert labels is not None and under is not None
  hard = np.isin(labels, chosen.hard)
  mask = jnp.asarray(hard[None])
  pasted = mixing.paste(mask, jnp.asarray(image[None]), jnp.asarray(scenes.target[None]))[0]
  merged = np.asarray(mixing.paste(mask, jnp.asarray(labels[None]), jnp.asarray(under[None]))[0])
  panels = {
    'target image': scenes.target,
    'the donor': image,
    'its hard classes': coloured(np.where(hard, labels, IGNORE), scenes),
    'its pseudo-label': coloured(under, scenes),
    'the image to learn from': np.asarray(pasted),
    'its label': coloured(merged, scenes),
  }
  return Figure(panels, np.setdiff1d(merged, [IGNORE]))


def strong_view(scenes: Scenes) -> Figure:
  """Strong views as they are drawn, then each operation by itself at a fixed strength."""
  image = jnp.asarray(scenes.target[None])
  panels = {'weak view': scenes.target}
  for i in (1, 2, 6):
    drawn = strong_augment.strong_view(jax.random.split(jax.random.key(i), 1), image)
    panels[f'a strong view ({len(panels)})'] = np.asarray(drawn[0], np.uint8)
  for position, (name, (_, low, high)) in enumerate(strong_augment.OPERATIONS.items()):
    factors = jnp.zeros((1, len(strong_augment.OPERATIONS)))
    factors = factors.at[0, position].set(low + STRENGTH * (high - low))
    order = jnp.array([[position]])
    made = strong_augment.apply_in_order(image.astype(jnp.float32), order, factors)
    panels[name.replace('_', ' ')] = np.asarray(made[0], np.uint8)
  return Figure(panels, columns=4)


def draw(figure: Figure, scenes: Scenes, place: pathlib.Path) -> None:
  """Writes a figure as WebP, on white paper: it is read on dark pages too."""
  rows = -(-len(figure.panels) // figure.columns)
  height, width = scenes.source.shape[:2]
  across = 11.5 / figure.columns
  down = rows * (across * height / width + 0.45) + 0.5 * (len(figure.classes) > 0)
  layout = ConstrainedLayoutEngine(h_pad=0.1)
  paper, axes = plt.subplots(rows, figure.columns, figsize=(11.5, down), layout=layout)
  for axis in axes.flat:
    axis.axis('off')
  for axis, (caption, panel) in zip(axes.flat, figure.panels.items(), strict=False):
    axis.imshow(panel, interpolation='nearest')
    axis.set_title(caption, fontsize=11, loc='left')
  colours = {scenes.names[i]: scenes.palette[i] for i in figure.classes}
  if colours:
    colours['no label'] = REJECTED
    handles = [Patch(color=tuple(c / 255), label=name) for name, c in colours.items()]
    paper.legend(handles=handles, loc='outside lower center', ncols=9, fontsize=10, frameon=False)
  place.parent.mkdir(exist_ok=True)
  paper.savefig(place, dpi=DPI, pil_kwargs={'quality': QUALITY, 'method': 6})
  plt.close(paper)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('workdir', type=pathlib.Path, help='a complete run of the quickstart')
  parser.add_argument('--output', type=pathlib.Path, default=PLACE, metavar='DIR')
  arguments, overrides = parser.parse_known_args()
  plt.switch_backend('agg')
  run = Run(read_config([f'--config={config_file("quickstart")}', *overrides]), arguments.workdir)
  source, labels = run.images('source').read(SCENE)
  assert labels is not None
  scenes = Scenes(
    source, labels, run.images('target').read(TARGET)[0], palette(run), class_names(run)
  )
  figures = {
    'views': views(scenes),
    'mixture': mixture(scenes),
    'consensus': consensus(scenes, run),
    'copy_paste': copy_paste(scenes, run),
    'strong_view': strong_view(scenes),
  }
  for name, figure in figures.items():
    draw(figure, scenes, arguments.output / f'{name}.webp')


if __name__ == '__main__':
  main()
