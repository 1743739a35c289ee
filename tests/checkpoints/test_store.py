"""Generations on disk: whole or not there, and never read if anything differs."""

import errno
import json
import os
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from daskstats.checkpoints import store as stores
from daskstats.checkpoints.manifest import DamagedCheckpointError, Generation, Manifest
from daskstats.checkpoints.store import MANIFEST, CheckpointStore

STATE = {
    "state sum": np.arange(12, dtype="u4").reshape(3, 4),
    "state count": np.array(7),
    "state rest": np.linspace(0, 1, 12).reshape(3, 4),
    "image any/thing": np.array([[True, False]]),
}


def manifest_of(number, older=(), done=3):
    generation = Generation(number, done, 10, 100, ())
    return Manifest({"statistic": "max"}, "frames", ("max",), False, (generation, *older))


def committed(place, count=1):
    """Commit some generations; return the store and the last manifest."""
    store, older = CheckpointStore(place), ()
    for number in range(1, count + 1):
        arrays = STATE | {"state count": np.array(number)}
        manifest = store.commit(manifest_of(number, older), arrays)
        older = manifest.generations
    return store, manifest


def check_equal(arrays, count):
    expected = STATE | {"state count": np.array(count)}
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_arrays_come_back(tmp_path):
    store, manifest = committed(tmp_path / "c", 3)
    assert store.manifest() == manifest
    assert [each.number for each in manifest.generations] == [3, 2]
    for generation in manifest.generations:
        check_equal(store.read(generation), generation.number)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["2", "3", MANIFEST]
    assert list(store.read(manifest.newest, ["state sum"])) == ["state sum"]
    store.clear()
    assert store.manifest() is None
    assert list((tmp_path / "c").iterdir()) == []


