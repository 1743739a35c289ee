"""Pairs of calls on one series that differ in one option, computed together.

dask runs tasks of the same name once. So each result must be that of the call alone, bit for bit:
a name that leaves out something that its tasks depend on gives one call the tasks of the other.
A pair is made of its seed alone, so one that fails is repeated by the number in the test's name.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import dask
import dask.array as da
import h5py
import numpy as np
import pytest
import zarr
from cuts import is_usual

import daskstats as stats
from daskstats.planning.values import MemoryLimitError

ALWAYS, EVERY = 160, 2000

NAMES = (
    *("max", "min", "sum", "average", "std", "argmax", "count"),
    *("median", "percentile", "clipped_average"),
)
WAYS = "plain", "aggregate", "partials", "wrap"
SOURCES = "npy", "zarr", "hdf5", "dataset", "array", "list", "dask"
WRAPPED = {"source", "nframes", "memory_limit", "along", "workers"}
"""differences of calls of `wrap`"""


@dataclass
class Call:
    """Everything about a call but the directory of its files."""

    source: str
    way: str
    name: str
    frames: np.ndarray = field(repr=False)
    chunks: tuple
    """of the series, where it is a dask array"""
    stored: tuple
    """chunks of the file"""
    nframes: int = 0
    along: str = "rows"
    percentiles: float | list = 50
    nchunk: int = 2
    workers: int = 2
    """when the call is made"""
    options: dict = field(default_factory=dict)

    @property
    def statistic(self):
        return (self.name, self.percentiles) if self.name == "percentile" else self.name


# ---------------------------------------------------------------------- which calls


def draw_pair(seed, few):
    """Return two calls, the name of what they differ in, and the scheduler."""
    rng = np.random.default_rng([31, seed])
    shape = [int(rng.integers(least, most)) for least, most in ((4, 20), (2, 9), (2, 9))]
    if rng.random() < 0.25:  # enough for limits of memory, and for a few frames at once, to matter
        shape = shape[0], 32 * shape[1], 32 * shape[2]
    frames = rng.integers(0, 60, shape).astype("u2")
    call = Call(
        source=str(rng.choice(SOURCES)),
        way=str(rng.choice(WAYS, p=[0.4, 0.2, 0.2, 0.2])),
        name=str(rng.choice(NAMES)),
        frames=frames,
        chunks=draw_chunks(rng, shape),
        stored=tuple(int(rng.integers(1, length + 1)) for length in shape),
        along=str(rng.choice(["rows", "frames"])),
    )
    if call.way != "wrap":
        call.options["fill_value"] = 0
        for name in ("frames", "region", "mask", "invalid", "dark", "flip"):
            if rng.random() < 0.12:
                change(rng, call, name)
    differences = sorted(WRAPPED) if call.way == "wrap" else list(CHANGES)
    if call.source != "dask":
        differences.remove("source")
    difference = str(rng.choice(differences))
    if difference == "percentiles":
        call.name = "percentile"
    if difference == "nframes":
        change(rng, call, difference)
    other = replace(call, options=dict(call.options))
    change(rng, other, difference)
    if few:
        leave_out_darks(call, other)
    return call, other, difference, str(rng.choice(["threads", "synchronous"]))


def leave_out_darks(*calls):
    """Leave out darks where their differences, of int32, would be compiled for this test alone."""
    for call in calls:
        every = call.name, *(["average"] if call.way == "aggregate" else [])
        if not all(is_usual(name, "i4", out) for name in every for out in (False, True)):
            call.options.pop("dark", None)


def draw_chunks(rng, shape):
    """Return chunks of a dask array; some of them are empty."""
    chunks = []
    for length in shape:
        edges = rng.integers(0, length + 1, rng.integers(0, 4)).tolist()
        chunks.append(tuple(int(n) for n in np.diff([0, *sorted(edges), length])))
    return tuple(chunks)


def change(rng, call, name):
    """Give a call another value of an option, or of something else about it."""
    CHANGES[name](rng, call)


def set_option(name, draw):
    def set_it(rng, call):
        call.options[name] = draw(rng, call)

    return set_it


def set_attribute(name, draw):
    def set_it(rng, call):
        setattr(call, name, draw(rng, call))

    return set_it


def draw_frames(rng, call):
    total = len(call.frames)
    return [
        lambda: slice(int(rng.integers(0, total - 3)), None, int(rng.integers(1, 3))),
        lambda: slice(None, None, -1),
        lambda: rng.integers(0, total, 5).tolist(),
    ][rng.integers(3)]()


def draw_region(rng, call):
    firsts = [(int(rng.integers(0, length - 1)), length) for length in shape_of(call)]
    return tuple((first, int(rng.integers(first + 2, length + 1))) for first, length in firsts)


def draw_flip(rng, call):
    """Return a flip; only square frames are turned, so that regions and masks still fit."""
    rows, cols = shape_of(call)
    return str(rng.choice(["v", "h", "hv", *(["t", "r90"] if rows == cols else [])]))


def shape_of(call):
    return call.frames.shape[1:]


CHANGES = {
    "source": set_attribute("chunks", lambda rng, call: draw_chunks(rng, call.frames.shape)),
    "nframes": set_attribute(
        "nframes", lambda rng, call: int(rng.integers(2, number_of_frames(call) + 1))
    ),
    "along": set_attribute("along", lambda rng, call: "frames" if call.along == "rows" else "rows"),
    "percentiles": set_attribute(
        "percentiles", lambda rng, call: [10, [10, 90], [90, 10], [10.0]][rng.integers(4)]
    ),
    "nchunk": set_attribute("nchunk", lambda rng, call: 1),
    "workers": set_attribute("workers", lambda rng, call: int(rng.choice([1, 3]))),
    "name": set_attribute("name", lambda rng, call: str(rng.choice(NAMES))),
    "frames": set_option("frames", draw_frames),
    "region": set_option("region", draw_region),
    "mask": set_option("mask", lambda rng, call: rng.random(shape_of(call)) < 0.3),
    "invalid": set_option("invalid", lambda rng, call: [0, [0, 1], [1, 0, 7]][rng.integers(3)]),
    "saturation": set_option("saturation", lambda rng, call: int(rng.integers(20, 60))),
    "fill_value": set_option("fill_value", lambda rng, call: int(rng.integers(1, 9))),
    "dtype": set_option("dtype", lambda rng, call: "f8"),
    "dark": set_option("dark", lambda rng, call: rng.integers(0, 9, shape_of(call)).astype("u2")),
    "flip": set_option("flip", draw_flip),
    "memory_limit": set_option("memory_limit", lambda rng, call: int(2 ** rng.uniform(18, 24))),
}


def number_of_frames(call):
    return len(call.frames[call.options.get("frames", slice(None))])


# ---------------------------------------------------------------------- the calls


def series_of(call, path, stack):
    """Return the series of a call; both calls of a pair have one file."""
    if call.source in ("array", "list"):
        return call.frames if call.source == "array" else list(call.frames)
    if call.source == "dask":
        return da.from_array(call.frames, chunks=call.chunks)
    if call.source == "npy":
        if not (path / "scan.npy").exists():
            np.save(path / "scan.npy", call.frames)
        return path / "scan.npy"
    layout = {"shape": call.frames.shape, "chunks": call.stored, "dtype": "u2"}
    if call.source == "zarr":
        if not (path / "scan.zarr").exists():
            # Or a chunk of zeros would be taken for one that nobody has written, with a warning.
            every = {"write_empty_chunks": True}
            zarr.create_array(path / "scan.zarr", **layout, config=every)[...] = call.frames
        return path / "scan.zarr"
    if not (path / "scan.h5").exists():
        with h5py.File(path / "scan.h5", "w") as file:
            file.create_dataset("data", data=call.frames, chunks=call.stored)
    if call.source == "hdf5":
        return f"{path / 'scan.h5'}::data"
    return stack.enter_context(h5py.File(path / "scan.h5"))["data"]


def lazy(call, ims):
    """Make a call; a memory limit that is too small is doubled until it is enough."""
    options = {"nframes": call.nframes, **call.options}
    try:
        with dask.config.set(num_workers=call.workers):
            if call.way == "wrap":
                return stats.wrap(ims, call.along, **options)
            if call.way == "partials":
                return stats.partials(ims, call.statistic, call.nchunk, **options)
            others = ["average" if call.name != "average" else "max"]
            every = call.statistic if call.way == "plain" else [call.statistic, *others]
            found = stats.aggregate(ims, every if isinstance(every, list) else [every], **options)
            return found if call.way == "aggregate" else next(iter(found.values()))
    except MemoryLimitError:
        call.options["memory_limit"] *= 2
        return lazy(call, ims)


def bits(result):
    if isinstance(result, dict):
        return {name: bits(image) for name, image in result.items()}
    return result.dtype, result.shape, result.tobytes()


def check_pair(seed, few, path):
    *pair, difference, scheduler = draw_pair(seed, few)
    try:
        with ExitStack() as stack:
            stack.enter_context(dask.config.set(scheduler=scheduler))
            stack.enter_context(dask.config.set({"temporary-directory": str(path)}))
            results = [lazy(call, series_of(call, path, stack)) for call in pair]
            alone = [bits(dask.compute(result)[0]) for result in results]
            for order in (1, -1):  # dask keeps the tasks of the last one
                together = [bits(each) for each in dask.compute(*results[::order])][::order]
                assert together == alone
    except BaseException as error:
        error.add_note(f"seed {seed}: {pair[0]} and another {difference}: {pair[1]}")
        raise


@pytest.mark.parametrize("seed", range(ALWAYS))
def test_two_calls_at_once(seed, tmp_path):
    check_pair(seed, True, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(ALWAYS, EVERY))
def test_two_more_calls_at_once(seed, tmp_path):
    check_pair(seed, False, tmp_path)


def test_pairs_are_of_every_kind():
    pairs = [draw_pair(seed, True) for seed in range(ALWAYS)]
    assert {difference for *_, difference, _ in pairs} == set(CHANGES)
    for facet, values in (("source", SOURCES), ("way", WAYS), ("name", NAMES)):
        assert {getattr(call, facet) for call, *_ in pairs} == set(values), facet
