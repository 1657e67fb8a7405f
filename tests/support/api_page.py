"""docs/api.md, of the public names' docstrings: `python -m tests.support.api_page` writes it."""

import ast
import importlib
import inspect
import pathlib

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'api.md'
NAMES = {
  'models': 'build',
  'weights': 'read from_torch to_torch',
  'losses': 'cross_entropy ohem_cross_entropy symmetric_distillation smooth_confident '
  'entropy_ignored consistency_ignored edge',
  'centroids': 'distance_weight class_means update accumulate',
  'criteria': 'agreement consensus density',
  'selection': 'nearest_centroid bilateral_consensus instance_adaptive',
  'mixing': 'class_mask paste',
  'augment': 'brightness contrast saturation hue grayscale blur sharpness',
  'metrics': 'confusion_matrix iou',
  'ema': 'decay update',
  'optimizer': 'poly',
}
HEAD = '# The public names\n\nMade from the docstrings by `python -m tests.support.api_page`.\n'


def page() -> str:
  """The whole page, as Markdown."""
  parts = [HEAD]
  for name, functions in NAMES.items():
    module = importlib.import_module(f'diga_jax.{name}')
    parts.append(f'## {name}\n\n{inspect.getdoc(module)}\n')
    for function in (getattr(module, word) for word in functions.split()):
      node = ast.parse(inspect.getsource(function)).body[0]
      # As it is written: `inspect.signature` spells types differently from version to version.
      signature = f'{name}.{node.name}({ast.unparse(node.args)}) -> {ast.unparse(node.returns)}'
      parts.append(f'```python\n{signature}\n```\n\n```text\n{inspect.getdoc(function)}\n```\n')
  return '\n'.join(parts)


if __name__ == '__main__':
  PAGE.write_text(page())
