"""Charts are valid Vega-Lite, and everything on a page can be read on light and dark paper."""

import itertools
import re

import numpy as np
import pytest
import vl_convert

from diga_jax.page import charts

# Text, and what it stands on.
TEXT = ('ink', 'soft', 'accent', 'warn')
FULL = ('heat', 'up', 'down', 'panel')  # behind ink


def luminance(colour: str) -> float:
  """The relative luminance of '#rrggbb' (WCAG 2)."""
  rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
  linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
  return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
  low, high = sorted((luminance(one), luminance(other)))
  return (high + 0.05) / (low + 0.05)


def colours() -> dict[str, tuple[str, str]]:
  """Name -> (in light, in dark), of the style sheet."""
  found = re.findall(r'--(\w+): light-dark\((#\w{6}), (#\w{6})\)', charts.template('style.css'))
  return {name: (light, dark) for name, light, dark in found}


def test_the_contrast_of_black_and_white():
  assert contrast('#000000', '#ffffff') == pytest.approx(21)


@pytest.mark.parametrize('theme', [0, 1], ids=['light', 'dark'])
def test_text_has_the_contrast_of_wcag_aa(theme):
  found = {name: pair[theme] for name, pair in colours().items()}
  for text in TEXT:
    assert contrast(found[text], found['paper']) >= 4.5, text
  # Between paper and full colour the contrast with ink lies between the two.
  for behind in FULL:
    assert contrast(found['ink'], found[behind]) >= 4.5, behind


@pytest.mark.parametrize('theme', [0, 1], ids=['light', 'dark'])
def test_lines_have_a_contrast_of_3(theme):
  assert len(set(charts.COLOURS)) == len(charts.COLOURS)
  for colour in charts.COLOURS:
    assert contrast(colour, colours()['paper'][theme]) >= 3, colour


def curves(names=('a', 'b'), panels=('loss', 'rate', 'score')):
  points = [
    {'x': x, 'y': 0.5, 'tag': 'loss', 'panel': panel, 'series': name, 'stage': name, 'step': x}
    for name, panel, x in itertools.product(names, panels, (1, 2))
  ]
  bounds = [{'x': 0, 'stage': name} for name in names]
  return {'points': points, 'bounds': bounds, 'tags': ['loss']}


def test_specifications_compile():
  specs = charts.specs(curves())
  assert list(specs) == ['loss', 'rate', 'score']
  for spec in specs.values():
    assert (
      spec['encoding']['x']['scale']['domain'] == specs['loss']['encoding']['x']['scale']['domain']
    )
    compiled = vl_convert.vegalite_to_vega(spec)
    assert {mark['type'] for mark in compiled['marks']} >= {'rule'}


def test_panels_without_a_curve_are_left_out():
  assert list(charts.specs(curves(panels=('rate',)))) == ['rate']
  assert charts.specs({'points': [], 'bounds': [], 'tags': []}) == {}


def test_a_name_keeps_its_colour_in_every_panel():
  points = curves(panels=('loss',))['points'] + curves(names=('b',), panels=('rate',))['points']
  specs = charts.specs({**curves(), 'points': points})
  scales = [specs[panel]['layer'][1]['encoding']['color']['scale'] for panel in ('loss', 'rate')]
  assert dict(zip(*scales[0].values(), strict=True))['b'] == scales[1]['range'][0]


def test_the_library_cannot_end_a_script_early():
  from diga_jax.page import write

  assert '</script' not in write.as_script('a</script>b<!--')
  assert '<!--' not in write.as_script('a</script>b<!--')


def test_a_bundle_that_fails_is_told(monkeypatch):
  monkeypatch.setattr(charts, 'BUNDLE', 'raise SystemExit("no engine")')
  with pytest.raises(RuntimeError, match='no engine'):
    charts.bundle()


def test_the_bundle_is_kept_and_a_damaged_one_made_again(monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  made = []
  monkeypatch.setattr(charts, 'bundle', lambda: made.append(1) or f'{charts.DEFINES} = ä;')
  vega = charts.vega.__wrapped__
  assert vega() == vega() and len(made) == 1
  (kept,) = (tmp_path / 'diga_jax').iterdir()
  kept.write_bytes(b'\xff')
  assert charts.DEFINES in vega() and len(made) == 2
  monkeypatch.setenv('XDG_CACHE_HOME', '/dev/null/nowhere')
  assert charts.DEFINES in vega() and len(made) == 3
