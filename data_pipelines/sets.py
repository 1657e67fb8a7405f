"""A data set of the config, opened: folders as they are, rendered scenes written out first."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder, from_pack, open_folder
from data_pipelines.image_files import MAX_PIXELS
from data_pipelines.pack import Pack
from data_pipelines.scenes import render

MANIFESTS = 'manifests'  # folder of the cache for what `doctor` found, with samples
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
  max_pixels: int = MAX_PIXELS,
) -> Folder:
  """Opens a data set. Raises BadInput if the settings or the files are wrong.

  Args:
    name: for messages.
    root: folder that the paths of a 'folder' set are relative to.
    cache: folder for rendered scenes.
    classes: number of classes of the task.
    labelled: whether the labels are wanted; False leaves them unread even where they exist.
    check: whether every file of a folder has to be there.
    max_pixels: of the largest image that is read.
  """
  if settings['kind'] not in KINDS:
    known = ' or '.join(map(repr, KINDS))
    raise BadInput(f'data.sets.{name}.kind is {settings["kind"]!r}: {known}')
  if settings['kind'] == 'scenes':
    return _render_scenes(settings, os.path.expanduser(cache), classes, labelled)
  if labelled and not settings['labels']:
    raise BadInput(f'data.sets.{name}.labels is empty, but labels are needed here: name the files')
  options = {key: settings[key] for key in ('images', 'list', 'without', 'table', 'label_format')}
  options |= {'labels': settings['labels'] if labelled else '', 'classes': classes}
  options |= {'max_pixels': max_pixels, 'apart': settings['labels']}
  try:
    if settings['shards']:
      pack = Pack(os.path.join(root, settings['shards']))
      return from_pack(open_folder(root, among=list(pack.index['files']), **options), pack)
    found = open_folder(root, check=check, **options)
  except BadInput as error:
    raise BadInput(f'data.sets.{name}: {error}') from None
  check_apart(found, settings, name, [os.path.join(os.path.expanduser(cache), MANIFESTS)])
  return found


def check_apart(folder: Folder, settings: Settings, name: str, places: Iterable[str]) -> None:
  """Refuses a set whose files lie in folders that are written to, or whose pattern reaches there.

  No input is ever an output, and no output is taken for an image when the set is opened again.

  Args:
    folder, settings, name: the set.
    places: the folders, which need not exist yet.
  """
  if settings['kind'] != 'folder':
    return
  inside = [os.path.join(os.path.realpath(place), '') for place in places]
  for path, real in folder.real_paths():
    if place := next((place for place in inside if real.startswith(place)), ''):
      raise BadInput(
        f'data.sets.{name}: {path} lies in {place}, which is written to: keep images and labels '
        'apart from it'
      )
  top, file = os.path.split(folder.images.partition('{id}')[0])
  reached, ending = os.path.join(os.path.realpath(top), file), os.path.splitext(folder.images)[1]
  if folder.image_pack or settings['list'] or ending.lower() not in ('', '.png'):
    return
  if place := next((place for place in inside if place.startswith(reached)), ''):
    raise BadInput(
      f'data.sets.{name}.images: {folder.images} also means the pictures that are written to '
      f'{place}: give the images a folder of their own, name them by a list, or write elsewhere'
    )


def check_pictures(settings: Settings, name: str, root: str, place: str) -> None:
  """Refuses a folder for PNG files in which a set's own may lie, or would look for its images.

  Args:
    settings, name: the set, which need not be there.
    root: as of `open_set`.
    place: the folder.
  """
  for part in ('images', 'labels') if settings['kind'] == 'folder' else ():
    start = os.path.join(root, settings[part]).partition('{id}')[0]
    top = os.path.join(os.path.realpath(os.path.dirname(start)), '')
    inside = os.path.join(os.path.realpath(place), '').startswith(top)
    if settings[part] and inside and os.path.splitext(settings[part])[1].lower() in ('', '.png'):
      raise BadInput(
        f'{place}: lies among the files of data.sets.{name}.{part} ({top}), which it might '
        'overwrite or add to: write elsewhere'
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
