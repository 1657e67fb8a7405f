"""Batches as a function of (seed, step); every damaged file is named."""

import dataclasses
import itertools
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipelines import copy_paste, host_tensorflow, pipeline, transforms
from data_pipelines.errors import BadInput
from tests.support import data_files

CROP = (16, 24)


def view(folder, **changes) -> pipeline.View:
  settings = {
    'low_rows': 2, 'full_rows': 2, 'low_size': (24, 32),
    'crop': CROP, 'cut': 'sized', 'redraw': True,
  } | changes  # fmt: skip
  return pipeline.View(folder, **settings)


def take(views, count: int, **options) -> list[dict[str, np.ndarray]]:
  options = {'seed': 1} | options
  return list(itertools.islice(pipeline.batches(views, **options), count))


def assert_equal(first, second) -> None:
  assert first.keys() == second.keys()
  for name in first:
    np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@pytest.fixture(scope='module')
def views(tmp_path_factory):
  """A labelled source and a target without labels, of different sizes and numbers of images."""
  source = data_files.coded(tmp_path_factory.mktemp('source'), 7)
  target = data_files.numbered(tmp_path_factory.mktemp('target'), 5, (30, 40), labels='')
  return {'source': view(source), 'target': view(target, redraw=False, cut='plain')}


@pytest.fixture(scope='module')
def first_batches(views):
  return take(views, 6)


def test_shapes_types_and_names(first_batches):
  batch = first_batches[0]
  assert set(batch) == {'source_image', 'source_label', 'target_image'}
  assert batch['source_image'].shape == batch['target_image'].shape == (4, *CROP, 3)
  assert batch['source_label'].shape == (4, *CROP)
  assert {x.dtype for x in batch.values()} == {np.dtype(np.uint8)}


@settings(max_examples=4, deadline=None)
@given(start=st.integers(1, 5))
def test_starting_later_gives_the_same_batches(views, first_batches, start):
  for got, expected in zip(take(views, 2, start=start), first_batches[start:], strict=False):
    assert_equal(got, expected)


@pytest.mark.parametrize('cuts', [[2], [1, 3]])
def test_the_hosts_rows_make_the_whole_batch(views, first_batches, cuts):
  ends = [0, *cuts, 4]
  parts = [take(views, 2, rows=slice(a, b)) for a, b in itertools.pairwise(ends)]
  for step in range(2):
    joined = {k: np.concatenate([part[step][k] for part in parts]) for k in parts[0][step]}
    assert_equal(joined, first_batches[step])


@pytest.mark.parametrize('parallel_calls', [1, 4])
def test_parallelism_does_not_matter(views, first_batches, parallel_calls):
  for got, expected in zip(
    take(views, 4, parallel_calls=parallel_calls), first_batches, strict=False
  ):
    assert_equal(got, expected)


def test_a_view_does_not_depend_on_the_other_views(views, first_batches):
  alone = take({'target': views['target']}, 3)
  for got, expected in zip(alone, first_batches, strict=False):
    np.testing.assert_array_equal(got['target_image'], expected['target_image'])


def test_other_seeds_views_steps_and_rows_are_drawn_otherwise(tmp_path):
  folder = data_files.coded(tmp_path, 1)
  one = view(folder, low_rows=0, full_rows=3, redraw=False)
  pairs = {'a': one, 'b': one}
  batches = [*take(pairs, 3, seed=1), *take(pairs, 3, seed=2**40)]
  images = {row.tobytes() for batch in batches for name in pairs for row in batch[f'{name}_image']}
  assert len(images) == len(batches) * len(pairs) * 3


