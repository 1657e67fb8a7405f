"""What every stage of every published config depends on, and the first things that it draws.

`python -m tests.support.frozen` writes tests/support/frozen/CONFIG.json anew. Do that only for a
change that is meant to change runs: the difference shows in the commit.
"""

import json
import pathlib
import zlib
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from data_pipelines.copy_paste import CopyPaste
from data_pipelines.folder import Folder
from diga_jax import mixing
from diga_jax.configs import (
  benchmark,
  camvid_semi,
  cityscapes_semi,
  comparison,
  gta5_generalization,
  gta5_to_cityscapes,
  gta5_to_cityscapes_mit_b5,
  hiast_gta5,
  hiast_robotcar,
  hiast_synthia,
  my_data,
  quickstart,
  quickstart_generalization,
  synthcity_to_camvid,
  synthia_to_cityscapes,
)
from diga_jax.parallel import example_keys
from diga_jax.recipe import graph, training
from diga_jax.recipe.experiment import Experiment, Run
from diga_jax.stages.kinds import inputs, kind_of

PLACE = pathlib.Path(__file__).parent / 'frozen'
MODULES = (
  benchmark, camvid_semi, gta5_generalization, gta5_to_cityscapes, gta5_to_cityscapes_mit_b5,
  hiast_gta5,
  hiast_robotcar, hiast_synthia, my_data, quickstart, quickstart_generalization,
  synthia_to_cityscapes, comparison,
)  # fmt: skip
CONFIGS = {module.__name__.rpartition('.')[2]: module.get_config for module in MODULES}
CONFIGS |= {
  f'cityscapes_semi_{part}': lambda part=part: cityscapes_semi.get_config(part)
  for part in cityscapes_semi.PARTS
}
CONFIGS['synthcity_to_camvid_study'] = lambda: synthcity_to_camvid.get_config('study')
STEPS = (0, 7)
IMAGES = 97  # of every data set


class Blocks(Folder):
  """Images and labels of a data set whose files nobody has: blocks that tell where they are."""

  size = (600, 1000)

  def sizes(self) -> list[tuple[int, int]]:
    return [self.size] * len(self)

  def read_pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.indices(self.size) // 24
    label = ((7 * rows + 11 * columns + index) % self.classes).astype(np.uint8)
    label[(rows + columns) % 13 == 0] = 255
    return np.stack([label] * 3, -1), label


def images(experiment: Experiment, name: str, labelled: bool = True) -> Blocks:
  return Blocks(
    f'{name}/{{id}}', labels='{id}', ids=[f'{i:03d}' for i in range(IMAGES)],
    classes=experiment.config.data.classes,
  )  # fmt: skip


def identity(experiment: Experiment, name: str) -> dict[str, Any]:
  return json.loads(json.dumps(graph.identity(experiment, name)))


def crc(x: Any) -> int:
  return zlib.crc32(np.ascontiguousarray(x).tobytes())


def draws(experiment: Experiment, name: str) -> dict[str, Any]:
  """By step: checksums of every row's label as it is cropped, and of its class mask.

  The crop of a label tells which image it is of, where it was cut and whether it was mirrored.
  """
  config, stage = experiment.config, experiment.stage(name)
  reads, pasted = inputs(stage, config), None
  target = images(experiment, reads.target) if reads.target else None
  if reads.copy_paste:
    random = np.random.default_rng(0)
    counts = random.integers(0, 9, (IMAGES, config.data.classes))
    pasted = CopyPaste(counts, random.random(config.data.classes), **stage.copy_paste.to_dict())
  found = {}
  for step in STEPS:
    # `skipped` makes it read through `Blocks`, not by TensorFlow.
    batch = next(training.batches(experiment, name, step, target=target, pasted=pasted, skipped={}))
    rows = {key: list(map(crc, x)) for key, x in batch.items() if key.endswith('_label')}
    if 'source_label' in batch:
      labels = batch['source_label']
      for use in ('source_classes', 'target_classes'):
        keys = example_keys.example_keys(
          example_keys.root_key(config.seed, experiment.stream(name)),
          np.int32(step),
          use,
          len(labels),
        )
        rows[use] = list(map(crc, np.asarray(mixing.class_mask(keys, labels))))
    found[str(step)] = rows
  return found


def freeze(config: ConfigDict) -> dict[str, Any]:
  """{'common': identity fields equal in all stages, 'stages': {name: {'identity', 'draws'}}}."""
  config.devices = 1
  experiment = Run(config, pathlib.Path('nowhere'))
  found = {name: identity(experiment, name) for name in graph.stages_of(experiment)}
  first = next(iter(found.values()))
  common = {
    key: value
    for key, value in first.items()
    if all(key in other and other[key] == value for other in found.values())
  }
  result = {}
  for name, fields in found.items():
    result[name] = {'identity': {k: v for k, v in fields.items() if k not in common}}
    if kind_of(experiment.stage(name)).train_step:
      result[name]['draws'] = draws(experiment, name)
  return {'common': common, 'stages': result}


def without_files(patch: Any) -> None:
  """Makes experiments take `Blocks` for their data sets and any name for a complete stage."""
  patch.setattr(Experiment, 'images', images)
  patch.setattr(Experiment, 'fingerprint', lambda *_, **__: 'files')
  patch.setattr(graph, 'digest', lambda experiment, name: f'stage {name}')


def main() -> None:
  import pytest

  with pytest.MonkeyPatch.context() as patch:
    without_files(patch)
    for name, make in CONFIGS.items():
      (PLACE / f'{name}.json').write_text(json.dumps(freeze(make()), indent=1) + '\n')


if __name__ == '__main__':
  main()
