"""Several statistics in one pass, and what is left out of them."""

import warnings
from dataclasses import replace

import dask
import dask.array as da
import numpy as np
import pytest
from cuts import is_usual
from fakes import FakeSeries
from hypothesis import given, settings
from hypothesis import strategies as st

import daskstats as stats

FRAMEWISE = ["max", "min", "sum", "average", "std", "var", "range", "argmax", "argmin", "count"]
ROWWISE = ["median", ("percentile", [5, 50, 95]), ("percentile", 33.5), "clipped_average"]
MIXED = ["max", "average", "median", ("count_above", 60), "std", ("percentile", [10, 90])]


def decoded(frames):
    """Return a series that makes every frame new, and of which only whole frames can be read."""
    return FakeSeries(frames, decode=np.copy)


def own(ims, statistic, **options):
    """Return what the statistic's own function gives."""
    name, *parameters = statistic if isinstance(statistic, tuple) else (statistic,)
    return getattr(stats, name)(ims, *parameters, **options).compute()


@pytest.fixture
def frames(rng):
    return rng.poisson(50, (30, 17, 13)).astype("u2")


def fused(dtypes):
    """Return each list of statistics with each dtype; those beyond the cut are nightly.

    Each dtype is in the cut with one list at least, and each list with several.
    """
    also = {*(("frames", each) for each in ("?", "u1", "i2", "i8", "f8"))}
    also |= {("mixed", "i1"), ("mixed", "u4")}
    lists = {"frames": FRAMEWISE, "rows": ROWWISE, "mixed": MIXED}
    every = [(kind, dtype) for kind in lists for dtype in dtypes]
    usual = [(k, d) for k, d in every if (k, d) in also or is_usual("clipped_average", d)]
    return [
        pytest.param(
            *(lists[kind], dtype),
            id=f"{kind}-{dtype}",
            marks=[] if (kind, dtype) in usual else pytest.mark.nightly,
        )
        for kind, dtype in every
    ]


@pytest.mark.parametrize(
    ("statistics", "dtype"), fused(["?", "u1", "i1", "i2", "u4", "i8", "f2", "f4", "f8", ">u2"])
)
def test_each_image_is_that_of_its_own_function(frames, dtype, statistics):
    ims = frames.astype(dtype)
    (images,) = dask.compute(stats.aggregate(ims, statistics))
    assert len(images) == len(statistics)
    for image, statistic in zip(images.values(), statistics, strict=True):
        expected = own(ims, statistic)
        assert image.dtype == expected.dtype
        np.testing.assert_array_equal(image, expected)


def test_percentiles_share_one_search(rng):
    """In any order, in several statistics, with values left out, in more than one block."""
    ims = (rng.poisson(50, (30, 31, 47)) * (np.arange(31) % 3 > 0)[:, None]).astype("u2")
    ims[rng.random(ims.shape) < 0.1] = 0
    statistics = [("percentile", [95, 5]), "median", "max", ("percentile", 100)]
    for options in ({}, {"invalid": 0, "fill_value": 7}):
        (images,) = dask.compute(stats.aggregate(ims, statistics, **options))
        for image, statistic in zip(images.values(), statistics, strict=True):
            np.testing.assert_array_equal(image, own(ims, statistic, **options))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of pixels without a value
        wanted = np.nanpercentile(np.where(ims == 0, np.nan, ims.astype("f8")), [95, 5], axis=0)
    wanted[np.isnan(wanted)] = 7
    np.testing.assert_array_equal(images["percentile_95_5"], wanted.astype("f4"))


def test_names(frames):
    statistics = ["max", ("percentile", 95), ("percentile", [5, 99.5]), ("count_above", 1000001)]
    names = ["max", "percentile_95", "percentile_5_99.5", "count_above_1000001"]
    assert list(stats.aggregate(frames, statistics)) == names
    assert list(stats.aggregate(frames, ("max",))) == ["max"]


@pytest.mark.parametrize(
    ("statistics", "error", "words"),
    [
        ([], ValueError, "no statistics"),
        ("max", TypeError, "list"),
        (["max", "max"], ValueError, "more than once: max"),
        (["max", "mode"], ValueError, "no statistic 'mode'"),
        ([("percentile",)], TypeError, "percentile takes"),
        (None, TypeError, "list"),
    ],
)
def test_bad_lists_are_refused_at_the_call(frames, statistics, error, words):
    with pytest.raises(error, match=words):
        stats.aggregate(frames, statistics)


