"""numba's cache in every state: compiled code may be lost, a call never fails."""

import errno
import os
import pickle
import runpy
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import daskstats as stats

PACKAGE = Path(stats.__file__).parent

# Cheap to compile, one dtype; warnings go to stdout as lines.
CALL = """
import sys, warnings
warnings.showwarning = lambda message, *rest, **more: print("warning:", message)
import numpy as np
import daskstats as stats
print(stats.__file__)
for frames in (np.arange(24, dtype="u2").reshape(4, 3, 2), np.ones((2, 2, 2), "u2")):
    print(stats.max(frames).compute().ravel().tolist())
"""
RIGHT = ["[18, 19, 20, 21, 22, 23]", "[1, 1, 1, 1]"]


def call(program=CALL, path=PACKAGE.parent, **variables):
    """Return the lines a new process prints."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env=os.environ | {"PYTHONPATH": str(path)} | {k: str(v) for k, v in variables.items()},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.splitlines()


def warned(lines):
    assert [line for line in lines if line.startswith("[")] == RIGHT
    return [line for line in lines if line.startswith("warning:")]


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Return a cache that has the code of the call."""
    cache = tmp_path_factory.mktemp("cache")
    assert warned(call(NUMBA_CACHE_DIR=cache)) == []
    assert list(cache.rglob("*.nbc"))
    return cache