@pytest.mark.parametrize(
  ('low', 'full', 'count'), [(1, 2, 7), (2, 2, 4), (1, 0, 5), (3, 2, 3), (0, 2, 1)]
)
def test_every_epoch_shows_every_image_once(tmp_path, low, full, count):
  folder = data_files.numbered(tmp_path, count, labels='')
  one = view(folder, low_rows=low, full_rows=full, redraw=False, cut='plain')
  epochs = 3
  steps = -(-epochs * count // (low + full))
  stream = np.concatenate([batch['v_image'][:, 0, 0, 0] for batch in take({'v': one}, steps)])
  by_epoch = stream[: epochs * count].reshape(epochs, count)
  for epoch in by_epoch:
    assert sorted(epoch) == list(range(count))
  if count > 4:
    assert len(set(map(bytes, by_epoch))) > 1
  named = [i for step in range(steps) for i in pipeline.image_indices('v', one, seed=1, step=step)]
  assert named == stream.tolist()


def test_image_and_label_move_together(tmp_path):
  one = view(data_files.coded(tmp_path, 4), low_rows=0, full_rows=4)
  for batch in take({'v': one}, 5):
    ten_times = batch['v_image'][..., 0].astype(int)
    label = batch['v_label'].astype(int)
    # The image is resized bilinearly: only where a block's neighbours are the same does it say 10x.
    centre = label[:, 1:-1, 1:-1]
    inside = (centre == label[:, :-2, 1:-1]) & (centre == label[:, 2:, 1:-1])
    inside &= (centre == label[:, 1:-1, :-2]) & (centre == label[:, 1:-1, 2:])
    apart = np.abs(ten_times - 10 * label)[:, 1:-1, 1:-1]
    assert inside.mean() > 0.3
    assert (apart[inside] <= 12).mean() > 0.95 and np.median(apart[inside]) == 0


def test_plain_rows_are_exactly_a_mirrored_or_plain_window(tmp_path):
  folder = data_files.coded(tmp_path, 3)
  one = view(folder, low_rows=0, full_rows=2, cut='plain', redraw=False)
  mirrored = 0
  for step, batch in enumerate(take({'v': one}, 10)):
    for row, index in enumerate(pipeline.image_indices('v', one, seed=1, step=step)):
      image, _ = folder.read(index)
      got = batch['v_image'][row]
      windows = np.lib.stride_tricks.sliding_window_view(image, (*CROP, 3))[:, :, 0]
      plain = (windows == got).all((2, 3, 4)).any()
      other = (windows == got[:, ::-1]).all((2, 3, 4)).any()
      assert plain or other
      mirrored += not plain
      np.testing.assert_array_equal(got[..., 0], batch['v_label'][row] * 10)
  assert 0 < mirrored < 20


def test_low_rows_come_first_and_are_resized(tmp_path):
  folder = data_files.coded(tmp_path, 1)
  sizes = {'low_size': (12, 16), 'crop': (12, 16)}
  one = view(folder, low_rows=1, full_rows=1, cut='plain', redraw=False, **sizes)
  image, label = folder.read(0)
  low = transforms.resize((transforms.picture(image), transforms.picture(label)), (12, 16))
  low_image, low_label = (part.whole() for part in low)
  batch = take({'v': one}, 1)[0]
  assert any((batch['v_image'][0] == x).all() for x in (low_image, low_image[:, ::-1]))
  assert any((batch['v_label'][0] == x).all() for x in (low_label, low_label[:, ::-1]))
  assert not any((batch['v_image'][1] == x).all() for x in (low_image, low_image[:, ::-1]))


def test_low_rows_without_a_low_size_keep_theirs(tmp_path):
  folder = data_files.coded(tmp_path, 1)
  one = view(
    folder, low_rows=1, full_rows=0, low_size=None, crop=(48, 64), cut='plain', redraw=False
  )
  got = take({'v': one}, 1)[0]['v_image'][0]
  assert any((got == x).all() for x in (folder.read(0)[0], folder.read(0)[0][:, ::-1]))


def test_images_smaller_than_the_crop(tmp_path):
  one = view(data_files.coded(tmp_path, 2), low_size=(10, 12), crop=(60, 20))
  batch = take({'v': one}, 1)[0]
  assert batch['v_image'].shape == (4, 60, 20, 3) and batch['v_label'].shape == (4, 60, 20)


def test_redraw_is_applied(tmp_path):
  # All classes are at the left edge: about half of the windows reach them, and 98% in six draws.
  label = np.zeros((48, 64), np.uint8)
  label[:, :20] = np.arange(48)[:, None] // 4 % 4
  data_files.write(tmp_path, 'a', np.zeros((48, 64, 3), np.uint8), label)
  folder = data_files.open_folder(tmp_path)

  def rate(redraw):
    one = view(folder, low_rows=0, full_rows=4, cut='plain', redraw=redraw)
    drawn = [row for batch in take({'v': one}, 25) for row in batch['v_label']]
    return np.mean([transforms.acceptable(row) for row in drawn])

  assert rate(True) > 0.9
  assert rate(False) < 0.7


@pytest.mark.parametrize('table', ['identity', 'cityscapes', 'camvid11', 'mapillary'])
def test_labels_are_train_ids_or_ignored(tmp_path, table):
  classes = {'camvid11': 11, 'identity': 11}.get(table, 19)
  raw = np.random.default_rng(0).integers(0, 11, (30, 40), np.uint8)
  if table in ('cityscapes', 'mapillary'):
    raw = np.random.default_rng(0).integers(0, 256, (30, 40), np.uint8)
  data_files.write(tmp_path, 'a', np.zeros((30, 40, 3), np.uint8), raw)
  one = view(data_files.open_folder(tmp_path, table=table, classes=classes), low_size=(20, 30))
  for batch in take({'v': one}, 3):
    assert set(np.unique(batch['v_label'])) <= {*range(classes), 255}


def test_the_pipeline_decodes_what_pillow_decodes(tmp_path):
  rng = np.random.default_rng(0)
  y, x = np.mgrid[:48, :64]
  smooth = np.stack([128 + 90 * np.sin(x / 9), 128 + 90 * np.cos(y / 7), x + y], -1)
  picture = Image.fromarray((smooth + rng.normal(0, 9, smooth.shape)).clip(0, 255).astype(np.uint8))
  label = Image.fromarray(rng.integers(0, 19, (48, 64), np.uint8))
  coloured = label.copy()
  coloured.putpalette(list(range(255, -1, -1)) * 3)
  for index, (kind, options, drawn) in enumerate(
    [
      ('jpg', {'quality': 95}, label),
      ('jpg', {'quality': 80, 'progressive': True}, coloured),
      ('png', {}, coloured),
    ]
  ):
    root = tmp_path / str(index)
    (root / 'images').mkdir(parents=True)
    picture.save(root / f'images/a.{kind}', **options)
    data_files.save(root / 'labels/a.png', drawn)
    folder = data_files.open_folder(root, images=f'images/{{id}}.{kind}')
    one = view(folder, low_rows=0, full_rows=1, crop=(48, 64), cut='plain', redraw=False)
    batch = take({'v': one}, 1)[0]
    expected_image, expected_label = folder.read(0)
    step = 1 if (batch['v_label'][0] == expected_label).all() else -1
    np.testing.assert_array_equal(batch['v_image'][0][:, ::step], expected_image)
    np.testing.assert_array_equal(batch['v_label'][0][:, ::step], expected_label)


def expect_blame(root: pathlib.Path, path: pathlib.Path, *parts: str, **options) -> None:
  """Iterating over the folder must name the file within one epoch, after the good batches."""
  one = view(data_files.open_folder(root, **options), redraw=False)
  with pytest.raises(BadInput) as error:
    take({'v': one}, 3)
  message = str(error.value)
  assert '\n' not in message
  for part in (path, *parts):
    assert str(part) in message


@pytest.fixture
def root(tmp_path):
  data_files.coded(tmp_path, 8)
  return tmp_path


@pytest.mark.parametrize('part', ['images', 'labels'])
@pytest.mark.parametrize('keep', [0.0, 0.6])
def test_cut_files_are_named(root, part, keep):
  path = root / part / '004.png'
  data = path.read_bytes()
  path.write_bytes(data[: int(keep * len(data))])
  expect_blame(root, path)


@pytest.mark.parametrize('keep', [0.0, 0.9])
def test_cut_jpegs_are_named(root, keep):
  for path in (root / 'images').iterdir():
    Image.open(path).save(path.with_suffix('.jpg'))
  path = root / 'images/006.jpg'
  data = path.read_bytes()
  path.write_bytes(data[: int(keep * len(data))])
  expect_blame(root, path, images='images/{id}.jpg')


def test_files_that_vanish_are_named_whatever_the_view(views, root):
  one = view(data_files.open_folder(root), redraw=False)
  (root / 'images/005.png').unlink()
  with pytest.raises(BadInput, match=r'images/005.png: no such file'):
    take({**views, 'v': one}, 3)


def test_sizes_that_differ_are_named(root):
  path = root / 'labels/003.png'
  Image.new('L', (64, 47)).save(path)
  expect_blame(root, path, '47x64', '48x64')


def test_unknown_label_ids_are_named(root):
  label = np.zeros((48, 64), np.uint8)
  label[0, 0] = 77
  path = root / 'labels/003.png'
  Image.fromarray(label).save(path)
  expect_blame(root, path, '77')


@pytest.mark.parametrize(
  ('mode', 'value', 'words'),
  [('RGB', 0, "set label_format to 'colour'"), ('I;16', 300, '300')],
)
def test_label_formats_that_cannot_be_read_are_named(root, mode, value, words):
  path = root / 'labels/003.png'
  Image.new(mode, (64, 48), value).save(path)
  expect_blame(root, path, words)


def test_good_batches_come_before_the_bad_one(root):
  one = view(data_files.open_folder(root), redraw=False)
  order = [pipeline.image_indices('v', one, seed=1, step=step) for step in range(2)]
  (root / f'images/{order[1][2]:03d}.png').write_bytes(b'')
  iterator = pipeline.batches({'v': one}, seed=1)
  assert next(iterator)['v_image'].shape == (4, *CROP, 3)
  with pytest.raises(BadInput, match=f'images/{order[1][2]:03d}.png'):
    next(iterator)


def test_another_hosts_damaged_file_does_not_matter(root):
  one = view(data_files.open_folder(root), redraw=False)
  order = pipeline.image_indices('v', one, seed=1, step=0)
  (root / f'images/{order[3]:03d}.png').write_bytes(b'')
  assert take({'v': one}, 1, rows=slice(0, 3))[0]['v_image'].shape == (3, *CROP, 3)
  with pytest.raises(BadInput):
    take({'v': one}, 1, rows=slice(3, 4))


def test_views_that_cannot_be_made_are_refused_at_once(views):
  source, target = views['source'], views['target']
  with pytest.raises(BadInput, match=r'target: redraw needs labels'):
    pipeline.batches({'target': dataclasses.replace(target, redraw=True)}, seed=0)
  with pytest.raises(BadInput, match=r'source: a batch of 0 \+ 0 rows'):
    pipeline.batches({'source': dataclasses.replace(source, low_rows=0, full_rows=0)}, seed=0)
  with pytest.raises(BadInput, match=r'source: .* leaves this host none'):
    pipeline.batches({'source': source}, seed=0, rows=slice(4, 8))
  with pytest.raises(BadInput, match=r'source: crop \(0, 5\)'):
    pipeline.batches({'source': dataclasses.replace(source, crop=(0, 5))}, seed=0)


def test_tensorflow_sees_no_accelerator():
  visible = host_tensorflow.load().config.get_visible_devices()
  assert [device.device_type for device in visible] == ['CPU']


# Copy-paste and the zoom.

CONFIDENCE = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 0.95])


