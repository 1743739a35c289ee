"""Memory limits: text and numbers, made-up control groups, real resource limits."""

import gc
import pickle
import subprocess
import sys
import threading
import time
from fractions import Fraction
from types import SimpleNamespace

import dask
import numpy as np
import pytest
from fakes import FakeSeries
from helpers import run_in_threads

import daskstats as stats
from daskstats.memory import available, reservation

KIBI, MEBI, GIBI = 1 << 10, 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1),
        (4096, 4096),
        (1.9, 1),
        (1e9, 10**9),
        (np.int64(5), 5),
        (np.float32(8), 8),
        (Fraction(7, 2), 3),
        ("4 GiB", 4 * GIBI),
        ("4GiB", 4 * GIBI),
        ("4 gib", 4 * GIBI),
        ("600MiB", 600 * MEBI),
        ("1.5 kB", 1500),
        ("1e6", 10**6),
        ("17", 17),
    ],
)
def test_limits_in_bytes_and_text(value, expected):
    for limit in (available.memory_limit(value), _configured(value)):
        assert limit == expected
        assert type(limit) is int


def _configured(value):
    with dask.config.set({"daskstats.memory-limit": value}):
        return available.memory_limit()


@pytest.mark.parametrize(
    "value",
    [
        0,
        -1,
        0.5,
        float("nan"),
        float("inf"),
        -float("inf"),
        10**400,
        "0",
        "-1",
        "-4 GiB",
        "0.1",
        "abc",
        "GiB",
        "",
        " ",
        "4 GiB 5",
        "4 GiX",
        "nan",
        "inf",
        "1e400",
        "0x10",
        "four GiB",
    ],
)
def test_what_is_no_positive_number_of_bytes(value):
    for ask in (lambda: available.memory_limit(value), lambda: _configured(value)):
        with pytest.raises(ValueError, match="memory_limit must be a positive number of bytes"):
            ask()


@pytest.mark.parametrize(
    "value", [True, False, np.True_, b"4 GiB", [4], (4, "GiB"), {}, 4j, object()]
)
def test_what_is_no_number_and_no_text(value):
    for ask in (lambda: available.memory_limit(value), lambda: _configured(value)):
        with pytest.raises(TypeError, match="memory_limit must be bytes or text"):
            ask()


def test_an_argument_wins_over_the_configuration():
    with dask.config.set({"daskstats.memory-limit": "1 GiB"}):
        assert available.memory_limit("2 GiB") == 2 * GIBI
        assert available.memory_limit() == GIBI


@pytest.mark.parametrize(
    ("part", "expected"), [(0.5, 500), (1, 1000), (1.0, 1000), (0.0019, 1), (np.float32(0.25), 250)]
)
def test_fraction_of_what_is_available(monkeypatch, part, expected):
    monkeypatch.setattr(available, "available", lambda: 1000)
    with dask.config.set({"daskstats.memory-limit": None, "daskstats.memory-fraction": part}):
        assert available.memory_limit() == expected


@pytest.mark.parametrize("part", [0, -0.1, 1.0001, 2, 50, float("nan"), float("inf")])
def test_fraction_out_of_range(part):
    with (
        dask.config.set({"daskstats.memory-fraction": part}),
        pytest.raises(ValueError, match=r"daskstats.memory-fraction must be in \(0, 1\]"),
    ):
        available.memory_limit()


@pytest.mark.parametrize("part", ["0.5", "half", None, True, [0.5]])
def test_fraction_that_is_no_number(part):
    with (
        dask.config.set({"daskstats.memory-fraction": part}),
        pytest.raises(TypeError, match="daskstats.memory-fraction must be a number"),
    ):
        available.memory_limit()


def test_measured_at_every_call(monkeypatch):
    free = iter([1000, 10])
    monkeypatch.setattr(available, "available", lambda: next(free))
    assert (available.memory_limit(), available.memory_limit()) == (500, 5)


# ---------------------------------------------------------------------- control groups

V1_UNLIMITED = 9223372036854771712
PROC_LINE = "22 1 0:21 / /proc rw,nosuid shared:5 - proc proc rw"


