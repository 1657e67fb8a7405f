"""The command study: cells, what they share, what is written, and what is refused."""

import argparse
import csv
import json
import pathlib

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from diga_jax.__main__ import main
from diga_jax.commands import study
from diga_jax.page import write
from diga_jax.page.write import update_comparison
from diga_jax.recipe import graph
from diga_jax.storage import run_record
from tests.support.quick_stages import without_training

VARY = '--vary=stages.self_training_1.selector=none,consensus'
NONE, CONSENSUS = 'selector=none', 'selector=consensus'


@pytest.fixture(scope='module')
def cache(tmp_path_factory) -> pathlib.Path:
  return tmp_path_factory.mktemp('scenes')


@pytest.fixture
def made(monkeypatch):
  """Where what is made, in turn."""
  return without_training(monkeypatch)


@pytest.fixture
def run(made, cache, tmp_path, monkeypatch):
  """run(options) -> status of a study in tmp_path/w, without its page, which takes seconds."""
  monkeypatch.setattr(write, 'update_comparison', lambda *_: False)
  options = [
    '--config=tests/configs/tiny.py',
    f'--workdir={tmp_path / "w"}',
    f'--config.data.cache={cache}',
    '--config.translator.kind=fourier',
  ]
  recipe = "--config.recipe=('warmup','label_1','self_training_1')"

  def study(*more):
    given = any(text.startswith('--config.recipe') for text in more)
    return main(['study', *options, *more, *[recipe] * (not given)])

  return study


@pytest.fixture
def evaluate(cache, tmp_path):
  """evaluate(command, variant) -> status of a command on a variant's folder of seed 0."""

  def command(name, variant):
    return main(
      [
        name, '--config=tests/configs/tiny.py', f'--config.data.cache={cache}',
        f'--workdir={tmp_path / "w" / variant / "seed_0"}', '--config.translator.kind=fourier',
        "--config.recipe=('warmup','label_1','self_training_1')",
        f'--config.stages.self_training_1.{variant}',
      ]
    )  # fmt: skip

  return command


@pytest.fixture
def place(tmp_path) -> pathlib.Path:
  return tmp_path / 'w' / 'study' / 'published'


def numbers(place: pathlib.Path) -> dict:
  return json.loads(place.with_name('published.json').read_text())


def refusal(capsys) -> str:
  """The one line that a command has ended with."""
  printed = capsys.readouterr().err
  lines = [line for line in printed.splitlines() if line.startswith('diga_jax: ')]
  assert len(lines) == 1 and 'Traceback' not in printed, printed
  return lines[0]


def test_a_seed_joins_those_that_are_there(run, place, tmp_path):
  for named, wanted in (('0 1', [0, 1]), ('0', [0, 1]), ('7', [0, 1, 7])):
    assert run('--seeds', *named.split()) == 0
    assert numbers(place)['seeds'] == wanted
    assert f'seeds {", ".join(map(str, wanted))}' in place.with_name('published.md').read_text()
  assert (tmp_path / 'w/seed_7/warmup/stage.json').exists()  # without variants as `run` names it
  (tmp_path / 'w/seed_1').rename(tmp_path / 'set_aside')
  assert run('--seeds', '0') == 0
  assert numbers(place)['seeds'] == [0, 7]


@pytest.mark.parametrize('damage', ['', '[', '[[{"protocol": {"seed": 3}}]]', '{}', None])
def test_numbers_that_are_damaged_or_lost_lose_no_seed(run, place, tmp_path, damage):
  path = place.with_name('published.json')
  assert run('--seeds', '0', '1') == 0
  path.unlink() if damage is None else path.write_text(damage)
  (tmp_path / 'w/seed_04/evaluation/published').mkdir(parents=True)  # of no seed
  (tmp_path / 'w/seed_5/evaluation/other').mkdir(parents=True)
  assert run('--seeds', '2') == 0
  assert numbers(place)['seeds'] == [0, 1, 2]


def test_what_variants_have_in_common_is_made_once(run, made, place, tmp_path):
  assert run('--seeds', '0', '1', VARY) == 0
  assert len(made) == len(set(made))
  stages = [name for where, name in made if ' on ' not in name]
  assert sorted(stages) == ['label_1'] * 2 + ['self_training_1'] * 4 + ['warmup'] * 2
  assert sorted(name for _, name in made if ' on ' in name) == sorted(
    2 * ['label_1 on target', 'warmup on camera_test'] + 4 * ['self_training_1 on camera_test']
  )
  other = tmp_path / 'w' / CONSENSUS / 'seed_1'
  assert not (other / 'warmup').readlink().is_absolute()  # the folder may be moved
  assert (other / 'warmup').resolve() == tmp_path / 'w' / NONE / 'seed_1' / 'warmup'
  found = numbers(place)
  assert list(found['rows']) == [
    'warmup', f'{NONE}/self_training_1', f'{CONSENSUS}/self_training_1'
  ]  # fmt: skip
  assert found['variants'][NONE] == {'stages.self_training_1.selector': 'none'}
  assert 'label_1' in found['row_names'] and len(found['runs'][0]) == 4


