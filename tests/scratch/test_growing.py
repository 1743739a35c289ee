"""Growing frames on disk: any way of appending gives the same series, each frame decoded once."""

import json
import pickle

import numpy as np
import pytest
from fakes import Fail, FakeSeries

import daskstats as stats
from daskstats.memory.reservation import unreserved
from daskstats.planning.values import Layout, MemoryLimitError
from daskstats.scratch.directories import DamagedScratchError
from daskstats.scratch.growing import GrowingFrames, cut_frames
from daskstats.series.opening import as_series

LIMIT = 1 << 30


def growing(place, frames, limit=LIMIT, **settings):
    options = {"expected": 6, "workers": 2, "limit": limit} | settings
    return GrowingFrames(place / "frames", as_series(frames), **options)


def check(kept, frames):
    """Compare all frames, and some rows of some of them."""
    series = kept.series()
    assert (len(series), series.shape, series.dtype) == (
        *(len(frames), frames.shape[1:], frames.dtype),
    )
    rows, rng = frames.shape[1], np.random.default_rng(len(frames))
    for _ in range(5):
        start, first = rng.integers(len(frames)), rng.integers(rows)
        stop, last = rng.integers(start, len(frames)) + 1, rng.integers(first, rows) + 1
        (block,) = series.read(start, stop, first, last)
        np.testing.assert_array_equal(block, frames[start:stop, first:last])
    (block,) = pickle.loads(pickle.dumps(series)).read(0, len(frames), 0, rows)
    np.testing.assert_array_equal(block, frames)


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", ">i4", "u8", "f2", "f4", "f8"])
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (1, 40), (64, 3)])
def test_appended_frames(tmp_path, dtype, shape):
    """A group is written again for frames that are added to it, and read back for that."""
    rng = np.random.default_rng(3)
    frames = rng.integers(0, 200, (40, *shape)).astype(dtype)
    frames = frames.astype(frames.dtype.newbyteorder("="))
    kept = growing(tmp_path, frames.astype(dtype))
    stop = 0
    for more in (1, 1, 5, 0, 16, 3, 14):
        stop += more
        kept.append(as_series(frames[:stop]), stop)
        assert len(kept) == stop
        check(kept, frames[:stop])
    assert unreserved(LIMIT) == LIMIT


def test_each_frame_is_decoded_once(tmp_path):
    series = FakeSeries(np.arange(30 * 6 * 8).reshape(30, 6, 8).astype("u2"), log=tmp_path / "log")
    kept = growing(tmp_path, series)
    for stop in (2, 3, 11, 30):
        kept.append(as_series(series), stop, whole_groups=stop == 11)
        assert len(kept) == (6 if stop == 11 else stop)
    again = growing(tmp_path, series)
    again.append(as_series(series), 30)
    check(again, series.stack())
    assert series.logged() == dict.fromkeys(range(30), 1)


def test_frames_of_an_earlier_run(tmp_path, rng):
    """Whole groups count, and the cut on disk is kept, also with less memory."""
    frames = rng.integers(0, 99, (20, 6, 8)).astype("u2")
    kept, size = growing(tmp_path, frames), 6
    kept.append(as_series(frames), 3 * size + 1)
    again = growing(tmp_path, frames, limit=64 << 20, expected=9, workers=1)
    assert len(again) == 3 * size + 1
    check(again, frames[: 3 * size + 1])
    # A process was killed while it wrote the second group again: its record tells other chunks.
    chunk = tmp_path / "frames" / "c" / "1" / "0" / "0"
    content = chunk.read_bytes()
    chunk.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert len(growing(tmp_path, frames)) == size
    chunk.write_bytes(content)
    (tmp_path / "frames" / f"written-{2 * size}.json").write_text("[1, 2")
    again = growing(tmp_path, frames)
    assert len(again) == 2 * size
    again.append(as_series(frames), 20)
    check(again, frames)
    # Frames of another shape or dtype are others, and so are those in metadata that were altered.
    assert len(growing(tmp_path, frames.astype("u4"))) == 0
    for length in (0, -1, 1 << 50, "2", None):
        kept = growing(tmp_path, frames)
        kept.append(as_series(frames), 20)
        place = tmp_path / "frames" / "zarr.json"
        metadata = json.loads(place.read_text())
        metadata["chunk_grid"]["configuration"]["chunk_shape"][0] = length
        place.write_text(json.dumps(metadata))
        assert len(growing(tmp_path, frames)) == 0


def test_altered_frames_are_an_error(tmp_path, rng):
    frames = rng.integers(0, 99, (20, 6, 8)).astype("u2")
    kept = growing(tmp_path, frames, expected=20)
    kept.append(as_series(frames), 20)
    (chunk,) = [path for path in (tmp_path / "frames" / "c").rglob("*") if path.is_file()]
    content = chunk.read_bytes()
    for other in (b"", content[:-1], content[:-4] + bytes(4)):
        chunk.write_bytes(other)
        with pytest.raises(DamagedScratchError, match="rows 0 to 5 of frames 0 to 19 are damaged"):
            stats.median(kept.series()).compute()
    chunk.unlink()
    with pytest.raises(DamagedScratchError, match="No such file"):
        stats.median(kept.series()).compute()


def test_an_error_leaves_the_frames_that_are_there(tmp_path, rng):
    frames = rng.integers(0, 99, (9, 6, 8)).astype("u2")
    fail = Fail({5: 1}, ValueError("half a frame"))
    series = FakeSeries(frames, on_read=fail)
    kept = growing(tmp_path, series)
    kept.append(as_series(series), 4)
    for there in (4, 6):  # of a group, and of those before
        with pytest.raises(ValueError, match="half a frame"):
            kept.append(as_series(series), 9)
        assert len(kept) == there
        check(kept, frames[:there])
        fail.times = {6: 1} if there == 4 else {}
    kept.append(as_series(series), 9)
    check(kept, frames)
    assert unreserved(LIMIT) == LIMIT


@pytest.mark.parametrize("limit", [1 << 26, 1 << 30, 1 << 35])
@pytest.mark.parametrize("shape", [(1, 1), (512, 512), (1200, 1000), (1, 10**5)])
@pytest.mark.parametrize("unit", [1, 4])
def test_cuts_fit_into_memory(limit, shape, unit):
    layout = Layout(nframes=100, rows=shape[0], cols=shape[1], itemsize=2, frame_unit=unit)
    cut = cut_frames(layout, 10_000, 8, limit)
    assert cut.needed(layout) <= limit
    assert cut.group % unit == 0
    assert 1 <= cut.height <= shape[0]
    assert 1 <= cut.workers <= 8


def test_too_little_memory(tmp_path):
    with pytest.raises(MemoryLimitError, match="at least .* MiB .* but the memory limit is 5 MiB"):
        growing(tmp_path, np.zeros((2, 2000, 2000)), limit=5 << 20)
    assert not (tmp_path / "frames").exists()
