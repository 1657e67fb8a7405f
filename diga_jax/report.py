"""What people look at: tables for the terminal, metrics.json, pictures with a legend."""

import io
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import rich.box
import rich.console
import rich.markup
import rich.table
from PIL import Image, ImageDraw, ImageFont

from data_pipelines import known
from diga_jax import files

IGNORE = 255
# Two numbers may share a column only if they agree in all of these. The rest of a protocol
# (network, step, seed, chosen_by) tells the rows apart and has columns of its own.
MEASUREMENT = (
  'data',
  'split',
  'images',
  'class_set',
  'classes',
  'scales',
  'fusion',
  'flip',
  'image_size',
  'label_size',
)
ORACLE_NOTE = '* weights chosen with the labels of the target'

SHOWN = 5  # examples of each thing that doctor finds

FACTS = {'step': 'step', 'seed': 'seed', 'network': 'weights', 'chosen_by': 'chosen by'}

NARROW, WIDE = 256, 512  # a panel is drawn between these widths, in pixels
MARGIN, GAP, LINE = 10, 6, 20
INK, PAPER = (30, 30, 30), (255, 255, 255)
REJECTED, HATCH = (214, 214, 214), (160, 160, 160)


# Tables.


def _percent(value: float | None) -> str:
  return '-' if value is None or np.isnan(value) else f'{100 * value:.1f}'


def _extent(size: Any) -> str:
  return f'{size[0]}x{size[1]}' if isinstance(size, (list, tuple)) else str(size)


def measurement(metrics: Mapping[str, Any]) -> dict[str, Any]:
  """The part of a protocol that decides whether two numbers may be compared."""
  protocol = metrics['protocol']
  return {key: protocol[key] for key in MEASUREMENT if key in protocol}


def describe(measured: Mapping[str, Any]) -> str:
  """One line of words for `measurement(metrics)`."""
  words = [str(measured[key]) for key in ('data', 'split') if measured.get(key)]
  if 'images' in measured:
    words.append(f'{measured["images"]} images')
  if 'image_size' in measured:
    words.append(_extent(measured['image_size']))
  if measured.get('label_size', measured.get('image_size')) != measured.get('image_size'):
    words.append(f'labels {_extent(measured["label_size"])}')
  if 'scales' in measured:
    scales = ' and '.join(f'{scale:g}x' for scale in measured['scales'])
    words.append(f'{measured["fusion"]} of {scales}' if len(measured['scales']) > 1 else scales)
  words.append('flipped too' if measured.get('flip') else 'no flip')
  if measured.get('class_set'):
    words.append(f'classes {measured["class_set"]}')
  return ', '.join(words)


def groups(rows: Iterable[Mapping[str, Any]]) -> list[tuple[dict[str, Any], list[Mapping]]]:
  """Rows that may share columns, together: [(measurement, rows)], in order of appearance."""
  found = []
  for row in rows:
    measured = measurement(row)
    for other, members in found:
      if other == measured:
        members.append(row)
        break
    else:
      found.append((measured, [row]))
  return found


def rendered(parts: Iterable[Any], width: int, color: bool = False) -> str:
  """Tables and lines of text one below the other."""
  console = rich.console.Console(
    file=io.StringIO(),
    width=width,
    force_terminal=color,
    highlight=False,
    color_system='standard' if color else None,
    legacy_windows=False,
  )
  for part in parts:
    console.print(part)
  lines = (line.rstrip() for line in console.file.getvalue().splitlines())
  return '\n'.join(lines).rstrip('\n')


def _title(text: str) -> str:
  return f'[bold]{rich.markup.escape(text)}[/bold]'


def markdown_table(first: str, *columns: str) -> rich.table.Table:
  """An empty table that renders as Markdown: a column of names, then columns of numbers."""
  result = rich.table.Table(box=rich.box.MARKDOWN, show_edge=True)
  result.add_column(first, no_wrap=True)
  for name in columns:
    result.add_column(name, justify='right', no_wrap=True)
  return result


def _empty_table() -> rich.table.Table:
  return rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))


def _scores(row: Mapping[str, Any], best: Mapping[str, float]) -> list[str]:
  """The mIoU cells of a row, the best of each column in bold."""
  values = ((name, row['mean_iou_subsets'].get(name)) for name in best)
  return [f'[bold]{_percent(v)}[/bold]' if v == best[name] else _percent(v) for name, v in values]