@pytest.mark.parametrize("statistics", [FRAMEWISE, MIXED], ids=["frames", "mixed"])
@pytest.mark.parametrize("limit", [None, "13 MB"], ids=["plenty", "little"])
@pytest.mark.parametrize("scheduler", ["threads", "sync"])
def test_each_frame_is_read_once(rng, statistics, limit, scheduler, tmp_path):
    ims = decoded(rng.poisson(50, (800, 64, 128)).astype("u2"))
    with dask.config.set({"scheduler": scheduler, "daskstats.scratch-directory": str(tmp_path)}):
        dask.compute(stats.aggregate(ims, statistics, memory_limit=limit))
        assert sorted(ims.reads) == list(range(800))
        ims.reads.clear()
        *_, last = stats.aggregate_iter(ims, statistics, 9, memory_limit=limit)
        assert sorted(ims.reads) == list(range(800))
    np.testing.assert_array_equal(last["max"], ims.stack().max(axis=0))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [np.asarray, list, decoded, da.from_array])
@pytest.mark.parametrize("scheduler", ["threads", "sync", "processes"])
def test_images_of_every_step(frames, kind, scheduler):
    ims = kind(frames)
    with dask.config.set(scheduler=scheduler, num_workers=2):
        found = list(stats.aggregate_iter(ims, ["max", "average", "argmax"], 4))
        filled = list(stats.aggregate_iter(ims, ["max", "median"], 4))
    edges = np.cumsum([8, 8, 7, 7])
    for images, edge in zip(found, edges, strict=True):
        np.testing.assert_array_equal(images["max"], frames[:edge].max(axis=0))
        np.testing.assert_array_equal(images["average"], frames[:edge].mean(axis=0).astype("f4"))
        np.testing.assert_array_equal(images["argmax"], frames[:edge].argmax(axis=0))
    for images, row in zip(filled, np.cumsum([5, 4, 4, 4]), strict=True):
        np.testing.assert_array_equal(images["max"][:row], frames[:, :row].max(axis=0))
        np.testing.assert_array_equal(images["median"][:row], np.median(frames[:, :row], axis=0))
        assert not images["max"][row:].any()


def test_snapshots_of_several(frames):
    *_, last = stats.snapshots(frames, ["max", "std"], 3)
    assert (last.done, last.total) == (30, 30)
    assert set(last.image) == {"max", "std"}
    *_, last = stats.snapshots(frames, ["max", "median"], 3)
    assert (last.done, last.total) == (17, 17)


def test_images_are_the_callers_own(frames):
    before = [{name: image.copy() for name, image in images.items()} for images in steps(frames)]
    for images, kept in zip(steps(frames), before, strict=True):
        for name, image in images.items():
            np.testing.assert_array_equal(image, kept[name])
            image[...] = 0


def steps(frames):
    return stats.aggregate_iter(frames, ["max", "sum", "range"], 5)


# ---------------------------------------------------------------------- what is left out

MASK = np.zeros((17, 13), bool)
MASK[3:9, 2:5] = MASK[16] = True


@pytest.mark.parametrize("statistic", [*FRAMEWISE, *ROWWISE, ("count_above", 50)])
@pytest.mark.parametrize("kind", [np.asarray, decoded])
def test_a_mask(frames, statistic, kind):
    ims, name = kind(frames), statistic if isinstance(statistic, str) else statistic[0]
    expected = own(ims, statistic)
    fill = 0 if name.startswith("count") else np.nan if expected.dtype.kind == "f" else 7
    expected[..., MASK] = fill
    options = {"mask": MASK, "fill_value": 7 if fill == 7 else None}
    np.testing.assert_array_equal(own(ims, statistic, **options), expected)
    rows = name in ("median", "percentile", "clipped_average")
    seen = None
    for snapshot in stats.snapshots(ims, statistic, 6, **options):
        seen = snapshot
        if rows:  # what is not done yet is zero, masked or not
            assert not snapshot.image[..., snapshot.done :, :].any()
    np.testing.assert_array_equal(seen.image, expected)


