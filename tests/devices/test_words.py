"""The devices in words, and a run on the CPU that may not be meant."""

import collections
import logging
import subprocess
import sys
import types

import jax
import pytest

from data_pipelines.errors import BadInput
from diga_jax import __main__ as command_line
from diga_jax.commands.arguments import add_command
from diga_jax.parallel import devices

Device = collections.namedtuple('Device', 'platform device_kind')
H100 = 'NVIDIA H100 80GB HBM3'


@pytest.fixture
def having(monkeypatch):
  """having(platform, kind, count, processes): as if JAX found these."""

  def have(platform: str, kind: str, count: int = 1, processes: int = 1) -> None:
    monkeypatch.setattr(jax, 'devices', lambda: [Device(platform, kind)] * count)
    monkeypatch.setattr(jax, 'device_count', lambda: count)
    monkeypatch.setattr(jax, 'process_count', lambda: processes)

  return have


def test_devices_are_named(having, monkeypatch):
  having('gpu', H100, 8)
  assert devices.describe() == f'8 x {H100}'
  assert devices.describe(2) == f'2 of 8 x {H100}' and devices.describe(8) == f'8 x {H100}'
  having('gpu', H100, 16, 2)
  assert devices.describe() == f'16 x {H100} in 2 processes'
  monkeypatch.setattr(devices, 'cores', lambda: 2)
  having('cpu', 'cpu')
  assert devices.describe(1) == '2 CPU cores' and devices.kinds() == '1 x cpu'
  having('cpu', 'cpu', 4, 2)
  assert devices.describe() == '2 CPU cores (4 x cpu in 2 processes)'
  monkeypatch.setattr(devices, 'cores', lambda: 1)
  having('cpu', 'cpu')
  assert devices.describe() == '1 CPU core'


def platforms(monkeypatch, value: str) -> None:
  monkeypatch.setattr(devices, 'platforms', lambda: value)


def test_a_gpu_that_is_not_used_is_told(having, monkeypatch):
  having('cpu', 'cpu')
  monkeypatch.setattr(devices, 'sign_of_gpu', lambda: 'nvidia-smi')
  platforms(monkeypatch, '')
  assert "pip install 'jax[cuda12]'" in devices.doubt({})
  assert devices.doubt({'CUDA_VISIBLE_DEVICES': ''}) == ''  # hidden on purpose
  platforms(monkeypatch, 'cpu')
  assert devices.doubt({}) == ''
  platforms(monkeypatch, 'cuda,cpu')
  assert "'cuda,cpu'" in devices.doubt({})
  having('gpu', H100)
  assert devices.doubt({}) == ''


def test_a_machine_without_a_gpu_is_not_doubted(having, monkeypatch):
  having('cpu', 'cpu')
  monkeypatch.setattr(devices, 'sign_of_gpu', lambda: '')
  platforms(monkeypatch, '')
  assert devices.doubt({}) == ''


@pytest.mark.parametrize('error', [RuntimeError("Backend 'cuda' is not\nthere"), AssertionError()])
def test_a_platform_that_is_not_there_is_one_line(monkeypatch, error):
  def fail():
    raise error

  monkeypatch.setattr(jax, 'devices', fail)
  platforms(monkeypatch, 'cuda')
  with pytest.raises(BadInput, match=r"JAX_PLATFORMS is 'cuda'.*: unset it") as found:
    devices.find()
  assert '\n' not in str(found.value) and 'AssertionError' not in str(found.value)


def test_nvidia_smi_is_a_sign(monkeypatch, tmp_path):
  monkeypatch.setattr(devices.pathlib.Path, 'exists', lambda self: False)
  monkeypatch.setattr(devices.ctypes.util, 'find_library', lambda name: None)
  monkeypatch.setenv('PATH', str(tmp_path))
  assert devices.sign_of_gpu() == ''
  (tmp_path / 'nvidia-smi').write_text('#!/bin/sh\n')
  (tmp_path / 'nvidia-smi').chmod(0o755)
  assert devices.sign_of_gpu() == 'nvidia-smi'


def test_jaxs_own_line_on_it_is_left_out(caplog):
  with caplog.at_level(logging.WARNING):
    logger = logging.getLogger('jax._src.xla_bridge')
    logger.warning('An NVIDIA GPU may be present on this machine ... Falling back to cpu.')
    logger.warning('something else')
  assert [record.getMessage() for record in caplog.records] == ['something else']


def test_a_command_that_finds_it_out_late_is_one_line(monkeypatch, capsys):
  def fail(*_):
    raise AssertionError  # as jax.jit does

  monkeypatch.setattr(jax, 'devices', fail)
  platforms(monkeypatch, 'cuda')
  module = types.SimpleNamespace(
    add_arguments=lambda commands: add_command(commands, 'fill', 'fills it', fail, config=False)
  )
  monkeypatch.setattr(command_line, 'COMMANDS', (module,))
  assert command_line.main(['fill']) == 2
  assert capsys.readouterr().err.startswith("diga_jax: JAX_PLATFORMS is 'cuda'")
  monkeypatch.undo()
  monkeypatch.setattr(command_line, 'COMMANDS', (module,))
  with pytest.raises(AssertionError):  # of something else
    command_line.main(['fill'])


@pytest.mark.parametrize(
  ('platforms', 'status', 'line'),
  [
    ('cuda', 2, "diga_jax: JAX_PLATFORMS is 'cuda', and JAX finds no such device"),
    ('cpu', 0, 'devices: '),
  ],
)
def test_the_first_line_of_a_command(tmp_path, platforms, status, line):
  arguments = ['run', '--config=tests/configs/tiny.py', f'--workdir={tmp_path / "run"}']
  command = [
    sys.executable,
    '-m',
    'diga_jax',
    *arguments,
    '--dry_run',
    '--config.recipe=("warmup",)',
  ]
  command += ['--config.translator.kind=fourier', f'--config.data.cache={tmp_path / "scenes"}']
  environment = {'PATH': '/usr/bin:/bin', 'HOME': str(tmp_path), 'JAX_PLATFORMS': platforms}
  done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
  assert done.returncode == status, done.stderr
  assert done.stderr.startswith(line) and len(done.stderr.splitlines()) == 1
