"""What the data sets of one config share, and which of it makes numbers worthless."""

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from data_pipelines import published_sets
from data_pipelines.doctor import FileReport, Finding
from data_pipelines.folder import Folder


class Inspected(NamedTuple):
  """A data set, and what `inspect_all` gave for it."""

  folder: Folder
  files: Sequence[FileReport]


def compare(
  sets: Mapping[str, Inspected], measured: Collection[str], trained: Collection[str]
) -> tuple[list[str], list[Finding]]:
  """What data sets of one config share: facts in words, and what makes numbers worthless.

  Args:
    sets: by name.
    measured: names of the evaluation sets.
    trained: names of the sets that stages read.
  """
  both = [name for name in measured if name in trained]
  facts, same, drives = [], [], []
  for first, second in itertools.permutations(sets, 2):
    leak = first in measured and second in trained
    if not leak and (first > second or (second in measured and first in trained)):
      continue  # the pair comes once, the test set first
    shared = list(_shared_images(sets[first], sets[second]))
    if leak:
      same += shared
    elif shared:
      facts.append(f'{first} and {second}: {len(shared):,} images are the same')
    for drive, by_design, count in _shared_drives(sets[first].folder, sets[second].folder):
      if leak and not by_design:
        drives.append(f'{drive}: {count[0]} images of {first}, {count[1]} of {second}')
      elif leak:
        facts.append(f'{first} and {second}: frames of the drive {drive} in both, as published')
  apart = 'measure on images that no stage is trained on'
  without = 'leave them out of the set that is trained on, by `without`'
  findings = [
    Finding('a set is trained on and measured', both, apart),
    Finding('test images in a training set', same, without),
    Finding('frames of one drive in a test and a training set', drives, without),
  ]
  return facts, [finding for finding in findings if finding.where]


def shared_scenes(
  sets: Mapping[str, Mapping[str, Any]], measured: Collection[str], trained: Collection[str]
) -> list[Finding]:
  """Rendered scenes that are measured on and trained on; `sets` are the settings."""
  numbers = {
    name: {(each['look'], each['first'] + i) for i in range(each['count'])}
    for name, each in sets.items()
    if each['kind'] == 'scenes'
  }
  where = [
    f'{first} and {second}: {len(shared)} scenes, the first is number {min(shared)[1]}'
    for first, second in itertools.product(numbers, numbers)
    if first != second and first in measured and second in trained
    if (shared := numbers[first] & numbers[second])
  ]
  fix = 'set first and count of one of them so that no number is in both'
  return [Finding('test scenes in a training set', where, fix)] * bool(where)


def _shared_images(first: Inspected, second: Inspected) -> Iterator[str]:
  """'PATH = PATH' for the images of one set whose pixels another set has, however stored."""
  places = {file.picture: index for index, file in enumerate(second.files) if file.picture}
  for index, file in enumerate(first.files):
    if file.picture in places:
      other = second.folder.image_path(places[file.picture])
      yield f'{first.folder.image_path(index)} = {other}'


def _shared_drives(first: Folder, second: Folder) -> Iterator[tuple[str, bool, tuple[int, int]]]:
  """(drive, whether it is shared by design, its images in either set)."""
  ours, theirs = (Counter(map(published_sets.drive_of, each.ids)) for each in (first, second))
  for drive, by_design in sorted(ours.keys() & theirs.keys()):
    if drive:
      yield drive, by_design, (ours[drive, by_design], theirs[drive, by_design])