def test_a_mask_of_nothing_and_of_everything(frames):
    np.testing.assert_array_equal(own(frames, "max", mask=MASK & False), frames.max(axis=0))
    assert np.isnan(own(frames, "average", mask=MASK | True)).all()
    assert not own(frames, "count", mask=MASK | True).any()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"mask": MASK}, ValueError, "give a fill_value"),
        ({"mask": MASK, "fill_value": -1}, ValueError, "fill_value -1 cannot be held"),
        ({"mask": MASK, "fill_value": 2**64}, ValueError, "fill_value 18446744073709551616 cannot"),
        ({"mask": MASK[:5]}, ValueError, r"mask has shape \(5, 13\), expected \(17, 13\)"),
        ({"mask": MASK.astype(int)}, TypeError, "mask must be an array of bool"),
        ({"invalid": "x"}, TypeError, "invalid must be a number"),
        ({"saturation": np.nan}, ValueError, "saturation"),
        ({"skipna": 1}, TypeError, "skipna"),
        ({"masked": MASK}, TypeError, "no keyword argument masked"),
        ({"frames": [99]}, ValueError, "99"),
        ({"region": ((0, 50), (0, 5))}, ValueError, "50"),
    ],
)
def test_bad_options_are_refused_at_the_call(frames, options, error, words):
    for function in (stats.max, lambda ims, **o: stats.max_iter(ims, 3, **o)):
        with pytest.raises(error, match=words):
            function(frames, **options)


ORACLES = {
    "max": np.nanmax,
    "min": np.nanmin,
    "sum": np.nansum,
    "average": np.nanmean,
    "median": np.nanmedian,
    "count": lambda x, axis: np.isfinite(x).sum(axis=axis),
}