def test_a_folder_of_a_variant_is_a_working_directory(run, evaluate, made, capsys):
  assert run('--seeds', '0', VARY) == 0
  before = len(made)
  assert evaluate('evaluate', CONSENSUS) == 0 and len(made) == before
  assert 'self_training_1' in capsys.readouterr().out


def test_a_study_is_continued_where_it_was_stopped(run, made, monkeypatch, tmp_path, place):
  make, left = graph.run_stage, [4]

  def some(*arguments):
    left[0] -= 1
    if left[0] < 0:
      raise OSError(5, 'gone')
    return make(*arguments)

  monkeypatch.setattr(graph, 'run_stage', some)
  assert run('--seeds', '0', '1', VARY) == 2
  monkeypatch.setattr(graph, 'run_stage', make)
  assert not place.with_name('published.json').exists()
  assert run('--seeds', '0', '1', VARY) == 0
  assert len(made) == len(set(made))


def test_variants_and_seeds_may_be_added_and_none_is_lost(run, made, place, capsys):
  assert run('--seeds', '0', '1', '--vary=stages.self_training_1.steps=5,6') == 0
  before = numbers(place)
  assert run('--seeds', '2', '--vary=stages.self_training_1.steps=4,5,6') == 0
  after = numbers(place)
  assert after['seeds'] == [0, 1, 2] and len(made) == len(set(made))
  for name, values in before['rows'].items():
    assert after['rows'][name][:2] == values
  text = place.with_name('published.md').read_text()
  for other in ('--vary=stages.self_training_1.steps=5,7', VARY):
    assert run('--seeds', '0', '1', '2', other) == 2
    line = refusal(capsys)
    assert 'is of another study, with' in line and 'steps=' in line
  assert run('--seeds', '0') == 2  # without variants
  assert 'config.evaluation.name or --workdir' in refusal(capsys)
  assert place.with_name('published.md').read_text() == text and numbers(place) == after


def test_named_variants_are_those_of_the_config(run, place, tmp_path):
  named = "--config.variants=(('base',()),('all',('stages.self_training_1.selector=none',)))"
  assert run('--seeds', '0', named) == 0
  assert list(numbers(place)['rows']) == ['warmup', 'base/self_training_1', 'all/self_training_1']
  assert (tmp_path / 'w/all/seed_0/self_training_1').is_dir()


def test_an_interval_can_be_computed_again_from_the_counts_alone(run, place):
  against = ('--against', 'warmup', '--upper', f'{NONE}/self_training_1')
  assert run('--seeds', '0', '1', '2', VARY, *against) == 0
  with np.load(place.with_name('published.npz')) as arrays:
    hit, union = (arrays[f'camera_test/{what}'] for what in ('intersection', 'union'))
    rows, seeds, ids = (arrays[name].tolist() for name in ('rows', 'seeds', 'camera_test/ids'))
    classes, averaged = arrays['classes'], arrays['averaged']
  assert hit.shape == (len(rows), len(seeds), len(ids), len(classes)) and seeds == [0, 1, 2]

  def miou(row, images):
    part = hit[rows.index(row)][:, images].sum(1) / union[rows.index(row)][:, images].sum(1)
    return part[:, averaged].mean(1)

  row = f'{CONSENSUS}/self_training_1'
  found = scipy.stats.bootstrap(
    (np.arange(len(ids)), np.arange(3)),
    lambda images, which: (miou(row, images) - miou('warmup', images))[which].mean(),
    vectorized=False, n_resamples=4000, method='percentile', rng=np.random.default_rng(0),
  ).confidence_interval  # fmt: skip
  told = numbers(place)
  paired = told['paired'][f'{row} - warmup']
  assert [paired['low'], paired['high']] == pytest.approx([found.low, found.high])
  whole = {name: miou(name, np.arange(len(ids))) for name in rows}
  for name in rows:
    assert told['rows'][name] == pytest.approx(whole[name].tolist())
  assert paired['mean'] == pytest.approx((whole[row] - whole['warmup']).mean())
  assert told['gap_closed'][f'{NONE}/self_training_1']['mean'] == pytest.approx(1)
  means = {name: each.mean() for name, each in whole.items()}
  share = (means[row] - means['warmup']) / (means[f'{NONE}/self_training_1'] - means['warmup'])
  assert told['gap_closed'][row]['mean'] == pytest.approx(share)


