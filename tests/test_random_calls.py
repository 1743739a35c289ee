"""Random calls: any statistic of any dtype, options, source, scheduler and limit, and its oracle.

A call is made of its seed alone, so one that fails is repeated by the number in the test's name.
Plain result and iterator are compared bit for bit with each other, and with exact numbers.
"""

import re
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate
from math import copysign, fsum, inf, isfinite, isnan, nan, sqrt

import dask
import dask.array as da
import h5py
import numpy as np
import pytest
import zarr
from cuts import is_usual
from fakes import FakeSeries
from oracles import left_out, pixel_percentile, total

import daskstats as stats
from daskstats.planning.values import MemoryLimitError

ALWAYS, EVERY = 200, 2000

FRAME_WISE = (
    *("max", "min", "sum", "average", "std", "var", "range"),
    *("argmax", "argmin", "count", "count_above"),
)
ROW_WISE = "percentile", "median", "clipped_average"
ITERATORS = "max", "min", "sum", "average", "std", "var", "percentile", "median"
COUNTS = "argmax", "argmin", "count", "count_above"
DTYPES = "bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"

SOURCES = (
    *("array", "strided", "swapped", "list", "series"),
    *("npy", "cache", "zarr", "zarr.Array", "hdf5", "dask"),
)


@dataclass(repr=False)
class Call:
    """Everything about a call but where its frames are."""

    name: str
    parameters: tuple
    base: np.ndarray
    """(frames, rows, cols): the frames of the series repeat it along rows and columns"""
    tiles: tuple[int, int]
    nframes: int = 0
    options: dict = field(default_factory=dict)
    source: str = "array"
    scheduler: str = "threads"
    workers: int = 2
    nchunk: int = 1
    limit: float | None = None
    """the memory limit, as a multiple of the least that a plan says it needs"""
    together: tuple = ()
    """statistics that are computed in the same pass"""
    strange: bool = False
    """whether bytes of bool frames are neither 0 nor 1"""

    def __repr__(self):
        others = {k: v for k, v in vars(self).items() if k != "base"}
        return f"{self.base.dtype} {self.base.shape}, {others}"

    @property
    def statistic(self):
        return (self.name, *self.parameters) if self.parameters else self.name

    @property
    def rowwise(self):
        others = {name for name in self.together if isinstance(name, str)}
        return bool(({self.name} | others) & set(ROW_WISE))


# ---------------------------------------------------------------------- what is called


def draw(seed: int, few: bool) -> Call:
    rng = np.random.default_rng([15, seed])
    name = str(rng.choice(FRAME_WISE + ROW_WISE))
    # Code is compiled for each dtype: what always runs has those that the other tests use as well.
    dtypes = [each for each in DTYPES if not few or is_usual(name, each)]
    dtype = np.dtype(str(rng.choice(dtypes)))
    shape = int(rng.integers(1, 24)), int(rng.integers(1, 7)), int(rng.integers(1, 9))
    small = rng.random() < (0.5 if name in ROW_WISE else 0.15)
    tiles = (int(rng.integers(10, 50)), int(rng.integers(20, 60))) if small else (1, 1)
    call = Call(name, (), draw_frames(rng, dtype, shape), tiles)
    call.limit = float(2 ** rng.uniform(-0.2, 2)) if small else None
    call.strange = dtype.kind == "b" and rng.random() < 0.5
    # Frames that are read whole must wait somewhere for row-wise statistics.
    call.source = str(rng.choice(["series", "cache"] if small and rng.random() < 0.5 else SOURCES))
    call.scheduler = str(
        rng.choice(["threads", "synchronous", "processes", "cluster"], p=[0.72, 0.2, 0.01, 0.07])
    )
    call.workers = int(rng.integers(1, 4))
    draw_parameters(rng, call)
    draw_options(rng, call)
    draw_others(rng, call, few)
    chosen = len(select_frames(call))
    items = image_rows(call) if call.rowwise else chosen
    call.nchunk = int(rng.integers(1, min(items, 6) + 1))
    return call