def _fact(row: Mapping[str, Any], key: str) -> str:
  fact = row['protocol'].get(key)
  return '-' if fact is None else f'{fact}*' if fact == 'oracle' else str(fact)


def _one_table(measured: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Iterable[Any]:
  """Title, table, what holds for every row, an empty line."""
  subsets = list(dict.fromkeys(name for row in rows for name in row['mean_iou_subsets']))
  best = {name: max(row['mean_iou_subsets'].get(name) or 0 for row in rows) for name in subsets}
  facts = {key: [_fact(row, key) for row in rows] for key in FACTS}
  # A column of equal cells is a waste of width, except for the two that readers look for.
  columns = [
    key for key, cells in facts.items() if key in ('step', 'chosen_by') or len(set(cells)) > 1
  ]
  result = _empty_table()
  result.add_column('network', no_wrap=True)
  for name in subsets:
    result.add_column(f'mIoU {name}', justify='right')
  result.add_column('pixel acc.', justify='right')
  for key in columns:
    result.add_column(
      FACTS[key], justify='left' if key in ('network', 'chosen_by') else 'right', no_wrap=True
    )
  for i, row in enumerate(rows):
    result.add_row(
      rich.markup.escape(row['name']),
      *_scores(row, best),
      _percent(row['pixel_accuracy']),
      *(facts[key][i] for key in columns),
    )
  shared = [
    f'{FACTS[key]} {facts[key][0]}' for key in FACTS if key not in columns and facts[key][0] != '-'
  ]
  yield _title(describe(measured) + ''.join(f', {words}' for words in shared))
  yield result
  if 'oracle*' in facts['chosen_by']:
    yield ORACLE_NOTE
  yield ''


def table(rows: Sequence[Mapping[str, Any]], width: int | None = None, color: bool = False) -> str:
  """Networks against their mIoU (%), as text for a terminal.

  Rows measured in different ways (data, split, sizes, scales, fusion, flip, class set) are never
  put in one column: each way gets a table of its own, its title saying which.

  Args:
    rows: what `evaluate.evaluate` returns, each with a 'name'. Step, seed, network and chosen_by
      of its protocol become columns.
    width: columns of the terminal; None: as it is.
    color: whether to use the terminal's bold type.
  """
  width = width or shutil.get_terminal_size().columns
  return rendered((part for group in groups(rows) for part in _one_table(*group)), width, color)


def examined(name: str, found: Any, names: Sequence[str], table: Any) -> str:
  """What `doctor` says of a data set: facts, shares of the classes, and what is wrong.

  Args:
    name: of the data set.
    found: a `data_pipelines.doctor.Report`.
    names: of the classes.
    table: the set's label table, for the shares that are known.
  """
  parts = list(_examined(name, found, names, table))
  # A path that is broken over two lines cannot be copied.
  longest = max(len(part) for part in parts if isinstance(part, str))
  return rendered(parts, max(shutil.get_terminal_size().columns, longest))


def _examined(name, found, names, table) -> Iterable[Any]:
  yield _title(name)
  for what, value in found.facts:
    yield f'  {what}: {rich.markup.escape(value)}'
  if found.shares is not None:
    yield _class_shares(found.shares, names, known.SHARES.get(known.SAME.get(table, table)))
  if not found.findings:
    yield '[bold]nothing is wrong[/bold]'
  for finding in found.findings:
    yield f'[bold]{finding.kind}: {len(finding.where):,}[/bold]'
    for line in finding.where[:SHOWN]:
      yield rich.markup.escape(f'  {line}')
    if len(finding.where) > SHOWN:
      yield f'  ... and {len(finding.where) - SHOWN:,} more'
    yield rich.markup.escape(f'  -> {finding.mend}')


def _class_shares(shares, names, expected) -> rich.table.Table:
  """Each class's share of the labelled pixels in per cent, beside what is known of the set."""
  result = _empty_table()
  result.add_column('class', no_wrap=True)
  result.add_column('% of pixels', justify='right')
  if expected is not None and len(expected) == len(shares):
    result.add_column('known', justify='right')
  else:
    expected = None
  for i, name in enumerate(names):
    known_share = () if expected is None else (f'{100 * expected[i]:.2f}',)
    result.add_row(rich.markup.escape(name), f'{100 * shares[i]:.2f}', *known_share)
  return result


def _that_fit(rows: Sequence[Mapping[str, Any]], width: int) -> Iterable[list[Mapping[str, Any]]]:
  """Rows in turn, as many at a time as have room for columns headed by their names."""
  waiting, used = [], 0
  for row in rows:
    needed = max(len(row['name']), 5) + 3
    if waiting and used + needed > width:
      yield waiting
      waiting, used = [], 0
    waiting.append(row)
    used += needed
  yield waiting


def _class_table(rows: Sequence[Mapping[str, Any]]) -> rich.table.Table:
  result = _empty_table()
  result.add_column('class', no_wrap=True)
  for row in rows:
    result.add_column(rich.markup.escape(row['name']), justify='right')
  for name in rows[0]['iou']:
    result.add_row(rich.markup.escape(name), *(_percent(row['iou'].get(name)) for row in rows))
  result.add_section()
  for subset in rows[0]['mean_iou_subsets']:
    means = (_percent(row['mean_iou_subsets'].get(subset)) for row in rows)
    result.add_row(f'mean of {subset}', *means)
  return result


def per_class(
  rows: Sequence[Mapping[str, Any]], width: int | None = None, color: bool = False
) -> str:
  """IoU (%) of every class, a line each, with one column per network.

  Rows measured in different ways get tables of their own, as in `table`; so do more rows than the
  width has room for. '-' is a class that neither the labels nor the predictions hold.
  """
  width = width or shutil.get_terminal_size().columns

  def parts() -> Iterable[Any]:
    for measured, members in groups(rows):
      yield _title('IoU per class, ' + describe(measured))
      first = max(len(name) for name in members[0]['iou'])
      for shown in _that_fit(members, width - max(first, len('mean of 19')) - 2):
        yield _class_table(shown)
        yield ''

  return rendered(parts(), width, color)


def kept(row: Mapping[str, Any]) -> str:
  """One line for what `quality.measure` found: how much is kept, how right that is."""
  right = ''
  if row['accuracy_kept'] is not None:
    right = f'; right: {_percent(row["accuracy_kept"])}% of them'
  if row['accuracy_rejected'] is not None:
    right += f', {_percent(row["accuracy_rejected"])}% of the rejected'
  by = {'none': 'no selector'}.get(row['selector'], row['selector'])
  return f'{row["name"]}: {by} keeps labels of {_percent(row["kept"])}% of the pixels{right}'


def write_metrics(path: str | os.PathLike, metrics: Any) -> None:
  """Writes metrics as JSON, whole or not at all. Refuses NaN (`evaluate` gives None instead)."""
  with files.replacing(path) as temporary:
    temporary.write_text(json.dumps(metrics, indent=2, allow_nan=False) + '\n')


# Pictures.


def coloured(labels: np.ndarray, palette: Any) -> np.ndarray:
  """Labels [H, W] -> uint8 RGB [H, W, 3]; what the palette [C, 3] does not know is black."""
  table = np.zeros((256, 3), np.uint8)
  table[: len(palette)] = palette
  return table[labels]


def overlay(image: np.ndarray, labels: np.ndarray, palette: Any, share: float = 0.6) -> np.ndarray:
  """`share` of the class colour over the image, both [H, W]; uint8 RGB [H, W, 3]."""
  mixed = share * coloured(labels, palette).astype(np.float32) + (1 - share) * image
  return np.round(mixed).astype(np.uint8)


def _panel_size(height: int, width: int) -> tuple[int, int]:
  """(h, w) of a panel: wide images are scaled down, small ones up by a whole number."""
  factor = min(WIDE / width, 1.0) if width >= NARROW else -(-NARROW // width)
  return max(round(height * factor), 1), max(round(width * factor), 1)


def _fit(pixels: np.ndarray, size: tuple[int, int], smooth: bool) -> np.ndarray:
  kind = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
  return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), kind))


