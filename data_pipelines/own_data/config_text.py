"""A config file for data of one's own, as text."""

import colorsys
import pprint
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from data_pipelines.label_tables import PALETTE, Colour
from data_pipelines.own_data.classes import Classes, Size

COLUMNS = 100
UNNAMED = 12  # up to so many numbered classes are written out
SHORTER = 240  # pixels: what the shorter side of an image is resized to for half of a batch
MULTIPLE = 32  # of the sides of a crop
GOLDEN = 0.618033988749895
SMALLEST = 80  # pixels of the shorter side: smaller images are enlarged
SOME_CLASSES = """from data_pipelines.label_tables import NAMES, PALETTE
from data_pipelines.published_sets import some_classes
"""
BY_COLOUR = 'tuple(zip(COLOURS, range(len(COLOURS))))'
FILE = '''"""Own data as `python -m diga_jax init` found them; what to change: docs/own_data.md."""

{imports}from diga_jax.configs import datasets, default, networks, recipes

{constants}

def get_config():
  config = default.get_config()
  config.recipe = {recipe!r}
  # A network for two CPU cores; see docs/own_data.md for the published one.
  config.model.name, config.model.weights = 'deeplab_efficientnet_lite0', 'efficientnet_lite0'
  config.model.options = networks.lite0(feature=128)
  config.translator.kind = {translator!r}
  data = config.data
  data.root = {root!r}
  {classes}
  data.crop = {crop!r}
  data.sets = {{
{sets}
  }}
  recipes.small_scale(config, steps={steps!r})
  config.evaluation.sets = {measured!r}
  return config
'''


class Set(NamedTuple):
  """A data set; patterns and lists are relative to data.root, '' for none.

  `low` and `full` are the sizes that images of a batch are resized to; () for their own.
  """

  name: str
  images: str
  labels: str = ''
  label_format: str = ''
  list: str = ''
  low: Size = ()
  full: Size = ()