def draw_frames(rng, dtype, shape):
    """Return frames of one of the kinds that detectors and testers make."""
    if dtype.kind == "b":
        return rng.random(shape) < rng.choice([0.1, 0.5, 1])
    if dtype.kind == "f":
        frames = [
            lambda: rng.normal(0, 100, shape),
            lambda: rng.integers(-3, 4, shape).astype("f8"),
            lambda: np.ldexp(rng.uniform(-1, 1, shape), rng.integers(-8, 8, shape)),
            lambda: np.full(shape, rng.normal(0, 100)),
            lambda: np.where(rng.random(shape) < 0.5, 0.0, -0.0),
        ][rng.integers(5)]()
        for special in (nan, inf, -inf, -0.0):
            if rng.random() < 0.3:
                frames[rng.random(shape) < 0.1] = special
        return frames.astype(dtype)
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    centre = int(rng.integers(low, high - 1, dtype=dtype))
    return [
        lambda: rng.integers(low, high, shape, dtype, endpoint=True),
        lambda: rng.poisson(min(30, high // 4), shape).astype(dtype),
        lambda: np.where(rng.random(shape) < 0.5, dtype.type(low), dtype.type(high)),
        lambda: dtype.type(centre) + rng.integers(0, 3, shape, dtype),
        lambda: np.where(
            rng.random(shape) < 0.3, dtype.type(high), rng.integers(0, 9, shape, dtype)
        ),
    ][rng.integers(5)]()


def draw_parameters(rng, call):
    if call.name == "percentile":
        some = rng.choice([0, 12.5, 30, 50, 99, 100], rng.integers(1, 4), replace=False)
        several = rng.random() < 0.4
        call.parameters = ([float(q) for q in some] if several else float(some[0]),)
    elif call.name == "count_above":
        call.parameters = (some_value(rng, call.base),)
    elif call.name == "clipped_average":
        call.parameters = (float(rng.choice([1.37, 2.61])), [1, 3, None][rng.integers(3)])


def draw_options(rng, call):
    options, (nframes, *_) = call.options, call.base.shape
    rows, cols = full_shape(call)
    floats = call.name in ("sum", "average", "std", "var", *ROW_WISE)
    dtypes = ["f8", "f4", "f2"] if floats else ["f8", "i4"] if call.name in COUNTS else ["f8"]
    if rng.random() < 0.4:
        options["dtype"] = str(rng.choice(dtypes))
    if call.name in ("std", "var") and rng.random() < 0.4:
        options["ddof"] = [1, 2, 0.5][rng.integers(3)]
    if rng.random() < 0.2:
        call.nframes = int(rng.integers(-1, nframes + 2))
    if rng.random() < 0.2:
        options["frames"] = [
            lambda: slice(int(rng.integers(0, nframes)), None, int(rng.integers(1, 4))),
            lambda: rng.integers(0, nframes, rng.integers(1, 2 * nframes)).tolist(),
            lambda: np.arange(nframes) % 2 == rng.integers(2) * (nframes > 1),
        ][rng.integers(3)]()
    if rng.random() < 0.2:
        top, left = int(rng.integers(rows)), int(rng.integers(cols))
        bottom, right = int(rng.integers(top, rows)) + 1, int(rng.integers(left, cols)) + 1
        options["region"] = (top, bottom), (left, right)
    if rng.random() < 0.2:
        options["mask"] = rng.random((rows, cols)) < 0.3
    if rng.random() < 0.25:
        few = [some_value(rng, call.base) for _ in range(rng.integers(1, 4))]
        options["invalid"] = few if rng.random() < 0.7 else few[0]
    if rng.random() < 0.15:
        options["saturation"] = some_value(rng, call.base, within=True)
    if rng.random() < 0.2:
        options["skipna"] = True
    natural = image_dtype(call)
    leaves_out = {"mask", "invalid", "saturation", "skipna"} & options.keys()
    if natural.kind != "f" or (leaves_out and rng.random() < 0.3):
        options["fill_value"] = 0
    if call.name in ("percentile", "median") and rng.random() < 0.3:
        options["use_buffer"] = False


def draw_others(rng, call, few):
    """Draw statistics that are computed in the same pass."""
    alone = {"dtype", "ddof"} & call.options.keys() or call.name in COUNTS
    if rng.random() < 0.2 and not alone:
        others = [
            name
            for name in ("max", "average", "std", "median", "sum")
            if name != call.name and (not few or is_usual(name, call.base.dtype))
        ]
        call.together = tuple(map(str, rng.choice(others, min(2, len(others)), replace=False)))
        call.options["fill_value"] = 0


def some_value(rng, base, within=False):
    """Return a value of the frames, or one next to it, or one that they cannot have."""
    value = base.flat[rng.integers(base.size)].item()
    value = int(value) if isinstance(value, bool) else value
    if isinstance(value, float) and not isfinite(value):
        value = 1.5
    if within or rng.random() < 0.8:
        return value
    return value + 0.5 if base.dtype.itemsize <= 4 else 2**70


def full_shape(call):
    return tuple(
        length * count for length, count in zip(call.base.shape[1:], call.tiles, strict=True)
    )


def image_rows(call):
    (first, last), _ = call.options.get("region", ((0, full_shape(call)[0]), None))
    return last - first


def image_dtype(call):
    if "dtype" in call.options:
        return np.dtype(call.options["dtype"])
    if call.name in ("max", "min"):
        return call.base.dtype
    return np.dtype(
        {"sum": "f8", "range": "f8"}.get(call.name, "i8" if call.name in COUNTS else "f4")
    )


# ---------------------------------------------------------------------- what is right


def select_frames(call):
    chosen = call.base[call.options["frames"]] if "frames" in call.options else call.base
    return chosen[: call.nframes] if call.nframes > 0 else chosen


def invalid_of(call):
    invalid = call.options.get("invalid", [])
    return invalid if isinstance(invalid, list) else [invalid]


def without_effect(call):
    """Whether there is a value to leave out that no frame can have."""
    dtype = call.base.dtype
    for value in invalid_of(call):
        if dtype.kind == "f":
            with np.errstate(over="ignore"):
                if not np.isfinite(dtype.type(value)):
                    return True
        else:
            limits = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
            if value != int(value) or not int(limits[0]) <= value <= int(limits[1]):
                return True
    return False


def oracle(call, frames):
    """Return the image of some frames, and how far from it each pixel may be."""
    out = left_out(
        frames, invalid_of(call), call.options.get("saturation"), call.options.get("skipna", False)
    )
    if call.name == "clipped_average" and frames.dtype.kind == "f":
        out |= ~np.isfinite(frames)
    fill = call.options.get("fill_value", nan)
    planes = len(call.parameters[0]) if isinstance((*call.parameters, 0)[0], list) else 1
    exact = np.empty((planes, *frames.shape[1:]), object)
    bound = np.zeros(frames.shape[1:])
    for row, col in np.ndindex(*frames.shape[1:]):
        index = np.flatnonzero(~out[:, row, col])
        pixel = frames[index, row, col]
        values = [int(v) if isinstance(v, bool) else v for v in pixel.tolist()]
        found = pixel_values(call, frames.dtype, index, pixel, values, fill)
        exact[:, row, col] = found
        if frames.dtype.kind == "f" and values and all(map(isfinite, values)):
            bound[row, col] = pixel_bound(call.name, values, found[0])
        elif call.name == "clipped_average" and values:
            bound[row, col] = 1e-9 * max(map(abs, values))
    return exact if planes > 1 or isinstance((*call.parameters, 0)[0], list) else exact[0], bound


def pixel_values(call, dtype, index, pixel, values, fill):
    """Return the image's values at a pixel, one for each plane."""
    name, parameters = call.name, call.parameters
    if name == "count":
        return [len(values)]
    if name == "count_above":
        threshold = parameters[0]
        if dtype.kind == "f":
            with np.errstate(all="ignore"):
                return [int(np.count_nonzero(pixel > dtype.type(threshold)))]
        return [sum(value > threshold for value in values)]
    if not values:
        return [fill] * (
            len(parameters[0]) if parameters and isinstance(parameters[0], list) else 1
        )
    if name in ("argmax", "argmin"):
        missing = [number for number, value in zip(index, values, strict=True) if value != value]
        best = (max if name == "argmax" else min)(values)
        return [missing[0] if missing else index[values.index(best)]]
    if name in ("percentile", "median"):
        pctl = parameters[0] if parameters else 50
        wide = dtype.kind in "iu" and dtype.itemsize == 8
        with np.errstate(all="ignore"):
            every = pctl if isinstance(pctl, list) else [pctl]
            return [pixel_percentile(values, q, wide) for q in every]
    if name in ("std", "var"):
        found = variance(values, call.options.get("ddof", 0))
        return [sqrt(found) if name == "std" else found]
    if name == "clipped_average":
        return [clipped(np.array(values, "f8"), *parameters)]
    with np.errstate(all="ignore"):
        return [
            {
                "max": lambda: extreme(values, max),
                "min": lambda: extreme(values, min),
                "sum": lambda: total(values),
                "average": lambda: total(values) / len(values),
                "range": lambda: extreme(values, max) - extreme(values, min),
            }[name]()
        ]


def extreme(values, best):
    """Return the largest or the smallest value; +0.0 is larger than -0.0."""
    if any(isnan(value) for value in values):
        return nan
    return best(values, key=lambda value: (value, copysign(1, value)))


def variance(values, ddof):
    if len(values) <= ddof or not all(map(isfinite, values)):
        return nan
    values, n = [Fraction(value) for value in values], len(values)
    squares = n * sum(value * value for value in values) - sum(values) ** 2
    return float(squares / (n * (n - Fraction(ddof))))


def clipped(values, sigma, maxiters):
    """Follow astropy's definition on the values of one pixel."""
    rounds = 0
    while len(values) and rounds != maxiters:
        centre, spread = np.median(values), sigma * np.std(values - np.median(values))
        kept = values[(values >= centre - spread) & (values <= centre + spread)]
        if len(kept) == len(values):
            break
        values, rounds = kept, rounds + 1
    return float(np.mean(values - values[0]) + values[0]) if len(values) else nan


def pixel_bound(name, values, found):
    """Return how far sums of floats may be from the exact ones, before they are rounded."""
    size = fsum(map(abs, values))
    if name in ("sum", "average"):
        return len(values) * 2.0**-52 * size / (1 if name == "sum" else len(values))
    if name in ("std", "var"):
        return 1e-12 * found if isfinite(found) else 0.0
    return 1e-9 * size if name == "clipped_average" else 0.0


def expected(call, frames):
    """Return the whole image in float64 or Python's numbers, and its bounds."""
    image, bound = oracle(call, frames)
    image = np.tile(image, call.tiles)
    bound = np.tile(bound, call.tiles)
    mask = call.options.get("mask")
    if mask is not None:
        fill = 0 if call.name in ("count", "count_above") else call.options.get("fill_value", nan)
        image[..., mask], bound[mask] = fill, 0
    if "region" in call.options:
        rows, cols = (slice(*edges) for edges in call.options["region"])
        image, bound = image[..., rows, cols], bound[rows, cols]
    return image, bound


def check_image(call, image, frames, rows=None):
    """Compare an image with the oracle; in the first few rows if no others have been done."""
    exact, bound = expected(call, frames)
    dtype = image_dtype(call)
    assert image.dtype == dtype
    assert image.shape == exact.shape
    if rows is not None:
        assert not image[..., rows:, :].any(), "rows that are not done are 0"
        image, exact, bound = image[..., :rows, :], exact[..., :rows, :], bound[:rows]
    if dtype.kind != "f":
        assert image.tolist() == np.array(exact.tolist(), dtype).tolist()
        return
    with np.errstate(over="ignore", invalid="ignore"):
        # Integers beyond float64's are rounded to it first, as all results are.
        wide = np.array(exact.tolist(), "f8")
        right = as_dtype(exact, dtype) if call.name in ("max", "min") else wide.astype(dtype)
        near = np.abs(image.astype("f8") - wide) <= bound + (
            2 * np.finfo(dtype).eps * np.abs(wide) + float(np.finfo(dtype).smallest_subnormal)
        )
        same = (image == right) | (np.isnan(image) & np.isnan(right))
        good = same | (near & (bound > 0))
    assert good.all(), f"{(~good).sum()} pixels: {image[~good][:3]} is not {right[~good][:3]}"
    if call.name in ("max", "min"):
        zero = (image == 0) & (right == 0)
        assert (np.signbit(image) == np.signbit(right))[zero].all(), "signs of zeros"


def as_dtype(exact, dtype):
    return np.array(exact.tolist(), dtype)


# ---------------------------------------------------------------------- where frames are


def make_series(call, rng, path):
    """Return the image series of a call."""
    frames = np.tile(call.base, (1, *call.tiles))
    if call.strange and call.source in ("array", "strided", "list", "series", "npy", "dask"):
        frames = (frames * rng.integers(1, 256, frames.shape)).astype("u1").view(bool)
    return globals()[f"as_{call.source.replace('.', '_')}"](frames, rng, path)


def as_array(frames, rng, path):
    return frames


def as_strided(frames, rng, path):
    wide = np.zeros((frames.shape[0], frames.shape[1], 2 * frames.shape[2] + 1), frames.dtype)
    wide[:, ::-1, 1::2] = frames
    return wide[:, ::-1, 1::2]


def as_swapped(frames, rng, path):
    return frames.astype(frames.dtype.newbyteorder(">"))


def as_list(frames, rng, path):
    return list(frames)


def as_series(frames, rng, path):
    return FakeSeries(frames)


def as_npy(frames, rng, path):
    np.save(path / "scan.npy", frames)
    return path / "scan.npy"


def as_cache(frames, rng, path):
    arrays = {"shape": frames.shape[1:], "nframes": len(frames), "dtype": str(frames.dtype)}
    for index, frame in enumerate(frames):
        row, col = np.nonzero((frame != 0) | np.signbit(frame))
        arrays |= {f"{index}_row": row, f"{index}_col": col, f"{index}_data": frame[row, col]}
    np.savez(path / "scan.npz", **arrays)
    return path / "scan.npz"


def chunks_of(shape, rng):
    return tuple(int(rng.integers(max(1, length // 5), length + 1)) for length in shape)


def as_zarr(frames, rng, path):
    as_zarr_Array(frames, rng, path)
    return path / "scan.zarr"


def as_zarr_Array(frames, rng, path):
    array = zarr.create_array(
        path / "scan.zarr",
        shape=frames.shape,
        chunks=chunks_of(frames.shape, rng),
        dtype=frames.dtype,
        # Or a chunk of zeros would be taken for one that nobody has written, with a warning.
        config={"write_empty_chunks": True},
    )
    array[...] = frames
    return array


def as_hdf5(frames, rng, path):
    chunks = chunks_of(frames.shape, rng) if rng.random() < 0.7 else None
    with h5py.File(path / "scan.h5", "w") as file:
        file.create_dataset("data", data=frames, chunks=chunks)
    return f"{path / 'scan.h5'}::data"


def as_dask(frames, rng, path):
    return da.from_array(frames, chunks=chunks_of(frames.shape, rng))


# ---------------------------------------------------------------------- the test


def plain(call, ims):
    options = {**call.options, "nframes": call.nframes}
    if call.together:
        every = [call.statistic, *call.together]
        return next(iter(dask.compute(stats.aggregate(ims, every, **options))[0].values()))
    function = getattr(stats, call.name)
    return function(ims, *call.parameters, **options).compute()


def images(call, ims):
    options = {**call.options, "nframes": call.nframes}
    if call.together or call.name not in ITERATORS:
        every = [call.statistic, *call.together]
        dicts = stats.aggregate_iter(ims, every, call.nchunk, **options)
        return [next(iter(each.values())) for each in dicts]
    return list(getattr(stats, f"{call.name}_iter")(ims, *call.parameters, call.nchunk, **options))


def run(call, seed, path, request):
    """Compute a call plainly and in steps, on its scheduler."""
    ims = make_series(call, np.random.default_rng(seed), path)
    with ExitStack() as stack:
        scheduler = call.scheduler
        if scheduler == "cluster":
            scheduler = request.getfixturevalue("client")
        settings = {"scheduler": scheduler, "temporary-directory": str(path)}
        if call.scheduler in ("threads", "processes"):
            settings["num_workers"] = call.workers
        stack.enter_context(dask.config.set(settings))
        if without_effect(call):
            stack.enter_context(pytest.warns(UserWarning, match="out nothing"))
        if call.limit is not None:
            shares = 2 if call.scheduler == "cluster" else 1  # each worker has its own
            call.options["memory_limit"] = int(call.limit * shares * least_memory(call, ims))
        return plain(call, ims), images(call, ims)


def least_memory(call, ims):
    """Return the bytes that the iterator needs at least, and so does the plain function.

    A refusal of a much smaller limit tells a little less, because chunks on disk are then smaller.
    """
    options = {name: value for name, value in call.options.items() if name != "ddof"}
    every, limit = [call.statistic, *call.together], 1.0
    while True:
        try:
            stats.plan(ims, every, call.nchunk, call.nframes, **options, memory_limit=int(limit))
            return limit
        except MemoryLimitError as refusal:
            (needed,) = re.findall(r"at least ([\d.]+) MiB", str(refusal))
            limit = max(1.001 * limit, float(needed) * 2**20)


def check_call(seed, few, path, request):
    call = draw(seed, few)
    try:
        whole, steps = run(call, seed, path, request)
        frames = select_frames(call)
        check_image(call, whole, frames)
        assert len(steps) == call.nchunk
        assert steps[-1].tobytes() == whole.tobytes(), "the last image is not the plain result"
        step = seed % call.nchunk
        items = image_rows(call) if call.rowwise else len(frames)
        sizes = [items // call.nchunk + (k < items % call.nchunk) for k in range(call.nchunk)]
        done = list(accumulate(sizes))[step]
        if call.rowwise:
            check_image(call, steps[step], frames, done)
        else:
            check_image(call, steps[step], frames[:done])
    except MemoryLimitError as error:
        if call.limit is None or call.limit >= 1 or "need at least" not in str(error):
            raise
    except BaseException as error:
        error.add_note(f"seed {seed}: {call}")
        raise


@pytest.mark.parametrize("seed", range(ALWAYS))
def test_random_call(seed, tmp_path, request):
    check_call(seed, True, tmp_path, request)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(ALWAYS, EVERY))
def test_one_more_random_call(seed, tmp_path, request):
    check_call(seed, False, tmp_path, request)


def test_calls_are_of_every_kind():
    """Every statistic, dtype, source and scheduler is called, alone and with the others."""
    calls = [draw(seed, True) for seed in range(ALWAYS)]
    for facet, least in (("name", 14), ("source", len(SOURCES)), ("scheduler", 4)):
        assert len(Counter(getattr(call, facet) for call in calls)) == least, facet
    assert {call.base.dtype for call in calls} == {np.dtype(dtype) for dtype in DTYPES}
    assert sum(call.limit is not None for call in calls) > 40
    assert sum(bool(call.together) for call in calls) > 15