@pytest.mark.filterwarnings("ignore:.*leaves? out nothing")
@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.data())
def test_what_does_not_count(data):
    """Equal to numpy's nan-functions on a float64 copy, through the public functions."""
    shape = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 4), st.integers(1, 5)))
    frames = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 6, shape).astype("u2")
    invalid = data.draw(st.lists(st.integers(-1, 6), max_size=3))
    saturation = data.draw(st.sampled_from([None, 4, 5]))
    options = {"invalid": invalid, "saturation": saturation, "dtype": "f8", "fill_value": -1}
    out = np.isin(frames, invalid) | (frames >= (99 if saturation is None else saturation))
    copy = np.where(out, np.nan, frames.astype("f8"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = {name: oracle(copy, axis=0) for name, oracle in ORACLES.items()}
    for name, image in expected.items():
        if name != "count":
            image[out.all(axis=0)] = -1
        np.testing.assert_allclose(own(frames, name, **options), image, rtol=1e-15)
    if data.draw(st.booleans()):
        (images,) = dask.compute(stats.aggregate(frames, list(ORACLES), **options))
        for name, image in images.items():
            np.testing.assert_array_equal(image, own(frames, name, **options))


def test_frames_and_a_region(frames):
    ims, region = decoded(frames), ((2, 9), (1, 8))
    chosen = frames[::3, 2:9, 1:8]
    options = {"frames": slice(None, None, 3), "region": region}
    for name in ("max", "median", "std"):
        ims.reads.clear()
        np.testing.assert_array_equal(own(ims, name, **options), own(chosen, name))
        assert sorted(ims.reads) == list(range(0, 30, 3))
    for mask in (MASK, MASK[2:9, 1:8]):
        expected = own(chosen, "average", mask=MASK[2:9, 1:8])
        np.testing.assert_array_equal(own(ims, "average", mask=mask, **options), expected)
    np.testing.assert_array_equal(
        own(ims, "argmax", frames=[-1, 3]), frames[[-1, 3]].argmax(axis=0)
    )


def lit(pieces, start):
    blocks = [block for piece in pieces for block in piece]
    return {"lit": sum(np.count_nonzero(block, axis=0) for block in blocks)}


def both(a, b):
    return {"lit": a["lit"] + b["lit"]}


def write(state, image):
    image[...] = state["lit"]


def test_a_statistic_of_ones_own(frames):
    statistic = stats.Statistic("lit", lit, both, write, dtype="int64")
    frames = frames // 50
    expected = np.count_nonzero(frames, axis=0)
    (images,) = dask.compute(stats.aggregate(frames, ["max", statistic, "median"]))
    np.testing.assert_array_equal(images["lit"], expected)
    *_, last = stats.snapshots(frames, statistic, 4)
    np.testing.assert_array_equal(last.image, expected)
    with pytest.raises(TypeError, match="lit cannot leave out values"):
        stats.aggregate(frames, [statistic], invalid=3)


def test_statistics_of_ones_own_after_one_another(frames):
    """Which loops are needed is cached: another statistic at the same place is not the same one."""

    def own(name, reduction):
        def chunk(pieces, start):
            blocks = [block for piece in pieces for block in piece]
            return {"value": reduction(np.concatenate(blocks).astype("i8"), axis=0)}

        def combine(a, b):
            return {"value": reduction(np.stack([a["value"], b["value"]]), axis=0)}

        def finalize(state, image):
            image[...] = state["value"]

        return stats.Statistic(name, chunk, combine, finalize, dtype="int64")

    every = [own("own", np.sum), own("own", np.min), own("own", np.max)]
    for others in (["max"], ["median"], ["average", "std"]):
        for statistic, reduction in zip(every, (np.sum, np.min, np.max), strict=True):
            expected = reduction(frames.astype("i8"), axis=0)
            for several in ([statistic, *others], [*others, statistic]):
                (images,) = dask.compute(stats.aggregate(frames, several))
                np.testing.assert_array_equal(images["own"], expected)
                *_, images = stats.aggregate_iter(frames, several, 2)
                np.testing.assert_array_equal(images["own"], expected)


def add_up(pieces, start):
    """Return a state with a number, an array of no dimension and one of another shape."""
    blocks = [block for piece in pieces for block in piece]
    number = sum(map(len, blocks))
    total = sum(block.sum(axis=0, dtype="i8") for block in blocks)
    return {"total": total, "number": number, "zero": np.array(0.5), "ends": np.arange(3)}


def add_states(a, b):
    assert type(a["number"]) is type(b["number"]) is int
    return {name: a[name] + b[name] for name in a}


def write_total(state, image):
    assert state["number"] > 0
    assert state["ends"].shape == (3,)
    image[...] = state["total"]


@pytest.mark.parametrize("scheduler", ["threads", "sync"])
@pytest.mark.parametrize("others", [[], ["max"], ["median"]], ids=["alone", "max", "median"])
def test_states_may_hold_numbers_beside_arrays(rng, scheduler, others):
    """Tasks of a chain copy the state of the task before."""
    statistic = stats.Statistic("total", add_up, add_states, write_total, dtype="int64")
    frames = rng.integers(0, 99, (2000, 30, 200), "u2")
    expected, several = frames.sum(axis=0, dtype="i8"), [statistic, *others]
    with dask.config.set(scheduler=scheduler, num_workers=2):
        for ims in (frames, decoded(frames)):
            options = {"memory_limit": "20 MiB"}
            (images,) = dask.compute(stats.aggregate(ims, several, **options))
            np.testing.assert_array_equal(images["total"], expected)
            *_, images = stats.aggregate_iter(ims, several, 3, **options)
            np.testing.assert_array_equal(images["total"], expected)


@pytest.mark.parametrize("others", [[], ["max"], ["median"]], ids=["alone", "max", "median"])
def test_a_finalize_that_returns_its_image_is_refused(frames, others):
    """The image was memory that nothing had been written to; one returned as well is right."""
    statistic = stats.Statistic("lit", lit, both, lambda state, image: state["lit"], dtype="int64")
    with pytest.raises(TypeError, match="finalize of lit returned an array, and must write into"):
        dask.compute(stats.aggregate(frames, [statistic, *others]))
    with pytest.raises(TypeError, match="finalize of lit returned an array, and must write into"):
        next(stats.aggregate_iter(frames, [statistic, *others], 2))
    statistic = replace(statistic, finalize=lambda state, image: np.add(state["lit"], 0, out=image))
    (images,) = dask.compute(stats.aggregate(frames, [statistic, *others]))
    np.testing.assert_array_equal(images["lit"], np.count_nonzero(frames, axis=0))


def lit_in_place(pieces, start):
    for piece in pieces:
        for block in piece:
            np.minimum(block, 1, out=block)
    return lit(pieces, start)


def lit_in_two_passes(pieces, start):
    most = max(block.max() for piece in pieces for block in piece)
    return {"lit": sum((block <= most).sum(axis=0) for piece in pieces for block in piece)}


@pytest.mark.parametrize("others", [[], ["max"], ["median"]], ids=["alone", "max", "median"])
@pytest.mark.parametrize("kind", ["array", "list", "turned", "series"])
def test_a_chunk_cannot_write_to_the_frames(frames, others, kind):
    """It changed the array of the caller, and the images of the statistics beside it."""
    before = frames.copy()
    make = {"array": np.asarray, "list": list, "turned": lambda ims: ims[:, ::-1].copy()[:, ::-1]}
    ims = make.get(kind, FakeSeries)(frames)
    statistic = stats.Statistic("lit", lit_in_place, both, write, dtype="int64")
    with pytest.raises(ValueError, match="read-only"):
        dask.compute(stats.aggregate(ims, [statistic, *others]))
    with pytest.raises(ValueError, match="read-only"):
        list(stats.aggregate_iter(ims, [statistic, *others], 2))
    np.testing.assert_array_equal(frames, before)
    assert frames.flags.writeable
    statistic = replace(statistic, chunk=lit_in_two_passes)
    (images,) = dask.compute(stats.aggregate(ims, [statistic, *others]))
    assert (images["lit"] == len(frames)).all()


@pytest.mark.parametrize("dtype", ["O", "U3", "M8[s]"])
def test_an_image_is_of_numbers(frames, dtype):
    """One of objects ended the process: it was made in memory that had held other values."""
    statistic = stats.Statistic("lit", lit, both, write, dtype=dtype)
    with pytest.raises(TypeError, match="an image is of numbers, and the dtype of lit is"):
        stats.aggregate(frames, [statistic])


def test_a_row_wise_state_without_numbers_of_rows_is_refused(frames):
    """It was a KeyError of the statistic's own finalize."""
    statistic = stats.Statistic("total", lit, place, write, along="rows", dtype="int64")
    for others in ([], ["max"], ["median"]):
        with pytest.raises(ValueError, match="total is row-wise, so chunk must return its band"):
            dask.compute(stats.aggregate(frames, [statistic, *others]))
    with pytest.raises(ValueError, match=r'\{"0": band\}: got the names'):
        list(stats.aggregate_iter(frames, [statistic], 2))


def one_row(pieces, start):
    (*blocks,) = (block for piece in pieces for block in piece)
    return {str(start): np.concatenate(blocks).sum(axis=(0, 1))[None]}


@pytest.mark.parametrize("others", [[], ["max"], ["median"]], ids=["alone", "max", "median"])
def test_a_row_wise_band_of_other_rows_is_refused(frames, others):
    """The rows that it lacks were zero, or the image had one row."""
    statistic = stats.Statistic("total", one_row, place, write, along="rows", dtype="int64")
    text = (
        r"total is row-wise, so chunk must return a band like its frames, of shape \(\d+, \d+\): "
    )
    with pytest.raises(ValueError, match=text):
        dask.compute(stats.aggregate(frames, [statistic, *others]))
    with pytest.raises(ValueError, match=text):
        list(stats.aggregate_iter(frames, [statistic, *others], 2))


DARK = np.arange(3000 * 100).reshape(3000, 100) % 7


def band(pieces, start):
    block = np.concatenate([block for piece in pieces for block in piece])
    rows = DARK[start : start + block.shape[1]]
    return {str(start): np.median(block - rows.astype("f8"), axis=0)}


def place(a, b):
    return {**a, **b}


def write_band(state, image):
    for first, rows in state.items():
        image[int(first) : int(first) + len(rows)] = rows


def test_a_row_wise_statistic_of_ones_own(rng):
    """It is told which rows it gets, alone and with others."""
    statistic = stats.Statistic("dark", band, place, write_band, along="rows", dtype="float64")
    frames = rng.poisson(50, (20, *DARK.shape)).astype("u2")
    expected = np.median(frames - DARK.astype("f8"), axis=0)
    for others in ([], ["max"], ["median", "std"]):
        (images,) = dask.compute(stats.aggregate(frames, [statistic, *others]))
        np.testing.assert_array_equal(images["dark"], expected)


@pytest.mark.parametrize("dtype", ["f2", "f4", "i4"])
def test_float64_images_of_deviations_are_the_same_too(rng, dtype):
    """Sums of squares that lie half-way between two float64 are rounded one way, however cut."""
    frames = (rng.normal(size=(40, 70, 900)) * 50).astype(dtype)
    (images,) = dask.compute(stats.aggregate(frames, ["var", "std", "median"], dtype="f8"))
    for name, image in images.items():
        np.testing.assert_array_equal(image, own(frames, name, dtype="f8"))
