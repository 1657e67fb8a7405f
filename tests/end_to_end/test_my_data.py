"""One's own data by settings alone: formats, pairs, colours, names; files that cannot be read."""

import itertools
import logging
import pathlib

import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import BadInput
from diga_jax.__main__ import main
from diga_jax.configs import gta5_generalization, gta5_to_cityscapes, hiast_gta5, my_data
from diga_jax.recipe import evaluation, training
from diga_jax.recipe.experiment import Run, class_names, palette
from tests.support import data_files

SIZE = (192, 256)


@pytest.fixture
def root(tmp_path) -> pathlib.Path:
  """The files that configs/my_data.py speaks of."""
  rng = np.random.default_rng(0)
  colours = np.array([(0, 0, 0), *my_data.COLOURS], np.uint8)
  for index in range(6):
    image = Image.fromarray(rng.integers(0, 256, (*SIZE, 3), np.uint8))
    ids = rng.integers(0, 8, SIZE, np.uint8)
    data_files.save(tmp_path / f'simulator/images/{index}.png', image)
    data_files.save(tmp_path / f'simulator/labels/{index}.png', Image.fromarray(ids))
    data_files.save(tmp_path / f'street/images/{index}.jpg', image)
    data_files.save(
      tmp_path / f'street/colours/{index}.png', Image.fromarray(colours[np.minimum(ids, 6)])
    )
  (tmp_path / 'street/train.txt').write_text('0\n1\n2\n')
  (tmp_path / 'street/test.txt').write_text('3\n4\n5\n')
  return tmp_path


def experiment(root: pathlib.Path, **changes) -> Run:
  config = my_data.get_config()
  config.devices = 1
  config.data.root, config.data.cache = str(root), str(root / 'cache')
  for field, value in changes.items():
    config.data[field] = value
  return Run(config, root / 'run')


def test_the_template_reads_its_files(root):
  found = experiment(root)
  raw = np.array(Image.open(root / 'simulator/labels/2.png'))
  _, label = found.images('source').read(2)
  np.testing.assert_array_equal(label, np.array([255, 0, 1, 2, 3, 4, 5, 5])[raw])
  image, label = found.images('street_test').read(0)
  raw = np.minimum(np.array(Image.open(root / 'simulator/labels/3.png')), 6)
  np.testing.assert_array_equal(label, np.array([255, 0, 1, 2, 3, 4, 5])[raw])
  assert image.shape == (*SIZE, 3)
  assert found.images('target', labelled=False).ids == ['0', '1', '2']
  assert class_names(found) == my_data.CLASSES
  np.testing.assert_array_equal(palette(found), my_data.COLOURS)
  assert evaluation.class_means(found).subsets == {'6': range(6)}
  assert evaluation.class_set(found) == 'own 6 (756933d7)'


def test_the_doctor_looks_at_it(root, capsys):
  files = ['--config=configs/my_data.py', f'--config.data.root={root}', '--jobs=1']
  files.append(f'--config.data.cache={root / "cache"}')
  assert main(['doctor', *files]) == 0
  assert 'vehicle' in capsys.readouterr().out
  pixels = np.array(Image.open(root / 'simulator/labels/1.png'))
  pixels[0, 0] = 9
  Image.fromarray(pixels).save(root / 'simulator/labels/1.png')
  assert main(['doctor', *files, '--sets', 'source']) == 1
  assert 'unknown id: 1' in capsys.readouterr().out


def test_names_and_colours_for_another_number_of_classes_are_refused(root):
  with pytest.raises(BadInput, match=r'config\.data\.class_names has 2 entries for 6 classes'):
    experiment(root, class_names=('a', 'b'))
  with pytest.raises(BadInput, match=r'config\.data\.palette has 1 entries'):
    experiment(root, palette=((1, 2, 3),))


def test_training_goes_on_without_bad_files_if_told_so(root, caplog):
  (root / 'simulator/images/3.png').write_bytes(b'')
  stopping = experiment(root)
  with pytest.raises(BadInput, match=r'simulator/images/3.png: .*doctor.*on_bad_file'):
    list(itertools.islice(training.batches(stopping, 'source_only', 0, target=None), 3))
  skipped: dict[str, str] = {}
  list(
    itertools.islice(training.batches(stopping, 'source_only', 0, target=None, skipped=skipped), 3)
  )
  with caplog.at_level(logging.WARNING):
    result = training.report_skipped('source_only', skipped)
  bad = str(root / 'simulator/images/3.png')
  assert list(result['skipped']) == [bad] and bad in result['skipped'][bad]
  assert '1 images were skipped' in caplog.text
  with pytest.raises(BadInput, match='it may be stop, skip'):
    experiment(root, on_bad_file='ignore')


def test_published_configs_name_the_published_selections():
  assert gta5_to_cityscapes.get_config().data.sets.source.list == 'gta5_diga_18111'
  assert hiast_gta5.get_config().data.sets.source.without == 'gta5_unusable_25'
  config = gta5_generalization.get_config()
  native, resized = (config.data.sets[f'bdd100k_val{end}'] for end in ('', '_resized'))
  assert native.evaluation_size == () and resized.evaluation_size == (720, 1280)
  assert native.images == resized.images
  assert set(config.evaluation.sets) < set(config.data.sets) | {'cityscapes_val'}


def test_a_split_and_its_rest_make_the_whole(tmp_path):
  """Semi-supervised: the labelled part by a list, the rest without it, in Cityscapes' folders."""
  from data_pipelines import image_ids, sets
  from diga_jax.configs import datasets

  split = image_ids.read_list(str(image_ids.LISTS / 'cityscapes_labelled_1-16.txt'))
  town = {name: f'{name.partition("_")[0]}/{name}' for name in [*split, 'ulm_000000_000019']}
  for name in town.values():
    path = tmp_path / f'cityscapes/leftImg8bit/train/{name}_leftImg8bit.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()

  def ids(**changes):
    settings = datasets.cityscapes('train', labelled=False, **changes).to_dict()
    options = {'name': 'it', 'root': str(tmp_path), 'cache': '', 'classes': 19, 'labelled': False}
    return sets.open_set(settings, **options).ids

  assert ids(list='cityscapes_labelled_1-16') == [town[name] for name in split]
  assert ids(without='cityscapes_labelled_1-16') == ['ulm/ulm_000000_000019']
  assert len(ids()) == 187
  (tmp_path / 'cityscapes/leftImg8bit/train' / f'{town[split[0]]}_leftImg8bit.png').unlink()
  with pytest.raises(BadInput, match='cannot be left out: there is no such image'):
    ids(without='cityscapes_labelled_1-16')