def test_the_lines_of_the_csv_are_seeds_and_classes(run, place):
  assert run('--seeds', '0', '1', VARY) == 0
  with place.with_name('published.csv').open(newline='') as file:
    lines = list(csv.DictReader(file))
  assert len(lines) == 3 * 2 * 19
  assert len({(line['row'], line['seed'], line['class']) for line in lines}) == len(lines)
  run_0 = {row['name']: row for row in numbers(place)['runs'][0]}
  for line in lines:
    if line['seed'] == '0':
      assert float(line['iou']) == pytest.approx(run_0[line['row']]['iou'][line['class']])


def test_the_runs_are_on_a_page(run, place, capsys, caplog, monkeypatch):
  monkeypatch.setattr(write, 'update_comparison', update_comparison)
  page = place.with_name('published.html')
  assert run('--seeds', '0', VARY) == 0
  text = page.read_text()
  for name in (f'{NONE}/seed_0', f'{CONSENSUS}/seed_0'):
    assert name in text
  assert f'the runs on a page: {page}' in capsys.readouterr().out
  page.write_text('mine')
  assert run('--seeds', '0', VARY) == 0  # a page that cannot be written is a warning
  assert page.read_text() == 'mine' and 'is no page of this package' in caplog.messages[-1]


def test_the_figure_is_a_picture(run, place):
  assert run('--seeds', '0', '1', VARY, '--against=warmup') == 0
  with Image.open(place.with_name('published_networks.png')) as picture:
    assert picture.size > (600, 200) and len(set(picture.convert('L').tobytes())) > 20


@pytest.mark.parametrize(
  ('seeds', 'words'), [('0', 'One seed: nothing can'), ('0 1', 'Fewer than 3'), ('0 1 2', '')]
)
def test_it_says_what_few_seeds_cannot(run, place, seeds, words, capsys):
  assert run('--seeds', *seeds.split(), '--against=warmup') == 0
  printed, text = capsys.readouterr().out, place.with_name('published.md').read_text()
  assert words in ' '.join(printed.split()) and words in text
  (row,) = numbers(place)['paired'].values()
  assert (row['p'] is None) == bool(words) and (row['improves'] is None) == (seeds == '0')
  assert row['low'] <= row['mean'] <= row['high']
  if not words:
    assert 'seed: nothing' not in text and 'Fewer' not in text


def test_what_is_printed_fits_the_terminal(run, place, capsys, monkeypatch):
  monkeypatch.setenv('COLUMNS', '72')
  assert run('--seeds', '0', '1', VARY, '--against=warmup') == 0
  printed = capsys.readouterr().out.splitlines()
  assert max(len(line) for line in printed if str(place) not in line) <= 72
  assert 'motorcycle' in '\n'.join(printed) and '…' not in '\n'.join(printed)
  assert max(map(len, place.with_name('published.md').read_text().splitlines())) > 200


def test_cells_of_different_versions_are_not_averaged(run, place, capsys, monkeypatch):
  assert run('--seeds', '0', '1') == 0
  versions = run_record.versions() | {'jax': '0.0.1'}
  monkeypatch.setattr(run_record, 'versions', lambda: versions)
  assert run('--seeds', '0', '1') == 0  # nothing is made
  assert run('--seeds', '2') == 2
  line = refusal(capsys)
  assert 'seed_0 was made with jax ' in line and 'the rest would be with 0.0.1' in line
  assert not (place.parents[1] / 'seed_2').exists()


def test_a_link_to_what_is_gone_is_told_and_mended(run, evaluate, tmp_path, capsys):
  assert run('--seeds', '0', VARY) == 0
  (tmp_path / 'w' / NONE).rename(tmp_path / 'gone')
  assert evaluate('run', CONSENSUS) == 2
  line = refusal(capsys)
  assert 'is a link to' in line and 'restore that, or remove the link' in line
  assert run('--seeds', '0', VARY) == 0
  assert evaluate('run', CONSENSUS) == 0


