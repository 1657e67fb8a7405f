"""Stage folders: what a folder that was made from something else is told."""

import pytest

from data_pipelines.errors import BadInput
from diga_jax.storage import stage_folder


@pytest.mark.parametrize(
  ('old', 'new'),
  [
    ('stage.optimizer.head', 'head_lr_multiplier'),
    ('stage.adversarial.optimizer.total', 'decay_steps'),
    ('stage.ema', 'ema_decay'),
    ('stage.batch', 'selector_batch'),
    ('stage.batch.full', 'full_rows'),
    ('choose', 'checkpoint_choice'),
  ],
)
def test_a_folder_from_before_fields_were_renamed_is_refused_with_that_reason(tmp_path, old, new):
  stage_folder.write_record(tmp_path, {'identity': {'seed': 0, old: 1}})
  with pytest.raises(BadInput, match=r'renamed.*another --workdir.*CHANGELOG') as refusal:
    stage_folder.check_same(tmp_path, {'seed': 0, f'stage.{new}': 1})
  assert old in str(refusal.value) and new in str(refusal.value)


def test_present_fields_that_end_like_old_ones_are_not_taken_for_them(tmp_path):
  stage_folder.write_record(tmp_path, {'identity': {'stage.batch.source': 'a', 'model.head': 1}})
  with pytest.raises(BadInput, match='made with other settings'):
    stage_folder.check_same(tmp_path, {'stage.batch.source': 'b'})
