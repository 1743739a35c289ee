"""Outputs appear whole or not at all, on full disks as well, and what was killed is removed."""

import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from programs import daskstats, python, running

from daskstats import processes
from daskstats.formats import inputs, outputs, writing
from daskstats.formats.table import suffixes
from daskstats.formats.writing import OutputFile
from daskstats.simulate import FORMATS, simulate

# Each output once as it was, and once more with `force` where there is no room. One line on
# stderr for each that does not fail as it should.
ATTEMPTS = r"""
import errno, os, sys
from pathlib import Path
import numpy as np
from daskstats import simulate
from daskstats.formats.outputs import save_all, save as save_one
from daskstats.formats.table import suffixes

random = np.random.default_rng(0)
image = random.random((600, 700), "f4")
small = {"max": np.ones((2, 3), "f4"), "min": np.ones((2, 3), "f4")}
large = {"max": image, "min": image}
outputs = {f"x{suffix}": None for suffix in suffixes("write")}
outputs |= {f"all{suffix}": None for suffix in suffixes("write_all")}
outputs |= {"directory": None, "zarrs": "zarr", "h5s": "h5"}
series = [f"scan{suffix}" for suffix in simulate.FORMATS]

def save(name, images):
    if name.startswith("x"):
        # The dtypes that these formats keep exactly.
        narrow = dict.fromkeys(("x.mrc", "x.tif", "x.tiff"), "f4")
        dtype = {"x.cbf": "i4", **narrow}.get(name, "f8")
        save_one((1000 * images["max"]).astype(dtype), name, force=True)
    elif name.startswith("scan"):
        simulate.simulate(name, 1 if images is small else 40, (300, 300), force=True)
    else:
        save_all(images, name, force=True, form=outputs[name])

def contents():
    files = sorted(path for path in Path().rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files if path.name != "ballast"}

names = [*outputs, *series]
for name in names:
    save(name, small)
before = contents()
prepare()
for name in names:
    try:
        save(name, large)
        print(name, "was written", file=sys.stderr)
    except OSError as error:
        if error.errno not in (EXPECTED, None) or "\n" in str(error):
            print(name, repr(error), file=sys.stderr)
    if contents() != before:
        print(name, "left", contents().keys() ^ before.keys(), file=sys.stderr)
print("passed", len(names))
"""

# Leaves 100 kB: less than a picture takes.
FILL = """
import errno

def prepare():
    state = os.statvfs(".")
    with open("ballast", "wb") as file:
        file.write(bytes(state.f_bavail * state.f_frsize - 100_000))

EXPECTED = errno.ENOSPC
"""

LIMIT = """
import errno, resource

def prepare():
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

EXPECTED = errno.EFBIG
"""


def on_a_small_disk(place, command, size="6m"):
    """Return a command that sees a small disk at a directory, and leaves none behind."""
    mount = 'mount -t tmpfs -o size="$1" tmpfs "$0" && cd "$0" && shift && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", mount, str(place), size, *command]


