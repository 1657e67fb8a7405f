"""A data set packed into a few large files: TensorFlow Datasets in ArrayRecord shards.

Pixels that were PNG files lie in the shards as they are, since decoding is most of the work of
reading them; JPEG files are kept as files. Labels hold the raw ids of the label files, so that
tables apply as they do to folders. `tfds.builder_from_directory` opens the result without this
package.
"""

import functools
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module

from data_pipelines import processes, transforms
from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder
from data_pipelines.label_tables import UNKNOWN, title
from data_pipelines.pack import INDEX, LOW_SPLIT, SPLIT, VERSION, Pack, _read_index

# One image a group: they are read alone. Pixels hardly shrink, labels are compressed on their own.
OPTIONS = 'group_size:1,uncompressed'


def packed(folder: Folder, pack: Pack) -> Folder:
  """The folder's labels if it has any, and the images if the pack has them, read from a pack.

  Raises:
    BadInput: the pack lacks an image or the labels, or holds labels of another format.
  """
  missing = next((name for name in folder.ids if name not in pack), None)
  if missing is not None:
    raise BadInput(f'{pack.directory}: lacks the image {missing}; prepare the set again')
  if folder.labels:
    has = pack.index['label_format'], [list(colour) for colour in pack.index['colours']]
    wants = folder.label_format, [list(colour) for colour in folder.colours]
    if not pack.index['labelled'] or has != wants:
      held = f"labels of format '{has[0]}'" if pack.index['labelled'] else 'no labels'
      raise BadInput(
        f"{pack.directory}: holds {held}, not those of label_format '{wants[0]}' and its colours; "
        'prepare the set again'
      )
    occurring = {raw for shard in pack.index['shards'] for raw in shard['raw_ids']}
    unknown = [raw for raw in sorted(occurring) if folder.lut[raw] == UNKNOWN]
    if unknown:
      raise BadInput(
        f'{pack.directory}: label id {unknown[0]} occurs and is unknown to the table '
        f'{title(folder.table)}: choose another table'
      )
  return folder.reading(pack, images=pack.index['images'] != 'none')


# Making one.


def prepare(
  folder: Folder,
  directory: str | os.PathLike,
  manifest: Mapping[str, Any] | None,
  *,
  images: str = '',
  low_size: tuple[int, int] = (),
  images_per_shard: int = 64,
  jobs: int = 1,
  progress: Callable[[int, int], Any] = lambda done, total: None,
) -> pathlib.Path:
  """Packs a data set into DIRECTORY/1.0.0, going on where an earlier attempt was killed.

  Args:
    folder: the data set; its directory's name becomes that of the TensorFlow data set.
    directory: the folder to make.
    manifest: what `doctor` saw (`doctor.check_manifest`): every file is compared with its hash.
      None for labels that this package made.
    images: 'raw' pixels, 'jpeg' / 'png' files as they are, or 'none' for labels alone; '' keeps
      JPEG files and takes the pixels of others.
    low_size: (h, w) at which raw images are packed once more, () for no size: what the 'low' rows
      of a batch show need not be resized again.
    images_per_shard: 64 full-size images of raw pixels are 400 MB.
    jobs: processes.
    progress: called with the number of images packed and of all, sizes counted apart.

  Returns:
    The folder, complete.

  Raises:
    BadInput: a file is not what the manifest says, or the folder holds something else.
  """
  directory = pathlib.Path(directory)
  images = images or ('jpeg' if _is_jpeg(folder) else 'raw')
  plan = _plan(folder, images, low_size, images_per_shard)
  if (directory / VERSION).exists():
    _check_plan(directory, _read_index(directory / VERSION / INDEX), plan)
    return directory
  partial = directory / f'{VERSION}.partial'
  _begin(partial, plan)
  splits = [SPLIT] + [LOW_SPLIT] * bool(plan['low_size'])
  planned = [p for s in splits for p in _planned(partial, directory.name, s, len(folder), plan)]
  shards, write = [], functools.partial(_write_shard, folder, manifest, plan)
  for shard in processes.in_order(write, planned, jobs):
    shards.append(shard)
    progress(sum(done['images'] for done in shards), len(splits) * len(folder))
  _write_metadata(partial, directory.name, splits, folder, plan, shards)
  files = manifest['files'] if manifest else _sizes(folder)
  index = {**plan, 'shards': shards, 'files': {name: files[name] for name in folder.ids}}
  (partial / INDEX).write_text(json.dumps(index))
  for left in partial.glob('*.array_record-*.json'):
    left.unlink()
  partial.rename(directory / VERSION)
  return directory


def _plan(folder: Folder, images: str, low_size: Sequence[int], each: int) -> dict[str, Any]:
  """All that the shards depend on, as JSON gives it back."""
  plan = {
    'fingerprint': folder.fingerprint(),
    'images': images,
    'low_size': low_size if images == 'raw' else (),
    'images_per_shard': each,
    'labelled': bool(folder.labels),
    'label_format': folder.label_format,
    'colours': folder.colours,
  }
  return json.loads(json.dumps(plan))


def _sizes(folder: Folder) -> dict[str, dict[str, list[int | None]]]:
  found = folder.file_sizes()
  return {name: {part: [size] for part, size in sizes.items()} for name, sizes in found.items()}


def _is_jpeg(folder: Folder) -> bool:
  with open(folder.image_path(0), 'rb') as file:
    return file.read(3) == b'\xff\xd8\xff'