def flat(root: pathlib.Path, labels: list[list[int]], size=(24, 32)):
  """Images of vertical stripes, one per label; red is ten times the label, green the image."""
  for index, row in enumerate(labels):
    label = np.zeros(size, np.uint8)
    for stripe, part in zip(row, np.array_split(np.arange(size[1]), len(row)), strict=True):
      label[:, part] = stripe
    red = np.minimum(label, 25) * 10
    data_files.write(
      root, f'{index:03d}', np.stack([red, np.full_like(red, index), red], -1), label
    )
  return data_files.open_folder(root)


def counts_of(folder, classes=6) -> np.ndarray:
  rows = [np.bincount(folder.read(i)[1].ravel(), minlength=256) for i in range(len(folder))]
  return np.array(rows)[:, :classes]


def test_pasting_brings_all_hard_pixels_of_the_donor_and_their_labels(tmp_path):
  folder = flat(tmp_path, [[5, 5, 5, 5], [0, 5, 1, 255]])
  rule = copy_paste.CopyPaste(counts_of(folder), CONFIDENCE, hard_classes=3, max_donors=1)
  one = view(
    folder, low_rows=0, full_rows=2, low_size=None, crop=(24, 32), cut='plain', redraw=False,
    copy_paste=rule,
  )  # fmt: skip
  seen = 0
  for batch in take({'v': one}, 4):
    for image, label in zip(batch['v_image'], batch['v_label'], strict=True):
      own = label == 5  # what kept the image's own pixels, except for image 1 pasted onto itself
      np.testing.assert_array_equal(image[..., 0], np.minimum(label, 25) * 10)
      if (image[..., 1][own] == 0).all():
        stripes = {(0, 5, 1, 5), (5, 1, 5, 0)}  # 5 and 255 are not pasted
        assert tuple(int(label[0, 4 + 8 * i]) for i in range(4)) in stripes
        assert set(image[..., 1][~own]) == {1}
        seen += 1
  assert seen >= 3


