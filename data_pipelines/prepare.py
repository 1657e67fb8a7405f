"""A data set packed into a few large files: TensorFlow Datasets in ArrayRecord shards.

Pixels that were PNG files lie in the shards as they are, since decoding is most of the work of
reading them; JPEG files are kept as files. Labels hold the raw ids of the label files, so that
tables apply as they do to folders. `tfds.builder_from_directory` opens the result without this
package.
"""

import functools
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module

from data_pipelines import atomic, digests, processes, records, transforms
from data_pipelines.doctor import Manifest
from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder, fingerprint
from data_pipelines.pack import (
  INDEX,
  LOW_SPLIT,
  SPLIT,
  VERSION,
  Index,
  Pack,
  Plan,
  Shard,
  read_record,
)

PLAN = 'plan.json'  # of a folder that is not complete
Files = dict[str, dict[str, Any]]  # as an index has them
# One image a group: they are read alone. Pixels hardly shrink, labels are compressed on their own.
OPTIONS = 'group_size:1,uncompressed'


def prepare(
  folder: Folder,
  directory: str | os.PathLike,
  manifest: Manifest | None,
  *,
  images: str = '',
  low_size: Sequence[int] = (),
  images_per_shard: int = 64,
  jobs: int = 1,
  progress: Callable[[int, int], object] = lambda done, total: None,
) -> pathlib.Path:
  """Packs a data set into DIRECTORY/1.0.0 by `jobs` processes; resumes an attempt that was killed.

  Returns the directory. Raises BadInput: a file is not what the manifest says, or the directory
  holds something else.

  Args:
    folder: the data set; its directory's name becomes that of the TensorFlow data set.
    manifest: what `doctor` found (`doctor.check_manifest`): each file is compared with its hash.
      None for labels that this package made.
    images: 'raw' pixels, 'jpeg' / 'png' files as they are, or 'none' for labels alone; '' keeps
      JPEG files and takes the pixels of others.
    low_size: (h, w) at which raw images are packed once more, () for no size: what the 'low' rows
      of a batch show need not be resized again.
    images_per_shard: 64 full-size images of raw pixels are 400 MB.
    progress: called with the number of images packed and of all, sizes counted apart.
  """
  directory = pathlib.Path(directory)
  images = images or ('jpeg' if _is_jpeg(folder) else 'raw')
  files = _files(folder, manifest)
  plan = _plan(folder, files, images, low_size, images_per_shard)
  if (directory / VERSION).exists():
    _check_plan(directory, Pack(directory).index, plan)
    return directory
  partial = directory / f'{VERSION}.partial'
  _begin(partial, plan)
  splits = [SPLIT] + [LOW_SPLIT] * bool(plan['low_size'])
  todo = [t for s in splits for t in _shard_files(partial, s, len(folder), plan)]
  shards, write = [], functools.partial(_write_shard, folder, files, plan)
  for shard in processes.in_order(write, todo, jobs):
    shards.append(shard)
    progress(sum(done['images'] for done in shards), len(splits) * len(folder))
  _write_metadata(partial, splits, plan, shards)
  begun = {partial / PLAN, *partial.glob('.*.json')}
  whole = sorted(set(partial.glob('[!.]*.json')) - {partial / PLAN, partial / INDEX})
  metadata = {path.name: digests.of_file(path) for path in whole}
  index: Index = {**plan, 'shards': shards, 'files': files, 'metadata': metadata}
  records.write(partial / INDEX, index)
  partial.rename(directory / VERSION)
  for path in begun:
    (directory / VERSION / path.name).unlink()
  return directory


def _plan(folder: Folder, files: Files, images: str, low_size: Sequence[int], each: int) -> Plan:
  """All that the shards depend on, as JSON gives it back."""
  plan = {
    'fingerprint': fingerprint(
      {name: {part: facts[1] for part, facts in parts.items()} for name, parts in files.items()}
    ),
    'images': images,
    'low_size': low_size if images == 'raw' else (),
    'images_per_shard': each,
    'labelled': bool(folder.labels),
    'label_format': folder.label_format,
    'colours': folder.colours,
  }
  return json.loads(json.dumps(plan))


def _files(folder: Folder, manifest: Manifest | None) -> Files:
  """By id and 'image' or 'label': what the manifest has of the file; without one, of the label.

  Raises BadInput: the manifest lacks a file, or `doctor` did not find it.
  """
  if not manifest:
    paths = [folder.label_path(i) for i in range(len(folder))]
    found = zip(folder.ids, paths, digests.of_files(paths), strict=True)
    return {name: {'label': [os.path.getsize(path), digest]} for name, path, digest in found}
  parts = ('image', 'label') if folder.labels else ('image',)
  found = {
    name: {part: manifest['files'].get(name, {}).get(part) for part in parts} for name in folder.ids
  }
  for name, facts in found.items():
    if not all(facts.values()):
      raise BadInput(f'{name}: doctor has not seen its {" and ".join(parts)}; run doctor again')
  return found


def _is_jpeg(folder: Folder) -> bool:
  with open(folder.image_path(0), 'rb') as file:
    return file.read(3) == b'\xff\xd8\xff'


