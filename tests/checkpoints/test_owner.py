"""One writer: of several processes one gets a checkpoint, and a dead one's is taken over."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from daskstats import processes
from daskstats.checkpoints import owner as owners
from daskstats.checkpoints.owner import CheckpointInUseError, Ownership, last_number, owner_of

# Claims the directories of one argument after the other, each at its time, and says which it got.
CONTENDER = """
import sys, time
from pathlib import Path
from daskstats.checkpoints.owner import CheckpointInUseError, Ownership
from daskstats import processes
processes.this_process()
print("ready", flush=True)
start, kept = float(sys.stdin.readline()), []
for number in range(int(sys.argv[2])):
    time.sleep(max(0, start + 0.02 * number - time.time()))
    try:
        kept.append(Ownership(Path(sys.argv[1], str(number))))
        print(number, flush=True)
    except CheckpointInUseError as error:
        assert "process" in str(error)
print("done", flush=True)
sys.stdin.readline()
"""


def file_of(place):
    return place / f"owner-{last_number(place)}"


def leave_as(place, **fields):
    """Leave a checkpoint as another process has it."""
    place.mkdir(exist_ok=True)
    process = processes.this_process()._asdict() | {"job": "8812"} | fields
    (place / "owner-3").write_text(json.dumps(process))


def test_one_at_a_time(tmp_path):
    first = Ownership(tmp_path / "c")
    with pytest.raises(CheckpointInUseError, match=f"process {os.getpid()} on .*, last sign of"):
        Ownership(tmp_path / "c")
    first.check()
    first.release()
    first.release()
    second = Ownership(tmp_path / "c")
    second.release()
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["owner-2"]


@pytest.mark.parametrize("stale", [False, True], ids=["new", "of the dead"])
def test_fifty_pairs(tmp_path, stale):
    """Two processes that claim at the same time: exactly one gets it."""
    count = 50
    for number in range(count if stale else 0):
        leave_as(tmp_path / f"{number}", began=0.0)
    command = [sys.executable, "-c", CONTENDER, tmp_path, str(count)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, **pipes) for _ in range(2)]
    try:
        assert [each.stdout.readline() for each in both] == ["ready\n"] * 2
        start = time.time() + 0.1
        for each in both:
            each.stdin.write(f"{start}\n")
            each.stdin.flush()
        got = [list(iter(each.stdout.readline, "done\n")) for each in both]
    finally:
        for each in both:
            each.communicate()
    assert sorted(int(number) for numbers in got for number in numbers) == list(range(count))


def test_of_another_machine(tmp_path, monkeypatch):
    """It counts as alive as long as it gives signs of life."""
    leave_as(tmp_path, host="elsewhere", pid=4711)
    with pytest.raises(CheckpointInUseError, match="job 8812, process 4711 on elsewhere"):
        Ownership(tmp_path)
    old = time.time() - owners.SILENCE - 60
    os.utime(tmp_path / "owner-3", (old, old))
    taken = Ownership(tmp_path)
    assert last_number(tmp_path) == 4
    # That it was only stopped shows before it writes.
    monkeypatch.setattr(taken, "_number", 3)
    with pytest.raises(CheckpointInUseError, match="taken over by another run"):
        taken.check()
    monkeypatch.undo()
    taken.release()


def test_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(owners, "SIGN_OF_LIFE", 0.01)
    ownership = Ownership(tmp_path)
    os.utime(file_of(tmp_path), (0, 0))
    deadline = time.monotonic() + 30
    while file_of(tmp_path).stat().st_mtime == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert file_of(tmp_path).stat().st_mtime > 0
    ownership.release()
    assert not [each for each in threading.enumerate() if each.name == "daskstats-owner"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": 1}'])
def test_a_file_without_an_owner(tmp_path, text):
    (tmp_path / "owner-7").write_text(text)
    Ownership(tmp_path).release()
    assert (last_number(tmp_path), owner_of(tmp_path, 8)) == (8, None)


def test_without_links(tmp_path, monkeypatch):
    """Some file systems have no hard links."""

    def fail(*args):
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", fail)
    first = Ownership(tmp_path)
    with pytest.raises(CheckpointInUseError):
        Ownership(tmp_path)
    first.release()
