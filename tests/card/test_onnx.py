"""model.onnx of a card against the network in Flax; what is refused."""

import importlib

import jax.numpy as jnp
import numpy as np
import pytest

import diga_jax
from data_pipelines.errors import BadInput
from diga_jax.__main__ import main
from diga_jax.card import onnx


@pytest.mark.slow
def test_it_gives_the_logits_of_the_network(finished, tmp_path, capsys):
  for name in onnx.MODULES:
    pytest.importorskip(name, reason=f'{name}, of the extra `onnx`, is not installed')
  command = ['export-card', str(finished), f'--output={tmp_path / "card"}', '--onnx', '47', '96']
  assert main(command) == 0
  assert 'model.onnx: its logits differ by ' in capsys.readouterr().out
  text = (tmp_path / 'card/README.md').read_text(encoding='utf-8')
  assert '[B, 3, 47, 96]' in text and '\n- onnx\n' in text
  session = onnx.module('onnxruntime').InferenceSession(str(tmp_path / 'card/model.onnx'))
  images = np.random.default_rng(3).integers(0, 256, (3, 47, 96, 3)).astype(np.uint8)
  (found,) = session.run(None, {'images': images.transpose(0, 3, 1, 2).astype(np.float32)})
  predictor = diga_jax.load(tmp_path / 'card').predictor
  assert predictor.scales == (1.0, 0.5)
  wanted = np.asarray(predictor.logits(jnp.asarray(images), (47, 96))).transpose(0, 3, 1, 2)
  assert np.max(np.abs(found - wanted)) <= 1e-3 * max(np.max(np.abs(wanted)), 1)


@pytest.mark.parametrize('name', onnx.MODULES)
def test_a_package_that_is_missing_is_named(finished, tmp_path, monkeypatch, capsys, name):
  real = importlib.import_module

  def find(module: str, *package: str | None):
    if module == name:
      raise ImportError(module)
    return None if module in onnx.MODULES else real(module, *package)

  monkeypatch.setattr(importlib, 'import_module', find)
  command = ['export-card', str(finished), f'--output={tmp_path / "card"}', '--onnx', '48', '96']
  assert main(command) == 2
  line = f"diga_jax: --onnx: {name} is missing: pip install '.[onnx]'\n"
  assert capsys.readouterr().err == line and not list(tmp_path.iterdir())


@pytest.mark.parametrize('other', [1.002, np.nan, np.inf])
def test_other_logits_are_refused(other):
  wanted = np.linspace(-20, 20, 24).reshape(1, 2, 3, 4)
  assert onnx.difference(wanted * (1 + 1e-5), wanted) == pytest.approx(2e-4)
  for found in (wanted * other, wanted[:, :1]):
    with pytest.raises(BadInput, match='gives other logits'):
      onnx.difference(found, wanted)
