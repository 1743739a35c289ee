"""Scratch data: whole, checked, and gone when they should be."""

import errno
import gc
import json
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import dask
import dask.array as da
import numpy as np
import psutil
import pytest
from fakes import At, Fail, FakeSeries, Noise
from helpers import run_in_threads

import daskstats as stats
from daskstats import config, processes
from daskstats.planning.cuts import split
from daskstats.reduction import reduce
from daskstats.scratch import directories, location, store
from daskstats.scratch.directories import PREFIX, DamagedScratchError, remove_stale
from daskstats.scratch.store import ScratchStore

# Where programs find the helpers of tests.
HERE = [str(Path(__file__).parents[1])]

SHAPE = (37, 23, 19)
LIMIT = 9 << 20


@pytest.fixture
def place(tmp_path):
    """Return the directory for scratch data; nothing may be left there."""
    with dask.config.set({"daskstats.scratch-directory": str(tmp_path)}):
        yield tmp_path
    gc.collect()
    assert left(tmp_path) == []


def left(place):
    """Return what is left when tasks that were running have ended."""
    # On a busy machine it takes long to remove many files, and nothing else runs in a collection.
    deadline = time.monotonic() + 60
    while (found := present(place)) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.2)
    return found


def present(place):
    return [path.name for path in Path(place).glob(f"{PREFIX}*")]


def noise(nframes=400, **options):
    """Return a series of whole frames, of 10 MB unless the number of frames is another."""
    return FakeSeries(Noise(), nframes, **options)


@pytest.fixture(scope="module")
def whole():
    """Return a series of 10 MB, and its median."""
    ims = noise()
    median = np.median(ims.stack().astype("f8"), axis=0).astype("f4")
    ims.reads.clear()
    return ims, median


def filled(place, frames, group=5, height=4, **options):
    spool = ScratchStore(place, frames.shape, frames.dtype, group, height, **options).open()
    written = [
        spool.write(start, frames[start : start + group]) for start in range(0, len(frames), group)
    ]
    return spool, written


@pytest.mark.parametrize(
    ("dtype", "compression"),
    [
        *((dtype, config.COMPRESSIONS[0]) for dtype in ("?", "u1", "i2", "u4", "f2", "f8", "i8")),
        *(("f4", compression) for compression in config.COMPRESSIONS),
    ],
)
def test_bands_are_what_was_written(place, rng, dtype, compression):
    frames = rng.integers(0, 100, SHAPE).astype(dtype)
    frames[:, 8:12] = 0  # a chunk of zeros is a chunk
    spool, written = filled(place, frames, compression=compression)
    for band in range(6):
        rows = frames[:, band * 4 : band * 4 + 4]
        np.testing.assert_array_equal(spool.read(band, written), rows)


