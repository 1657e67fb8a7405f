"""Charts of a study: scores and differences of the networks, and what the label passes keep."""

import pathlib
import statistics
from collections.abc import Iterable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data_pipelines import atomic
from diga_jax.report import fonts
from diga_jax.report.paired import Difference, Score
from diga_jax.types import LabelRow

COLOUR, REFERENCE, SEEDS = '#30638e', '#b5542f', '#8a8a8a'
BASE, BAR = 0.7, 0.32  # height of a chart and of each of its rows, in inches


def scores(
  title: str,
  found: Mapping[str, Score],
  differences: Mapping[str, Difference],
  reference: str,
  path: pathlib.Path,
) -> None:
  """Draws the networks of a study as a PNG, from top to bottom in their order.

  Args:
    title: what they were measured on.
    found: by row.
    differences: to the reference, of the other rows; {}: without the panel of differences.
    reference: the name of that row, which is marked; '' for none.
    path: of the PNG.
  """
  panels = 2 if differences else 1
  letters = max(map(len, found))
  size = (3.2 * panels + 0.075 * letters + 0.4, BASE + 0.5 + BAR * len(found))
  figure = Figure(figsize=size, layout='constrained')
  first, *second = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
  _points(first, found, found, reference)
  first.set_xlabel('mIoU, %', fontsize=8)
  if reference:
    first.get_yticklabels()[list(found).index(reference)].set_color(REFERENCE)
    first.axvline(100 * found[reference].mean, color=REFERENCE, linewidth=0.8, linestyle='--')
  for axes in second:
    _points(axes, found, differences, reference)
    axes.axvline(0, color=REFERENCE, linewidth=0.8, linestyle='--')
    other = fonts.writable(reference, 'the marked row')
    axes.set_xlabel(f'minus {other}, points', fontsize=8)
  count = len(next(iter(found.values())).by_seed)
  about = f'mean and 95% interval; small dots: {count} seed{"s" * (count > 1)}'
  figure.suptitle(f'{fonts.writable(title, "scores")} ({about})', fontsize=8)
  _save(figure, path)


def _points(
  axes: Axes,
  names: Iterable[str],
  rows: Mapping[str, Score] | Mapping[str, Difference],
  reference: str,
) -> None:
  """A line for each name: the mean with its interval, the number, and a dot below for each seed."""
  names = list(names)
  for place, name in zip(range(len(names), 0, -1), names, strict=True):
    if name not in rows:
      continue
    row, colour = rows[name], REFERENCE if name == reference else COLOUR
    if row.low is not None and row.high is not None:
      axes.plot([100 * row.low, 100 * row.high], [place, place], color=colour, linewidth=2)
    axes.plot(100 * row.mean, place, 'o', color=colour, markersize=5)
    by_seed = [100 * value for value in row.by_seed]
    axes.plot(by_seed, [place - 0.28] * len(by_seed), '.', color=SEEDS, markersize=4)
    form = '+.1f' if isinstance(row, Difference) else '.1f'
    above = (100 * row.mean, place), (0, 5)
    axes.annotate(
      format(100 * row.mean, form),
      *above,
      textcoords='offset points',
      ha='center',
      fontsize=7,
      bbox={'facecolor': 'white', 'edgecolor': 'none', 'pad': 0.2},
    )
  axes.set_yticks(range(len(names), 0, -1), _row_labels(names))
  axes.set_ylim(0.4, len(names) + 0.7)
  axes.tick_params(labelsize=8)
  axes.grid(axis='x', color='#e4e4e4', linewidth=0.6)
  axes.set_axisbelow(True)
  axes.margins(x=0.08)
  axes.spines[['top', 'right']].set_visible(False)


def _row_labels(names: Sequence[str]) -> list[str]:
  """Names as they can be drawn: one with a letter that the font lacks is its row's number."""
  return [fonts.writable(name, f'row {i}') for i, name in enumerate(names, 1)]


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
  axes.set_yticks(places, _row_labels(names))
  axes.tick_params(labelsize=8)
  axes.spines[['top', 'right']].set_visible(False)


def _save(figure: Figure, path: pathlib.Path) -> None:
  with atomic.replacing(path) as temporary, temporary.open('wb') as file:
    figure.savefig(file, format='png', dpi=150)