def test_batches_with_copy_paste_are_a_function_of_seed_and_step(tmp_path):
  folder = data_files.coded(tmp_path, 6)
  rule = copy_paste.CopyPaste(counts_of(folder, 19), np.linspace(0.3, 0.99, 19), hard_classes=8)
  one = {'v': view(folder, low_rows=1, full_rows=3, copy_paste=rule, cut='zoom', heights=(10, 40))}
  batches = take(one, 4)
  assert_equal(take(one, 1, start=3, parallel_calls=1)[0], batches[3])
  parts = [take(one, 1, rows=rows)[0] for rows in (slice(0, 1), slice(1, 4))]
  assert_equal({k: np.concatenate([part[k] for part in parts]) for k in batches[0]}, batches[0])
  plain = take({'v': dataclasses.replace(one['v'], copy_paste=None)}, 4)
  assert any((a['v_label'] != b['v_label']).any() for a, b in zip(batches, plain, strict=True))
  assert len({tuple(rule.draw(transforms.generator(1, '', 'v', 0, row))) for row in range(8)}) > 3
  for batch in batches:  # image and label were pasted and cut alike; edges are interpolated
    agree = np.abs(batch['v_image'][..., 0].astype(int) - batch['v_label'].astype(int) * 10) <= 5
    assert agree.mean() > 0.6