@pytest.mark.parametrize(
    ("shape", "group", "height"),
    [((1, 1, 1), 1, 1), ((1, 1, 1), 9, 9), ((5, 3, 2), 5, 3), ((7, 1, 4), 2, 1), ((2, 9, 1), 1, 2)],
)
def test_any_cut(place, rng, shape, group, height):
    frames = rng.integers(0, 1 << 16, shape).astype("u2")
    spool, written = filled(place, frames, group, height)
    bands = [spool.read(band, written) for band in range(-(-shape[1] // height))]
    np.testing.assert_array_equal(np.concatenate(bands, axis=1), frames)


def test_a_directory_of_its_own_that_lives_as_long_as_it(place, rng):
    template = ScratchStore(place, SHAPE, "u2", 5, 4)
    first, second = template.open(), template.open()
    assert len(present(place)) == 2
    assert first.directory.stat().st_mode & 0o777 == 0o700
    del first
    assert present(place) == [second.directory.name]
    template.remove()
    assert left(place) == []


def test_another_process_reads_but_does_not_remove(place, rng):
    frames = rng.integers(0, 1 << 16, SHAPE).astype("u2")
    spool, written = filled(place, frames)
    other = pickle.loads(pickle.dumps(spool))
    np.testing.assert_array_equal(other.read(0, written), frames[:, :4])
    del other
    assert spool.directory.is_dir()


# ---------------------------------------------------------------------- damage


def damage(file, kind, rng):
    """Change a file of scratch data in one of the ways a disk or a user can."""
    data = bytearray(file.read_bytes())
    if kind == "flip":
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    elif kind == "cut":
        del data[rng.integers(len(data)) :]
    elif kind == "empty":
        data.clear()
    elif kind == "longer":
        data += b"\0"
    if kind == "missing":
        file.unlink()
    else:
        file.write_bytes(data)


@pytest.mark.parametrize("compression", config.COMPRESSIONS)
def test_no_damage_is_silent(place, rng, compression):
    """Damage at 50 random places never becomes an image."""
    frames = rng.poisson(20, SHAPE).astype("u2")
    spool, written = filled(place, frames, compression=compression)
    kinds = ["flip"] * 6 + ["cut", "empty", "longer", "missing"]
    for trial in range(50):
        band, group = int(rng.integers(6)), int(rng.integers(len(written)))
        file = spool._file(written[group].start, band)
        sound = file.read_bytes()
        damage(file, kinds[trial % len(kinds)], rng)
        first, last = band * 4, min(band * 4 + 4, SHAPE[1]) - 1
        where = f"rows {first} to {last} of frames {group * 5} to {written[group].stop - 1} are"
        with pytest.raises(DamagedScratchError, match=where):
            spool.read(band, written)
        file.write_bytes(sound)
        np.testing.assert_array_equal(spool.read(band, written), frames[:, first : last + 1])


def test_chunks_that_change_places_are_noticed(place, rng):
    frames = rng.integers(0, 1 << 16, SHAPE).astype("u2")
    spool, written = filled(place, frames, compression="none")
    one, two = spool._file(0, 0), spool._file(5, 0)
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)
    with pytest.raises(DamagedScratchError, match="rows 0 to 3 of frames 0 to 4"):
        spool.read(0, written)


def test_altered_metadata_are_noticed(place, rng):
    frames = rng.integers(0, 1 << 16, SHAPE).astype("u2")
    spool, written = filled(place, frames)
    other = pickle.loads(pickle.dumps(spool))
    file = spool.directory / "zarr.json"
    file.write_text(file.read_text().replace("uint16", "int16"))
    with pytest.raises(DamagedScratchError, match="altered"):
        other.read(0, written)


def test_damage_ends_a_run_and_names_the_rows(place, whole, monkeypatch):
    ims, _ = whole
    write = ScratchStore.write

    def then_damage(self, start, frames):
        written = write(self, start, frames)
        if start == 0:
            self._file(start, 2).unlink()
        return written

    monkeypatch.setattr(ScratchStore, "write", then_damage)
    for run in (
        lambda: stats.median(ims, memory_limit=LIMIT).compute(),
        lambda: list(stats.median_iter(ims, 7, memory_limit=LIMIT)),
    ):
        with pytest.raises(DamagedScratchError, match=r"rows \d+ to \d+ of frames 0 to"):
            run()
        assert left(place) == []


# ---------------------------------------------------------------------- whole runs


def test_each_frame_is_read_once(place, whole):
    ims, median = whole
    job = reduce(ims, "median", memory_limit=LIMIT)
    assert job.plan.strategy == "scratch"
    assert job.plan.reads == 1
    lazy = stats.median(ims, memory_limit=LIMIT)
    for _ in range(2):  # a lazy image can be computed again
        ims.reads.clear()
        np.testing.assert_array_equal(lazy.compute(), median)
        assert sorted(ims.reads) == list(range(len(ims)))
        assert left(place) == []


FILLED = [(1, "threads"), (7, "sync"), (60, "threads"), (96, "sync")]
ALSO_FILLED = [(1, "sync"), (7, "threads"), (60, "sync"), (96, "threads")]


@pytest.mark.parametrize(
    ("steps", "scheduler"),
    [*FILLED, *(pytest.param(*each, marks=pytest.mark.nightly) for each in ALSO_FILLED)],
)
def test_images_fill_up(place, whole, steps, scheduler):
    ims, median = whole
    ims.reads.clear()
    with dask.config.set(scheduler=scheduler):
        images = list(stats.median_iter(ims, steps, memory_limit=LIMIT))
    assert len(images) == steps
    assert sorted(ims.reads) == list(range(len(ims)))
    done = 0
    for image, size in zip(images, split(96, steps), strict=True):
        done += size
        np.testing.assert_array_equal(image[:done], median[:done])
        assert not image[done:].any()


@pytest.mark.parametrize("scheduler", ["threads", "sync"])
def test_snapshots_say_that_frames_are_spooled(place, whole, scheduler):
    ims, median = whole
    with dask.config.set(scheduler=scheduler):
        stream = stats.snapshots(ims, "median", 5, memory_limit=LIMIT)
        found = list(stream)
    assert len(found) == len(stream)
    spooled = [s for s in found if s.phase == "read"]
    reduced = [s for s in found if s.phase == "compute"]
    assert found == spooled + reduced
    assert len(reduced) == 5
    assert [s.total for s in spooled] == [len(ims)] * len(spooled)
    assert [s.done for s in spooled] == sorted({s.done for s in spooled})
    assert spooled[-1].done == len(ims)
    assert not any(s.seen.any() or s.image.any() for s in spooled)
    np.testing.assert_array_equal(reduced[-1].image, median)


def test_a_dask_array_is_spooled_too(place, whole):
    import dask.array as da

    ims, median = whole
    array = da.from_array(ims.stack(), chunks=(8, 96, 128))
    assert reduce(array, "median", memory_limit=LIMIT).plan.strategy == "scratch"
    np.testing.assert_array_equal(stats.median(array, memory_limit=LIMIT).compute(), median)


def test_without_a_buffer_nothing_is_written(place, whole, monkeypatch):
    ims, median = whole
    monkeypatch.setattr(ScratchStore, "open", lambda self: pytest.fail("scratch was used"))
    job = reduce(ims, "median", memory_limit=LIMIT, use_buffer=False)
    assert job.plan.strategy == "reread"
    ims.reads.clear()
    images = list(stats.median_iter(ims, 60, 0, False, memory_limit=LIMIT))
    np.testing.assert_array_equal(images[-1], median)
    assert len(ims.reads) == job.plan.reads * len(ims)


@pytest.mark.parametrize("how", ["close", "del", "break", "raise"])
def test_an_abandoned_iterator_leaves_nothing(place, whole, how):
    ims, _ = whole
    stream = stats.median_iter(ims, 10, memory_limit=LIMIT)
    next(stream)
    assert len(present(place)) == 1
    if how == "close":
        stream.close()
    elif how == "raise":
        with pytest.raises(ZeroDivisionError), stream:
            1 / 0  # noqa: B018
    del stream
    gc.collect()
    assert left(place) == []


def test_a_frame_that_fails_leaves_nothing(place):
    ims = noise(on_read=Fail({300: 2}, RuntimeError("no beam")))
    with pytest.raises(RuntimeError, match="no beam"):
        list(stats.median_iter(ims, 10, memory_limit=LIMIT))
    assert left(place) == []
    with pytest.raises(RuntimeError, match="no beam"):
        stats.median(ims, memory_limit=LIMIT).compute()
    assert left(place) == []


# ---------------------------------------------------------------------- room


def test_too_little_room_is_seen_before_anything_is_read(place, whole, monkeypatch):
    """Where scratch data do not fit, the plan is another, and says why."""
    ims, median = whole
    usage = store.shutil.disk_usage(place)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    found = reduce(ims, "median", memory_limit=LIMIT).plan
    assert found.strategy == "reread"
    assert "scratch data need 9.375 MiB, there are 1 MiB in" in str(found)
    np.testing.assert_array_equal(stats.median(ims, memory_limit=LIMIT).compute(), median)


def test_room_that_is_gone_when_it_is_needed(place, whole, monkeypatch):
    ims, _ = whole
    lazy = stats.median(ims, memory_limit=LIMIT)
    usage = store.shutil.disk_usage(place)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    ims.reads.clear()
    with pytest.raises(
        OSError, match=r"scratch data need 0\.00916 GiB, there are 0\.000977 GiB at"
    ):
        lazy.compute()
    assert ims.reads == []


def test_a_disk_that_fills_up(place, whole, monkeypatch):
    ims, _ = whole

    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))

    monkeypatch.setattr(store, "checksum", full)
    with pytest.raises(OSError, match="scratch data need .* there are .* No space left"):
        stats.median(ims, memory_limit=LIMIT).compute()
    assert left(place) == []


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_FSIZE")
def test_files_that_may_not_grow(tmp_path):
    """The same with a limit of the system's, in a process of its own."""
    code = f"""
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, resource.RLIM_INFINITY))
        import sys
        sys.path[:0] = {HERE}
        from fakes import FakeSeries, Noise
        import dask, daskstats as stats
        with dask.config.set({{"daskstats.scratch-directory": {str(tmp_path)!r}}}):
            try:
                stats.median(FakeSeries(Noise(), 400), memory_limit={LIMIT}).compute()
            except OSError as error:
                print("refused", error)
    """
    result = run(code)
    assert "scratch data need" in result.stdout, result.stderr
    assert left(tmp_path) == []


