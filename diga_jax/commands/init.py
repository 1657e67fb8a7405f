"""init: a config for data of one's own, from the folders that they are in."""

import argparse
import collections
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from data_pipelines import atomic, image_files, label_tables, processes
from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder
from data_pipelines.own_data import classes, config_text, label_kinds, parts
from diga_jax import progress
from diga_jax.commands.arguments import (
  Commands,
  add_command,
  parse_folder,
  parse_number,
  parse_path,
)

SHOWN = 3  # images of a set in the picture
FEW = 32  # files that are read by one process
ARGUMENTS = {
  '--images': 'images to learn from',
  '--labels': 'their labels, PNG files; may be the same folder',
  '--target': 'images to adapt to',
  '--target_labels': 'labels of the val or test images of --target, to measure on',
}
NAMES = f'of the classes, in order; or one of {", ".join(label_tables.NAMES)}'


def add_arguments(commands: Commands) -> None:
  """A config for one's own data."""
  text = 'look at folders of images and labels, and write a config for them'
  command = add_command(commands, 'init', text, init, config=False)
  for name, text in ARGUMENTS.items():
    required = name in ('--images', '--labels')
    command.add_argument(name, type=parse_folder, required=required, metavar='DIR', help=text)
  command.add_argument('--names', nargs='+', default=(), metavar='NAME', help=NAMES)
  text = 'the config (own_data.py); a picture of samples is written beside it'
  default = pathlib.Path('own_data.py')
  command.add_argument('--output', type=parse_path, default=default, metavar='FILE', help=text)
  command.add_argument('--overwrite', action='store_true', help='replace these two files')
  text = 'processes; default: all cores'
  jobs = parse_number(1, 1024)
  command.add_argument('--jobs', type=jobs, default=os.cpu_count(), metavar='N', help=text)


def init(arguments: argparse.Namespace, config: ConfigDict | None) -> None:
  """Writes a config and a picture, and says what they hold."""
  names = [name.removeprefix('--') for name in ARGUMENTS]
  folders = {name: os.path.abspath(vars(arguments)[name] or '') for name in names}
  folders = {name: path if vars(arguments)[name] else '' for name, path in folders.items()}
  check_places(arguments.output, folders, arguments.overwrite)
  found = parts.find_parts(*folders.values())
  labels = {part.name: labels_of(part, arguments.jobs) for part in found if part.pairs.labels}
  paths = {part.name: part.folder().label_path(0) for part in found if part.pairs.labels}
  sizes = {part.name: sizes_of(part) for part in found}
  usual = {name: each[0] for name, each in sizes.items()}
  held = classes.find_classes(labels, paths, usual, arguments.names)
  trained = {name: sizes[name] for name in ('source', 'target') if name in sizes}
  crop, resized = config_text.choose_sizes(trained)
  root = common_folder(found)
  sets = [
    config_text.Set(
      part.name,
      os.path.relpath(part.pairs.images, root),
      os.path.relpath(part.pairs.labels, root) if part.pairs.labels else '',
      labels[part.name].label_format if part.pairs.labels else '',
      os.path.relpath(part.list, root) if part.list else '',
      *resized.get(part.name, ((), ())),
    )
    for part in found
  ]
  text = config_text.config_text(root, sets, held, crop)
  picture = draw(found, held, labels)
  atomic.write_text(arguments.output, text)
  atomic.write_png(arguments.output.with_suffix('.png'), picture)
  for part in found:
    print(describe(part, sizes[part.name], labels.get(part.name), held))
  for line in notes(held, labels):
    print(line)
  print(f'config: {arguments.output}\npicture: {arguments.output.with_suffix(".png")}')
  print(f'next: python -m diga_jax doctor --config={arguments.output}')


def check_places(output: pathlib.Path, folders: dict[str, str], overwrite: bool) -> None:
  """Refuses folders that do not exist, and outputs that replace something or lie among images.

  Raises:
    BadInput: naming the argument.
  """
  for name, folder in folders.items():
    if folder and not os.path.isdir(folder):
      raise BadInput(f'--{name}: {folder} does not exist: give a folder')
    inside = os.path.join(os.path.realpath(output.parent), '')
    if folder and inside.startswith(os.path.join(os.path.realpath(folder), '')):
      raise BadInput(
        f'--output: {output} lies in --{name}, where its picture would be an image: write elsewhere'
      )
  if folders['target_labels'] and not folders['target']:
    raise BadInput('--target_labels: give the images of these labels as --target')
  if output.suffix != '.py':
    raise BadInput(f'--output: {output} is no name of a config: let it end in .py')
  for path in (output, output.with_suffix('.png')):
    if os.path.lexists(path) and not overwrite:
      raise BadInput(f'--output: {path} exists: give another name, or --overwrite')