def _check_plan(directory: pathlib.Path, there: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
  different = [key for key in plan if there.get(key) != plan[key]]
  if different:
    raise BadInput(
      f'{directory}: holds shards that were made from other files or settings ({different[0]}); '
      'delete it, or give another --output'
    )


def _begin(partial: pathlib.Path, plan: Mapping[str, Any]) -> None:
  """Makes the folder for a plan, or checks that it was begun for the same one."""
  path = partial / 'plan.json'
  if path.exists():
    _check_plan(partial, _read_index(path), plan)
    return
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir(parents=True)
  begun = path.with_suffix('.part')
  begun.write_text(json.dumps(plan))
  begun.rename(path)  # whole or not there, whenever this is killed


def _planned(partial, name, split, images, plan) -> Iterator[tuple[str, str, range]]:
  """(split, path, positions of the images) of every shard of a split."""
  template, each = _template(partial, name, split), plan['images_per_shard']
  count = -(-images // each)
  for i in range(count):
    path = template.sharded_filepath(shard_index=i, num_shards=count)
    yield split, os.fspath(path), range(i * each, min((i + 1) * each, images))


def _template(directory: pathlib.Path, name: str, split: str) -> tfds.core.ShardedFileTemplate:
  return tfds.core.ShardedFileTemplate(
    data_dir=str(directory), dataset_name=name, split=split, filetype_suffix='array_record'
  )


def _features(images: str, labelled: bool) -> tfds.features.FeaturesDict:
  kinds = tfds.features
  raw = kinds.Tensor(shape=(None, None, 3), dtype=np.uint8, encoding=kinds.Encoding.BYTES)
  kept = kinds.Image(shape=(None, None, 3), encoding_format='jpeg' if images == 'jpeg' else 'png')
  features = {'id': kinds.Text(), 'image': raw if images == 'raw' else kept}
  if images == 'none':
    del features['image']
  if labelled:
    features['label'] = kinds.Tensor(
      shape=(None, None), dtype=np.uint8, encoding=kinds.Encoding.ZLIB
    )
  return kinds.FeaturesDict(features)


def _write_shard(folder, manifest, plan, shard) -> dict[str, Any]:
  """One shard and its record (split, file, size, hash, images, raw ids), unless they are there."""
  split, path, indices = shard
  record_path = pathlib.Path(f'{path}.json')
  if os.path.exists(path):
    return json.loads(record_path.read_text())
  features = _features(plan['images'], bool(folder.labels))
  part, raw_ids = f'{path}.part', set()
  writer = array_record_module.ArrayRecordWriter(part, OPTIONS)
  for index in indices:
    example = _example(folder, index, manifest, plan['images'])
    raw_ids.update(example.get('label', np.empty(0, np.uint8)).tobytes())
    if split == LOW_SPLIT:
      example = _low(example, plan['low_size'])
    writer.write(features.serialize_example(example))
  writer.close()
  with open(part, 'rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  record = {
    'split': split,
    'file': os.path.basename(path),
    'bytes': os.path.getsize(part),
    'sha256': digest,
    'images': len(indices),
    'raw_ids': sorted(raw_ids),
  }
  record_path.write_text(json.dumps(record))
  os.replace(part, path)  # only now: a shard that is there has its record
  return record


def _low(example: dict[str, Any], size: Sequence[int]) -> dict[str, Any]:
  """An example as the input pipeline resizes it."""
  label = example.get('label')
  pair = transforms.resize(
    (transforms.picture(example['image']), None if label is None else transforms.picture(label)),
    tuple(size),
  )
  parts = {'image': pair[0], 'label': pair[1]}
  return example | {part: x.whole() for part, x in parts.items() if x is not None}


def _example(folder: Folder, index: int, manifest: Mapping[str, Any] | None, images: str) -> dict:
  example: dict[str, Any] = {'id': folder.ids[index]}
  seen = manifest['files'].get(folder.ids[index], {}) if manifest else None
  path = folder.image_path(index)
  pixels = folder.read_image(index)  # refuses what no training could read
  if images != 'none':
    _check_hash(path, seen, 'image')
    example['image'] = pixels if images == 'raw' else path
  if folder.labels:
    _check_hash(folder.label_path(index), seen, 'label')
    example['label'] = folder.read_raw(index)
    folder.train_ids(index, example['label'], pixels.shape)
  return example


def _check_hash(path: str, seen: Mapping[str, Any] | None, part: str) -> None:
  if seen is None:
    return
  with open(path, 'rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  if not seen.get(part) or seen[part][1] != digest:
    raise BadInput(f'{path}: is not the file that doctor saw; run doctor again')


def _write_metadata(partial, name, splits, folder, plan, shards) -> None:
  """What makes the folder a TensorFlow data set."""
  infos = [
    tfds.core.SplitInfo(
      name=split,
      shard_lengths=[shard['images'] for shard in shards if shard['split'] == split],
      num_bytes=sum(shard['bytes'] for shard in shards if shard['split'] == split),
      filename_template=_template(partial, name, split),
    )
    for split in splits
  ]
  tfds.folder_dataset.write_metadata(
    data_dir=str(partial),
    features=_features(plan['images'], bool(folder.labels)),
    split_infos=infos,
    version=VERSION,
    filename_template=_template(partial, name, SPLIT),
    check_data=False,
    description='Images with the raw ids of their labels, packed by diga_jax.',
  )