def run(code):
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("mounts", "in_memory"),
    [
        ("/ ext4", False),
        ("/ ext4\n{place} tmpfs", True),
        ("/ ext4\n{parent} tmpfs", True),
        ("/ tmpfs\n{parent} xfs", False),  # the innermost counts
        ("{parent} xfs\n/ tmpfs", False),
        ("{place}x tmpfs\n/ ext4", False),  # a neighbour
        ("/ ramfs\n/ ext4", False),  # the later one hides the other
        ("/ ext4\n{place} ext4\n{place} tmpfs", True),
        ("/ ramfs", True),
        ("", False),
    ],
)
def test_a_ram_disk_is_recognised(tmp_path, monkeypatch, mounts, in_memory):
    """Directories that are memory are recognized by their mounts."""
    place = tmp_path / "a place"
    place.mkdir()
    lines = [line.split() for line in mounts.splitlines()]
    names = {"place": place.resolve(), "parent": tmp_path.resolve()}
    found = [
        SimpleNamespace(mountpoint=point.format(**names), fstype=kind) for point, kind in lines
    ]
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: found)
    assert location.find_location(place).in_memory is in_memory


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="the system has no such directory")
def test_the_ram_disk_of_the_system_is_recognised():
    assert location.find_location("/dev/shm").in_memory