class Machine:
    """A made-up /proc and /sys below a directory."""

    def __init__(self, root):
        self.root = root
        self.mounts, self.groups = [PROC_LINE], []

    def write(self, path, text):
        path = self.root / path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text) if isinstance(text, str) else path.write_bytes(text)

    def mount(self, version, point, root="/", options="rw"):
        kind = "cgroup2 cgroup2" if version == 2 else "cgroup cgroup"
        # Optional fields: none, one or more.
        self.mounts.append(f"35 24 0:30 {root} {point} rw,nosuid shared:9 - {kind} {options}")

    def limit(self, version, directory, limit, used=0, cached=0, high=None):
        if version == 2:
            self.write(f"{directory}/memory.max", f"{limit}\n")
            self.write(f"{directory}/memory.current", f"{used}\n")
            self.write(f"{directory}/memory.stat", f"anon 1\ninactive_file {cached}\nslab 3\n")
            if high is not None:
                self.write(f"{directory}/memory.high", f"{high}\n")
        else:
            self.write(f"{directory}/memory.limit_in_bytes", f"{limit}\n")
            self.write(f"{directory}/memory.usage_in_bytes", f"{used}\n")
            stat = f"cache 1\ninactive_file 999999\ntotal_inactive_file {cached}\n"
            self.write(f"{directory}/memory.stat", stat)

    def free(self):
        self.write("proc/self/mountinfo", "".join(f"{line}\n" for line in self.mounts))
        self.write("proc/self/cgroup", "".join(f"{line}\n" for line in self.groups))
        return sorted(available.cgroup_free(self.root))


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


MOUNTS = {2: "/sys/fs/cgroup", 1: "/sys/fs/cgroup/memory"}


def enter(machine, version, group):
    """Let the process be in a group of the hierarchy of one version."""
    machine.mount(
        version, MOUNTS[version], options="rw,memory" if version == 1 else "rw,nsdelegate"
    )
    machine.groups.append(f"0::{group}" if version == 2 else f"7:memory:{group}")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("depth", range(5))
@pytest.mark.parametrize("level", range(5))
def test_limit_at_any_level(machine, version, depth, level):
    """A limit counts if it is set on the process's own group or on any above."""
    parts = ["slurm", "uid_5", "job_7", "step_0"]
    enter(machine, version, "/" + "/".join(parts[:depth]))
    for above in range(5):
        limit = 1000 if above == level else "max" if version == 2 else V1_UNLIMITED
        directory = "/".join([MOUNTS[version], *parts[:above]])
        machine.limit(version, directory, limit, used=300, cached=100)
    assert machine.free() == ([1000 - (300 - 100)] if level <= depth else [])


@pytest.mark.parametrize("version", [1, 2])
def test_every_level_counts(machine, version):
    enter(machine, version, "/a/b")
    machine.limit(version, MOUNTS[version], 10_000, used=7_000)
    machine.limit(version, f"{MOUNTS[version]}/a", 8_000, used=1_000)
    machine.limit(version, f"{MOUNTS[version]}/a/b", 5_000, used=10)
    assert machine.free() == [3_000, 4_990, 7_000]