@pytest.fixture
def small_disk(tmp_path):
    """Return what makes commands see a small disk; skip where none may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    tried = subprocess.run(on_a_small_disk(place, ["true"]), capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("nothing may be mounted here")
    return lambda command: on_a_small_disk(place, command)


def check_attempts(command, **options):
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
    assert (result.returncode, result.stderr) == (0, "")
    count = len(suffixes("write")) + len(suffixes("write_all")) + len(FORMATS) + 3
    assert result.stdout == f"passed {count}\n"


def test_every_output_on_a_full_disk(small_disk):
    check_attempts(small_disk(python("-c", FILL + ATTEMPTS)))


def test_every_output_where_files_may_not_grow(tmp_path):
    pytest.importorskip("resource")
    check_attempts(python("-c", LIMIT + ATTEMPTS), cwd=tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        "max scan.npy -o x.h5 --force",
        "max scan.npy -o x.zarr --force",
        "simulate x.npy --force --nframes 40",
        *(
            pytest.param(arguments, marks=pytest.mark.nightly)
            for arguments in (
                "aggregate scan.npy --stats max,min -o x.npz --force",
                "simulate x.h5 --force --nframes 40",
            )
        ),
    ],
)
def test_one_line_and_an_exit_code(small_disk, tmp_path, arguments):
    """zarr printed 283 lines, HDF5 and memory maps ended in a crash."""
    np.save(tmp_path / "scan.npy", np.random.default_rng(0).random((1, 1000, 1000)))
    words = [word.replace("scan", str(tmp_path / "scan")) for word in arguments.split()]
    output = next(word for word in words if word.startswith("x."))
    script = f"""
        echo old > {output}; [ {output} = x.zarr ] && rm x.zarr && mkdir x.zarr && \
            echo '{{"zarr_format": 3, "node_type": "group"}}' > x.zarr/zarr.json
        cp -r {output} {tmp_path}/before
        "$@"; code=$?
        diff -r {output} {tmp_path}/before && echo same && ls -A && exit $code
    """
    command = ["sh", "-c", script, "sh", *daskstats(*words, "--quiet")]
    result = subprocess.run(small_disk(command), capture_output=True, text=True, timeout=60)
    assert result.stdout.splitlines() == ["same", output]
    (line,) = result.stderr.splitlines()
    assert line.startswith("daskstats: error: ")
    assert "make room, or write to another place" in line
    assert result.returncode == 1


@pytest.mark.parametrize("name", ["EDQUOT", "EIO", "ENOSPC"])
@pytest.mark.parametrize("suffix", [*suffixes("write"), ".npz"])
def test_errors_when_a_file_is_closed(tmp_path, monkeypatch, name, suffix):
    """A quota, and a network file system, may complain only then."""
    path = tmp_path / f"x{suffix}"
    save = outputs.save_all if suffix == ".npz" else outputs.save
    image = {"max": np.ones((3, 4), "f4")} if suffix == ".npz" else np.ones((3, 4), "f4")
    save(image, path)
    before = sorted(tmp_path.rglob("*"))

    def fail(descriptor):
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(
        OSError, match=f"x.* cannot be written: {os.strerror(getattr(errno, name))}"
    ):
        save(image, path, force=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_no_room_is_said_before_it_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(9, 9, 1 << 20))
    with pytest.raises(
        OSError, match="the output takes 2 MiB, and 1 MiB are free in .*: make room"
    ):
        simulate(tmp_path / "x.npy", 4, (512, 512))
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------- files


@pytest.mark.parametrize("room", [10**9, 0, 1, 777, 5000])
def test_a_deferred_error_is_not_seen_by_the_writer(tmp_path, rng, room):
    """Random writes, reads and cuts, compared with a file in memory."""
    file, oracle = OutputFile(tmp_path / "x", deferred=True), io.BytesIO()
    write = file._file.write

    class Full:
        def __getattr__(self, name):
            return getattr(inner, name)

        def write(self, view):
            nonlocal room
            if room <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            count = write(view[: max(1, min(room, len(view) // 2))])  # a short write
            room -= count
            return count

    inner, file._file = file._file, Full()
    for _ in range(300):
        place = int(rng.integers(0, oracle.getbuffer().nbytes + 1))
        data = rng.bytes(int(rng.integers(0, 90)))
        assert file.seek(place) == oracle.seek(place)
        assert file.write(data) == oracle.write(data)
        assert file.tell() == oracle.tell()
        start = int(rng.integers(0, place + 50))
        file.seek(start)
        oracle.seek(start)
        assert file.read(120) == oracle.read(120)
    file.seek(0)
    assert file.read() == oracle.getvalue()
    if room <= 0:
        with pytest.raises(OSError, match="No space left"):
            file.check()
        file.close()
    else:
        file.check()
        file.close()
        assert (tmp_path / "x").read_bytes() == oracle.getvalue()


def test_a_file_that_is_there_is_not_written(tmp_path):
    (tmp_path / "x").write_text("old")
    with pytest.raises(FileExistsError):
        OutputFile(tmp_path / "x")


@pytest.mark.parametrize("wanted", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
@pytest.mark.parametrize("given", ["f2", "f4", "f8"])
def test_floats_that_integers_hold(wanted, given):
    """Compared with the exact integers of Python, beside every bound."""
    bounds = np.iinfo(wanted)
    near = [power for size in (7, 8, 15, 16, 31, 32, 63, 64) for power in (2.0**size, -(2.0**size))]
    with np.errstate(over="ignore"):
        centre = np.array([*near, 0, 0.5, np.inf, -np.inf, np.nan]).astype(given)
    with np.errstate(over="ignore", invalid="ignore"):
        beside = [np.nextafter(centre, np.array(way, given)) for way in (-np.inf, np.inf)]
    for value in np.concatenate([centre, *beside]):
        number = float(value)
        held = np.isfinite(number) and number == int(number) and bounds.min <= int(number)
        held = held and int(number) <= bounds.max
        image = np.array([[value]])
        if held:
            found = writing.exactly(image, (wanted,), Path("image.cbf"))
            assert (found.dtype, int(found[0, 0])) == (np.dtype(wanted), int(number))
        else:
            with pytest.raises(ValueError, match="has 1 other values"):
                writing.exactly(image, (wanted,), Path("image.cbf"))


# Gets a signal once the file is written, and before it has its name.
STOPPED = """
import os, signal, sys, time
import numpy as np
from daskstats import ending
from daskstats.formats import outputs, writing

