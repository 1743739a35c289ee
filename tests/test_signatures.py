"""The types of the public functions in the code of users, as mypy and pyright see them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

HEAD = """\
import numpy as np
import xarray
import daskstats as stats
from daskstats import eager

frames = np.zeros((3, 4, 5), "u2")
series = xarray.DataArray(frames)
"""

# An expression and its type, without modules and parameters of types.
TYPES = {
    "stats.max(frames)": "Array",
    "stats.max(ims=frames, nframes=2)": "Array",
    "stats.percentile('scan.npy', 5, mask=frames[0] > 3)": "Array",
    "stats.median(list(frames), use_buffer=False, region=((0, 2), (0, 3)), skipna=True)": "Array",
    "stats.aggregate(frames, ['max', ('percentile', 95)])": "dict[str, Array]",
    "stats.std_iter(frames, 3, ddof=1, lock=True)": "Stream[ndarray]",
    "stats.aggregate_iter(frames, ['max'], 3)": "Stream[dict[str, ndarray]]",
    "stats.snapshots(frames, ('percentile', 95), 3)": "Stream[Snapshot[ndarray]]",
    "next(stats.snapshots(series, ['max', 'sum'], nchunk=3)).image": "dict[str, ndarray]",
    "stats.plan('scan.npy', 'median', memory_limit='1 GiB')": "Plan",
    "eager.max(frames)": "ndarray",
    "eager.aggregate(frames, ['max'])": "dict[str, ndarray]",
    "stats.max(series, dim='time')": "DataArray",
    "stats.percentile(ims=series, pctl=[5, 95])": "DataArray",
    "stats.partials(series, 'max', 3)": "DataArray",
    "stats.wrap(series, dim='time')": "DataArray",
    "stats.aggregate(series, ['max'])": "Dataset",
    "stats.average_iter(series, 3)": "Stream[ndarray]",
    "eager.max(series)": "DataArray",
    "eager.aggregate(series, ['max'])": "Dataset",
}
ERRORS = [
    "stats.median(frames, regions=None)",
    "stats.max(frames, skipna='no')",
    "stats.percentile(frames)",
    "stats.average_iter(frames)",
    "stats.sum(3)",
    "eager.median(frames, regions=None)",
    "eager.max(frames, skipna='no')",
    "eager.max(frames).compute()",
    "eager.aggregate(3, ['max'])",
]
CALLS = HEAD + "".join(f"reveal_type({call})\n" for call in TYPES) + "\n".join(ERRORS) + "\n"
FIRST = HEAD.count("\n") + 1
REVEALED = range(FIRST, FIRST + len(TYPES))
WRONG = range(REVEALED.stop, REVEALED.stop + len(ERRORS))

# xarray takes mypy half a minute. This has the attributes by which its DataArrays are known.
XARRAY = """\
from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np

class Dataset: ...

class DataArray:
    def __init__(self, data: Any) -> None: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dims(self) -> tuple[Hashable, ...]: ...
    @property
    def dtype(self) -> np.dtype: ...
    def __len__(self) -> int: ...
    def __getitem__(self, key: Any) -> DataArray: ...
    def __iter__(self) -> Iterator[Any]: ...
    def to_dataset(self, dim: Hashable = None, *, name: Hashable = None) -> Dataset: ...
"""


def short(text):
    """Return a type without modules, and without the parameters of arrays.

    >>> short("dict[builtins.str, numpy.ndarray[tuple[Any, ...], numpy.dtype[Any]]]")
    'dict[str, ndarray]'
    """
    text = re.sub(r"\b\w+\.(?=\w)", "", text)
    return re.sub(r"ndarray\[tuple\[.*?\], dtype\[\w+\]\]", "ndarray", text)


def test_mypy_sees_types_and_keywords(tmp_path):
    (tmp_path / "arrays.pyi").write_text(XARRAY)
    (tmp_path / "calls.py").write_text(CALLS.replace("xarray", "arrays"))
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-pretty", tmp_path / "calls.py"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    found = re.findall(r"calls\.py:(\d+): (\w+): (.*)", result.stdout)
    revealed = [text.split('"')[1] for _, _, text in found if text.startswith("Revealed")]
    # In this directory the types of dask are left out, which takes as long.
    assert [short(text) for text in revealed] == [
        name.replace("Array]", "Any]") if name != "Array" else "Any" for name in TYPES.values()
    ]
    assert {int(line) for line, kind, _ in found if kind == "error"} == set(WRONG), result.stdout


def test_pyright_sees_types_and_keywords(tmp_path):
    pytest.importorskip("basedpyright")
    (tmp_path / "calls.py").write_text(CALLS)
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "standard"}')
    command = ["-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, "calls.py"]
    result = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=tmp_path
    )
    found = json.loads(result.stdout)["generalDiagnostics"]
    revealed = [each["message"] for each in found if each["severity"] == "information"]
    assert [short(text.split('"')[-2]) for text in revealed] == list(TYPES.values())
    wrong = {each["range"]["start"]["line"] + 1 for each in found if each["severity"] == "error"}
    assert wrong == set(WRONG), result.stdout