def test_a_system_that_does_not_tell_its_mounts(tmp_path, monkeypatch):
    def refuse(**options):
        raise PermissionError("/proc/self/mounts")

    monkeypatch.setattr(psutil, "disk_partitions", refuse)
    assert not location.find_location(tmp_path).in_memory


def test_a_ram_disk_is_not_used(place, whole, monkeypatch):
    ims, _ = whole
    monkeypatch.setattr(location, "_file_system", lambda place: "tmpfs")
    found = reduce(ims, "median", memory_limit=LIMIT).plan
    assert found.strategy == "reread"
    assert "is a RAM disk" in str(found)


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_place_that_is_none(tmp_path, whole, kind):
    place = tmp_path / kind
    if kind == "file":
        place.write_text("")
    with (
        dask.config.set({"daskstats.scratch-directory": str(place)}),
        pytest.raises(NotADirectoryError, match="scratch-directory"),
    ):
        stats.median(whole[0], memory_limit=LIMIT)


def test_which_directory(tmp_path, monkeypatch):
    ours, dasks = tmp_path / "ours", tmp_path / "dasks"
    ours.mkdir()
    dasks.mkdir()
    monkeypatch.setattr(location.tempfile, "gettempdir", lambda: str(tmp_path))
    with dask.config.set({"temporary-directory": None}):
        assert location.find_location().directory == str(tmp_path)
    with dask.config.set({"temporary-directory": str(dasks)}):
        assert location.find_location().directory == str(dasks)
        with dask.config.set({"daskstats.scratch-directory": str(ours)}):
            assert location.find_location().directory == str(ours)