def stop(descriptor):
    os.kill(os.getpid(), getattr(signal, sys.argv[2]))
    time.sleep(60)

ending.watch()
writing.sync = stop
outputs.save(np.ones((2, 3), "i2"), sys.argv[1])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there are no such signals")
@pytest.mark.parametrize("suffix", [".cbf", ".mrc"])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_no_temporary_of_a_library_is_left_behind(tmp_path, suffix, name):
    places = tmp_path / "system", tmp_path / "output"
    for place in places:
        place.mkdir()
    command = python("-c", STOPPED, places[1] / f"x{suffix}", name)
    environment = os.environ | {"TMPDIR": str(places[0])}
    subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, timeout=60, check=False)
    left = [path.name for place in places for path in place.iterdir()]
    assert len(left) == (name == "SIGKILL")
    outputs.save(np.ones((2, 3)), places[1] / "y.npy")
    assert [path.name for place in places for path in place.iterdir()] == ["y.npy"]


@pytest.mark.parametrize("suffix", suffixes("write"))
def test_the_temporary_directory_of_the_system_is_not_used(tmp_path, monkeypatch, suffix):
    """It may be smaller than the image, and the error would name the wrong disk."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    outputs.save(np.ones((2, 3), "i2"), tmp_path / f"x{suffix}")
    outputs.save_all({"max": np.ones((2, 3), "i2")}, tmp_path / "all", form=suffix)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all", f"x{suffix}"]
    assert [path.name for path in (tmp_path / "all").iterdir()] == [f"max{suffix}"]


# ---------------------------------------------------------------------- what others left


def temporary(place, pid, host=None, rest=".npy", began=0.0):
    host = host or processes.this_process()[0]
    path = place / f"{writing.PREFIX}{host}~{pid}~{began:.2f}~{'0f' * 16}{rest}"
    path.write_text("half")
    return path


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def aged(path, days):
    then = time.time() - days * 86400
    os.utime(path, (then, then), follow_symlinks=False)


def test_temporaries_of_the_dead_are_removed(tmp_path):
    _, pid, began = processes.this_process()
    left = [temporary(tmp_path, dead_pid(), rest=rest) for rest in (".npy", ".zarr", "")]
    left += [temporary(tmp_path, dead_pid(), "other.machine"), temporary(tmp_path, pid)]
    store = (
        tmp_path / f"{writing.PREFIX}{processes.this_process()[0]}~{dead_pid()}~1.00~{'1a' * 16}"
    )
    (store / "c").mkdir(parents=True)
    left.append(store)
    aged(left[3], 8)
    kept = [
        temporary(tmp_path, pid, began=began, rest=".h5"),
        temporary(tmp_path, dead_pid(), "new.machine"),
        tmp_path / ".daskstats-notes.npy",
        tmp_path / f"{writing.PREFIX}link",
        tmp_path / f"x{left[0].name}",
    ]
    for path in (kept[2], kept[4]):
        path.write_text("mine")
        aged(path, 99)
    kept[3] = tmp_path / f"{left[0].name}.link".replace(".npy.link", ".tif")
    kept[3].symlink_to(tmp_path / ".daskstats-notes.npy")
    assert sorted(writing.remove_stale(tmp_path)) == sorted(left)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs another user")
def test_temporaries_of_other_users_are_kept(tmp_path):
    path = temporary(tmp_path, dead_pid())
    os.chown(path, 12345, -1)
    assert writing.remove_stale(tmp_path) == []
    assert path.exists()


@pytest.mark.parametrize("appeared", [False, True])
def test_an_old_output_is_put_back(tmp_path, appeared):
    """Killed between the two renames that replace a directory."""
    place = temporary(tmp_path, dead_pid(), rest=writing.OLD)
    place.unlink()
    (place / "image.v2.zarr").mkdir(parents=True)
    (place / "image.v2.zarr" / "text").write_text("old")
    if appeared:
        (tmp_path / "image.v2.zarr").mkdir()
        (tmp_path / "image.v2.zarr" / "text").write_text("new")
    assert writing.remove_stale(tmp_path) == [place]
    assert [file.name for file in tmp_path.iterdir()] == ["image.v2.zarr"]
    assert (tmp_path / "image.v2.zarr" / "text").read_text() == ("new" if appeared else "old")


# Replaces the output, and is killed before a step of that: the directory for the old output, its
# rename, the rename of the new one, or the removal of the old one.
REPLACED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from daskstats.formats import outputs, writing

def killed(function):
    def call(self, *arguments, **options):
        if steps and steps[0] == function.__name__:
            del steps[0]
        if not steps:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(self, *arguments, **options)
    return call

steps = ["_put", *["mkdir", "replace", "replace", "rmtree"][: int(sys.argv[2]) + 1]]
Path.mkdir, Path.replace = killed(Path.mkdir), killed(Path.replace)
writing._put, writing.shutil.rmtree = killed(writing._put), killed(writing.shutil.rmtree)
outputs.save(np.full((2, 3), 2.0), sys.argv[1], force=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there are no such signals")
@pytest.mark.parametrize("step", range(4))
def test_killed_while_a_directory_is_replaced(tmp_path, step):
    path = tmp_path / f"{'x' * 240}.zarr"
    outputs.save(np.full((2, 3), 1.0), path)
    command = python("-c", REPLACED, path, step)
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (-signal.SIGKILL, "")
    assert len(list(tmp_path.glob(f"{writing.PREFIX}*"))) == [1, 2, 2, 1][step]
    outputs.save(np.ones((2, 3)), tmp_path / "next.npy")
    assert {file.name for file in tmp_path.iterdir()} == {path.name, "next.npy"}
    image = inputs.read_image(str(path))
    np.testing.assert_array_equal(image, np.full((2, 3), 2.0 if step == 3 else 1.0))


@pytest.mark.parametrize("suffix", [".npy", ".zarr", ".h5"])
def test_the_next_output_removes_what_a_killed_program_has_left(tmp_path, suffix):
    arguments = "simulate", f"x{suffix}", "--nframes", 5000, "--shape", "256x256"
    with running(tmp_path, *arguments) as program:
        program.wait_for(program.is_writing)
        program.send(signal.SIGKILL)
        program.kill()
    left = list(tmp_path.glob(f"{writing.PREFIX}*"))
    assert len(left) == 1
    # One of a program that is running stays.
    with writing.replacing(tmp_path / "y.npy", lambda path: None) as own:
        own.touch()
        outputs.save(np.ones((2, 3)), tmp_path / "z.npy")
        assert own.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scratch", "y.npy", "z.npy"]


def test_a_file_that_is_gone_is_not_old(tmp_path):
    assert processes.unchanged(tmp_path / "nowhere") == 0
    (tmp_path / "old").touch()
    aged(tmp_path / "old", 2)
    assert processes.unchanged(tmp_path / "old") == pytest.approx(2 * 86400, abs=60)


def test_a_directory_that_cannot_be_looked_at(tmp_path):
    assert writing.remove_stale(tmp_path / "nowhere") == []
    assert Path(writing.PREFIX).name == writing.PREFIX