def test_donors_of_another_size_are_resized(tmp_path):
  folder = flat(tmp_path, [[5, 5, 5, 5]])
  flat(tmp_path / 'x', [[5], [0, 0, 0, 0]], (12, 16))
  for part in ('images', 'labels'):
    (tmp_path / 'x' / part / '001.png').rename(tmp_path / part / '001.png')
  folder = data_files.open_folder(tmp_path)
  rule = copy_paste.CopyPaste(counts_of(folder), CONFIDENCE, hard_classes=2, max_donors=1)
  one = view(
    folder, low_rows=0, full_rows=2, crop=(24, 32), cut='plain', redraw=False, copy_paste=rule
  )
  for batch in take({'v': one}, 2):
    assert set(batch['v_label'].ravel()) == {0}


def test_a_damaged_donor_is_named(tmp_path):
  folder = flat(tmp_path, [[5], [5], [5], [0]])
  rule = copy_paste.CopyPaste(counts_of(folder), CONFIDENCE, hard_classes=2, max_donors=1)
  one = view(
    folder, low_rows=0, full_rows=1, crop=(24, 32), cut='plain', redraw=False, copy_paste=rule
  )
  assert 3 not in pipeline.image_indices('v', one, seed=1, step=0)
  path = pathlib.Path(folder.image_path(3))
  path.write_bytes(path.read_bytes()[:60])
  with pytest.raises(BadInput, match=r'003\.png'):
    take({'v': one}, 1)