def _greyed(labels: np.ndarray, kept: np.ndarray, palette: Any) -> np.ndarray:
  """Class colours where kept, hatched grey where rejected, black where there was no label.

  Hatched, because street palettes hold plain greys too (poles, buildings).
  """
  rows, columns = np.indices(labels.shape)
  hatch = ((rows + columns) % 8 < 2)[..., None]
  rejected = ~kept & (labels != IGNORE)
  return np.where(
    rejected[..., None], np.where(hatch, HATCH, REJECTED), coloured(labels, palette)
  ).astype(np.uint8)


def _panels(
  image: np.ndarray,
  maps: Mapping[str, np.ndarray | None],
  consensus: np.ndarray | None,
  palette: Any,
) -> tuple[dict[str, np.ndarray], set[int]]:
  """(caption -> uint8 pixels, all of one size; the class ids in sight)."""
  size = _panel_size(*image.shape[:2])
  shown = {
    name: _fit(np.asarray(labels).astype(np.uint8), size, smooth=False)
    for name, labels in maps.items()
    if labels is not None
  }
  panels = {'image': _fit(np.asarray(image), size, smooth=True)}
  panels |= {name: coloured(labels, palette) for name, labels in shown.items()}
  if consensus is not None:
    consensus = np.asarray(consensus)
    kept = _fit(consensus.astype(np.uint8), size, smooth=False).astype(bool)
    labelled = np.asarray(maps['pseudo-label']) != IGNORE
    share = consensus[labelled].mean() if labelled.any() else 0
    caption = f'consensus: {100 * share:.0f}% kept'
    panels[caption] = _greyed(shown['pseudo-label'], kept, palette)
  return panels, {int(i) for labels in shown.values() for i in np.unique(labels)}


