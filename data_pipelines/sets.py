"""A data set of the config, opened: folders as they are, rendered scenes written out first."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder, from_pack, open_folder
from data_pipelines.pack import Pack
from data_pipelines.scenes import render
from data_pipelines.scenes.cache import materialise

Settings = Mapping[str, Any]  # the fields of `configs.datasets.dataset`


class _Place(NamedTuple):
  """Where a set lies, as for `open_set`."""

  name: str
  root: str
  cache: str
  check: bool


def open_set(
  settings: Settings,
  *,
  name: str,
  root: str,
  cache: str,
  classes: int,
  labelled: bool = True,
  check: bool = True,
) -> Folder:
  """Opens a data set.

  Args:
    settings: the fields of `configs.datasets.dataset`.
    name: its name, for messages.
    root: folder that the paths of a 'folder' set are relative to.
    cache: folder for rendered scenes.
    classes: number of classes of the task.
    labelled: whether the labels are wanted; False leaves them unread even where they exist.
    check: whether every file of a folder has to be there.

  Raises:
    BadInput: if the settings or the files are wrong.
  """
  place = _Place(name, root, os.path.expanduser(cache), check)
  if settings['kind'] not in KINDS:
    known = ' or '.join(map(repr, KINDS))
    raise BadInput(f'data.sets.{name}.kind is {settings["kind"]!r}: {known}')
  return KINDS[settings['kind']](settings, place, classes, labelled)


def _open_files(settings: Settings, place: _Place, classes: int, labelled: bool) -> Folder:
  """Files of a folder, or the shards that they were packed into."""
  if labelled and not settings['labels']:
    raise BadInput(
      f'data.sets.{place.name}.labels is empty, but labels are needed here: name the files'
    )
  _check_names(settings, place.name)
  labels = settings['labels'] if labelled else ''
  options = {key: settings[key] for key in ('list', 'without', 'table', 'label_format')}
  options |= {'images': settings['images'], 'labels': labels, 'classes': classes}
  if not settings['shards']:
    return open_folder(place.root, check=place.check, **options)
  pack = Pack(os.path.join(place.root, settings['shards']))
  return from_pack(open_folder(place.root, among=list(pack.index['files']), **options), pack)


def _check_names(settings: Settings, name: str) -> None:
  """Refuses Cityscapes' two kinds of files under each other's table, which nothing else notices."""
  train_ids, raw_ids = 'train_ids', 'cityscapes'
  for kind, table, other in (
    ('labelTrainIds', train_ids, raw_ids),
    ('labelIds', raw_ids, train_ids),
  ):
    if kind in settings['labels'] and settings['table'] == other:
      raise BadInput(
        f"data.sets.{name}: {kind} files hold other ids than table '{other}' translates: set table "
        f"to '{table}'"
      )


def _render_scenes(settings: Settings, place: _Place, classes: int, labelled: bool) -> Folder:
  """Scenes, rendered now if they are not in the cache yet."""
  height, width = settings['size']
  name = f'scenes-{render.VERSION}-{settings["look"]}-{height}x{width}'
  directory = os.path.join(place.cache, name)
  indices = range(settings['first'], settings['first'] + settings['count'])
  images, labels, ids = materialise(directory, settings['look'], indices, (height, width))
  found = Folder(images, labels if labelled else '', ids, classes=classes)
  found.check()
  return found


# How a set's files come to be there.
KINDS = {'folder': _open_files, 'scenes': _render_scenes}
