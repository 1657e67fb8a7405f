"""Files of weights by their content, and folders of the Hugging Face Hub."""

import json
import pathlib

import numpy as np
import pytest

from data_pipelines.errors import BadInput
from diga_jax import weights
from diga_jax.weights import formats, torch_file, zip_file
from tests.support import torch_pickles

ARRAYS = {'a.weight': np.arange(6, dtype='f').reshape(2, 3), 'b': np.ones(2, 'f')}


def hub(folder: pathlib.Path, name: str = 'model.safetensors', shards: int = 1) -> pathlib.Path:
  """A folder as save_pretrained writes it."""
  folder.mkdir()
  (folder / 'config.json').write_text('{"model_type": "segformer"}')
  stem, dot, ending = name.partition('.')
  save = weights.save if ending == 'safetensors' else torch_pickles.save
  if shards == 1:
    save(folder / name, ARRAYS)
    return folder
  place = {key: f'{stem}-{i:05d}-of-00002{dot}{ending}' for i, key in enumerate(ARRAYS, 1)}
  for key, file in place.items():
    save(folder / file, {key: ARRAYS[key]})
  index = {'metadata': {'total_size': 32}, 'weight_map': place}
  (folder / f'{name}.index.json').write_text(json.dumps(index))
  return folder


@pytest.mark.parametrize('ending', ['.PTH', '.ckpt', '.pkl', '', '.bin', '.npz', '.model'])
@pytest.mark.parametrize('kind', ['.pth', '.safetensors', '.npz'])
def test_the_content_of_a_file_decides(tmp_path, kind, ending):
  weights.save(tmp_path / f'made{kind}', ARRAYS)
  file = (tmp_path / f'made{kind}').rename(tmp_path / f'given{ending}')
  found = weights.read(file)
  assert found.keys() == ARRAYS.keys()
  for name, value in ARRAYS.items():
    np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize(
  ('content', 'words'),
  [
    (b'\x1f\x8b\x08\0', 'packed by gzip: unpack it first'),
    (b'version https://git-lfs.github.com/spec/v1\noid', 'git lfs pull'),
    (b'<!DOCTYPE html><html>', 'a web page: fetch the file again'),
    (b'\x89HDF\r\n\x1a\n', 'HDF5'),
    (b'\0' * 257 + b'ustar\0', 'tar archive: unpack it'),
    (b'', 'none of .pth'),
    (b'PK\x03\x04' + b'x' * 99, 'its end is missing'),
  ],
)  # fmt: skip
def test_what_is_taken_for_weights_is_called_by_its_name(tmp_path, content, words):
  (tmp_path / 'a.pth').write_bytes(content)
  with pytest.raises(BadInput, match=words) as error:
    weights.read(tmp_path / 'a.pth')
  assert 'a.pth: ' in str(error.value)


@pytest.mark.parametrize('shards', [1, 2])
@pytest.mark.parametrize('name', formats.HUB)
def test_a_folder_of_the_hub_is_read(tmp_path, name, shards):
  folder = hub(tmp_path / 'mit', name, shards)
  found = weights.read(folder)
  assert found.keys() == ARRAYS.keys()
  for key, value in ARRAYS.items():
    np.testing.assert_array_equal(found[key], value)
  digest = weights.file_digest(str(folder))
  assert len(digest.split('+')) == shards
  largest = max(folder.glob(f'{name.partition(".")[0]}*'), key=lambda path: path.stat().st_size)
  largest.write_bytes(largest.read_bytes() + b'x') if shards == 1 else None
  assert shards > 1 or weights.file_digest(str(folder)) != digest


def test_safetensors_are_preferred(tmp_path):
  folder = hub(tmp_path / 'mit')
  torch_pickles.save(folder / 'pytorch_model.bin', {'other': np.zeros(1, 'f')})
  assert weights.read(folder).keys() == ARRAYS.keys()


def test_a_folder_that_is_not_whole_is_refused(tmp_path):
  def broken(number, change):
    folder = hub(tmp_path / str(number), shards=2)
    index = json.loads((folder / 'model.safetensors.index.json').read_text())
    change(folder, index['weight_map'])
    (folder / 'model.safetensors.index.json').write_text(json.dumps(index))
    with pytest.raises(BadInput) as error:
      weights.read(folder)
    assert '\n' not in str(error.value) and str(folder) in str(error.value)
    return str(error.value)

  second = 'model-00002-of-00002.safetensors'
  assert f'{second}: missing, of the 2 files' in broken(1, lambda f, _: (f / second).unlink())
  assert 'names ../x' in broken(2, lambda _, m: m.update(b='../x'))
  assert 'no file holds c, which it names' in broken(3, lambda _, m: m.update(c=second))
  assert 'another file of' in broken(4, lambda f, _: weights.save(f / second, ARRAYS))
  assert 'damaged' in broken(5, lambda _, m: m.clear())
  assert 'damaged' in broken(6, lambda _, m: m.update(b=3))
  folder = hub(tmp_path / '7', shards=2)
  for text in ('', '[]', '{"weight_map": []}', '[' * 10**5):
    (folder / 'model.safetensors.index.json').write_text(text)
    with pytest.raises(BadInput, match=r'index\.json: damaged'):
      weights.read(folder)
    with pytest.raises(BadInput, match=r'index\.json: damaged'):
      weights.file_digest(str(folder))


def test_digits_in_a_name_are_a_count(tmp_path):
  weights.save(tmp_path / 'a.pth', ARRAYS)
  assert weights.read((tmp_path / 'a.pth').rename(tmp_path / 'iter-00160000.pth'))


def test_a_long_history_is_passed_over(tmp_path):
  """mmengine keeps every loss of a run in the pickle, which may be larger than LONGEST."""
  path = tmp_path / 'iter_160000.pth'
  history = [torch_pickles.numpy_array(160_000) for _ in range(12)]
  content = {'state_dict': {'a': np.zeros(2**23, 'f')}, 'message_hub': history}
  torch_pickles.save(path, content)
  with zip_file.opened(path) as archive:
    assert archive.getinfo('archive/data.pkl').file_size > torch_file.LONGEST
  assert weights.read(path).keys() == {'a'}