def test_damaged_file_is_removed_and_its_code_compiled_again(filled, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(filled, cache)
    file = min(cache.rglob("extremes._extreme-*.nbc"))
    good = file.read_bytes()
    file.write_bytes(good[:1000])
    (text,) = warned(call(NUMBA_CACHE_DIR=cache))
    assert f"{file} in numba's cache is damaged" in text
    assert "removed; compiled again" in text
    assert len(file.read_bytes()) > len(good) // 2
    assert warned(call(NUMBA_CACHE_DIR=cache)) == []


# ---------------------------------------------------------------------- one small function

SMALL = """
from numba import njit
from daskstats.kernels.cache import cached

@cached(njit)
def twice(x):
    return 2 * x
"""


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Return a function that imports and calls compiled code as a new process does, and its cache.

    It returns the text of the one warning, if there was one.
    """
    import numba

    from daskstats.kernels import cache

    module, place = tmp_path / "small.py", tmp_path / "cache"
    module.write_text(SMALL)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(place))

    def run():
        monkeypatch.setattr(cache, "_said", set())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert runpy.run_path(str(module))["twice"](21) == 42
        assert len(caught) <= 1
        return str(caught[0].message) if caught else ""

    return run, place


def test_code_is_compiled_again_when_any_file_of_compiled_code_has_changed(small, monkeypatch):
    """It includes functions of other files."""
    from daskstats.kernels import cache

    run, place = small
    run()
    (file,) = place.rglob("*.nbc")
    old = file.stat().st_mtime_ns
    run()
    assert file.stat().st_mtime_ns == old
    monkeypatch.setattr(cache, "sources_stamp", lambda: (("sums.py", 1.0, 2),))
    run()
    assert [file] != list(place.rglob("*.nbc")), "code of older sources is removed"
    assert len(list(place.rglob("*.nbc"))) == 1


DAMAGE = {
    "empty": lambda data: b"",
    "cut off": lambda data: data[: len(data) // 2],
    "without its end": lambda data: data[:-1],
    "zeros": lambda data: b"\x00" * len(data),
    "text": lambda data: b"this is no pickle\n",
    "of another kind": lambda data: pickle.dumps(["something", "else"]),
    "of a module that is not there": lambda data: b"cno_such_module\nthing\n.",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_every_kind_of_damage(small, damage):
    run, place = small
    assert run() == ""
    (file,) = place.rglob("*.nbc")
    good = file.read_bytes()
    file.write_bytes(damage(good))
    text = run()
    assert f"{file} in numba's cache is damaged" in text
    # numba numbers its functions: a name may be longer by a digit.
    assert abs(len(file.read_bytes()) - len(good)) < 64
    assert run() == ""


def test_damaged_file_that_cannot_be_removed(small):
    """No user can unlink a directory."""
    run, place = small
    run()
    (file,) = place.rglob("*.nbc")
    file.unlink()
    file.mkdir()
    for _ in range(2):
        text = run()
        assert str(file) in text or str(place) in text


def test_cache_that_is_removed_while_it_is_used(small):
    run, place = small
    run()
    shutil.rmtree(place)
    assert run() == ""
    assert list(place.rglob("*.nbc"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_code_that_cannot_be_kept_is_one_warning(small, monkeypatch, number):
    from numba.core import caching

    def fail(self, *args):
        raise OSError(number, os.strerror(number))

    run, place = small
    with monkeypatch.context() as patched:
        patched.setattr(caching.IndexDataCacheFile, "_save_data", fail)
        text = run()
    assert f"compiled code cannot be kept in {place}" in text
    assert os.strerror(number) in text
    assert run() == ""


# ---------------------------------------------------------------------- several processes


def while_saving(monkeypatch, step, then):
    """Have another process do something before a step of the next time that code is saved."""
    from numba.core.caching import IndexDataCacheFile

    method = getattr(IndexDataCacheFile, step)

    def interrupted(self, *args):
        monkeypatch.setattr(IndexDataCacheFile, step, method)
        then()
        return method(self, *args)

    monkeypatch.setattr(IndexDataCacheFile, step, interrupted)


@pytest.mark.parametrize("step", ["_open_for_write", "_save_data"])
def test_two_processes_save_two_signatures_at_once(small, monkeypatch, step):
    _, place = small
    module = runpy.run_path(str(place.parent / "small.py"))
    other = runpy.run_path(str(place.parent / "small.py"))
    while_saving(monkeypatch, step, lambda: other["twice"](0.75))
    assert module["twice"](21) == 42
    twice = runpy.run_path(str(place.parent / "small.py"))["twice"]
    assert (twice(21), twice(0.75)) == (42, 1.5)
    assert sum(twice.stats.cache_hits.values()) == 2


def test_code_of_older_sources_is_never_found(small, monkeypatch):
    """Not while another process writes that of newer ones either."""
    from daskstats.kernels import cache

    run, place = small
    run()
    monkeypatch.setattr(cache, "sources_stamp", lambda: (("sums.py", 1.0, 2),))
    found = []

    def look():
        twice = runpy.run_path(str(place.parent / "small.py"))["twice"]
        assert twice(21) == 42
        found.append(sum(twice.stats.cache_hits.values()))

    while_saving(monkeypatch, "_save_data", look)
    run()
    look()
    assert found == [0, 1]


AT_ONCE = """
import sys
import numpy as np
import daskstats as stats
frames = np.arange(24, dtype=sys.argv[1]).reshape(4, 3, 2) % 19
for name in ("max", "sum", "median"):
    np.testing.assert_array_equal(getattr(stats, name)(frames), getattr(np, name)(frames, axis=0))
"""


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_processes_compile_all_dtypes_at_once(tmp_path):
    for _ in range(2):
        every = [
            subprocess.Popen(
                [sys.executable, "-P", "-c", AT_ONCE, dtype],
                env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
            )
            for dtype in ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8")
        ]
        assert [process.wait(400) for process in every] == [0] * len(every)


# ---------------------------------------------------------------------- directories


@pytest.mark.parametrize("deeper", ["", "deeper"])
def test_unusable_cache_directory_is_one_warning(tmp_path, deeper):
    """A file is in the way, because permissions do not restrict every user."""
    (tmp_path / "cache").touch()
    place = tmp_path / "cache" / deeper
    (text,) = warned(call(NUMBA_CACHE_DIR=place))
    assert f"NUMBA_CACHE_DIR {place} cannot be written to: compiled code is kept in" in text
    assert "__pycache__" in text


def installed(tmp_path):
    """Install the package where no user can write next to it."""
    site = tmp_path / "site"
    shutil.copytree(PACKAGE, site / "daskstats", ignore=shutil.ignore_patterns("__pycache__"))
    (site / "daskstats" / "kernels" / "__pycache__").touch()
    (tmp_path / "home").touch()
    return site


NOWHERE = {"PYTHONDONTWRITEBYTECODE": "1"}


@pytest.mark.parametrize("asked", ["", "/somewhere"])
def test_no_locator_is_one_warning(small, monkeypatch, asked):
    import numba
    from numba.core.caching import CacheImpl

    run, _ = small
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    monkeypatch.setattr(numba.config, "CACHE_DIR", asked)
    text = run()
    assert "compiled code cannot be kept on disk" in text
    assert f"NUMBA_CACHE_DIR ({asked or 'not set'})" in text


def test_nowhere_to_keep_compiled_code_is_one_warning(tmp_path):
    site, home = installed(tmp_path), tmp_path / "home"
    variables = NOWHERE | {"HOME": home, "XDG_CACHE_HOME": home / "cache"}
    variables["NUMBA_CACHE_DIR"] = home / "numba"
    lines = call(path=site, **variables)
    assert lines[0].startswith(str(site))
    (text,) = warned(lines)
    assert "compiled code cannot be kept on disk" in text
    assert str(site / "daskstats" / "kernels" / "__pycache__") in text
    assert f"NUMBA_CACHE_DIR ({home / 'numba'})" in text


# ---------------------------------------------------------------------- no compiled code at all


NO_JIT = """
import numpy as np
import daskstats as stats
frames = np.ones((4, 3, 2), "u2")
calls = (
    lambda: stats.average(frames),
    lambda: stats.median(frames),
    lambda: stats.max_iter(frames, 2),
    lambda: stats.aggregate(frames, ["std"]),
)
for call in calls:
    try:
        call()
        print("nothing")
    except RuntimeError as error:
        print(error)
print(stats.wrap(frames).compute().sum())
"""


@pytest.mark.parametrize("loaded", ["", "import numba\n"])
def test_without_compiled_code_every_call_is_refused(loaded):
    lines = call(loaded + NO_JIT, NUMBA_DISABLE_JIT=1)
    assert lines[:4] == [lines[0]] * 4
    assert "NUMBA_DISABLE_JIT is set, but daskstats has compiled code only: unset it" in lines[0]
    assert lines[4:] == ["24"]


@pytest.mark.parametrize("value", ["", "0", " 0 "])
def test_jit_that_is_not_disabled(monkeypatch, value):
    from daskstats.statistics import shared

    monkeypatch.setenv("NUMBA_DISABLE_JIT", value)
    for numba in (sys.modules.get("numba"), None):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, "numba", numba)
            shared.check_jit()


def test_another_thread_may_be_about_to_import_numba(monkeypatch):
    from daskstats.statistics import shared

    monkeypatch.setitem(sys.modules, "numba", ModuleType("numba"))
    shared.check_jit()
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    with pytest.raises(RuntimeError, match="NUMBA_DISABLE_JIT"):
        shared.check_jit()


def test_what_is_compiled_later_is_refused_in_the_task(monkeypatch):
    """As on a worker, which has variables of its own."""
    import numba

    from daskstats.statistics import shared

    image = stats.average(np.ones((4, 3, 2), "u2"))
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    shared.load_kernels.cache_clear()
    try:
        with pytest.raises(RuntimeError, match="NUMBA_DISABLE_JIT"):
            image.compute()
    finally:
        monkeypatch.undo()
        shared.load_kernels()
