"""The sources of the site: notebooks with their outputs, the reference, the moving picture."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from test_docs import PUBLIC

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted(DOCS.glob("gallery/*.ipynb"))


def test_the_reference_has_every_public_name():
    listed = re.findall(r"^   (\w+)$", (DOCS / "api.rst").read_text(), re.M)
    assert sorted(listed) == sorted(PUBLIC)


def test_the_gallery_has_every_notebook():
    page = (DOCS / "gallery/index.md").read_text()
    assert {path.name for path in NOTEBOOKS} == set(re.findall(r"\w+\.ipynb", page))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_have_the_outputs_of_one_run(path):
    """Executed from the first cell to the last; `python docs/execute.py` does it."""
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs
    assert {output["output_type"] for output in outputs}.isdisjoint({"error"})
    assert {output.get("name") for output in outputs}.isdisjoint({"stderr"}), "a warning"
    assert not re.search(r"/(tmp|home|work)/\w", json.dumps(outputs)), "a path of some machine"


def test_notebooks_are_small():
    assert sum(path.stat().st_size for path in NOTEBOOKS) < 3_000_000


def test_the_picture_moves_and_is_small():
    path = DOCS / "images/forming.gif"
    assert path.stat().st_size < 500_000
    with Image.open(path) as picture:
        assert picture.n_frames >= 20
