"""The uses of dask's private modules, which may change without notice: each is known, and works."""

import re
from importlib import import_module
from pathlib import Path

import dask
import numpy as np
import pytest
from dask.base import tokenize

import daskstats as stats
from daskstats.graph.arrays import EXPRESSIONS, NamedGraph

ROOT = Path(__file__).parents[2]

# As of docs/architecture.md: modules, and the names of them that are used.
TABLE = r"^\| `((?:dask|distributed)[\w.]*)` \| ((?:`\w+`(?:, )?)+) \| .* \| .* \|$"
LISTED = {
    module: re.findall(r"\w+", names)
    for module, names in re.findall(
        TABLE, (ROOT / "docs/architecture.md").read_text(), re.MULTILINE
    )
}


def private_uses():
    """Yield (module, names) of each import of a private module."""
    line = re.compile(r"from ((?:dask|distributed)[\w.]*) import (.*)")
    for path in (ROOT / "daskstats").rglob("*.py"):
        for module, names in line.findall(path.read_text()):
            if "._" in module:
                yield module, {name.split(" as ")[0].strip() for name in names.split(",")}


def test_every_use_is_listed():
    used = {}
    for module, names in private_uses():
        used.setdefault(module, set()).update(names)
    listed = {module: set(names) for module, names in LISTED.items() if "._" in module}
    assert used == listed


@pytest.mark.parametrize("module", LISTED)
def test_a_use_still_works(module):
    for name in LISTED[module]:
        assert hasattr(import_module(module), name), (
            f"dask {dask.__version__} has no {module}.{name} any more: docs/architecture.md says "
            f"what would replace it"
        )


def test_arrays_are_of_the_world_that_dask_is_in():
    image = stats.max(np.ones((3, 4, 5), "u2"))
    assert hasattr(image, "expr") == EXPRESSIONS
    assert dask.utils.key_split(image.name) == "max"


def test_a_name_identifies_the_tasks_of_an_expression():
    assert tokenize(NamedGraph({"a": 1}, "x")) == tokenize(NamedGraph({"b": 2}, "x"))
    assert tokenize(NamedGraph({"a": 1}, "x")) != tokenize(NamedGraph({"a": 1}, "y"))
    assert dict(NamedGraph({"a": 1}, "x")) == {"a": 1}