def test_an_index_of_other_images_and_wrong_cuts_are_refused(tmp_path):
  folder = flat(tmp_path, [[5], [0]])
  rule = copy_paste.CopyPaste(counts_of(folder)[:1], CONFIDENCE, hard_classes=6)
  for changes, words in (
    ({'copy_paste': rule}, 'index of the labels is of 1 images, the list has 2: label again'),
    ({'cut': 'round'}, "cut is 'round'"),
    ({'cut': 'zoom', 'heights': (9, 3)}, 'in order'),
  ):
    with pytest.raises(BadInput, match=words):
      take({'v': view(folder, **changes)}, 1)
  unlabelled = data_files.open_folder(tmp_path, labels='')
  with pytest.raises(BadInput, match='copy-paste needs labels'):
    take({'v': view(unlabelled, redraw=False, copy_paste=rule)}, 1)


# Going on without files that cannot be read.


def test_skipping_takes_the_next_image_in_order_and_says_so(root):
  (root / 'images/003.png').write_bytes(b'')
  (root / 'labels/004.png').write_bytes(b'')
  one = view(data_files.open_folder(root), low_rows=0, full_rows=4, cut='plain', redraw=False)
  skipped = {}
  batches = take({'v': one}, 4, skipped=skipped)
  bad = [str(root / f'images/{name}.png') for name in ('003', '004')]
  assert sorted(skipped) == bad
  assert 'images/003.png' in skipped[bad[0]] and 'labels/004.png' in skipped[bad[1]]
  order = [i for step in range(4) for i in pipeline.image_indices('v', one, seed=1, step=step)]
  shown = [int(image[0, 0, 2]) for batch in batches for image in batch['v_image']]
  assert shown == [5 if i in (3, 4) else i for i in order]
  again = take({'v': one}, 2, start=2, rows=slice(1, 3), parallel_calls=1, skipped={})
  for got, expected in zip(again, batches[2:], strict=True):
    np.testing.assert_array_equal(got['v_image'], expected['v_image'][1:3])


def test_skipping_changes_nothing_where_all_is_well(root):
  one = view(data_files.open_folder(root))
  skipped = {}
  for got, expected in zip(take({'v': one}, 3, skipped=skipped), take({'v': one}, 3), strict=True):
    assert_equal(got, expected)
  assert skipped == {}


def test_nothing_to_skip_to_is_refused(root):
  for path in (root / 'images').iterdir():
    path.write_bytes(b'')
  one = view(data_files.open_folder(root), redraw=False)
  with pytest.raises(BadInput, match=r'images/00\d.png'):
    take({'v': one}, 1, skipped={})


def test_a_damaged_donor_is_skipped(tmp_path):
  folder = flat(tmp_path, [[5], [5], [5], [0]])
  rule = copy_paste.CopyPaste(counts_of(folder), CONFIDENCE, hard_classes=2, max_donors=1)
  one = view(
    folder, low_rows=0, full_rows=1, crop=(24, 32), cut='plain', redraw=False, copy_paste=rule
  )
  pathlib.Path(folder.image_path(3)).write_bytes(b'')
  skipped = {}
  take({'v': one}, 1, skipped=skipped)
  assert list(skipped) == [folder.image_path(3)]