MISTAKES = {
  '--seeds 0 0': 'a seed is named twice',
  '--seeds 0 --vary stages.warmup.mixing': 'is no FIELD=VALUE,VALUE',
  '--seeds 0 --vary stages.warmup.mixing=none': 'has one value: give --config.stages.warmup',
  '--seeds 0 --vary stages.warmup.mixing=none,none': 'a value stands twice',
  '--seeds 0 --vary stages.warmup.smoothing=0.1,1e-1': 'there is no such field',
  '--seeds 0 --vary stages.warmup.distillation=0.1,1e-1': 'a value stands twice',
  '--seeds 0 --vary stages.warmup.mixing=none,clas': 'config.stages.warmup.mixing is',
  '--seeds 0 --vary stages.warmup.steps=5,x': 'config.stages.warmup.steps is',
  '--seeds 0 --vary stages.warmup=5,6': 'config.stages.warmup: there is no such field',
  '--seeds 0 --vary stages.warm.steps=5,6': 'config.stages.warm.steps: there is no such field',
  '--seeds 0 --vary data.crop=(32,48),(64': 'a bracket is not closed',
  '--seeds 0 --vary seed=0,1': 'seeds are given by --seeds',
  '--seeds 0 --vary log_every=1,2': "variants 'log_every=1' and 'log_every=2' are the same",
  '--seeds 0 --vary stages.label_2.scales=(1.0,),(0.5,)': 'are the same: no stage of config.recipe',
  '--seeds 0 --vary evaluation.flip=True,False': 'measured in different ways: config.evaluation.f',
  '--seeds 0 --vary evaluation.name=a,b': 'measured in different ways: config.evaluation.name',
  '--seeds 0 --vary translator.kind=none,fourier': 'config.translator.kind is given twice',
  '--seeds 0 --vary data.crop=(32,48),(64,64) --vary data.crop=(32,32),(64,48)': 'given twice',
  "--seeds 0 --config.variants=(('a',()),('a',()))": 'a name stands twice',
  "--seeds 0 --config.variants=(('a',('steps',)),)": "'steps' is no FIELD=VALUE",
  "--seeds 0 --config.variants=(('a/b',()),)": 'config.variants is',
  "--seeds 0 --config.variants=(('seed_1',()),('b',()))": 'is the name of another folder',
  "--seeds 0 --config.variants=(('a',('translator.kind=none',)),)": 'is given twice',
  "--seeds 0 --config.variants=(('a',('seed=1',)),)": 'seeds are given by --seeds',
  "--seeds 0 --config.variants=(('a',()),('A',()))": 'two variants would be the folder',
  '--seeds 0 --against=label_1': '--against=label_1: is no row of a network: there are warmup, ',
  '--seeds 0 --upper=warmup': 'name the lower one by --against',
  '--seeds 0 --against=warmup --upper=warmup': 'the same row',
}


@pytest.mark.parametrize('options', MISTAKES)
def test_mistakes_are_one_line_and_nothing_is_made(run, made, tmp_path, capsys, options):
  assert run(*options.split()) == 2
  assert MISTAKES[options] in refusal(capsys)
  assert not made and not (tmp_path / 'w').exists()


def test_a_value_may_hold_commas_and_names_of_fields_are_short(run, place, tmp_path):
  vary = ('--vary=data.crop=(32,48),(64, 64)', '--vary=stages.warmup.steps=5,6')
  assert run('--seeds', '0', *vary, '--config.recipe=("warmup",)') == 0
  names = ['crop=32x48,steps=5', 'crop=32x48,steps=6', 'crop=64x64,steps=5', 'crop=64x64,steps=6']
  assert list(numbers(place)['rows']) == [f'{name}/warmup' for name in names]


def test_an_earlier_list_of_rows_is_known(run, place, capsys):
  assert run('--seeds', '0') == 0
  path = place.with_name('published.json')
  path.write_text(json.dumps(numbers(place)['runs']))
  assert run('--seeds', '0', VARY) == 2
  assert 'is of another study' in refusal(capsys)
  assert run('--seeds', '0') == 0
  assert numbers(place)['seeds'] == [0]


@pytest.mark.parametrize(
  ('text', 'wanted'), [('0/2', (0, 2)), ('2/8', (2, 8)), ('8/8', (0, 8)), ('1/1', (0, 1))]
)
def test_a_share_counts_from_0_or_1(text, wanted):
  assert study.parse_share(text) == wanted


@pytest.mark.parametrize('text', ['', '1', '3/2', '0/0', '-1/2', 'a/b', '1/2/3', '1.0/2', 'auto'])
def test_a_share_that_is_none_is_refused(text, monkeypatch):
  for name in ('SLURM_ARRAY_TASK_ID', 'JOB_COMPLETION_INDEX'):
    monkeypatch.delenv(name, raising=False)
  with pytest.raises(argparse.ArgumentTypeError, match='I/N'):
    study.parse_share(text)


def test_a_share_is_that_of_an_array_or_an_indexed_job():
  slurm = {'SLURM_ARRAY_TASK_ID': '7', 'SLURM_ARRAY_TASK_MIN': '4', 'SLURM_ARRAY_TASK_COUNT': '4'}
  assert study.share_of(slurm) == (3, 4)
  assert study.share_of({'JOB_COMPLETION_INDEX': '5'}) == (5, 0)
  assert study.share_of({}) is None
  assert [study.first_cell((which, 3), 6) for which in range(3)] == [0, 2, 4]
  assert [study.first_cell((which, 0), 4) for which in (0, 3, 5)] == [0, 3, 1]
  assert study.first_cell(None, 4) == 0
