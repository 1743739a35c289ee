"""Dark images and flips, against numpy on whole frames and against HEXRD's definitions."""

import pickle
import tracemalloc
import warnings

import dask
import dask.array as da
import numpy as np
import pytest
from dask.base import tokenize
from fakes import FakeSeries
from helpers import check_series, make_frames, read_dense

import daskstats as stats
from daskstats.memory.pool import BufferPool
from daskstats.series.arrays import ArraySource
from daskstats.series.base import layout
from daskstats.series.corrected import CorrectedSource, correct, mark_of
from daskstats.series.daskarrays import DaskSource
from daskstats.series.flips import FLIPS
from daskstats.series.opening import as_series
from daskstats.series.selection import select

# The images that HEXRD's ProcessedImageSeries makes of an image, in numpy's own words.
FLIPPED = {
    "y": np.fliplr,
    "v": np.fliplr,
    "x": np.flipud,
    "h": np.flipud,
    "vh": lambda image: np.rot90(image, 2),
    "hv": lambda image: np.rot90(image, 2),
    "r180": lambda image: np.rot90(image, 2),
    "t": np.transpose,
    "T": np.transpose,
    "ccw90": np.rot90,
    "r90": np.rot90,
    "cw90": lambda image: np.rot90(image, -1),
    "r270": lambda image: np.rot90(image, -1),
}
NAMES = ("v", "h", "hv", "t", "r90", "r270")


def expected(frames, dark, flip):
    """Return corrected frames in Python's numbers for integers, in float64 else."""
    exact = "f8" if "f" in (frames.dtype.kind, dark.dtype.kind) else object
    differences = frames.astype(exact) - dark.astype(exact)
    return np.stack([FLIPPED[flip](frame) for frame in differences])


def hdf5(frames, tmp_path):
    import h5py

    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_dataset("scan", data=frames, chunks=(2, 2, frames.shape[2]))
    return tmp_path / "scan.h5"


KINDS = {
    "array": lambda frames, tmp_path: frames,
    "list": lambda frames, tmp_path: list(frames),
    "sequence": lambda frames, tmp_path: FakeSeries(frames),
    "dask": lambda frames, tmp_path: da.from_array(frames, chunks=(3, 2, 6)),
    "hdf5": hdf5,
}


def test_has_all_names_of_hexrd():
    assert FLIPS.keys() == FLIPPED.keys()
    image = np.arange(6).reshape(2, 3)
    for name, flip in FLIPPED.items():
        np.testing.assert_array_equal(FLIPS[name].of(image), flip(image), err_msg=name)


