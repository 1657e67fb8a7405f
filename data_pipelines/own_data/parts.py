"""Which images are learned from, adapted to and measured on, by folders, and lists beside them."""

import functools
import os
from collections.abc import Mapping
from typing import NamedTuple

from data_pipelines import image_ids
from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder
from data_pipelines.own_data.patterns import SPLITS, Pairs, find, split_folders


class Part(NamedTuple):
  """A data set: its files, and the list that says which of them, '' for all."""

  name: str
  pairs: Pairs
  list: str

  def folder(self) -> Folder:
    """Its images, with labels whose format is not known yet."""
    return Folder(self.pairs.images, self.pairs.labels, self.pairs.ids)


def find_parts(images: str, labels: str, target: str = '', target_labels: str = '') -> list[Part]:
  """The sets 'source' and, where there are such images, 'source_val', 'target' and 'target_test'.

  Args:
    images, labels: folders of the images to learn from and of their labels.
    target: the folder of the images to adapt to; '' for none.
    target_labels: labels of images of `target` to measure on, which are those of its val or test
      folder or list; '' for none.

  Raises:
    BadInput: as `patterns.find`; one folder is given twice, or nothing is kept for measuring.
  """
  if target and os.path.realpath(target) == os.path.realpath(images):
    raise BadInput(f'{target}: is both --images and --target: give the images to adapt to')
  own = _splits(images, labels)
  found = [own['train']._replace(name='source')]
  found += [part._replace(name='source_val') for part in _measured(own)]
  if not target:
    return found
  theirs = _splits(target, target_labels)
  unlabelled = theirs['train'].pairs._replace(labels='', left=[])
  found.append(theirs['train']._replace(name='target', pairs=unlabelled))
  if not target_labels:
    return found
  if not (measured := _measured(theirs)):
    raise BadInput(
      f'{target}: all images would be adapted to and measured on: put some into folders train and '
      'val, or name them in lists train.txt and val.txt beside them; or leave out --target_labels'
    )
  return found + [part._replace(name='target_test') for part in measured]


def _measured(splits: Mapping[str, Part]) -> list[Part]:
  """The part that numbers are measured on, if it has labels."""
  found = [splits[name] for name in ('val', 'test') if name in splits]
  return [part for part in found if part.pairs.labels][:1]


def _splits(images: str, labels: str) -> dict[str, Part]:
  """The parts of a folder, 'train' and perhaps others: by its folders, by lists, or all is one."""
  folders = split_folders(images)
  if labels and not all(os.path.isdir(os.path.join(labels, name)) for name in folders.values()):
    folders = {}
  if folders:
    pairs = {
      split: find(os.path.join(images, name), labels and os.path.join(labels, name))
      for split, name in folders.items()
    }
    return {split: Part(split, found, '') for split, found in pairs.items()}
  pairs, refused = find(images, labels), []
  lists = {split: _list(split, images, pairs, refused) for split in SPLITS}
  pairs = pairs._replace(left=[*pairs.left, *refused])
  if not lists['train']:
    return {'train': Part('train', pairs, '')}
  return {
    split: Part(split, pairs._replace(ids=found[1]), found[0])
    for split, found in lists.items()
    if found
  }


def _list(
  split: str, images: str, pairs: Pairs, refused: list[str]
) -> tuple[str, list[str]] | None:
  """A list file of a split beside images, and its ids; None without one that names them.

  Why one is not taken is added to `refused`.
  """
  for directory in (images, os.path.dirname(os.path.abspath(images))):
    for name in SPLITS[split]:
      path = os.path.join(directory, f'{name}.txt')
      if not os.path.isfile(path):
        continue
      try:
        ids = image_ids.of_list('', path, pairs.images, functools.partial(list, pairs.ids))
      except BadInput as error:
        refused.append(str(error))
        continue
      if others := [each for each in ids if each not in set(pairs.ids)]:
        refused.append(f'{path}, which names {others[0]}')
        continue
      return path, ids
  return None