def test_an_unknown_compression_is_refused(place, whole):
    with (
        dask.config.set({"daskstats.scratch-compression": "rar"}),
        pytest.raises(ValueError, match=r"one of lz4, zstd, none, got 'rar'"),
    ):
        stats.median(whole[0], memory_limit=LIMIT)


# ---------------------------------------------------------------------- what others left


def test_what_the_dead_have_left_is_swept(tmp_path):
    owners = {
        "dead": {"host": processes.socket.gethostname(), "pid": dead_pid(), "began": 0},
        "reused": {"host": processes.socket.gethostname(), "pid": os.getpid(), "began": 0},
        "mine": processes.this_process()._asdict(),
        "elsewhere": {"host": "another.machine", "pid": dead_pid(), "began": 0},
    }
    for name, owner in owners.items():
        (tmp_path / f"{PREFIX}{name}").mkdir()
        (tmp_path / f"{PREFIX}{name}" / directories.OWNER).write_text(json.dumps(owner))
    (tmp_path / f"{PREFIX}unknown").mkdir()
    (tmp_path / f"{PREFIX}garbled").mkdir()
    (tmp_path / f"{PREFIX}garbled" / directories.OWNER).write_text("[]")
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / f"{PREFIX}dead")
    swept = {path.name.removeprefix(PREFIX) for path in remove_stale(tmp_path)}
    assert swept == {"dead", "reused"}
    assert len(present(tmp_path)) == 5


def aged(directory, seconds):
    """Make everything in a directory look as if nothing had changed for long."""
    then = time.time() - seconds
    for path in (*directory.rglob("*"), directory):
        os.utime(path, (then, then))


@pytest.mark.parametrize(
    ("name", "age", "swept"),
    [
        pytest.param("0f3a", 3600, True, id="an owner that is lost"),
        pytest.param("0f3a", 0, False, id="an owner that is not there yet"),
        pytest.param("{host}~{dead}~1.00~9c41", 0, True, id="a name that tells it"),
        pytest.param("{host}~{pid}~{began}~9c41", 3600, False, id="this process, reading for long"),
        pytest.param("other~{dead}~1.00~9c41", 3600, False, id="another machine"),
        pytest.param("other~{dead}~1.00~9c41", 10 * 86400, True, id="another machine, days ago"),
        pytest.param("0f3a.gone-77", 0, True, id="removed in part"),
        pytest.param("0f3a.new-77", 0, False, id="begun just now"),
        pytest.param("0f3a.new-77", 3600, True, id="begun and left"),
    ],
)
def test_what_has_no_owner_is_swept(tmp_path, name, age, swept):
    host, pid, began = processes.this_process()
    name = name.format(host=host, pid=pid, began=f"{began:.2f}", dead=dead_pid())
    directory = tmp_path / f"{PREFIX}{name}"
    (directory / "c" / "0").mkdir(parents=True)
    (directory / "c" / "0" / "0").write_text("frames")
    aged(directory, age)
    assert remove_stale(tmp_path) == [directory] * swept
    assert directory.exists() is not swept


def test_what_is_still_written_is_not_left(tmp_path):
    """The newest file counts, not the directory."""
    directory = tmp_path / f"{PREFIX}0f3a"
    (directory / "c").mkdir(parents=True)
    aged(directory, 3600)
    (directory / "c" / "0").touch()
    os.utime(directory / "c", (0, 0))
    assert remove_stale(tmp_path) == []


