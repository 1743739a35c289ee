"""Directories of several processes: there as long as one holds them, and not longer."""

import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from daskstats import processes as daskstats_processes
from daskstats.scratch import liveness


def fill(directory):
    (directory / "data").write_text("something")


def dead_lock(directory, host=None):
    """Leave the lock file of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    host = host or daskstats_processes.this_process()[0]
    (directory / liveness.LOCKS / f"{host}~{process.pid}~0.00~0").touch()


def gone(place, seconds=5):
    """Return whether nothing is left of anything."""
    deadline = time.monotonic() + seconds
    while list(place.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not list(place.iterdir())


def test_the_last_one_removes_it(tmp_path):
    directory = tmp_path / "x"
    locks = [liveness.acquire(directory, fill) for _ in range(3)]
    assert directory.stat().st_mode & 0o777 == 0o700
    for lock in locks:
        assert (directory / "data").read_text() == "something"
        liveness.release(lock)
    assert gone(tmp_path)


def test_nobody_joins_what_nobody_holds(tmp_path):
    directory = tmp_path / "x"
    with pytest.raises(FileNotFoundError):
        liveness.join(directory)
    lock = liveness.acquire(directory, fill)
    liveness.release(lock)
    with pytest.raises(FileNotFoundError):
        liveness.join(directory)


def test_data_of_the_dead_are_found_again(tmp_path):
    directory = tmp_path / "x"
    liveness.acquire(directory, fill)
    (directory / "data").write_text("more")
    dead_lock(directory)
    began = time.monotonic()
    liveness.wait_for_release(directory)
    assert time.monotonic() - began < liveness.LEAVING
    liveness.acquire(directory, fill)
    assert (directory / "data").read_text() == "more"


@pytest.mark.parametrize(("host", "removed"), [(None, True), ("another.machine", False)])
def test_the_dead_hold_nothing(tmp_path, host, removed):
    directory = tmp_path / "x"
    lock = liveness.acquire(directory, fill)
    dead_lock(directory, host)
    assert not liveness.remove_unlocked(directory)
    liveness.release(lock)
    assert gone(tmp_path, 5 if removed else 0.1) is removed


def test_a_run_that_is_leaving_is_waited_for(tmp_path):
    directory = tmp_path / "x"
    timer = threading.Timer(0.2, liveness.release, [liveness.acquire(directory, fill)])
    (directory / "data").write_text("old")
    timer.start()
    liveness.wait_for_release(directory)
    liveness.acquire(directory, fill)
    assert (directory / "data").read_text() == "something"


def test_a_removal_that_was_begun_is_ended(tmp_path, monkeypatch):
    """A process may be killed after it took the directory for itself."""
    monkeypatch.setattr(liveness, "LEAVING", 0.1)
    directory = tmp_path / "x"
    liveness.acquire(directory, fill)
    (directory / "data").write_text("old")
    for lock in (directory / liveness.LOCKS).iterdir():
        lock.unlink()
    (directory / liveness.LOCKS).rmdir()
    liveness.release(liveness.acquire(directory, fill))
    assert gone(tmp_path)


def test_a_failure_to_fill_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError):
        liveness.acquire(tmp_path / "x", lambda made: 1 / 0)
    assert gone(tmp_path)


def test_many_processes_come_and_go(tmp_path):
    """What a holder has written is there until it lets go, whoever else does meanwhile."""
    code = f"""
        import os, sys
        from pathlib import Path
        from daskstats.scratch import liveness

        directory = Path({str(tmp_path / "x")!r})
        for turn in range(60):
            lock = liveness.acquire(directory, lambda made: (made / "data").write_text("something"))
            own = directory / f"own-{{os.getpid()}}-{{turn}}"
            own.write_text("mine")
            assert (directory / "data").read_text() == "something"
            assert own.read_text() == "mine"
            liveness.release(lock)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    environment = os.environ | {"PYTHONPATH": str(Path(liveness.__file__).parents[2])}
    processes = [
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert gone(tmp_path)