def _check_plan(directory: pathlib.Path, there: Plan, plan: Plan) -> None:
  different = [key for key in plan if there.get(key) != plan[key]]
  if different:
    raise BadInput(
      f'{directory}: holds shards that were made from other files or settings ({different[0]}); '
      'give another --output'
    )


def _begin(partial: pathlib.Path, plan: Plan) -> None:
  """Makes the folder for a plan, or checks that it was begun for the same one."""
  path = partial / PLAN
  if path.exists():
    _check_plan(partial, read_record(path, Plan), plan)
    atomic.sweep(partial)
    return
  shutil.rmtree(partial, ignore_errors=True)
  records.write(path, plan)


def _shard_files(
  partial: pathlib.Path, split: str, images: int, plan: Plan
) -> Iterator[tuple[str, str, range]]:
  """(split, path, positions of the images) of every shard of a split."""
  template, each = _template(partial, split), plan['images_per_shard']
  count = -(-images // each)
  for i in range(count):
    path = template.sharded_filepath(shard_index=i, num_shards=count)
    yield split, os.fspath(path), range(i * each, min((i + 1) * each, images))


def _template(partial: pathlib.Path, split: str) -> tfds.core.ShardedFileTemplate:
  return tfds.core.ShardedFileTemplate(
    data_dir=str(partial),
    dataset_name=partial.parent.name,
    split=split,
    filetype_suffix='array_record',
  )


def _features(plan: Plan) -> tfds.features.FeaturesDict:
  kinds, encoding = tfds.features, tfds.features.Encoding
  features = {'id': kinds.Text()}
  if plan['images'] == 'raw':
    features['image'] = kinds.Tensor(shape=(None, None, 3), dtype=np.uint8, encoding=encoding.BYTES)
  elif plan['images'] != 'none':
    features['image'] = kinds.Image(shape=(None, None, 3), encoding_format=plan['images'])
  if plan['labelled']:
    features['label'] = kinds.Tensor(shape=(None, None), dtype=np.uint8, encoding=encoding.ZLIB)
  return kinds.FeaturesDict(features)


def _write_shard(folder: Folder, files: Files, plan: Plan, todo: tuple[str, str, range]) -> Shard:
  """Writes one shard and, beside it, its record, unless they are there."""
  split, path, indices = todo
  record_path = pathlib.Path(path).with_name(f'.{os.path.basename(path)}.json')
  if os.path.exists(path) and record_path.exists():
    made: Shard = read_record(record_path, Shard)
    if digests.of_file(path) == made['sha256']:
      return made
  features, raw_ids = _features(plan), set()
  with atomic.replacing(path) as part:
    writer = array_record_module.ArrayRecordWriter(str(part), OPTIONS)
    for index in indices:
      example = _example(folder, index, files, plan['images'])
      raw_ids.update(example.get('label', np.empty(0, np.uint8)).tobytes())
      if split == LOW_SPLIT:
        example = _resize(example, tuple(plan['low_size']))
      writer.write(features.serialize_example(example))
    writer.close()
    record: Shard = {
      'split': split,
      'file': os.path.basename(path),
      'bytes': part.stat().st_size,
      'modified': part.stat().st_mtime_ns,
      'sha256': digests.of_file(part),
      'images': len(indices),
      'raw_ids': sorted(raw_ids),
    }
    records.write(record_path, record)  # before the shard: one that is there has its record
  return record


def _resize(example: dict[str, Any], size: transforms.Size) -> dict[str, Any]:
  """An example as the input pipeline resizes it."""
  label = transforms.picture(example['label']) if 'label' in example else None
  pair = transforms.resize((transforms.picture(example['image']), label), size)
  parts = zip(('image', 'label'), pair, strict=True)
  return example | {part: picture.whole() for part, picture in parts if picture}


def _example(folder: Folder, index: int, files: Files, images: str) -> dict[str, Any]:
  example: dict[str, Any] = {'id': folder.ids[index]}
  pixels = folder.read_image(index)  # refuses what no training could read
  if images != 'none':
    path = _check_hash(folder.image_path(index), files[folder.ids[index]]['image'])
    example['image'] = pixels if images == 'raw' else path
  if folder.labels:
    _check_hash(folder.label_path(index), files[folder.ids[index]]['label'])
    example['label'] = folder.read_raw(index)
    folder.check_raw(index, example['label'], pixels.shape)
  return example


def _check_hash(path: str, facts: Sequence[Any]) -> str:
  """The path; raises BadInput unless the file there is the one that is known."""
  if facts[1] != digests.of_file(path):
    raise BadInput(f'{path}: is not the file that doctor saw; run doctor again')
  return path


def _write_metadata(
  partial: pathlib.Path, splits: Sequence[str], plan: Plan, shards: Sequence[Shard]
) -> None:
  """What makes the folder a TensorFlow data set."""
  infos = [
    tfds.core.SplitInfo(
      name=split,
      shard_lengths=[shard['images'] for shard in shards if shard['split'] == split],
      num_bytes=sum(shard['bytes'] for shard in shards if shard['split'] == split),
      filename_template=_template(partial, split),
    )
    for split in splits
  ]
  tfds.folder_dataset.write_metadata(
    data_dir=str(partial),
    features=_features(plan),
    split_infos=infos,
    version=VERSION,
    filename_template=_template(partial, SPLIT),
    check_data=False,
    description='Images with the raw ids of their labels, packed by diga_jax.',
  )