def test_a_directory_that_another_process_removes_meanwhile(tmp_path):
    stop = threading.Event()

    def make_and_remove():
        while not stop.is_set():
            for group in range(30):
                (tmp_path / f"{PREFIX}0f3a" / "c" / f"{group}" / "0").mkdir(parents=True)
            shutil.rmtree(tmp_path / f"{PREFIX}0f3a")

    other = threading.Thread(target=make_and_remove)
    other.start()
    try:
        for _ in range(300):
            assert remove_stale(tmp_path) == []
    finally:
        stop.set()
        other.join()


def test_nothing_else_is_swept(tmp_path):
    others = tmp_path / "others"
    others.mkdir()
    (tmp_path / f"{PREFIX}file").write_text("a file")
    (tmp_path / f"{PREFIX}link.gone-1").symlink_to(others)
    (tmp_path / "scratch-of-mine").mkdir()
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0), follow_symlinks=False)
    assert remove_stale(tmp_path) == []
    assert len(list(tmp_path.iterdir())) == 4


def test_a_spool_names_its_process(tmp_path):
    spool, _ = filled(tmp_path, np.ones((4, 5, 6), "u1"))
    host, pid, began = processes.this_process()
    assert directories._owner(spool.directory) == (host, pid, pytest.approx(began, abs=0.01))
    (spool.directory / directories.OWNER).unlink()
    aged(spool.directory, 30 * 86400)
    assert remove_stale(tmp_path) == []
    assert spool.directory.stat().st_mode & 0o777 == 0o700


def test_a_writer_leaves_a_spool_that_has_ended(tmp_path):
    frames = np.ones((4, 64, 6), "u1")
    spool = ScratchStore(tmp_path, frames.shape, frames.dtype, 4, 1).open()
    spool._owned.__enter__()
    spool.remove()
    with pytest.raises(DamagedScratchError, match="have been removed"):
        spool._write(0, frames)
    assert spool.directory.exists()
    directories._remove_all()
    assert present(tmp_path) == []


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("signal", ["SIGINT", "SIGKILL"])
def test_a_run_that_is_ended(tmp_path, signal):
    """Ctrl-C leaves nothing, and the next run removes the data of a killed one."""
    code = f"""
        import os, signal, sys, threading, time
        sys.path[:0] = {HERE}
        from pathlib import Path
        from fakes import FakeSeries, Noise
        import dask, daskstats as stats

        # Where the tests run it may be ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)

        def end():
            while not list(Path({str(tmp_path)!r}).glob("{PREFIX}*")):
                time.sleep(0.01)
            time.sleep(0.1)
            os.kill(os.getpid(), signal.{signal})

        slow = FakeSeries(Noise(), 400, delay=0.01)
        threading.Thread(target=end, daemon=True).start()
        with dask.config.set({{"daskstats.scratch-directory": {str(tmp_path)!r}}}):
            stats.median(slow, memory_limit={LIMIT}).compute()
    """
    result = run(code)
    assert result.returncode != 0
    assert len(present(tmp_path)) == (1 if signal == "SIGKILL" else 0)
    remove_stale(tmp_path)
    assert left(tmp_path) == []


def test_many_threads_share_a_place(place, whole):
    ims, median = whole
    found = []

    def compute():
        found.append(stats.median(ims, memory_limit=LIMIT).compute())

    run_in_threads(compute, 4)
    assert len(found) == 4
    for image in found:
        np.testing.assert_array_equal(image, median)


@pytest.mark.parametrize(
    "taken", [3, *(pytest.param(steps, marks=pytest.mark.nightly) for steps in (1, 6))]
)
def test_an_iterator_that_is_open_at_exit(tmp_path, taken):
    script = f"""
        import sys
        sys.path[:0] = {HERE}
        import dask
        import daskstats as stats
        from fakes import FakeSeries, Noise

        dask.config.set({{"daskstats.scratch-directory": {str(tmp_path)!r}}})
        images = stats.median_iter(FakeSeries(Noise(), 400), 24, memory_limit={LIMIT})
        for _ in range({taken}):
            next(images)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)
    assert present(tmp_path) == []


UNDER_A_CEILING = r"""
import re, resource, sys, threading
from pathlib import Path
from types import SimpleNamespace