@pytest.mark.parametrize(
    ("limit", "used", "cached", "free"),
    [
        (1000, 0, 0, 1000),
        (1000, 1000, 0, 0),
        (1000, 1500, 0, 0),  # over its limit for a moment
        (1000, 1500, 600, 100),
        (1000, 100, 600, 1000),  # more cache than use: the two are read one after the other
        (0, 0, 0, 0),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_what_is_left(machine, version, limit, used, cached, free):
    enter(machine, version, "/a")
    machine.limit(version, f"{MOUNTS[version]}/a", limit, used, cached)
    assert machine.free() == [free]


@pytest.mark.parametrize(
    ("limit", "high", "free"), [(1000, 600, [600]), (1000, "max", [1000]), ("max", 600, [600])]
)
def test_memory_high_counts(machine, limit, high, free):
    enter(machine, 2, "/a")
    machine.limit(2, f"{MOUNTS[2]}/a", limit, high=high)
    assert machine.free() == free


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", ["stat", "usage"])
def test_missing_files_do_not_lift_a_limit(machine, version, name):
    enter(machine, version, "/a")
    machine.limit(version, f"{MOUNTS[version]}/a", 1000, used=100)
    names = {
        (1, "usage"): "memory.usage_in_bytes",
        (2, "usage"): "memory.current",
    }
    file = names.get((version, name), "memory.stat")
    (machine.root / MOUNTS[version].lstrip("/") / "a" / file).unlink()
    assert machine.free() == [900 if name == "stat" else 1000]


@pytest.mark.parametrize("text", ["", "\n", "lots", "-1", "max"])
def test_odd_limits_are_no_limits(machine, text):
    enter(machine, 2, "/a")
    machine.limit(2, f"{MOUNTS[2]}/a", text)
    assert machine.free() == []


def test_nothing_there(machine):
    assert list(available.cgroup_free(machine.root)) == []
    assert machine.free() == []


def test_group_without_directory_falls_back_to_those_above(machine):
    enter(machine, 2, "/a/b/c")
    machine.limit(2, f"{MOUNTS[2]}/a", 1000)
    assert machine.free() == [1000]


def test_container_sees_its_own_group_as_the_root_of_the_mount(machine):
    """Without a namespace of its own: the mount shows the part below the container's group."""
    machine.mount(1, MOUNTS[1], root="/docker/abc", options="rw,memory")
    machine.groups.append("7:memory:/docker/abc/job")
    machine.limit(1, MOUNTS[1], 1000)
    machine.limit(1, f"{MOUNTS[1]}/job", 500)
    assert machine.free() == [500, 1000]


def test_container_whose_mount_shows_another_group(machine):
    machine.mount(2, MOUNTS[2], root="/docker/ab")
    machine.groups.append("0::/docker/abc")
    machine.limit(2, MOUNTS[2], 1000)
    assert machine.free() == [1000]


def test_group_outside_the_namespace(machine):
    enter(machine, 2, "/../../other/job")
    machine.limit(2, MOUNTS[2], 1000)
    machine.limit(2, "/sys", 1)
    machine.limit(2, "/", 1)
    assert machine.free() == [1000]


def test_hybrid_hierarchy(machine):
    """systemd may mount version 2 without controllers beside version 1 with memory."""
    machine.mount(1, "/sys/fs/cgroup/cpu", options="rw,cpu,cpuacct")
    machine.mount(1, MOUNTS[1], options="rw,memory")
    machine.mount(2, "/sys/fs/cgroup/unified")
    machine.groups += ["12:cpu,cpuacct:/x", "7:memory:/x", "1:name=systemd:/x", "0::/x"]
    machine.limit(1, f"{MOUNTS[1]}/x", 1000)
    machine.limit(1, "/sys/fs/cgroup/cpu/x", 1)
    (machine.root / "sys/fs/cgroup/unified/x").mkdir(parents=True)
    assert machine.free() == [1000]


def test_group_with_a_colon_in_its_name(machine):
    enter(machine, 2, "/a:b")
    machine.limit(2, f"{MOUNTS[2]}/a:b", 1000)
    assert machine.free() == [1000]


def test_other_mounts_may_have_any_name(machine):
    enter(machine, 2, "/a")
    machine.limit(2, f"{MOUNTS[2]}/a", 1000)
    machine.free()
    line = b"40 24 8:1 / /media/M\xfcller\\040x rw - vfat /dev/sdb1 rw\n\nshort\n"
    info = machine.root / "proc/self/mountinfo"
    info.write_bytes(line + info.read_bytes())
    assert list(available.cgroup_free(machine.root)) == [1000]


@pytest.mark.parametrize(
    ("host", "rlimits", "expected"),
    [(500, [], 500), (5000, [], 1000), (5000, [700], 700), (5000, [0], 0), (5000, [-3], 0)],
)
def test_available_is_the_least(machine, monkeypatch, host, rlimits, expected):
    memory_info = SimpleNamespace(available=host)
    monkeypatch.setattr(available.psutil, "virtual_memory", lambda: memory_info)
    monkeypatch.setattr(available, "rlimit_free", lambda: iter(rlimits))
    enter(machine, 2, "/a")
    machine.limit(2, f"{MOUNTS[2]}/a", 1000)
    machine.free()
    assert available.available(machine.root) == expected
    assert available.available(str(machine.root)) == expected


def test_this_machine():
    import psutil

    assert 0 < available.available() <= psutil.virtual_memory().total


# ---------------------------------------------------------------------- resource limits

UNDER_LIMIT = r"""
import re, resource, sys
from pathlib import Path
import daskstats as stats
from daskstats.memory import available

name, field = sys.argv[1:]
assert list(available.rlimit_free()) == [], "a limit is set already"
used = 1024 * int(re.search(field + r":\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
resource.setrlimit(getattr(resource, name), (used + (256 << 20),) * 2)
(free,) = available.rlimit_free()
assert available.available() <= free, "the limit does not count"
blocks = [bytearray(32 << 20)]
(less,) = available.rlimit_free()
try:
    while True:
        blocks.append(bytearray(8 << 20))
except MemoryError:
    had = sum(map(len, blocks))
    blocks.clear()
print(free >> 20, free - less >> 20, had >> 20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc/self/status")
@pytest.mark.parametrize(("name", "field"), [("RLIMIT_AS", "VmSize"), ("RLIMIT_DATA", "VmData")])
def test_resource_limits(name, field):
    """What is said to be left, in MiB, can be had, and not much more."""
    command = [sys.executable, "-c", UNDER_LIMIT, name, field]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    free, taken, had = map(int, result.stdout.split())
    assert 240 <= free <= 256
    assert 32 <= taken < 40
    assert free - 16 <= had <= free + 8


# ---------------------------------------------------------------------- calls at the same time


@pytest.fixture(autouse=True)
def _nothing_is_held():
    """What a failed test before this one keeps alive is not this one's."""
    before = set(reservation._entries)
    yield
    if not reservation._entries <= before:
        gc.collect()  # not always: it takes half a second where much has been imported
    assert reservation._entries <= before


def test_what_is_reserved_is_not_left():
    shares = [reservation.MemoryReservation(300, 1000) for _ in range(4)]
    for share in shares:
        share.reserve()
    assert reservation.unreserved(1000) == 0
    assert reservation.unreserved(2000) == 800
    shares.pop().release()
    assert reservation.unreserved(1000) == 100
    del shares[0], share
    gc.collect()
    assert reservation.unreserved(1000) == 400


def test_a_run_waits_for_those_that_have_begun():
    first, second = (
        reservation.MemoryReservation(600, 1000),
        reservation.MemoryReservation(600, 1000),
    )
    order = []

    def other():
        second.begin()
        order.append("second")
        second.release()

    first.begin()
    thread = threading.Thread(target=other)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    order.append("first")
    first.release()
    thread.join()
    assert order == ["first", "second"]


def test_a_reservation_that_is_released_waits_no_longer_and_takes_nothing():
    first, second = (
        reservation.MemoryReservation(600, 1000),
        reservation.MemoryReservation(600, 1000),
    )
    first.begin()
    waiting = threading.Thread(target=second.begin)
    waiting.start()
    waiting.join(0.2)
    second.release()
    waiting.join(10)
    assert not waiting.is_alive()
    first.release()
    assert reservation.unreserved(1000) == 1000


def test_what_has_only_been_reserved_keeps_nobody_waiting():
    first, second = (
        reservation.MemoryReservation(600, 1000),
        reservation.MemoryReservation(600, 1000),
    )
    first.reserve()
    second.begin()
    second.release()
    first.begin()


def test_one_thread_cannot_wait_for_itself():
    first, second = (
        reservation.MemoryReservation(600 << 20, 1 << 30),
        reservation.MemoryReservation(600 << 20, 1 << 30),
    )
    first.begin()
    with pytest.raises(MemoryError, match=r"600 MiB do not fit next to the 600 MiB of the 1 iter"):
        second.begin()


def test_a_run_that_is_too_large_alone_is_not_kept_waiting():
    reservation.MemoryReservation(600, 100).begin()


def test_tasks_wait_until_there_is_room():
    first, second = (
        reservation.MemoryReservation(600, 1000),
        reservation.MemoryReservation(600, 1000),
    )
    events = []

    def work(share, name, gate):
        with share.working():
            events.append(f"{name} begins")
            gate.wait(10)
            events.append(f"{name} ends")
        share.release()

    gates = [threading.Event(), threading.Event()]
    gates[1].set()
    one = threading.Thread(target=work, args=(first, "first", gates[0]))
    one.start()
    while not events:
        time.sleep(0.01)
    two = threading.Thread(target=work, args=(second, "second", gates[1]))
    two.start()
    two.join(2 * reservation.PATIENCE)  # a task that works is not idle, however long it takes
    assert events == ["first begins"]
    gates[0].set()
    one.join()
    two.join()
    assert events == ["first begins", "first ends", "second begins", "second ends"]


def test_tasks_do_not_wait_for_a_run_that_has_no_thread_left():
    """Two lazy images computed together on one thread: the first holds its share, idle."""
    first, second = (
        reservation.MemoryReservation(600, 1000),
        reservation.MemoryReservation(600, 1000),
    )
    with first.working():
        pass
    with second.working():
        pass
    assert reservation.unreserved(1000) == 0


def test_a_share_of_another_process_is_its_own():
    share = reservation.MemoryReservation(600, 1000)
    share.begin()
    other = pickle.loads(pickle.dumps(share))
    assert (other.nbytes, other.limit) == (600, 1000)
    assert reservation.unreserved(1000) == 400


SHAPE, NFRAMES, SHARED = (64, 128), 300, 24 << 20


@pytest.mark.parametrize("name", ["average", "median", "average_iter", "median_iter"])
def test_eight_detectors_at_once(name, monkeypatch):
    """The memory of calls that have begun never adds up to more than the limit."""
    most = []
    take = reservation.MemoryReservation._take

    def watch(self):
        take(self)
        most.append(sum(entry.nbytes for entry in reservation._entries if entry.begun))

    monkeypatch.setattr(reservation.MemoryReservation, "_take", watch)
    frames = np.random.default_rng(0).integers(0, 1 << 12, (NFRAMES, *SHAPE)).astype("u2")
    expected = {"a": frames.mean(0).astype("f4"), "m": np.median(frames, 0).astype("f4")}[name[0]]

    ims = FakeSeries(frames, decode=np.copy)
    found, function = [], getattr(stats, name)

    def run():
        if name.endswith("iter"):
            *_, image = function(ims, 5, memory_limit=SHARED)
        else:
            image = function(ims, memory_limit=SHARED).compute()
        found.append(image)

    run_in_threads(run, 8)
    assert len(found) == 8
    for image in found:
        np.testing.assert_allclose(image, expected, rtol=1e-7)
    assert max(most) <= SHARED


def test_iterators_in_step_share_the_limit():
    frames = np.random.default_rng(0).integers(0, 1 << 12, (40, 64, 128)).astype("u2")
    for images in zip(
        *(stats.average_iter(list(frames), 4, memory_limit=SHARED) for _ in range(4)), strict=True
    ):
        assert len(images) == 4


# ---------------------------------------------------------------------- iterators left alone


def an_iterator():
    """Return one that has begun and holds more than half of the limit."""
    frames = [np.zeros((256, 512), "u2")] * 60
    images = stats.average_iter(frames, 30, memory_limit="16 MiB")
    next(images)
    return images


@pytest.mark.parametrize("start", ["iterate", "compute"])
def test_a_call_says_what_it_waits_for_and_ends(monkeypatch, caplog, start):
    monkeypatch.setattr(reservation, "TELL_AFTER", 0.2)
    opened: list = []
    thread = threading.Thread(target=lambda: (opened.append(an_iterator()), gate.wait(20)))
    gate = threading.Event()
    thread.start()
    while not opened:
        time.sleep(0.01)
    with (
        opened[0],
        dask.config.set({"daskstats.memory-timeout": "1 s"}),
        pytest.raises(MemoryError, match=r"nobody has advanced for 1 s .*: close them"),
    ):
        begin(start)
    gate.set()
    thread.join()
    while reservation._entries:  # the other task of the computation may still work
        time.sleep(0.01)
    assert [record.name for record in caplog.records] == ["daskstats"]
    assert "waiting for them to end" in caplog.text
    assert "16 MiB" in caplog.text


def begin(start):
    frames = [np.zeros((256, 512), "u2")] * 60
    if start == "iterate":
        next(stats.std_iter(frames, 30, memory_limit="16 MiB"))
    else:
        stats.std(frames, memory_limit="16 MiB").compute()


def test_a_call_does_not_wait_for_an_iterator_whose_thread_has_ended():
    opened: list = []
    thread = threading.Thread(target=lambda: opened.append(an_iterator()))
    thread.start()
    thread.join()
    with opened[0], pytest.raises(MemoryError, match="whose thread has ended"):
        begin("iterate")
    begin("iterate")


def test_an_iterator_may_change_its_thread():
    """The consumer is the thread that called next last; one that waits for an image counts."""
    opened: list = []
    thread = threading.Thread(target=lambda: opened.append(an_iterator()))
    thread.start()
    thread.join()
    (images,) = opened
    next(images)
    with pytest.raises(MemoryError, match="do not fit"):
        begin("iterate")
    assert sum(1 for _ in images) == 28
    begin("iterate")


def test_a_call_waits_for_an_iterator_that_is_advanced():
    images, done = an_iterator(), []
    with dask.config.set({"daskstats.memory-timeout": "1 s"}):
        thread = threading.Thread(target=lambda: (begin("compute"), done.append(True)))
        thread.start()
        for _ in range(len(images) - 2):
            next(images)
            time.sleep(0.05)  # more than the timeout in all
            assert not done
        images.close()
        thread.join(20)
    assert done
