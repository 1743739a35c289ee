"""What is public, what is documented, and that every example runs."""

import ast
import doctest
import importlib
import inspect
import json
import pkgutil
import re
import shlex
import tomllib
from pathlib import Path

import fabio
import h5py
import numpy as np
import pytest
import tifffile
import yaml
import zarr
from programs import run

import daskstats as stats
from daskstats.cli import commands
from daskstats.simulate import simulate
from daskstats.statistics import STATISTICS

ROOT = Path(__file__).parent.parent
MODULES = ["daskstats"] + [
    module.name
    for module in pkgutil.walk_packages(stats.__path__, "daskstats.")
    if not module.name.endswith("__main__")
]
PUBLIC = [*stats.__all__, "max", "min", "sum", "range"]

# Imports run downwards only: a room may import from the rooms that stand below it in this table.
MAP = (ROOT / "docs/architecture.md").read_text().partition("## Rooms")[2].partition("\n## ")[0]
ROOMS = re.findall(r"^\| `(\w+)` \|", MAP, re.M)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some write files
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} does not say which question it answers"
    with np.printoptions(threshold=1000, precision=8):  # which other packages change
        results = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert results.failed == 0


def test_star_import_shadows_no_builtin():
    namespace: dict = {}
    exec("from daskstats import *", namespace)
    assert {"max", "min", "sum", "range"}.isdisjoint(stats.__all__)
    assert namespace["max_iter"] is stats.max_iter
    assert "max" not in namespace
    assert sorted(stats.__all__) == list(stats.__all__)


def test_aliases_are_the_same_objects():
    assert stats.maximum is stats.max
    assert stats.minimum is stats.min
    assert stats.maximum_iter is stats.max_iter
    assert stats.minimum_iter is stats.min_iter


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented(name):
    public = getattr(stats, name)
    doc = inspect.getdoc(public)
    assert doc
    assert "{common}" not in doc
    if inspect.isfunction(public):
        for parameter in inspect.signature(public).parameters:
            assert re.search(rf"^{parameter} : ", doc, re.M), f"{name}: {parameter}"
        parameters = ["Parameters"] * bool(inspect.signature(public).parameters)
        for section in (*parameters, "Returns", "Examples"):
            assert f"\n{section}\n---" in doc, f"{name} has no section {section}"


def test_signatures_name_every_keyword():
    common = {"dtype": None, "memory_limit": None, "lock": False, "frames": None, "region": None}
    common |= {"mask": None, "invalid": None, "saturation": None, "skipna": False}
    common |= {"fill_value": None, "dark": None, "flip": None, "dim": None}
    others = {"wrap", "memory_limit", "frames_from_raw", "last_watched", "load_checkpoint", "warm"}
    for name in set(PUBLIC) - others:
        if inspect.isfunction(getattr(stats, name)):
            *own, _ = inspect.signature(getattr(stats, name).__wrapped__).parameters
            found = inspect.signature(getattr(stats, name)).parameters
            iterates = name.endswith("_iter") or name in ("snapshots", "watch", "follow")
            every = common | ({"checkpoint": None, "restart": False} if iterates else {})
            assert list(found) == [*own, *every], name
            assert {key: found[key].default for key in every} == every


def test_nothing_else_is_public():
    # The rooms are attributes of the package because they have been imported.
    found = {name for name in dir(stats) if not name.startswith("_")} - set(ROOMS)
    assert found == set(PUBLIC)
    assert not hasattr(stats, "nothing")


def test_version_is_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert stats.__version__ == project["version"]


def imported_rooms(path):
    """Return the rooms that a module of the package imports."""
    depth = len(path.relative_to(ROOT / "daskstats").parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            if node.module:
                yield node.module.split(".")[0]
            else:
                yield from (alias.name for alias in node.names if alias.name in ROOMS)


def test_every_module_is_in_a_room():
    entries = (ROOT / "daskstats").iterdir()
    found = {
        path.stem for path in entries if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert found == set(ROOMS)


def test_imports_run_downwards():
    for path in (ROOT / "daskstats").rglob("*.py"):
        parts = path.relative_to(ROOT / "daskstats").with_suffix("").parts
        room = parts[0]
        for other in imported_rooms(path):
            assert ROOMS.index(other) > ROOMS.index(room), f"{'.'.join(parts)} imports {other}"


def test_only_its_room_uses_the_graph_internals():
    for path in (ROOT / "daskstats").rglob("*.py"):
        if path.parent.name != "graph":
            assert "_task_spec" not in path.read_text()


GUIDES = [
    "README.md",
    "docs/checkpoints.md",
    "docs/compiling.md",
    "docs/files.md",
    "docs/following.md",
    "docs/index.md",
    "docs/memory.md",
    "docs/notebook.md",
    "docs/quickstart.md",
    "docs/statistics.md",
]

# The tests of clusters run the examples of clusters.md; architecture.md shows parts of files.
OTHERS = ["docs/clusters.md", "docs/architecture.md"]

WITHOUT_PYTHON = [
    "docs/benchmarks.md",
    "docs/changes.md",
    "docs/comparison.md",
    "docs/contributing.md",
    "docs/gallery/index.md",
    "docs/guides.md",
    "docs/project.md",
]
PAGES = [*GUIDES, *OTHERS, *WITHOUT_PYTHON, "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"]


def blocks(guide, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / guide).read_text(), re.S)


@pytest.mark.parametrize("guide", GUIDES)
def test_examples_of_the_guides_run(tmp_path, monkeypatch, guide):
    monkeypatch.chdir(tmp_path)
    simulate("scan.h5", 20, (32, 24))  # some take a file of the reader
    found = blocks(guide, "python")
    assert found
    namespace: dict = {}
    for block in found:
        exec(block, namespace)


def test_every_guide_is_tested():
    found = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("**/*.md")}
    assert found == {*GUIDES[1:], *OTHERS, *WITHOUT_PYTHON}
    assert not [page for page in WITHOUT_PYTHON if blocks(page, "python") + blocks(page, "py")]