sys.path[:0] = {tests}
threading.stack_size(1 << 20)  # the stacks of threads count as data
import dask
import daskstats as stats
from fakes import FakeSeries, Noise

LIMIT, NAMES = 16 << 20, ["max", "min", "sum", "average", "std", "percentile", "median"]
FRAME, NFRAMES = Noise((128, 256)), 540  # 34 MiB


def both(ims, name, limit):
    arguments = (25,) if name == "percentile" else ()
    image = getattr(stats, name)(ims, *arguments, memory_limit=limit).compute()
    *_, last = getattr(stats, name + "_iter")(ims, *arguments, 5, memory_limit=limit)
    assert (image == last).all(), name


with dask.config.set({{"daskstats.scratch-directory": {place!r}, "num_workers": 2}}):
    for name in NAMES:
        if name != "percentile":  # which loads what the median does
            both(FakeSeries(FRAME, 300), name, LIMIT)
    data = 1024 * int(re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
    resource.setrlimit(resource.RLIMIT_DATA, (data + LIMIT + (32 << 20),) * 2)
    for name in NAMES:
        both(FakeSeries(FRAME, NFRAMES), name, LIMIT)
        ims = FakeSeries(FRAME, NFRAMES)
        try:
            both(ims, name, 1 << 16)
        except stats.MemoryLimitError:
            assert ims.reads == [], name
        else:
            raise AssertionError(f"{{name}} in 64 KiB")
    try:
        bytearray(LIMIT + (96 << 20))
    except MemoryError:
        print("passed")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA")
def test_every_statistic_passes_under_a_hard_ceiling(tmp_path):
    script = UNDER_A_CEILING.format(tests=HERE, place=str(tmp_path))
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "passed\n"
    assert present(tmp_path) == []


@pytest.mark.parametrize("name", ["max", "median"])
def test_what_cannot_be_computed_beside_an_iterator_says_so(place, whole, name):
    ims, _ = whole
    with stats.median_iter(ims, 5, memory_limit=LIMIT) as images:
        next(images)
        with pytest.raises(MemoryError, match="close them"):
            getattr(stats, name)(noise(), memory_limit=LIMIT).compute()
        assert len(list(images)) == 4


@pytest.mark.parametrize("steps", [0, 3])
def test_a_source_that_calls_for_more_than_there_is(place, steps):
    def call():
        if steps:
            list(stats.median_iter(noise(), steps, memory_limit=LIMIT))
        else:
            stats.median(noise(), memory_limit=LIMIT).compute()

    with pytest.raises(MemoryError, match="close them"):
        stats.median(noise(on_read=At(300, call)), memory_limit=LIMIT).compute()


def test_the_chunks_of_a_dask_array_do_not_pile_up(place):
    ims, lock, alive, most = noise(600), threading.Lock(), set(), []

    def load(block_info=None):
        start, stop = block_info[None]["array-location"][0]
        frames = np.stack([ims[index] for index in range(start, stop)])
        with lock:
            alive.add(start)
            most.append(len(alive))
        weakref.finalize(frames, alive.discard, start)
        return frames

    chunks = (4,) * 150, (96,), (128,)
    array = da.map_blocks(load, chunks=chunks, dtype="u2", meta=np.empty((0, 0, 0), "u2"))
    assert stats.plan(array, "median", 6, memory_limit=LIMIT).strategy == "scratch"
    assert len(list(stats.median_iter(array, 6, memory_limit=LIMIT))) == 6
    assert max(most) < 40


def test_a_failure_whose_traceback_is_kept_blocks_nobody(place, whole):
    failing = noise(on_read=Fail({300: 1}, KeyError(300)))
    ims, _ = whole
    with pytest.raises(KeyError) as kept:
        stats.median(failing, memory_limit=LIMIT).compute()
    found: list = []
    consumer = threading.Thread(
        target=lambda: found.extend(stats.median_iter(ims, 3, memory_limit=LIMIT)), daemon=True
    )
    consumer.start()
    consumer.join(30)
    assert len(found) == 3
    del kept
