"""Every published config on folders laid out as its data sets are: they open, and are cut."""

import os
import pathlib

import numpy as np
import pytest

from data_pipelines import label_tables
from data_pipelines.image_ids import LISTS, read_list
from diga_jax.recipe import graph, training
from diga_jax.recipe.experiment import Run
from diga_jax.recipe.labels import save_arrays
from diga_jax.stages.kinds import inputs, kind_of
from diga_jax.storage import stage_folder
from tests.support import frozen
from tests.support.data_files import png

SIZE = (76, 128)  # of every file; published images are larger
# What the label files of each data set are, by the folder that it comes in, whatever a config says:
# colour type, bits and channels of PNG, and the raw ids.
LABELS = {
  'GTA5': (0, 8, 1, range(35)),
  'SYNTHIA-RAND-CITYSCAPES': (2, 16, 3, range(23)),
  'cityscapes': (0, 8, 1, range(34)),
  'bdd100k': (0, 8, 1, (*range(19), 255)),
  'mapillary': (0, 8, 1, range(66)),
  'Oxford_Robot_ICCV19': (6, 8, 4, range(18)),
  'synthcity': (0, 8, 1, range(19)),
  'camvid': (0, 8, 1, range(12)),
}
CONFIGS = {
  name: get_config
  for name, get_config in frozen.CONFIGS.items()
  if name != 'my_data'  # which is to be changed
  and any(images.kind == 'folder' for images in get_config().data.sets.values())
}


def ids_of(settings) -> list[str]:
  """The set's list, or some names and those that the config leaves out."""
  names = [name for name in (settings.list, settings.without) if (LISTS / f'{name}.txt').exists()]
  listed = [name for file in names for name in read_list(str(LISTS / f'{file}.txt'))]
  return listed if settings.list in names else [*listed, 'a/b/extra_1', 'a/b/extra_2']


def lay_out(root: pathlib.Path, settings) -> None:
  """Writes the files of a set, all of them alike, and its list if none is shipped."""
  rng, ids = np.random.default_rng(0), ids_of(settings)
  image = rng.integers(0, 255, (*SIZE, 3))
  write_all(root, settings.images, ids, png(image, 2))
  if settings.labels:
    colour, bits, channels, raw_ids = LABELS[settings.labels.partition('/')[0]]
    label = rng.choice(raw_ids, SIZE)
    pixels = np.stack([label, *[np.zeros_like(label)] * (channels - 1)], -1)
    write_all(root, settings.labels, ids, png(pixels, colour, bits))
  if settings.list and not (LISTS / f'{settings.list}.txt').exists():
    path = root / settings.list
    path.parent.mkdir(parents=True, exist_ok=True)
    before = read_list(str(path)) if path.exists() else []  # another set's, of the same list
    path.write_text('\n'.join(dict.fromkeys([*before, *ids])))


def write_all(root: pathlib.Path, pattern: str, ids: list[str], data: bytes) -> None:
  """The same file under every id: written once, linked."""
  first = root / 'once' / pattern.replace('/', '_')
  first.parent.mkdir(parents=True, exist_ok=True)
  first.write_bytes(data)
  for name in ids:
    path = root / pattern.replace('{id}', name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
      os.link(first, path)


def on_disk(tmp_path: pathlib.Path, get_config) -> Run:
  config = get_config()
  config.devices = 1
  config.data.root = str(tmp_path / 'data')
  config.data.cache = str(tmp_path / 'cache')
  for settings in config.data.sets.values():
    if settings.kind == 'folder':
      lay_out(tmp_path / 'data', settings)
  return Run(config, tmp_path / 'run')


@pytest.mark.parametrize('name', CONFIGS)
def test_every_set_that_a_recipe_reads_opens(tmp_path, name):
  run = on_disk(tmp_path, CONFIGS[name])
  for stage in graph.stages_of(run):
    for key, labelled in inputs(run.stage(stage), run.config).sets.items():
      if run.config.data.sets[key].kind == 'folder':
        check_example(run.images(key, labelled), labelled, run.config.data.classes)
  for key in run.config.evaluation.sets:
    check_example(run.images(key), True, run.config.data.classes)


def check_example(images, labelled: bool, classes: int) -> None:
  image, label = images.read(len(images) - 1)
  assert image.shape == (*SIZE, 3) and (label is not None) == labelled
  if label is not None:
    found = set(np.unique(label).tolist()) - {label_tables.IGNORE}
    assert found and max(found) < classes


@pytest.mark.parametrize('name', CONFIGS)
def test_every_stage_gets_a_batch(tmp_path, name):
  run = on_disk(tmp_path, CONFIGS[name])
  for stage in graph.stages_of(run):
    reads, settings = inputs(run.stage(stage), run.config), run.stage(stage)
    if kind_of(settings).train_step is None:
      label(run, stage)
      continue
    batch = next(training.batches(run, stage, 7, **training.target_of(run, settings)))
    rows = settings.batch.low_rows + settings.batch.full_rows
    views = {view for view in ('source', 'target') if getattr(reads, view)}
    assert {key.split('_')[0] for key in batch} == views
    for pixels in batch.values():
      assert pixels.shape[:3] == (rows, *run.config.data.crop)


def label(run: Run, stage: str) -> None:
  """A label stage's folder: every class in every label."""
  target, classes = run.images(run.stage(stage).target, labelled=False), run.config.data.classes

  def build(place: pathlib.Path) -> None:
    pixels = np.resize(np.arange(classes), SIZE)
    write_all(place, 'labels/{id}.png', target.ids, png(pixels, 0))
    counts = np.ones((len(target), classes), np.int64)
    confidence = np.linspace(0.5, 1, classes)
    made = {'ids': np.array(target.ids), 'counts': counts, 'confidence': confidence}
    save_arrays(place / 'index.npz', **made)

  stage_folder.produce(run.workdir / stage, {}, build)
