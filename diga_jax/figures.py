"""What a study found, drawn: scores of the networks, and what the label passes keep."""

import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from diga_jax import files

COLOUR, FAINT = '#30638e', '#9aa5b1'
Row = Sequence[Mapping[str, Any]]  # one network or label pass, one result per seed


def scores(rows: Sequence[Row], path: pathlib.Path) -> None:
  """Networks against mIoU: the mean over seeds as a bar, every seed as a dot.

  Args:
    rows: networks under one protocol (`evaluate.evaluate`).
    path: of the PNG.
  """
  figure = Figure(figsize=(7, 0.7 + 0.32 * len(rows)), layout='constrained')
  axes = figure.subplots()
  values = [[100 * run['mean_iou'] for run in row] for row in rows]
  places = range(len(rows), 0, -1)
  axes.barh(places, list(map(statistics.fmean, values)), color=COLOUR, height=0.6)
  for place, found in zip(places, values, strict=True):
    axes.plot(found, [place] * len(found), 'o', color='black', markersize=3)
    end, text = max(*found, statistics.fmean(found)), f'{statistics.fmean(found):.1f}'
    axes.annotate(text, (end, place), (8, 0), textcoords='offset points', va='center', fontsize=8)
  axes.set_yticks(list(places), [row[0]['name'] for row in rows], fontsize=8)
  smallest, largest = min(map(min, values)), max(map(max, values))
  # Bars that start at 0 would hide what differs; the axis says where they start.
  axes.set_xlim(max(smallest - max(largest - smallest, 1), 0), largest + 3)
  axes.set_xlabel('mIoU in per cent (bar: mean, dots: seeds; the axis is cut)', fontsize=8)
  _finish(figure, axes, path)


def kept_labels(rows: Sequence[Row], path: pathlib.Path) -> None:
  """Label passes: how much of the pixels keeps a label against how much of that is right.

  Args:
    rows: label passes (`quality.measure`) with true labels.
    path: of the PNG.
  """
  figure = Figure(figsize=(6, 4.5), layout='constrained')
  axes = figure.subplots()
  for row in rows:
    kept, right = ([100 * run[key] for run in row] for key in ('kept', 'accuracy_kept'))
    axes.plot(kept, right, 'o', color=FAINT, markersize=4)
    middle = statistics.fmean(kept), statistics.fmean(right)
    axes.plot(*middle, 'o', color=COLOUR)
    name = f'{row[0]["name"]} ({row[0]["selector"]})'
    axes.annotate(name, middle, (5, 4), textcoords='offset points', fontsize=7)
  axes.margins(0.2)
  axes.set_xlabel('pixels that keep a label, in per cent', fontsize=8)
  axes.set_ylabel('of those right, in per cent', fontsize=8)
  _finish(figure, axes, path)


def _finish(figure: Figure, axes: Any, path: pathlib.Path) -> None:
  axes.spines[['top', 'right']].set_visible(False)
  axes.tick_params(labelsize=8)
  with files.replacing(path) as temporary, temporary.open('wb') as file:
    figure.savefig(file, format='png', dpi=150)
