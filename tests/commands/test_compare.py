"""The command compare: two results side by side, and what it refuses with one line."""

import shutil

import numpy as np

from diga_jax.__main__ import main
from diga_jax.storage import passport, stage_folder
from tests.report.test_side_by_side import PASSPORT, ROW
from tests.report.test_typed_row import ROW as TEXT

COUNTS = {'ids': np.array(['a', 'b', 'c']), 'union': np.full((3, 3), 100)}


def measured(workdir, gain: int = 0, counts=COUNTS, **changes):
  """The folder of a stage 'warmup' that is measured."""
  identity = {'workdir': workdir.name}
  stage_folder.produce(workdir / 'warmup', {}, lambda place: {'step': 0})

  def build(folder):
    stage_folder.write_metrics(folder / 'metrics.json', {})
    hit = np.array([[30, 40, 50], [20, 60, 40], [35, 45, 55]]) + gain
    np.savez(folder / 'images.npz', intersection=hit[: len(counts['ids'])], **counts)

  place = workdir / 'evaluation' / 'published' / 'warmup' / 'test'
  stage_folder.produce(place, identity, build)
  protocol = PASSPORT['protocol'] | {'class_set': 'own 3 (1)', 'mean': ''} | changes
  content = {'kind': 'network', **PASSPORT, 'protocol': protocol}
  passport.write(place, {**content, 'measurement': stage_folder.hash_of(identity)})
  return workdir / 'warmup'


def ends(capsys, *arguments) -> tuple[int, str, str]:
  status = main(['compare', *map(str, arguments)])
  return (status, *capsys.readouterr())


def refusal(capsys, *arguments) -> str:
  status, _, line = ends(capsys, *arguments)
  assert status == 2 and line.count('\n') == 1 and line.startswith('diga_jax: ')
  return line


def test_two_stages_are_shown_with_an_interval(tmp_path, capsys):
  one, other = measured(tmp_path / 'a'), measured(tmp_path / 'b', gain=10)
  status, out, err = ends(capsys, one, other)
  assert status == 0 and not err
  assert 'traffic light' in out and out.startswith(f'A: {tmp_path}/a/evaluation')
  # Every image gains 10 of 100 pixels in every class.
  assert 'B - A in mIoU of 3 classes: +10.0 points, 95% interval over the 3 images +10.0 to' in out


def test_every_form_of_a_result_is_the_same(tmp_path, capsys):
  one, other = measured(tmp_path / 'a'), measured(tmp_path / 'b')
  place = tmp_path / 'a' / 'evaluation' / 'published' / 'warmup' / 'test'
  wanted = ends(capsys, one, other)
  for form in (place, place / 'passport.json', place / 'metrics.json'):
    assert ends(capsys, form, other) == wanted
  shutil.copy(place / 'passport.json', tmp_path / 'theirs.json')
  status, out, _ = ends(capsys, tmp_path / 'theirs.json', other)
  assert status == 0 and 'no interval over images: A has no numbers of single images' in out


def test_a_published_row_is_shown_beside_with_what_it_does_not_state(tmp_path, capsys):
  one, row = measured(tmp_path / 'a', class_set='cityscapes19'), tmp_path / 'row.toml'
  row.write_text(TEXT.replace("'oracle'", "'last'"))
  status, out, err = ends(capsys, one, row)
  assert status == 0 and 'arXiv 2304.02222' in out and '95.6' in out
  assert err.startswith('B does not state, so not compared: way of taking means, ')


def test_what_is_not_comparable_is_refused_with_all_reasons(tmp_path, capsys):
  one, row = measured(tmp_path / 'a', class_set='cityscapes19'), tmp_path / 'row.toml'
  row.write_text(TEXT.replace('500', '499').replace('1024, 2048', '512, 1024'))
  line = refusal(capsys, one, row)
  for reason in (
    'split: number of images: 500 in A, 499 in B',
    'label resolution: 1024x2048 in A, 512x1024 in B',
    'weights chosen by: the last step in A, labels of the target in B',
    '--anyway',
  ):
    assert reason in line
  status, out, _ = ends(capsys, '--anyway', one, row)
  assert status == 0 and out.count('NOT COMPARABLE: ') == 3 and 'interval' not in out


def test_means_with_divisors_and_single_images_have_no_interval(tmp_path, capsys):
  one, other = (
    measured(tmp_path / name, class_set='cityscapes19', class_means='hiast') for name in 'ab'
  )
  assert 'no interval over images: the means are' in ends(capsys, one, other)[1]
  single = {'ids': np.array(['a']), 'union': np.full((1, 3), 100)}
  one, other = (measured(tmp_path / name, counts=single) for name in 'cd')
  assert 'no interval over images: there is one image' in ends(capsys, one, other)[1]


def test_wrong_arguments_are_one_line(tmp_path, capsys):
  for arguments in ((), ('a',), ('a', ''), ('a', 'b', 'c'), ('a', 'b', '--config.seed=1')):
    try:
      status = main(['compare', *arguments])
    except SystemExit as error:
      status = error.code
    line = capsys.readouterr().err
    assert status == 2 and line.startswith('diga_jax: ') and line.count('\n') == 1


def test_mistakes_are_one_line(tmp_path, capsys):
  one, other = measured(tmp_path / 'a'), measured(tmp_path / 'b')
  (tmp_path / 'file.txt').write_text('')
  (tmp_path / 'row.json').write_text('{"passport": 1}')
  assert 'A and B are both' in refusal(capsys, one, one)
  assert 'A and B are both' in refusal(capsys, one, f'{one}/../warmup')
  assert 'there is no such file or folder' in refusal(capsys, one, tmp_path / 'nothing')
  assert 'this is a working directory' in refusal(capsys, one, tmp_path / 'b')
  assert 'is no .toml or .json file' in refusal(capsys, one, tmp_path / 'file.txt')
  assert 'has no record_sha256' in refusal(capsys, one, tmp_path / 'row.json')
  path = passport.find(other)
  path.write_text(path.read_text().replace('0.36', '0.63'))
  assert 'is damaged, or was edited' in refusal(capsys, one, other)
  path.unlink()
  assert 'has no passport.json' in refusal(capsys, one, other)


def test_a_label_pass_has_no_iou(tmp_path, capsys):
  one, other = measured(tmp_path / 'a'), measured(tmp_path / 'b')
  path = passport.find(other)
  content = {key: value for key, value in passport.read(path).items() if key != 'passport'}
  passport.write(path.parent, content | {'kind': 'labels'})
  assert 'is of a label pass, which has no IoU' in refusal(capsys, one, other)


def test_images_that_differ_in_the_arrays_are_refused(tmp_path, capsys):
  other = COUNTS | {'ids': np.array(['a', 'b', 'd'])}
  one, other = measured(tmp_path / 'a'), measured(tmp_path / 'b', counts=other)
  assert 'are of different images' in refusal(capsys, one, other)


def test_two_rows_are_compared(tmp_path, capsys):
  for name, mean in (('a', 60), ('b', 62)):
    text = f"name = '{name}'\nsource = 'paper'\nmean_iou = {mean}"
    (tmp_path / f'{name}.toml').write_text(text)
  status, out, err = ends(capsys, tmp_path / 'a.toml', tmp_path / 'b.toml')
  assert status == 0 and '+2.0' in out and err.count('does not state') == 2
  assert ROW['name'] not in out