def test_parts_of_files_are_in_these_files():
    (format_,) = blocks("docs/architecture.md", "python")
    assert format_ in (ROOT / "daskstats/formats/mrc.py").read_text()


def commands_of(page):
    """Yield the calls of daskstats on a page, as lists of words."""
    for block in blocks(page, "sh") + blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split(" && "):
                words = shlex.split(part, comments=True)
                if words[:1] == ["daskstats"]:
                    yield [word for word in words[1:] if word != "&"]


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_the_pages_are_commands(page):
    calls = list(commands_of(page))
    assert len(calls) >= 6 * (page == "README.md")
    for name, *args in calls:
        commands.main.commands[name].make_context(name, args)


# Commands that tests of their own run: those of clusters, and those that compile everything.
ELSEWHERE = {"warm", "--workers", "--scheduler", "--scheduler-file", "$SCAN"}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Make the files of the examples in the working directory."""
    monkeypatch.chdir(tmp_path)
    frames = np.random.default_rng(0).integers(0, 4000, (20, 32, 24)).astype("u2")
    for name in ("scan.h5", "master.h5"):
        with h5py.File(name, "w") as file:
            file["entry/data"] = frames
    many = zarr.create_array("scan.zarr", shape=(1440, 32, 24), chunks=(60, 32, 24), dtype="u2")
    many[:] = 1 + np.resize(frames, many.shape)
    Path("run7").mkdir()
    for number, frame in enumerate(frames):
        tifffile.imwrite(f"frames_{number}.tif", frame)
        tifffile.imwrite(f"run7/{number}.tif", frame)
    for name in "abc":
        fabio.cbfimage.CbfImage(data=frames[0].astype("i4")).write(f"{name}.cbf")
    np.save("mask.npy", frames[0] > 3900)


@pytest.mark.filterwarnings("ignore:invalid=4294967295 leaves out nothing")
@pytest.mark.parametrize("page", GUIDES)
def test_commands_of_the_pages_run(files, page):
    for name, *args in commands_of(page):
        if not ELSEWHERE.isdisjoint([name, *args]):
            continue
        if name == "simulate":
            args += ["--shape", "64x64"]
        if "-o" in args or name == "simulate":
            args += ["--force"]  # the result of an example above
        result = run(name, *args)
        assert result.exit_code == 0, result.stderr


def rows(result, table=0):
    text = (ROOT / "benchmarks/results" / f"{result}.json").read_text()
    return json.loads(text)["tables"][table]["rows"]


def test_ratios_of_the_readme_are_those_of_the_benchmarks():
    goals = dict(row[:2] for row in rows("compare-goals"))
    peers = ("numpy percentile", "dask.array", "HEXRD loops")
    peaks = [row[6] for row in rows("memory") if row[1] == "median" and row[2] != "8 at once"]
    expected = {
        "median in memory": [goals[f"median / {peer}"] for peer in peers],
        "average in memory": [goals[f"average / {peer}"] for peer in peers[1:]],
        "maximum in memory": [goals[f"max / {peer}"] for peer in peers[1:]],
        "maximum of gzip": [row[4] for row in rows("files") if row[0] == "gzip"],
        "maximum, average": [
            row[3] for row in rows("aggregate") if row[:2] == ["zarr zstd", "all"]
        ],
        "60 intermediate": [row[4] for row in rows("steps") if row[1:3] == ["max", 60]][:1],
        "median of a series": [min(peaks), max(peaks)],
    }
    text = (ROOT / "README.md").read_text()
    for beginning, values in expected.items():
        (line,) = re.findall(rf"^\| {beginning}.*$", text, re.M)
        shown = re.split(", | to ", line.split(" | ")[1])
        assert shown == [f"{value:.3g}" for value in values], beginning


def test_every_statistic_is_documented():
    text = (ROOT / "docs/statistics.md").read_text()
    for name in STATISTICS:
        assert re.search(rf"^\|.*`{name}[(`]", text, re.M), name


def test_every_setting_is_documented():
    text = (ROOT / "docs/memory.md").read_text()
    for name, value in yaml.safe_load((ROOT / "daskstats/daskstats.yaml").read_text())[
        "daskstats"
    ].items():
        default = "null" if value is None else value
        assert f"| `daskstats.{name}` | {default} |" in text


def headings_of(page):
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return [re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles]


@pytest.mark.parametrize("guide", PAGES)
def test_links_lead_somewhere(guide):
    place = (ROOT / guide).parent
    for target in re.findall(r"\]\(([^)]+)\)", (ROOT / guide).read_text()):
        if "://" not in target:
            name, _, heading = target.partition("#")
            page = place / name if name else ROOT / guide
            assert page.exists(), target
            assert not heading or heading in headings_of(page), target