def choose_sizes(found: Mapping[str, Sequence[Size]]) -> tuple[Size, dict[str, tuple[Size, Size]]]:
  """The crop, and by set the low and the full size, () where images keep their own.

  A crop is about four fifths of an image whose shorter side is at most 240 pixels, to which half of
  a batch is resized. Where images are smaller than the crop, the other half is resized as well.

  Args:
    found: by set, sizes (h, w) of its images, of which most have the first.
  """
  low = {name: _resized(sizes[0]) for name, sizes in found.items()}
  crop = tuple(
    max(4 * min(sides) // 5 // MULTIPLE, 1) * MULTIPLE for sides in zip(*low.values(), strict=True)
  )
  chosen = {}
  for name, sizes in found.items():
    small = any(height < crop[0] or width < crop[1] for height, width in sizes)
    resize = small or low[name] != sizes[0]
    chosen[name] = low[name] if resize else (), low[name] if small else ()
  return crop, chosen


def _resized(size: Size) -> Size:
  scale = max(min(SHORTER / min(size), 1), SMALLEST / min(size))
  return tuple(round(side * scale) for side in size)


def config_text(root: str, sets: Sequence[Set], classes: Classes, crop: Size) -> str:
  """The file; the sets are called 'source', 'target' if there is one, and as they are measured."""
  adapts = any(each.name == 'target' for each in sets)
  recipe = ('source_only', *('warmup', 'label_1', 'self_training_1') * adapts)
  return FILE.format(
    imports=SOME_CLASSES * bool(classes.kept),
    constants=''.join(_constants(sets, classes)),
    recipe=recipe,
    translator='fourier' if adapts else 'none',
    root=root,
    classes='\n  '.join(_of_classes(classes)),
    crop=crop,
    sets='\n'.join(line for each in sets for line in _set(each, classes)),
    steps={name: 2000 if name == 'source_only' else 250 for name in recipe if name != 'label_1'},
    measured=tuple(each.name for each in sets if each.name not in ('source', 'target')),
  )


def class_names(classes: Classes) -> tuple[str, ...]:
  """The names of the classes, numbers for those without."""
  return classes.names or tuple(f'class_{number}' for number in range(classes.count))


def palette(classes: Classes) -> tuple[Colour, ...]:
  """Their colours, some that can be told apart for those without."""
  known = PALETTE[classes.known or 'cityscapes19'].tolist()
  if classes.colours or classes.count > len(known):
    return classes.colours or tuple(_colour(number) for number in range(classes.count))
  return tuple((r, g, b) for r, g, b in known[: classes.count])


def _colour(number: int) -> Colour:
  parts = colorsys.hsv_to_rgb(number * GOLDEN % 1, 1 - number % 3 / 4, 1 - number % 4 / 6)
  red, green, blue = (round(255 * part) for part in parts)
  return red, green, blue


def _constants(sets: Sequence[Set], classes: Classes) -> list[str]:
  """The assignments before the function."""
  lines = []
  if classes.kept:
    lines.append(_assign('KEPT', classes.kept))
  elif not classes.known:
    names = classes.names or classes.count <= UNNAMED
    lines += [_assign('CLASSES', class_names(classes))] * bool(names)
    lines += [_assign('COLOURS', palette(classes))] * _has_own_colours(classes)
  for each in sets:
    name = _labels_name(each, classes)
    if each.labels and (name != 'LABELS' or each.name == 'source'):
      text, more = _table(each, classes)
      lines += [*more, f"{name} = {{'label_format': {each.label_format!r}, 'table': {text}}}\n"]
  return lines


def _has_own_colours(classes: Classes) -> bool:
  return bool(classes.colours) or classes.count > len(PALETTE['cityscapes19'])


def _table(each: Set, classes: Classes) -> tuple[str, list[str]]:
  """A set's label table in the config, and the assignments that it needs."""
  table = classes.tables[each.name]
  if isinstance(table, str):
    return repr(table), []
  if classes.kept:
    more = ", 'colour'" * (each.label_format == 'colour')
    return f'some_classes({classes.named[each.name]!r}, KEPT{more})', []
  if table == tuple(zip(classes.colours, range(classes.count), strict=False)):
    return BY_COLOUR, []
  return 'TABLE', [_assign('TABLE', table)]


def _labels_name(each: Set, classes: Classes) -> str:
  return 'LABELS' if classes.tables.get(each.name) == classes.tables['source'] else 'OTHER_LABELS'


def _of_classes(classes: Classes) -> list[str]:
  if classes.kept:
    return [
      f'data.classes = {classes.count}',
      f'data.class_names = tuple(NAMES[{classes.known!r}][train] for train in KEPT)',
      f'data.palette = tuple(map(tuple, PALETTE[{classes.known!r}][list(KEPT)].tolist()))',
    ]
  if classes.known:
    return [f'data.classes, data.names = {classes.count}, {classes.known!r}']
  numbers = f"tuple(f'class_{{i}}' for i in range({classes.count}))"
  names = 'CLASSES' if classes.names or classes.count <= UNNAMED else numbers
  lines = [f'data.classes, data.class_names = {classes.count}, {names}']
  return lines + ['data.palette = COLOURS'] * _has_own_colours(classes)


def _assign(name: str, value: object) -> str:
  """A line `name = value`, or as many as it takes."""
  text = repr(value)
  if len(name) + 3 + len(text) <= COLUMNS:
    return f'{name} = {text}\n'
  inside = pprint.pformat(value, width=COLUMNS - 2, compact=True)[1:-1].rstrip(',')
  lines = [line.strip() for line in inside.splitlines()]
  return f'{name} = (\n' + ''.join(f'  {line}\n' for line in lines[:-1]) + f'  {lines[-1]},\n)\n'


def _set(each: Set, classes: Classes) -> list[str]:
  fields = {
    'images': each.images, 'labels': each.labels, 'list': each.list, 'low_size': each.low,
    'full_size': each.full,
  }  # fmt: skip
  given = [f'{field}={value!r}' for field, value in fields.items() if value]
  given += [f'**{_labels_name(each, classes)}'] * bool(each.labels)
  start, end = f'    {each.name!r}: datasets.dataset(', '),'
  if len(line := start + ', '.join(given) + end) <= COLUMNS:
    return [line]
  for inside in ([', '.join(given)], [', '.join(given[:2]), ', '.join(given[2:])], given):
    lines = [f'      {part},' for part in inside if part]
    if max(map(len, lines)) <= COLUMNS:
      break
  return [start, *lines, f'    {end}']
