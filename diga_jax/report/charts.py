"""Bar charts of a study: scores of the networks, and what the label passes keep.

Every row is a bar, the mean over the seeds, with a dot for each seed.
"""

import pathlib
import statistics
from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data_pipelines import atomic
from diga_jax.types import LabelRow, NetworkRow

COLOUR = '#30638e'
BASE, BAR = 0.7, 0.32  # height of a chart and of each of its bars, in inches


def scores(rows: Sequence[Sequence[NetworkRow]], path: pathlib.Path) -> None:
  """Draws networks against mIoU as a PNG: rows under one protocol, each of them once per seed."""
  figure = Figure(figsize=(7, BASE + BAR * len(rows)), layout='constrained')
  axes = figure.subplots()
  values = [_per_cent(run['mean_iou'] for run in row) for row in rows]
  _bars(axes, [row[0]['name'] for row in rows], values)
  smallest, largest = min(map(min, values)), max(map(max, values))
  # Bars that start at 0 would hide what differs; the axis says where they start.
  axes.set_xlim(max(smallest - max(largest - smallest, 1), 0), largest + 3)
  axes.set_xlabel('mIoU in per cent (bar: mean, dots: seeds; the axis is cut)', fontsize=8)
  _save(figure, path)


def label_quality(rows: Sequence[Sequence[LabelRow]], path: pathlib.Path) -> None:
  """Draws label passes as a PNG: the share of pixels that keeps a label, and of that the right one.

  The passes have true labels; each of them is given once per seed.
  """
  figure = Figure(figsize=(8, BASE + BAR * len(rows)), layout='constrained')
  names = [f'{row[0]["name"]} ({row[0]["selector"]})' for row in rows]
  shown = {
    'pixels that keep a label': [_per_cent(run['kept'] for run in row) for row in rows],
    'of those right': [_per_cent(run['accuracy_kept'] for run in row) for row in rows],
  }
  for axes, title in zip(figure.subplots(1, 2, sharey=True), shown, strict=True):
    _bars(axes, names, shown[title])
    axes.set_xlim(0, 115)  # room for the numbers
    axes.set_xlabel(f'{title}, in per cent', fontsize=8)
  _save(figure, path)


def _per_cent(values: Iterable[float | None]) -> list[float]:
  return [100 * value for value in values if value is not None]


def _bars(axes: Axes, names: Sequence[str], values: Sequence[Sequence[float]]) -> None:
  places = range(len(values), 0, -1)
  axes.barh(places, list(map(statistics.fmean, values)), color=COLOUR, height=0.6)
  for place, found in zip(places, values, strict=True):
    axes.plot(found, [place] * len(found), 'o', color='black', markersize=3)
    end, text = max(*found, statistics.fmean(found)), f'{statistics.fmean(found):.1f}'
    axes.annotate(text, (end, place), (8, 0), textcoords='offset points', va='center', fontsize=8)
  axes.set_yticks(places, names)
  axes.tick_params(labelsize=8)
  axes.spines[['top', 'right']].set_visible(False)


def _save(figure: Figure, path: pathlib.Path) -> None:
  with atomic.replacing(path) as temporary, temporary.open('wb') as file:
    figure.savefig(file, format='png', dpi=150)
