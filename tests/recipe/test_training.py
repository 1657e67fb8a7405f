"""Training stages, where no whole run is needed to see it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from data_pipelines.errors import BadInput
from diga_jax import state, train
from diga_jax.inference.image_batches import batches
from diga_jax.parallel import mesh
from diga_jax.recipe import training
from diga_jax.recipe.experiment import Run
from tests.configs import tiny
from tests.support.tiny import Source


@pytest.mark.parametrize('wrong', [np.nan, np.inf, -np.inf])
def test_no_number_of_a_state_escapes(wrong):
  params = {'a': jnp.ones((2, 3)), 'b': {'c': jnp.zeros(4)}}
  parts = {'batch_stats': {'m': jnp.ones(3)}, 'centroids': jnp.ones((2, 2))}
  given = state.create(
    jax.random.key(0), params, optax.adam(1e-3), **parts, discriminator={'params': params}
  )
  leaves, tree = jax.tree.flatten(given)
  assert np.isfinite(list(train._numbers_of(given).values())).all()
  for i, leaf in enumerate(leaves):
    if jnp.issubdtype(leaf.dtype, jnp.floating):
      bad = leaf.at[(-1,) * leaf.ndim].set(wrong)
      found = train._numbers_of(tree.unflatten([*leaves[:i], bad, *leaves[i + 1 :]]))
      assert not np.isfinite(list(found.values())).all(), i


def test_what_does_not_fit_into_memory_is_refused_before_it_is_tried(tmp_path, monkeypatch):
  config = tiny.get_config()
  config.data.crop = (16384, 16384)
  config.stages.warmup.batch.low_rows = 2**16
  with pytest.raises(BadInput, match=r'config.stages.warmup: at least .* GiB .* lower data.crop'):
    training.check_memory(Run(config, tmp_path), 'warmup')
  monkeypatch.setattr(mesh.os, 'sysconf', lambda _: 100)
  with pytest.raises(BadInput, match=r'2 images of 24x32 at a time: .* lower evaluation.batch'):
    list(batches(Source(2), batch_size=2))