def _legend_lines(
  entries: Sequence[tuple[str, Any]], font: Any, width: int
) -> list[list[tuple[int, str, Any]]]:
  """Entries (text, colour) -> lines of (x, text, colour) that fit into `width`."""
  lines, x = [[]], 0
  for text, colour in entries:
    needed = LINE + round(font.getlength(text)) + 2 * GAP
    if lines[-1] and x + needed > width:
      lines, x = [*lines, []], 0
    lines[-1].append((x, text, colour))
    x += needed
  return lines


def _draw_swatch(
  canvas: ImageDraw.ImageDraw, x: int, y: int, text: str, colour: Any, font: Any
) -> None:
  side = LINE - 2 * 3
  canvas.rectangle((x, y + 3, x + side, y + 3 + side), fill=tuple(colour), outline=INK)
  if text == 'rejected':
    for shift in range(0, 2 * side, 6):
      left, top = max(shift - side, 0), min(shift, side)
      canvas.line((x + left, y + 3 + top, x + top, y + 3 + left), fill=HATCH, width=2)
  canvas.text((x + LINE, y + LINE // 2), text, fill=INK, font=font, anchor='lm')


def strip(
  image: np.ndarray,
  *,
  palette: Any,
  truth: np.ndarray | None = None,
  prediction: np.ndarray | None = None,
  pseudo: np.ndarray | None = None,
  consensus: np.ndarray | None = None,
  names: Sequence[str] | None = None,
) -> Image.Image:
  """Image, truth, prediction, pseudo-label and consensus side by side, captioned, with a legend.

  Args:
    image: uint8 RGB [H, W, 3]. Drawn 256 to 512 pixels wide, whatever its size.
    palette: uint8 [C, 3], RGB.
    truth, prediction, pseudo: class ids, 255 = ignored (black); any size; None leaves it out.
    consensus: bool, True where the pseudo-label is kept; the rest of it is hatched grey.
    names: C class names for the legend, which holds the classes in sight; None: numbers.

  Raises:
    ValueError: a consensus mask without pseudo-labels.
  """
  if consensus is not None and pseudo is None:
    raise ValueError('a consensus mask is drawn on pseudo-labels: give them too')
  maps = {'truth': truth, 'prediction': prediction, 'pseudo-label': pseudo}
  panels, present = _panels(image, maps, consensus, palette)
  font = ImageFont.load_default(14)
  height, width = panels['image'].shape[:2]
  total = len(panels) * (width + GAP) - GAP
  entries = [
    (names[i] if names is not None else str(i), palette[i])
    for i in sorted(present)
    if i < len(palette)
  ]
  entries += [('ignored', (0, 0, 0))] * (max(present, default=0) >= len(palette))
  entries += [('rejected', REJECTED)] * (consensus is not None)
  lines = _legend_lines(entries, font, total)

  below = MARGIN + LINE + height + GAP
  page = Image.new('RGB', (total + 2 * MARGIN, below + len(lines) * LINE + MARGIN), PAPER)
  canvas = ImageDraw.Draw(page)
  for i, (caption, pixels) in enumerate(panels.items()):
    x = MARGIN + i * (width + GAP)
    canvas.text((x, MARGIN + LINE // 2 - 2), caption, fill=INK, font=font, anchor='lm')
    page.paste(Image.fromarray(pixels), (x, MARGIN + LINE))
  for i, line in enumerate(lines):
    for x, text, colour in line:
      _draw_swatch(canvas, MARGIN + x, below + i * LINE, text, [int(v) for v in colour], font)
  return page
