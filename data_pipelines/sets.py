"""A data set of the config, opened: folders as they are, rendered scenes written out first."""

import os
from collections.abc import Mapping
from typing import Any

from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder, from_pack, open_folder
from data_pipelines.pack import Pack
from data_pipelines.scenes import render

KINDS = ('folder', 'scenes')  # how a set's files come to be there
Settings = Mapping[str, Any]  # the fields of `configs.datasets.dataset`


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
  """Opens a data set. Raises BadInput if the settings or the files are wrong.

  Args:
    name: for messages.
    root: folder that the paths of a 'folder' set are relative to.
    cache: folder for rendered scenes.
    classes: number of classes of the task.
    labelled: whether the labels are wanted; False leaves them unread even where they exist.
    check: whether every file of a folder has to be there.
  """
  if settings['kind'] not in KINDS:
    known = ' or '.join(map(repr, KINDS))
    raise BadInput(f'data.sets.{name}.kind is {settings["kind"]!r}: {known}')
  if settings['kind'] == 'scenes':
    if not settings['count']:
      raise BadInput(f'data.sets.{name}.count is 0: give the number of its scenes')
    return _render_scenes(settings, os.path.expanduser(cache), classes, labelled)
  _check_labels(settings, name, labelled)
  options = {key: settings[key] for key in ('images', 'list', 'without', 'table', 'label_format')}
  options |= {'labels': settings['labels'] if labelled else '', 'classes': classes}
  try:
    if not settings['shards']:
      return open_folder(root, check=check, **options)
    pack = Pack(os.path.join(root, settings['shards']))
    return from_pack(open_folder(root, among=list(pack.index['files']), **options), pack)
  except BadInput as error:
    raise BadInput(f'data.sets.{name}: {error}') from None


def _check_labels(settings: Settings, name: str, needed: bool) -> None:
  """Refuses missing labels, and Cityscapes' two kinds of files under each other's table."""
  if needed and not settings['labels']:
    raise BadInput(f'data.sets.{name}.labels is empty, but labels are needed here: name the files')
  tables = {'labelTrainIds': ('train_ids', 'cityscapes'), 'labelIds': ('cityscapes', 'train_ids')}
  for kind, (table, other) in tables.items():
    if kind in settings['labels'] and settings['table'] == other:
      raise BadInput(
        f"data.sets.{name}: {kind} files hold other ids than table '{other}' translates: set table "
        f"to '{table}'"
      )


def _render_scenes(settings: Settings, cache: str, classes: int, labelled: bool) -> Folder:
  """Scenes, rendered now if they are not in the cache yet."""
  height, width = settings['size']
  name = f'scenes-{render.VERSION}-{settings["look"]}-{height}x{width}'
  directory = os.path.join(cache, name)
  indices = range(settings['first'], settings['first'] + settings['count'])
  images, labels, ids = render.materialise(directory, settings['look'], indices, (height, width))
  found = Folder(images, labels if labelled else '', ids, classes=classes)
  found.check()
  return found
