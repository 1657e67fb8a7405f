"""docs/notebooks/tour.ipynb, cell by cell."""

import pathlib

import nbformat
import pytest
from nbclient import NotebookClient

PLACE = pathlib.Path(__file__).parents[2] / 'docs' / 'notebooks' / 'tour.ipynb'


def test_the_tour_is_kept_without_what_it_shows():
  tour = nbformat.read(PLACE, as_version=4)
  nbformat.validate(tour)
  cells = [cell for cell in tour.cells if cell.cell_type == 'code']
  assert not any(cell.outputs or cell.execution_count for cell in cells)
  assert 'pip' in cells[0].source  # a fresh machine has nothing


@pytest.mark.exhaustive
@pytest.mark.filterwarnings('ignore')  # of the kernel's machinery
def test_the_tour_runs(tmp_path, monkeypatch):
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  monkeypatch.setenv('PYTHONPATH', str(PLACE.parents[2]))
  monkeypatch.setenv('IPYTHONDIR', str(tmp_path / 'ipython'))
  monkeypatch.setenv('JUPYTER_RUNTIME_DIR', str(tmp_path / 'runtime'))
  tour = nbformat.read(PLACE, as_version=4)
  found = NotebookClient(
    tour, timeout=1500, kernel_name='python3', resources={'metadata': {'path': str(tmp_path)}}
  ).execute()
  shown = [
    data
    for cell in found.cells
    for output in cell.get('outputs', ())
    for data in output.get('data', {})
  ]
  assert shown.count('image/png') == 4
  assert (tmp_path / 'runs/labels/2.png').exists()
  said = ''.join(
    output.text
    for cell in found.cells
    for output in cell.get('outputs', ())
    if output.output_type == 'stream' and output.name == 'stdout'
  )
  assert '(128, 256) uint8 (128, 256, 19) float32' in said
  assert 'runs/labels: 3 files labelled' in said
