"""Optional and slow packages are imported in one place, by one thread at a time."""

import ast
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from daskstats import packages

ROOT = Path(__file__).parent.parent / "daskstats"
LATE = (
    "astropy",
    "distributed",
    "fabio",
    "h5py",
    "hdf5plugin",
    "mrcfile",
    "numba",
    "PIL",
    "tifffile",
    "zarr",
)

# Eight threads at once, each the first to need its package. As many say what they are to do as
# there are arguments; a digit opens a file of that number.
FIRST_USE = """
import sys, threading
from pathlib import Path
import numpy as np
import daskstats as stats

class Series:  # without the helpers of the tests, which import the packages
    shape, dtype = (4, 5), np.dtype("u2")
    def __len__(self): return 3
    def __getitem__(self, index): return np.full((4, 5), index + 1, "u2")

def series(what):
    for _ in range(30):
        image = stats.average(Series()).compute()
    return image

def array(what):
    for _ in range(30):
        image = stats.average(np.full((3, 4, 5), 2, "u2")).compute()
    return image

def path(what):
    return stats.average(what).compute()

def dataset(what):
    import h5py
    with h5py.File(what) as file:
        return stats.average(file["data"]).compute()

def open_zarr(what):
    import zarr
    return stats.average(zarr.open(what)).compute()

def median(what):
    return stats.median(what, memory_limit="64 MiB").compute()

barrier, failed = threading.Barrier(len(sys.argv) - 1), []

def work(job):
    kind, _, what = job.partition("=")
    barrier.wait()
    try:
        assert (globals()[kind](what) == 2).all()
    except BaseException as error:
        failed.append(f"{job}: {error!r}")

threads = [threading.Thread(target=work, args=(job,)) for job in sys.argv[1:]]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("failed:", failed)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    place = tmp_path_factory.mktemp("files")
    frames = np.stack([np.full((4, 5), value, "u2") for value in (1, 2, 3)])
    zarr.create_array(place / "scan.zarr", data=frames)
    with h5py.File(place / "scan.h5", "w") as file:
        file["data"] = frames
    return place


# Each is a process that imports everything; every run has each kind of job once.
JOBS = [
    ["dataset=scan.h5", "series", "array", "path=scan.zarr"],
    ["open_zarr=scan.zarr", "series", "path=scan.h5", "median=scan.zarr"],
]
MORE_JOBS = [
    ["path=scan.h5", "series", "array"],
    ["path=scan.zarr"],
    ["median=scan.h5", "median=scan.zarr"],
]


@pytest.mark.parametrize(
    "jobs",
    [*JOBS, *(pytest.param(jobs, marks=pytest.mark.nightly) for jobs in MORE_JOBS)],
    ids=" ".join,
)
def test_first_use_in_eight_threads(files, jobs):
    """One thread imports h5py or zarr, the others see half of it."""
    eight = [jobs[index % len(jobs)] for index in range(8)]
    code = [sys.executable, "-W", "error", "-c", FIRST_USE, *eight]
    result = subprocess.run(code, cwd=files, capture_output=True, text=True, timeout=200)
    assert result.stdout.strip() == "failed: []", result.stdout + result.stderr


@pytest.mark.parametrize(
    ("name", "attribute"),
    [("zarr", "Array"), ("h5py", "Dataset"), ("distributed.worker", "Worker")],
)
def test_half_imported_module_is_not_there(monkeypatch, name, attribute):
    """As another thread sees it that looks into `sys.modules` meanwhile."""
    monkeypatch.setitem(sys.modules, name, type(sys)(name))
    assert packages.loaded(name, attribute) is None
    monkeypatch.delitem(sys.modules, name)
    assert packages.loaded(name, attribute) is None


def test_missing_package_is_an_import_error():
    with pytest.raises(ImportError, match="no_such_package"):
        packages.load("no_such_package")


def imports(path):
    """Yield the modules that a file imports, by a statement or by a call of `import_module`."""
    tree = ast.parse(path.read_text())
    # Those for annotations only are never run.
    tree.body = [node for node in tree.body if ast.unparse(node)[:17] != "if TYPE_CHECKING:"]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))


LOADED = {("kernels", "numba"), ("run", "distributed")}


def test_every_late_import_is_in_one_place():
    """But for modules that are loaded there themselves: compiled code, the scheduler's plugin."""
    found = {
        (path.relative_to(ROOT).parts[0], name.partition(".")[0])
        for path in ROOT.rglob("*.py")
        for name in imports(path)
    }
    assert {(room, name) for room, name in found if name in LATE} <= LOADED