@pytest.mark.parametrize("flip", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_corrected_frames_are_a_series(kind, flip, tmp_path, rng):
    """Five rows in units of two: with a flip the units end elsewhere."""
    frames = make_frames("u2")
    dark = rng.integers(0, 2**16, frames.shape[1:], "u2")
    source = as_series(KINDS[kind](frames, tmp_path))
    check_series(correct(source, None, flip), np.stack([FLIPPED[flip](each) for each in frames]))
    corrected = correct(source, dark, flip)
    assert isinstance(corrected, DaskSource if kind == "dask" else CorrectedSource)
    check_series(corrected, expected(frames, dark, flip).astype("i4"))


@pytest.mark.parametrize("flip", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_selections_are_of_the_flipped_frames(kind, flip, tmp_path):
    frames = make_frames("u1")
    dark = frames[3]
    source = correct(as_series(KINDS[kind](frames, tmp_path)), dark, flip)
    whole = expected(frames, dark, flip).astype("i2")
    chosen = select(source, [5, 1, 2], ((1, 4), (2, 5)))
    check_series(chosen, whole[[5, 1, 2], 1:4, 2:5])


PAIRS = [
    *(("u1", "u1", "i2"), ("i1", "u1", "i2"), ("u2", "i1", "i4"), ("u2", ">u2", "i4")),
    *(("i2", "i2", "i4"), (">u2", "u2", "i4"), ("u4", "u4", "i8"), ("i4", "i4", "i8")),
    *(("u1", "u2", "i4"), ("u1", "i4", "i8"), ("i2", "u4", "i8")),
    *(("u1", "f4", "f4"), ("u2", "f4", "f4"), ("u4", "f4", "f8"), ("u2", "f8", "f8")),
    *(("f4", "f4", "f4"), ("f4", "u2", "f4"), ("f4", "i4", "f8"), ("f2", "f2", "f4")),
    *(("f8", "f4", "f8"), (">f4", "u1", "f4")),
]


@pytest.mark.parametrize(("dtype", "of_dark", "result"), PAIRS)
def test_dtype_of_differences(dtype, of_dark, result):
    """Frames and dark use their whole ranges: nothing wraps, and floats are rounded once."""
    frames, dark = make_frames(dtype), make_frames(of_dark, 1, seed=1)[0]
    if dark.dtype.kind in "iu":
        dark.flat[:2] = np.iinfo(of_dark).min, np.iinfo(of_dark).max
    for ims in (frames, FakeSeries(frames), da.from_array(frames, chunks=(3, 2, 6))):
        source = correct(as_series(ims), dark)
        assert source.dtype == np.dtype(result)
        with np.errstate(invalid="ignore"):
            wanted = expected(frames, dark, "t").swapaxes(1, 2)
        dense = read_dense(source, (0, 7, 0, 5, 3))
        if result[0] == "i":
            assert (dense.astype(object) == wanted).all()
        else:
            np.testing.assert_array_equal(dense, wanted.astype(result))


def test_a_small_dark_of_a_wide_dtype_does_not_widen():
    frames = np.full((2, 1, 2), 65535, "u2")
    source = correct(ArraySource(frames), np.array([[100, 0]], "i8"))
    check_series(source, np.array([[[65435, 65535]]] * 2, "i4"))


@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_frames_of_64_bits_are_exact_or_refused(dtype):
    most = 2**63 - 1
    frames = np.array([[[most, 5]], [[17, most - 3]]], dtype)
    assert stats.max(frames, dark=[[7, 3]]).compute().tolist() == [[most - 7, most - 6]]
    with pytest.raises(ValueError, match=rf"has the value {most}.* to {most - 1} only"):
        stats.max(frames, dark=[[-1, 3]]).compute()
    assert stats.max(frames, dark=[[-1, 3]], invalid=most).compute().tolist() == [[18, most - 6]]
    low = int(np.iinfo(dtype).min)
    frames[0, 0, 0] = low
    if dtype == "i8":
        with pytest.raises(ValueError, match=rf"has the value {low}.* from {low + 8} to"):
            stats.max(frames, dark=[[7, 3]]).compute()
    frames[0, 0, 0] = 2**53 + 1
    with pytest.raises(ValueError, match=rf"has the value {2**53 + 1}"):
        stats.max(frames, dark=np.zeros((1, 2), "f4")).compute()
    with pytest.raises(ValueError, match=f"dark has values from 0 to {2**63}, and int64 holds"):
        stats.max(frames, dark=np.array([[0, 2**63]], "u8"))


WITH_DARK = {"invalid": [4095, 100], "saturation": 4000}


@pytest.mark.parametrize("flip", [None, "r90", "hv"])
@pytest.mark.parametrize(("dtype", "of_dark"), [("u2", "u2"), ("u2", "f4"), ("f4", "f4")])
@pytest.mark.parametrize("skipna", [False, True])
def test_values_that_do_not_count_are_those_of_the_file(dtype, of_dark, skipna, flip, rng):
    """Less the dark, a saturated pixel is below the saturation, and others are 100."""
    frames = rng.integers(90, 4096, (9, 5, 6)).astype(dtype)
    frames[:5, 2] = [[100], [4095], [4000], [3999], [200]]
    dark = rng.integers(0, 200, (5, 6)).astype(of_dark)
    if dtype == "f4":
        frames[3, 1, 1] = np.nan
    if of_dark == "f4":
        dark[4, 4] = np.nan
    valid = (frames != 4095) & (frames != 100) & ~(frames >= 4000)
    counts = np.where(valid, expected(frames, dark, "t").swapaxes(1, 2).astype("f8"), np.nan)
    turn = FLIPPED[flip or "T"] if flip else np.asarray
    options = {**WITH_DARK, "skipna": skipna, "dark": dark, "flip": flip}
    names = ["max", "min", "median", "average", "count"]
    images = stats.aggregate(frames, names, **options, fill_value=-7, dtype="f8")
    (images,) = dask.compute(images)
    unseen = np.isnan(dark) if of_dark == "f4" else np.zeros(dark.shape, bool)
    for name, function in (("max", np.nanmax), ("min", np.nanmin), ("median", np.nanmedian)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of pixels without a value
            wanted = function(counts, axis=0)
        wanted[unseen] = -7 if skipna else np.nan
        if dtype == "f4" and not skipna:
            wanted[1, 1] = np.nan
        np.testing.assert_array_equal(images[name], turn(wanted), err_msg=name)
    number = valid.sum(axis=0)
    if skipna:
        number = (valid & ~np.isnan(counts)).sum(axis=0)
    np.testing.assert_array_equal(images["count"], turn(number))


def test_the_mark_of_floats_is_never_a_value():
    least = mark_of(np.dtype("f4"))
    frames = np.array([[[least, 3]]], "f4")
    zero = np.zeros((1, 2), "f4")
    assert stats.max(frames, dark=zero).compute()[0, 0] == np.float32(least)
    with pytest.raises(ValueError, match="the mark of values that do not count"):
        stats.max(frames, dark=zero, invalid=3).compute()
    assert stats.max(frames, dark=zero, invalid=[3, least], fill_value=1).compute().max() == 1


def test_a_value_that_no_frame_can_have_is_a_warning():
    frames = make_frames("u1")
    with pytest.warns(UserWarning, match="invalid=300 leaves out nothing: frames of uint8"):
        stats.max(frames, dark=frames[0], invalid=300)


def test_a_mask_and_a_region_are_of_the_flipped_frames(rng):
    frames = rng.integers(0, 99, (4, 5, 7), "u2")
    dark = frames[2]
    turned = expected(frames, dark, "r90").astype("i4")
    mask = rng.random((7, 5)) < 0.3
    image = stats.max(frames, dark=dark, flip="r90", mask=mask, fill_value=0).compute()
    np.testing.assert_array_equal(image, np.where(mask, 0, turned.max(axis=0)))
    with pytest.raises(ValueError, match=r"mask has shape \(5, 7\), expected \(7, 5\)"):
        stats.max(frames, flip="r90", mask=mask.T, fill_value=0)
    image = stats.max(frames, dark=dark, flip="r90", region=((5, 7), (0, 3))).compute()
    np.testing.assert_array_equal(image, turned[:, 5:7, :3].max(axis=0))


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
@pytest.mark.parametrize("kind", ["array", "sequence", "dask"])
def test_streams_and_images(scheduler, kind, tmp_path, rng):
    frames = rng.integers(0, 4096, (12, 6, 5), "u2")
    dark = rng.integers(0, 4096, (6, 5), "u2")
    ims = KINDS[kind](frames, tmp_path)
    wanted = expected(frames, dark, "r270").astype("i4")
    options = {"dark": dark, "flip": "r270"}
    with dask.config.set(scheduler=scheduler, num_workers=2):
        np.testing.assert_array_equal(stats.min(ims, **options).compute(), wanted.min(axis=0))
        *_, last = stats.median_iter(ims, 3, **options)
        np.testing.assert_array_equal(last, np.median(wanted, axis=0).astype("f4"))
        images = list(stats.average_iter(ims, 2, **options))
        np.testing.assert_array_equal(images[0], wanted[:6].mean(axis=0).astype("f4"))


def test_in_other_processes(tmp_path, rng):
    frames = rng.integers(0, 4096, (12, 6, 5), "u2")
    dark = rng.integers(0, 4096, (6, 5), "u2")
    wanted = np.where(frames == 9, 0, expected(frames, dark, "t").swapaxes(1, 2)).max(axis=0)
    wanted = FLIPPED["r270"](wanted.astype("i4"))
    options = {"dark": dark, "flip": "r270", "invalid": 9}
    with dask.config.set(scheduler="processes", num_workers=2):
        images = [
            stats.max(KINDS[kind](frames, tmp_path), **options)
            for kind in ("array", "sequence", "dask", "hdf5")
        ]
        for image in dask.compute(*images):
            np.testing.assert_array_equal(image, wanted)


def test_a_dark_of_a_file_is_subtracted(tmp_path, rng):
    frames = rng.integers(0, 4096, (5, 4, 6), "u2")
    np.save(tmp_path / "scan.npy", frames)
    np.save(tmp_path / "dark.npy", frames[0])
    image = stats.min(tmp_path / "scan.npy", dark=tmp_path / "dark.npy", flip="v").compute()
    np.testing.assert_array_equal(image, expected(frames, frames[0], "v").min(axis=0))
    with pytest.raises(FileNotFoundError, match="there is no dark .*none.npy"):
        stats.min(frames, dark=tmp_path / "none.npy")


def test_the_dark_is_the_one_of_the_call():
    frames = make_frames("u2")
    dark = frames[0].copy()
    lazy = stats.max(frames, dark=dark)
    dark[...] = 0
    np.testing.assert_array_equal(lazy.compute(), expected(frames, frames[0], "t").max(axis=0).T)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dark": np.zeros((6, 5))}, ValueError, r"dark has shape \(6, 5\), expected \(5, 6\)"),
        ({"dark": 7}, ValueError, r"dark has shape \(\), expected \(5, 6\) as the frames"),
        ({"dark": np.zeros((5, 6), bool)}, TypeError, "dark must be of integers or floats.*bool"),
        ({"dark": np.zeros((5, 6), "c8")}, TypeError, "dark must be of .* got complex64"),
        ({"dark": np.ma.zeros((5, 6))}, TypeError, "dark is a MaskedArray, expected a plain"),
        ({"flip": "z"}, ValueError, "flip must be one of v, y, h, x, hv, .* got 'z'"),
        ({"flip": 90}, ValueError, "flip must be one of .* got 90"),
    ],
)
def test_errors(options, error, message):
    with pytest.raises(error, match=message):
        stats.max(make_frames("u2"), **options)


def test_frames_of_bool_have_no_dark():
    frames = make_frames("bool")
    with pytest.raises(TypeError, match="a dark cannot be subtracted from frames of bool"):
        stats.max(frames, dark=np.zeros((5, 6)))
    np.testing.assert_array_equal(
        stats.max(frames, flip="t").compute(), frames.max(axis=0).T, strict=True
    )


def test_only_needed_rows_are_read():
    reads = []

    class Logging(ArraySource):
        def read(self, *window):
            reads.append(window)
            return super().read(*window)

    source = correct(Logging(make_frames("u2")), None, "h")
    list(source.pieces(2, 4, 0, 2, 5))
    assert reads == [(2, 4, 3, 5)]


def test_memory_is_planned(rng):
    """Frames of the file are in memory beside the wider ones, bool arrays of a frame, the dark."""
    ims = as_series(FakeSeries(make_frames("u2")))
    dark, frames = np.zeros((5, 6), "u2"), 1 + ims.buffers
    assert layout(correct(ims, dark), 7).buffers == 0.5 * frames
    assert layout(correct(ims, None, "t"), 7).buffers == frames
    assert layout(correct(ims, dark, "t"), 7).buffers == 0.5 * frames + 0.5
    judged = correct(ims, dark, None, lambda frame: frame == 3)
    assert layout(judged, 7).buffers == 0.5 * frames + 0.75
    assert layout(correct(ArraySource(make_frames("u2")), dark), 7).buffers == 0
    assert layout(correct(ims, dark), 7).kept == 4 * 5 * 6  # as int32
    assert layout(correct(ims, None, "t"), 7).kept == 0


def test_names_in_a_graph_tell_corrections_apart():
    source = ArraySource(make_frames("u2"))
    dark = make_frames("u2", seed=1)[0]
    every = [correct(source, dark), correct(source, dark + 1), correct(source, dark, "t")]
    every += [correct(source, None, "t"), source]
    assert len({tokenize(each) for each in every}) == 5
    assert tokenize(correct(source, dark.copy(), "t")) == tokenize(every[2])
    sent = pickle.loads(pickle.dumps(every[2]))
    np.testing.assert_array_equal(sent.read(0, 7, 0, 6)[0], every[2].read(0, 7, 0, 6)[0])


@pytest.mark.parametrize("other", [(3, 1, 4), (3, 4, 2), (2, 4, 4), (3, (1, 3), 4)])
def test_one_dark_goes_with_the_chunks_of_each_array(rng, other):
    dark, frames = np.arange(16, dtype="u2").reshape(4, 4), rng.integers(0, 50, (6, 4, 4), "u2")
    arrays = [da.from_array(frames, chunks=chunks) for chunks in ((3, 4, 4), other)]
    for image in dask.compute(*(stats.max(array, dark=dark) for array in arrays)):
        np.testing.assert_array_equal(image, frames.max(axis=0) - dark.astype("i4"))


@pytest.mark.parametrize("cut", [np.s_[:, :1], np.s_[:, :, :1], np.s_[:, :1, :1]])
def test_a_dark_is_never_stretched(cut):
    array = da.zeros((3, 4, 5), dtype="u2", chunks=(1, 4, 5))
    lie = array.map_blocks(lambda block: block[cut], dtype="u2", meta=np.empty((0, 0, 0), "u2"))
    with pytest.raises(ValueError, match=r"a frame has shape \(.*, and its dark \(4, 5\)"):
        stats.max(lie, dark=np.ones((4, 5), "u2")).compute()
    block = np.zeros((3, 4, 5), "u2")
    with pytest.raises(ValueError, match=r"a frame has shape \(4, 5\), and its dark \(1, 5\)"):
        correct(ArraySource(block), np.ones((4, 5), "u2")).dark.subtract(
            block[0], np.ones((1, 5), "i4"), np.empty((4, 5), "i4")
        )


@pytest.mark.parametrize("flip", [None, "hv", "r90"])
@pytest.mark.parametrize("judged", [False, True])
def test_no_more_memory_is_used_than_planned(flip, judged, monkeypatch):
    for module in ("orders", "corrected"):
        monkeypatch.setattr(f"daskstats.series.{module}.frame_pool", BufferPool(0))
    frames = np.zeros((8, 256, 512), "u2")
    dark, left_out = np.zeros((256, 512), "u2"), (lambda frame: frame == 3)
    source = correct(
        as_series(FakeSeries(frames, decode=np.copy)), dark, flip, left_out if judged else None
    )
    source.read(0, 8, 0, source.shape[0])  # imports are done here
    tracemalloc.start()
    try:
        (piece,) = source.pieces(0, 8, 0, source.shape[0], 8)
        nbytes = sum(block.nbytes for block in piece.arrays)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= nbytes * (1 + source.buffers) + (64 << 10)
