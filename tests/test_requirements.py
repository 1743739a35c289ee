"""The lowest versions that are declared are those that the tests run with."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
import zarr
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def declared(*extras):
    """Return the lowest version of each dependency, "name" to "version"."""
    texts = [*project()["dependencies"]]
    for extra in extras:
        texts += project()["optional-dependencies"][extra]
    lowest = {}
    for requirement in map(Requirement, texts):
        if requirement.name != "daskstats":
            (specifier,) = requirement.specifier
            assert specifier.operator == ">=", requirement
            assert lowest.setdefault(requirement.name, specifier.version) == specifier.version
    return lowest


def constraints():
    lines = (ROOT / "constraints-minimum.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert len(pairs) == len(dict(pairs)), "a package has two versions"
    return dict(pairs)


def test_declared_versions_are_those_that_are_tested():
    assert declared("io", "remote", "test") == constraints()


def test_every_extra_agrees():
    every = declared(*project()["optional-dependencies"])
    assert {name: every[name] for name in constraints()} == constraints()


def test_the_other_files_of_the_package_say_the_same():
    """The recipe of conda and the citation."""
    recipe = yaml.safe_load((ROOT / "conda/recipe.yaml").read_text())
    python, *others = recipe["requirements"]["run"]
    assert python == f"python {project()['requires-python']}"
    assert dict(other.split(" >=") for other in others) == declared()
    assert recipe["requirements"]["host"][0] == python
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert project()["version"] == citation["version"] == recipe["context"]["version"]


def test_all_is_for_users():
    (text,) = project()["optional-dependencies"]["all"]
    assert Requirement(text).extras.isdisjoint({"bench", "docs", "test"})


@pytest.mark.parametrize(
    ("name", "lowest", "why"),
    [
        ("zarr", "3.1.3", "LocalStore renames chunks into place"),
        ("click", "8.2.0", "CliRunner keeps stderr apart"),
        ("dask", "2026.1.1", "the dashboard's vulnerability"),
        ("distributed", "2026.1.1", "the dashboard's vulnerability"),
        ("numpy", "2.0.0", "comparisons with Python ints are exact"),
        ("pytest-xdist", "3.8.0", "--no-loadscope-reorder"),
    ],
)
def test_versions_are_not_below_what_is_known_to_be_needed(name, lowest, why):
    assert Version(constraints()[name]) >= Version(lowest), why


def test_ci_runs_with_them():
    text = (ROOT / ".ci/run").read_text()
    assert re.search(r"pip. install .*-c constraints-minimum\.txt", text)
    files = re.findall(r"tests/\S+", text.partition("constraints-minimum.txt")[2])
    assert len(files) >= 5
    assert all((ROOT / file).exists() for file in files), files


def test_zarr_writes_a_chunk_by_a_rename(tmp_path, monkeypatch):
    """Two workers of a shared scratch directory would interleave otherwise."""
    array = zarr.create_array(tmp_path / "x.zarr", shape=(4, 4), chunks=(4, 4), dtype="u2")
    array[...] = 1
    chunk = tmp_path / "x.zarr" / "c" / "0" / "0"
    with chunk.open("rb") as before:
        array[...] = 2
        assert before.read() != chunk.read_bytes(), "the file was written to, not replaced"
