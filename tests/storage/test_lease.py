"""Leases: one holder at a time, released or found dead; machines are told apart by their kernel."""

import multiprocessing
import os
import threading
import time

import pytest

from data_pipelines.errors import BadInput
from diga_jax import signals
from diga_jax.storage import lease
from diga_jax.storage.lease import Leases

FORK = multiprocessing.get_context('spawn')


def test_a_lease_has_one_holder_and_is_free_again(tmp_path):
  ours, theirs = Leases(tmp_path), Leases(tmp_path)
  assert ours.holder('a') == ''
  with ours.take('a') as held:
    assert held and f'process {os.getpid()}' in theirs.holder('a')
    with theirs.take('a') as too, theirs.take('b') as other, theirs.take('a.1') as alike:
      assert not too and other and alike
  with theirs.take('a') as held:
    assert held
  assert {path.name for path in tmp_path.iterdir()} == {'a.1', 'a.2', 'b.1', 'a.1.1'}


def test_a_lease_is_free_after_an_error(tmp_path):
  with pytest.raises(KeyError), Leases(tmp_path).take('a'):
    raise KeyError
  with Leases(tmp_path).take('a') as held:
    assert held


def test_of_many_at_once_one_is_the_holder(tmp_path):
  for turn in range(20):
    barrier, found = threading.Barrier(8), []

    def attempt(barrier=barrier, found=found):
      leases = Leases(tmp_path)
      barrier.wait()
      with leases.take('a') as held:
        found.append(held)
        barrier.wait()

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    assert sum(found) == 1, turn


def hold(place, ready) -> None:
  with Leases(place).take('a') as held:
    assert held
    ready.set()
    time.sleep(100)


def test_a_lease_of_a_killed_process_is_free_at_once(tmp_path):
  ready = FORK.Event()
  process = FORK.Process(target=hold, args=(tmp_path, ready))
  process.start()
  assert ready.wait(60)
  with Leases(tmp_path).take('a') as held:
    assert not held
  process.kill()
  process.join()
  with Leases(tmp_path).take('a') as held:
    assert held


def test_another_machine_is_dead_when_its_file_does_not_change(tmp_path, monkeypatch):
  """As locks are not seen there."""
  now = [100.0]
  monkeypatch.setattr(time, 'monotonic', lambda: now[0])
  with Leases(tmp_path).take('a'):
    text = (tmp_path / 'a.1').read_text()
  path = tmp_path / 'a.1'
  path.write_text(text.replace(lease._boot(), 'another'))
  ours = Leases(tmp_path)
  for later, changed, wanted in ((0, 0, 0), (100, 0, 0), (100, 1, 0), (179, 0, 0), (2, 0, 1)):
    now[0] += later
    if changed:
      path.write_text(path.read_text().replace('"beat": 0', '"beat": 1'))
    with ours.take('a') as held:
      assert held == bool(wanted)


@pytest.mark.parametrize('text', ['', '[1]', '{"host": 3', '\0'])
def test_a_file_that_says_nothing_is_that_of_one_who_begins(tmp_path, monkeypatch, text):
  now = [0.0]
  monkeypatch.setattr(time, 'monotonic', lambda: now[0])
  (tmp_path / 'a.1').write_text(text)
  ours = Leases(tmp_path)
  with ours.take('a') as held:
    assert not held
  now[0] = lease.DEAD + 1
  with ours.take('a') as held:
    assert held


def test_who_was_taken_for_dead_ends(tmp_path, monkeypatch):
  ended, left = threading.Event(), []
  monkeypatch.setattr(lease, 'BEAT', 0.02)
  monkeypatch.setattr(signals, 'leave', lambda *how: (left.append(how), ended.set()))
  with Leases(tmp_path).take('a'):
    first = (tmp_path / 'a.1').read_text()
    until = time.monotonic() + 20
    while (tmp_path / 'a.1').read_text() == first and time.monotonic() < until:
      time.sleep(0.01)
    assert (tmp_path / 'a.1').read_text() != first  # it beats
    (tmp_path / 'a.2').write_text('')
    assert ended.wait(20)
  assert left[0][0] == 75 and 'another machine works on it' in left[0][1]


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
  (tmp_path / 'file').write_text('')
  with (
    pytest.raises(BadInput, match='cannot be written'),
    Leases(tmp_path / 'file/queue').take('a'),
  ):
    pass