def test_a_full_disk_leaves_no_generation(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    store = CheckpointStore(tmp_path / "c")
    monkeypatch.setattr("daskstats.checkpoints.store._write", full)
    with pytest.raises(OSError, match=r"/c cannot be written: .* are free in .*make room"):
        store.commit(manifest_of(1), STATE)
    assert list((tmp_path / "c").iterdir()) == []


def test_a_file_is_refused(tmp_path):
    (tmp_path / "c").write_text("x")
    with pytest.raises(NotADirectoryError, match="is a file"):
        CheckpointStore(tmp_path / "c").manifest()


# The calls of the system that a commit makes; each of them may be the last.
CALLS = ("fsync", "replace", "rename", "mkdir", "unlink", "rmdir", "open")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_every_call(tmp_path, monkeypatch):
    """The old state or the new one is there, whole, whichever call of the system is the last."""
    before, _ = committed(tmp_path / "before", 2)
    done, killed = False, 0
    while not done:
        place = tmp_path / f"{killed}"
        shutil.copytree(before.directory, place)
        pid = os.fork()
        if not pid:
            _commit_until(place, killed)
        _, status = os.waitpid(pid, 0)
        done = os.WIFEXITED(status)
        assert done or os.WTERMSIG(status) == signal.SIGKILL
        store = CheckpointStore(place)
        manifest = store.manifest()
        assert manifest.newest.number in (2, 3)
        for generation in manifest.generations[:1]:
            check_equal(store.read(generation), generation.number)
        # The next run commits as if nothing had been.
        following = manifest_of(manifest.newest.number + 1, manifest.generations)
        store.commit(following, STATE)
        assert store.manifest().newest.number == manifest.newest.number + 1
        shutil.rmtree(place)
        killed += 1
    assert manifest.newest.number == 3
    assert killed > 30


def _commit_until(place, count):
    """Commit, and kill this process at the call with a number."""
    left = [count]

    def counted(call):
        def wrapped(*args, **options):
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return call(*args, **options)

        return wrapped

    try:
        manifest = CheckpointStore(place).manifest()
        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        arrays = STATE | {"state count": np.array(3)}
        CheckpointStore(place).commit(manifest_of(3, manifest.generations), arrays)
    finally:
        os._exit(0)


def flip(path, rng):
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def cut(path, rng):
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def unlink(path, rng):
    path.unlink()


def swap(path, rng):
    (checkpoint,) = (each for each in path.parents if each.name == "checkpoint")
    other = rng.choice([each for each in files_in(checkpoint) if each != path])
    first, second = path.read_bytes(), other.read_bytes()
    path.write_bytes(second), other.write_bytes(first)


def lengthen(path, rng):
    path.write_bytes(path.read_bytes() + b"\0")


def files_in(place):
    return sorted(path for path in Path(place).rglob("*") if path.is_file())


def test_no_alteration_is_silent(tmp_path):
    committed(tmp_path / "whole")
    errors = []
    for seed in range(100):
        rng, place = random.Random(seed), tmp_path / f"{seed}" / "checkpoint"
        shutil.copytree(tmp_path / "whole", place)
        path = rng.choice(files_in(place))
        alteration = rng.choice([flip, cut, unlink, swap, lengthen])
        alteration(path, rng)
        store = CheckpointStore(place)
        try:
            manifest = store.manifest()
            arrays = None if manifest is None else store.read(manifest.newest)
        except DamagedCheckpointError as error:
            errors.append(str(error))
            continue
        if manifest is None:
            assert (alteration, path.name) == (unlink, MANIFEST)
        else:  # two files were swapped that are alike
            assert alteration is swap
            check_equal(arrays, 1)
    assert len(errors) > 80
    for error in errors:
        assert MANIFEST in error or any(name in error for name in STATE)


def alter(place, change):
    """Alter the metadata of an array, as somebody would who knows of the checksums."""
    text = json.loads((place / MANIFEST).read_text())
    metadata = json.loads((place / "1/0/zarr.json").read_text())
    change(text, text["generations"][0]["arrays"][0], metadata)
    (place / "1/0/zarr.json").write_text(json.dumps(metadata))
    digest = stores.hashlib.sha256((place / "1/0/zarr.json").read_bytes()).hexdigest()
    text["generations"][0]["arrays"][0]["metadata"] = digest
    text.pop("digest")
    text["digest"] = stores.hashlib.sha256(json.dumps(text, sort_keys=True).encode()).hexdigest()
    (place / MANIFEST).write_text(json.dumps(text))


def pickled(text, array, metadata):
    metadata["codecs"] = [{"name": "numcodecs.pickle", "configuration": {}}]


def transformed(text, array, metadata):
    metadata["storage_transformers"] = [{"name": "any"}]


def of_terabytes(text, array, metadata):
    array["shape"] = metadata["shape"] = [1 << 21, 1 << 21]
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = [1 << 21, 1 << 21]


def of_objects(text, array, metadata):
    array["dtype"] = "|O"


def elsewhere(text, array, metadata):
    text["generations"][0]["number"] = "../1"


def negative(text, array, metadata):
    array["shape"] = [-3, 4]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (pickled, "codecs"),
        (transformed, "storage_transformers"),
        (of_terabytes, "bytes, expected"),
        (of_objects, "dtype"),
        (elsewhere, "number"),
        (negative, "shape"),
    ],
)
def test_hostile_checkpoints(tmp_path, change, field):
    store, _ = committed(tmp_path)
    alter(tmp_path, change)
    with pytest.raises(DamagedCheckpointError, match=field):
        store.read(store.manifest().newest)


@pytest.mark.parametrize("name", ["1/0/c", "1/0/zarr.json", "1/0", "1", MANIFEST])
def test_links_are_refused(tmp_path, name):
    """Also those that lead to the right content."""
    store, _ = committed(tmp_path / "c")
    path = tmp_path / "c" / name
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    with pytest.raises(DamagedCheckpointError):
        store.read(store.manifest().newest)
    # Nothing is written through a link.
    before = files_in(tmp_path / "outside")
    store.commit(manifest_of(1), STATE)
    assert files_in(tmp_path / "outside") == before
    check_equal(store.read(store.manifest().newest), 7)
