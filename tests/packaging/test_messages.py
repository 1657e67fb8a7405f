"""Sizes are height x width in every text of the package."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
# In an f-string: {width}x{...}, {w}x{h}, {image.width}x{...}, {shape[1]}x{shape[0]}.
WIDTH_FIRST = re.compile(
  r'\{([^{}]*\b)?(w|\w*width)\}\s?[x×]\s?\{|\[([1-3])\]\}\s?[x×]\s?\{[^{}]*\[(\d)\]\}'
)


def width_first(text: str) -> list[str]:
  found = WIDTH_FIRST.finditer(text)
  return [match[0] for match in found if match[3] is None or match[3] > match[4]]


def test_sizes_are_height_by_width():
  assert len(width_first("f'{w}x{h} {a.width}x{b} {size[1]}x{size[0]} {f[3]}x{g.image[2]}'")) == 4
  assert not width_first("f'{h}x{w} {size[0]}x{size[1]} {image.height}x{image.width}'")
  for folder in ('diga_jax', 'data_pipelines', 'configs', 'benchmarks'):
    for path in (ROOT / folder).rglob('*.py'):
      assert not width_first(path.read_text()), path