def labels_of(part: parts.Part, jobs: int) -> label_kinds.Labels:
  """What the label files of a set hold; all of them are read."""
  folder = part.folder()
  paths = [folder.label_path(index) for index in range(len(folder))]

  def scans():
    with progress.bar(len(paths), f'reading labels of {part.name}', len(paths) > FEW) as bar:
      count = jobs if len(paths) > FEW else 1
      for scan in processes.in_order(label_kinds.scan, paths, count, chunk=4):
        yield scan
        bar.update(1)

  return label_kinds.together(paths, scans())


def sizes_of(part: parts.Part) -> list[tuple[int, ...]]:
  """The sizes of a set's images, that of most of them first."""
  folder = part.folder()
  paths = map(folder.image_path, range(len(folder)))
  counted = collections.Counter(map(image_files.read_size, paths))
  return [size for size, _ in counted.most_common()]


def common_folder(found: Sequence[parts.Part]) -> str:
  """The folder that all files are below."""
  paths = [path for part in found for path in (part.pairs.images, part.pairs.labels, part.list)]
  return os.path.commonpath([os.path.dirname(path.partition('{id}')[0]) for path in paths if path])


def draw(
  found: Sequence[parts.Part],
  held: classes.Classes,
  labels: dict[str, label_kinds.Labels],
) -> Image.Image:
  """Some images of the first and of the last labelled set, with their labels, below each other."""
  from diga_jax.inference.evaluate import evenly_spread
  from diga_jax.report.pictures import comparison_panels

  colours = np.array(config_text.palette(held), np.uint8)
  names, rows = config_text.class_names(held), []
  for name in dict.fromkeys([*labels][:1] + [*labels][-1:]):
    (part,) = (part for part in found if part.name == name)
    folder = Folder(
      part.pairs.images,
      part.pairs.labels,
      part.pairs.ids,
      held.tables[name],
      held.count,
      labels[name].label_format,
    )
    for index in evenly_spread(SHOWN, len(folder)):
      image, label = folder.read(index)
      rows.append(comparison_panels(image, truth=label, palette=colours, names=names))
  page = Image.new(
    'RGB', (max(row.width for row in rows), sum(row.height for row in rows)), 'white'
  )
  for place, row in enumerate(rows):
    page.paste(row, (0, sum(above.height for above in rows[:place])))
  return page


def describe(
  part: parts.Part,
  sizes: Sequence[tuple[int, ...]],
  labels: label_kinds.Labels | None,
  held: classes.Classes,
) -> str:
  """A line on a set: how many images, of which sizes, with which labels."""
  height, width = sizes[0]
  more = f' and {len(sizes) - 1} other sizes' * (len(sizes) > 1)
  facts = [f'{len(part.pairs.ids):,} images {part.pairs.images}, {height}x{width}{more}']
  if part.list:
    facts.append(f'those of {part.list}')
  if labels:
    table = held.tables[part.name]
    by = f'table {table!r}' if isinstance(table, str) else f'{len(table)} pairs'
    facts.append(f'labels {part.pairs.labels}: format {labels.label_format!r}, {by}')
  if part.pairs.left:
    facts.append(f'not taken: {", ".join(part.pairs.left)}')
  return f'{part.name}: {"; ".join(facts)}'


def notes(held: classes.Classes, labels: dict[str, label_kinds.Labels]) -> list[str]:
  """What the user has to know or to say, a line each."""
  names, first = config_text.class_names(held), next(iter(labels.values()))
  found = [f'{held.count} classes: {", ".join(names)}']
  if held.absent:
    found.append(f'left out, since no label of source holds them: {", ".join(held.absent)}')
  if not held.names:
    found.append(f'the classes have no names: give {held.count} with --names, or change CLASSES')
  if not held.known and first.label_format == 'colour':
    found.append('every colour is a class: in TABLE, give 255 to those that are none')
  if {label_tables.IGNORE} < set(first.values) and held.tables['source'] != 'masks':
    found.append('255 means ignored')
  return found
