"""Statistics side by side: daskstats and what one would use instead, on the same frames.

Prints one Markdown table of speed and peak memory, and then how each goal was met.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import common
import numpy as np
from common import THREADS

PCTL = 95
STEPS = 60
DASK_FRAMES = 8

# "median_iter" is the median in STEPS steps, all images taken.
STATISTICS = ("max", "min", "sum", "average", "std", "median", "percentile", "median_iter")

Images = dict[str, Callable[[], Any]]


# Peers: each is given frames and returns, for each statistic it has, what computes the image.


def open_daskstats(frames: Any) -> Images:
    import dask

    import daskstats as stats

    dask.config.set(num_workers=THREADS)
    names = [name for name in STATISTICS[:5] if hasattr(stats, name)]
    images: Images = {
        name: lambda name=name: getattr(stats, name)(frames).compute() for name in names
    }
    images["median"] = lambda: stats.median(frames).compute()
    images["percentile"] = lambda: stats.percentile(frames, PCTL).compute()
    images["median_iter"] = lambda: last(stats.median_iter(frames, min(STEPS, rows_of(frames))))
    return images


def open_plain_call(frames: Any) -> Images:
    return {"median_iter": open_daskstats(frames)["median"]}


def open_numpy(frames: np.ndarray) -> Images:
    return {
        "max": lambda: frames.max(axis=0),
        "min": lambda: frames.min(axis=0),
        "sum": lambda: frames.sum(axis=0),
        "average": lambda: frames.mean(axis=0),
        "std": lambda: frames.std(axis=0),
        "median": lambda: np.median(frames, axis=0),
        "percentile": lambda: np.percentile(frames, PCTL, axis=0),
    }


def open_numpy_single(frames: np.ndarray) -> Images:
    return {
        "sum": lambda: frames.sum(axis=0, dtype="f4"),
        "average": lambda: frames.mean(axis=0, dtype="f4"),
        "std": lambda: frames.std(axis=0, dtype="f4"),
    }


def open_hexrd(frames: np.ndarray) -> Images:
    """The loops of HEXRD's module of statistics: frame by frame, and a buffer of rows."""
    return {
        "max": lambda: hexrd_fold(np.maximum, frames, frames.dtype),
        "min": lambda: hexrd_fold(np.minimum, frames, frames.dtype),
        "sum": lambda: hexrd_fold(np.add, frames, np.float64),
        "average": lambda: hexrd_fold(np.add, frames, np.float32) / np.float32(len(frames)),
        "median": lambda: hexrd_rows(np.median, frames, 1),
        "percentile": lambda: hexrd_rows(partial(np.percentile, q=PCTL), frames, 1),
        "median_iter": lambda: hexrd_rows(np.median, frames, min(STEPS, rows_of(frames))),
    }


def hexrd_fold(ufunc: np.ufunc, frames: np.ndarray, dtype: Any) -> np.ndarray:
    image = np.array(frames[0], dtype)
    for index in range(1, len(frames)):
        ufunc(image, frames[index], out=image)
    return image


def hexrd_rows(function: Callable, frames: np.ndarray, nchunks: int) -> np.ndarray:
    """Fill the image chunk by chunk; in one, as the buffer of half the memory allows here."""
    rows = rows_of(frames)
    edges = [rows * chunk // nchunks for chunk in range(nchunks + 1)]
    image = np.zeros(frames.shape[1:])
    for first, last_row in pairwise(edges):
        buffer = np.array([frames[index][first:last_row] for index in range(len(frames))])
        image[first:last_row] = function(buffer, axis=0)
    return image


def open_dask(frames: Any) -> Images:
    import dask
    import dask.array as da

    dask.config.set(num_workers=THREADS)
    source = opened(frames)
    if isinstance(source, Path):
        return {}
    array = da.from_array(source, chunks=(DASK_FRAMES, -1, -1), name=False)
    rows = max(1, array.shape[1] // 16)
    bands = array.rechunk((-1, rows, -1))
    return {
        "max": lambda: array.max(axis=0).compute(),
        "min": lambda: array.min(axis=0).compute(),
        "sum": lambda: array.sum(axis=0).compute(),
        "average": lambda: array.mean(axis=0).compute(),
        "std": lambda: array.std(axis=0).compute(),
        "median": lambda: da.median(bands, axis=0).compute(),
        "percentile": lambda: da.quantile(bands, PCTL / 100, axis=0).compute(),
    }


def open_dask_single(frames: Any) -> Images:
    import dask
    import dask.array as da

    dask.config.set(num_workers=THREADS)
    array = da.from_array(opened(frames), chunks=(DASK_FRAMES, -1, -1), name=False)
    return {
        "sum": lambda: array.sum(axis=0, dtype="f4").compute(),
        "average": lambda: array.mean(axis=0, dtype="f4").compute(),
        "std": lambda: array.std(axis=0, dtype="f4").compute(),
    }


def open_xarray(frames: np.ndarray) -> Images:
    import xarray

    array = xarray.DataArray(frames, dims=("frame", "row", "col"))
    return {
        "max": lambda: array.max("frame", skipna=False).data,
        "min": lambda: array.min("frame", skipna=False).data,
        "sum": lambda: array.sum("frame", skipna=False).data,
        "average": lambda: array.mean("frame", skipna=False).data,
        "std": lambda: array.std("frame", skipna=False).data,
        "median": lambda: array.median("frame", skipna=False).data,
        "percentile": lambda: array.quantile(PCTL / 100, "frame", skipna=False).data,
    }


def open_numbagg(frames: np.ndarray) -> Images:
    import numbagg

    def wide() -> np.ndarray:
        # Without this, maxima of uint16 are int64; made each time, as a user would have to.
        return frames if frames.dtype == np.float32 else frames.astype(np.float32)

    return {
        "max": lambda: numbagg.nanmax(wide(), axis=0),
        "min": lambda: numbagg.nanmin(wide(), axis=0),
        "sum": lambda: numbagg.nansum(wide(), axis=0),
        "average": lambda: numbagg.nanmean(wide(), axis=0),
        "std": lambda: numbagg.nanstd(wide(), axis=0, ddof=0),
        "median": lambda: numbagg.nanmedian(wide(), axis=0),
        "percentile": lambda: numbagg.nanquantile(wide(), PCTL / 100, axis=0),
    }


def open_bottleneck(frames: np.ndarray) -> Images:
    import bottleneck

    def wide() -> np.ndarray:
        # It compiles loops for 32 and 64 bits only; for uint16 it calls numpy's, which is faster
        # but for the median.
        return frames.astype(np.int32) if frames.dtype.itemsize < 4 else frames

    return {
        "max": lambda: bottleneck.nanmax(frames, axis=0),
        "min": lambda: bottleneck.nanmin(frames, axis=0),
        "sum": lambda: bottleneck.nansum(frames, axis=0),
        "average": lambda: bottleneck.nanmean(frames, axis=0),
        "std": lambda: bottleneck.nanstd(frames, axis=0),
        "median": lambda: bottleneck.median(wide(), axis=0),
    }


def open_libertem(frames: np.ndarray) -> Images:
    from libertem.api import Context
    from libertem.udf.stddev import StdDevUDF
    from libertem.udf.sum import SumUDF

    context = Context.make_with("threads", cpus=THREADS)
    dataset = context.load("memory", data=frames, sig_dims=2, num_partitions=THREADS)

    def run(udf: Any, name: str) -> np.ndarray:
        return context.run_udf(dataset, udf)[name].data

    return {
        "sum": lambda: run(SumUDF(dtype="float32"), "intensity"),
        "average": lambda: run(SumUDF(dtype="float32"), "intensity") / len(frames),
        "std": lambda: run(StdDevUDF(dtype="float32"), "std"),
    }


def open_pyfai(frames: np.ndarray) -> Images:
    import logging

    from pyFAI.average import Average, create_algorithm

    logging.disable(logging.CRITICAL)

    def run(name: str, **options: Any) -> np.ndarray:
        # `average_images` would drop bright pixels; `Average` does not.
        average = Average()
        average.set_images(list(frames))
        algorithm = create_algorithm(name, **options)
        average.add_algorithm(algorithm)
        average.process()
        return average.get_image_reduction(algorithm)

    names = {"max": "max", "min": "min", "sum": "sum", "average": "mean", "std": "std"}
    images = {ours: partial(run, theirs) for ours, theirs in names.items()}
    images["median"] = partial(run, "median")
    images["percentile"] = partial(run, "quantiles", quantiles=(PCTL / 100, PCTL / 100))
    return images


def open_hyperspy(frames: np.ndarray) -> Images:
    from hyperspy.api import signals

    signal = signals.Signal2D(frames)
    axis = signal.axes_manager.navigation_axes
    names = {"max": "max", "min": "min", "sum": "sum", "average": "mean", "std": "std"}
    return {
        ours: lambda theirs=theirs: getattr(signal, theirs)(axis=axis).data
        for ours, theirs in names.items()
    }


def open_ccdproc(frames: np.ndarray) -> Images:
    from astropy.nddata import CCDData
    from ccdproc import Combiner

    images = [CCDData(frame, unit="adu") for frame in frames]

    def run(name: str) -> np.ndarray:
        combine = getattr(Combiner(images, dtype="f4"), f"{name}_combine")
        # It works out an uncertainty with each image, at more than the image's own cost.
        return combine(uncertainty_func=lambda data, **_: np.zeros(data.shape[1:])).data

    return {name: partial(run, name) for name in ("sum", "average", "median")}


def open_limit(frames: np.ndarray) -> Images:
    """Add up all bytes, as 64-bit words, in two threads: what no statistic can be faster than."""
    add = word_sum()
    parts = np.array_split(frames.reshape(-1).view(np.uint64), 4 * THREADS)
    pool = ThreadPoolExecutor(THREADS)
    return dict.fromkeys(STATISTICS, lambda: list(pool.map(add, parts)) and None)


@cache
def word_sum() -> Callable[[np.ndarray], int]:
    import numba

    @numba.njit("uint64(uint64[::1])", nogil=True)
    def add(words: np.ndarray) -> int:
        total = np.uint64(0)
        for word in words:
            total += word
        return total

    return add


def open_decode(frames: Any) -> Images:
    """Read every frame once, in two threads, with the library that reads the file."""
    source = opened(frames)
    pool = ThreadPoolExecutor(THREADS)
    if isinstance(source, Path):
        return dict.fromkeys(STATISTICS, lambda: decode_npz(source, pool))
    unit = (getattr(source, "chunks", None) or (DASK_FRAMES,))[0]

    def read(start: int) -> int:
        # A sum makes sure that the pages of a memory map are read.
        block = source[start : start + unit]
        return int(np.add.reduce(block.reshape(-1)[::1024])) if unit else 0

    starts = range(0, source.shape[0], unit)
    return dict.fromkeys(STATISTICS, lambda: list(pool.map(read, starts)) and None)


def decode_npz(path: Path, pool: ThreadPoolExecutor) -> None:
    with np.load(path) as arrays:
        shape, dtype = tuple(arrays["shape"]), arrays["dtype"].item().decode()
        nframes = int(arrays["nframes"])

        def dense(index: int) -> None:
            frame = np.zeros(shape, dtype)
            row, col, data = (arrays[f"{index}_{name}"] for name in ("row", "col", "data"))
            frame[row, col] = data

        list(pool.map(dense, range(nframes)))


@dataclass(frozen=True)
class Peer:
    """Something that computes statistics."""

    name: str
    setting: str
    open: Callable[[Any], Images]
    package: str | None = None
    reads_files: bool = False

    @property
    def label(self) -> str:
        return f"{self.name} ({self.setting})" if self.setting else self.name


TWO = f"{THREADS} threads"
CHUNKED = f"{TWO}, {DASK_FRAMES}-frame chunks"
PEERS = {
    peer.name: peer
    for peer in (
        Peer("daskstats", TWO, open_daskstats, reads_files=True),
        Peer("daskstats, plain call", TWO, open_plain_call),
        Peer("numpy", "1 thread", open_numpy),
        Peer("numpy in float32", "1 thread, inexact for large sums", open_numpy_single),
        Peer("HEXRD loops", "1 thread, written afresh", open_hexrd),
        Peer("dask.array", CHUNKED, open_dask, "dask", True),
        Peer("dask.array in float32", f"{CHUNKED}, inexact", open_dask_single, "dask", True),
        Peer("xarray", "1 thread, numpy inside", open_xarray, "xarray"),
        Peer("numbagg", f"{TWO}, copied to float32", open_numbagg, "numbagg"),
        Peer("bottleneck", "1 thread, median of int32 copies", open_bottleneck, "bottleneck"),
        Peer("LiberTEM", f"{TWO}, float32", open_libertem, "libertem"),
        Peer("pyFAI", "1 thread, Average(), float32", open_pyfai, "pyFAI"),
        Peer("hyperspy", "1 thread, eager", open_hyperspy, "hyperspy"),
        Peer("ccdproc", "1 thread, float32, no uncertainty", open_ccdproc, "ccdproc"),
        Peer("read limit", f"{TWO}, sum of 64-bit words", open_limit),
        Peer("decode only", f"{TWO}, every frame once", open_decode, reads_files=True),
    )
}
# Not something a user would choose instead.
VARIANTS = ("daskstats, plain call", "numpy in float32", "dask.array in float32")
YARDSTICKS = ("daskstats", "daskstats, plain call", "read limit", "decode only")


def last(images: Iterator[np.ndarray]) -> np.ndarray:
    for image in images:  # noqa: B007
        pass
    return image


def rows_of(frames: Any) -> int:
    return frames.shape[1] if hasattr(frames, "shape") else opened(frames).shape[1]


# Series, in memory and in files


@dataclass(frozen=True)
class Series:
    """A series of frames, what is measured on it, and with which peers."""

    dtype: str
    storage: str = "memory"
    spread: bool = False
    statistics: tuple[str, ...] = STATISTICS
    peers: tuple[str, ...] = tuple(name for name in PEERS if name != "decode only")


WIDE: dict[str, Any] = {
    "statistics": ("max", "average", "std", "median", "percentile"),
    "peers": ("daskstats", "numpy", "HEXRD loops", "dask.array", "read limit"),
}
FILES: dict[str, Any] = {
    "statistics": ("max", "average", "median"),
    "peers": ("daskstats", "dask.array", "decode only"),
}
SERIES = {
    "uint16": Series("uint16"),
    "uint32": Series("uint32", **WIDE),
    "int32": Series("int32", **WIDE),
    "float32": Series("float32", **WIDE),
    "uint32 spread": Series("uint32", spread=True, **WIDE),
    "npy map": Series("uint16", "npy", **FILES),
    "zarr blosc": Series("uint16", "zarr-blosc", **FILES),
    "zarr zstd": Series("uint16", "zarr-zstd", **FILES),
    "HDF5 gzip": Series("uint16", "hdf5", **FILES),
    "frame cache": Series("uint16", "npz", **FILES),
}

# What is left of it for a run of about a minute.
SHORT = {"statistics": ("median", "percentile"), "peers": ("daskstats", "numpy", "read limit")}
QUICK_SERIES = {
    "uint16": Series("uint16"),
    "uint32": Series("uint32", **SHORT),
    "float32": Series("float32", **SHORT),
    "zarr zstd": Series("uint16", "zarr-zstd", statistics=("average",), peers=FILES["peers"]),
    "HDF5 gzip": Series("uint16", "hdf5", statistics=("average",), peers=FILES["peers"]),
}

SUFFIXES = {"memory": ".npy", "npy": ".npy", "hdf5": ".h5", "npz": ".npz"}


def write(frames: np.ndarray, storage: str, path: Path) -> None:
    if storage.startswith("zarr"):
        write_zarr(frames, storage, path)
    elif storage == "hdf5":
        import h5py

        with h5py.File(path, "w") as file:
            options = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
            file.create_dataset("data", data=frames, chunks=(1, *frames.shape[1:]), **options)
    elif storage == "npz":
        write_npz(frames, path)
    else:
        np.save(path, frames)


def write_zarr(frames: np.ndarray, storage: str, path: Path) -> None:
    import zarr

    codecs = {
        "zarr-blosc": zarr.codecs.BloscCodec(cname="lz4", shuffle="bitshuffle"),
        "zarr-zstd": zarr.codecs.ZstdCodec(level=1),
    }
    array = zarr.create_array(
        path,
        shape=frames.shape,
        chunks=(4, *frames.shape[1:]),
        dtype=frames.dtype,
        compressors=codecs[storage],
    )
    array[:] = frames


def write_npz(frames: np.ndarray, path: Path) -> None:
    """Write a HEXRD frame cache: the pixels above a threshold, some half a percent here."""
    arrays = {
        "shape": np.array(frames.shape[1:]),
        "nframes": np.array(len(frames)),
        "dtype": np.array(frames.dtype.name.encode()),
    }
    for index, frame in enumerate(frames):
        row, col = np.nonzero(frame > 125)
        arrays[f"{index}_row"], arrays[f"{index}_col"] = row.astype("u2"), col.astype("u2")
        arrays[f"{index}_data"] = frame[row, col]
    np.savez_compressed(path, **arrays)


def opened(frames: Any) -> Any:
    """Return what has a shape and reads blocks of frames; the path itself of a frame cache."""
    if not isinstance(frames, str):
        return frames
    path = Path(frames)
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r")
    if path.suffix == ".zarr":
        return import_module("zarr").open_array(path, mode="r")
    return import_module("h5py").File(path)["data"] if path.suffix == ".h5" else path


# In a worker


class Bench:
    """What a worker process does: one peer on one series."""

    def open(self, peer: str, path: str, memory: bool) -> dict:
        self.peer = PEERS[peer]
        if self.peer.package:
            try:
                import_module(self.peer.package)
            except ImportError:
                return {"status": "not installed"}
        self.frames = np.load(path) if memory else path
        return {"status": "ok"}

    def warm(self, statistic: str) -> dict:
        """Compute a twentieth of the image, so that nothing is left to import or to compile."""
        frames = self.frames
        if isinstance(frames, str):
            # Whatever reads the file is imported by this.
            shape = getattr(opened(frames), "shape", (4, 64, 64))
            frames = np.zeros((shape[0], max(4, shape[1] // 20), shape[2]), "u2")
        else:
            frames = some_rows(frames, 1 / 20)
        if self.peer.name != "decode only":
            images = self.peer.open(frames)
            if statistic not in images:
                return {"status": "none"}
            images[statistic]()
        self.small = frames
        return {"status": "ok"}

    def first(self, statistic: str, budget: float) -> dict:
        """Choose how many rows fit the budget, and compute once, for the memory.

        Rows, not frames: the cost of some peers lies in each pixel of the image.
        """
        frames = self.frames
        if not isinstance(frames, str):
            pilot = common.seconds(self.peer.open(self.small)[statistic])
            expected = pilot * frames.nbytes / self.small.nbytes
            frames = some_rows(frames, budget / expected)
        images = self.peer.open(frames)
        if statistic not in images:
            return {"status": "none"}
        self.image = images[statistic]
        image, seconds, peak = common.peak_of(self._run)
        return {
            "status": "ok",
            "rows": None if isinstance(frames, str) else frames.shape[1],
            "seconds": seconds,
            "peak": peak,
            "sample": sample(image),
        }

    def again(self) -> dict:
        """Compute once more."""
        if isinstance(self.frames, str) and self.frames.endswith(".npz"):
            # A changed file is parsed again: what a process keeps of it would hide that cost.
            os.utime(self.frames)
        return {"status": "ok", "seconds": common.seconds(self._run)}

    def _run(self) -> Any:
        return self.image()

    def __call__(self, do: str, **options: Any) -> dict:
        return getattr(self, do)(**options)


def some_rows(frames: np.ndarray, part: float) -> np.ndarray:
    """Return a contiguous part of the rows of all frames, at least four; all need no copy."""
    if part >= 1:
        return frames
    return np.ascontiguousarray(frames[:, : max(4, int(frames.shape[1] * part))])


def sample(image: Any) -> list[float] | None:
    """Return some pixels of an image, to see whether peers agree."""
    if image is None:
        return None
    flat = np.asarray(image, "f8").reshape(-1)
    return flat[:: max(1, flat.size // 50)].tolist()


# In the process that asks


@dataclass
class Row:
    """One figure of the table."""

    series: str
    statistic: str
    peer: Peer
    status: str
    rows: int | None = None
    nbytes: int = 0
    seconds: float = float("inf")
    peak: int | None = None
    sample: list[float] | None = None

    @property
    def speed(self) -> float | None:
        return self.nbytes / self.seconds / 1e9 if self.status == "ok" else None


@dataclass(frozen=True)
class Effort:
    """How long a run may take."""

    shape: tuple[int, int, int]
    repeats: int
    budget: float
    """seconds of one call, beyond which fewer rows are used"""
    patience: float
    """seconds of all repeats of one call"""
    fresh: bool
    """whether each statistic has processes of its own"""


FULL = Effort(common.SHAPE, 5, 20.0, 20.0, True)
QUICK = Effort(common.QUICK_SHAPE, 2, 2.0, 1.0, False)
TINY = Effort(common.TINY_SHAPE, 1, 1.0, 0.1, False)


def measure(name: str, series: Series, path: Path, effort: Effort) -> Iterator[Row]:
    """Yield the figures of all statistics and peers on one series."""
    groups = [[name] for name in series.statistics] if effort.fresh else [series.statistics]
    for statistics in groups:
        with contextlib.ExitStack() as stack:
            workers = {
                peer: stack.enter_context(common.Worker(__file__))
                for peer in series.peers
                if not (peer == "daskstats, plain call" and "median_iter" not in statistics)
            }
            for peer, worker in workers.items():
                memory = series.storage == "memory"
                worker.send(do="open", peer=peer, path=str(path), memory=memory)
            states = {peer: worker.receive()["status"] for peer, worker in workers.items()}
            for statistic in statistics:
                rows = {peer: Row(name, statistic, PEERS[peer], states[peer]) for peer in workers}
                yield from compare(rows, workers, series, effort)


def compare(rows: dict, workers: dict, series: Series, effort: Effort) -> list[Row]:
    """Fill in the rows of one statistic: memory from the first call, times A B A B in turn."""
    nframes, nrows, cols = effort.shape
    row_nbytes = nframes * cols * np.dtype(series.dtype).itemsize
    statistic = next(iter(rows.values())).statistic
    payload = {peer: row for peer, row in rows.items() if row.status == "ok"}
    for peer in payload:
        workers[peer].send(do="warm", statistic=statistic)
    for peer, row in payload.items():
        row.status = workers[peer].receive()["status"]
    for peer, row in payload.items():
        if row.status == "ok":
            request = {"statistic": statistic, "budget": effort.budget}
            vars(row).update(workers[peer].ask(do="first", **request))
            row.rows = row.rows or nrows
            row.nbytes = row.rows * row_nbytes
    spent = {peer: row.seconds for peer, row in rows.items() if row.status == "ok"}
    for _ in range(effort.repeats):
        for peer in [peer for peer, used in spent.items() if used < effort.patience]:
            took = workers[peer].ask(do="again")["seconds"]
            rows[peer].seconds = min(rows[peer].seconds, took)
            spent[peer] += took
    print(f"{series.dtype}, {series.storage}: {statistic}", file=sys.stderr)
    return list(rows.values())


# Tables

HEADER = ("series", "statistic", "peer", "GB/s", "of the best peer", "of the limit", "peak MiB")


def lines(rows: list[Row]) -> Iterator[list[Any]]:
    """Yield the rows of the table, the fastest of each statistic first."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.series, row.statistic), []).append(row)
    for (series, statistic), group in groups.items():
        peers = [row.speed for row in group if row.speed and row.peer.name not in YARDSTICKS]
        limits = [row.speed for row in group if row.speed and row.peer.name in YARDSTICKS[2:]]
        reference = next((row for row in group if row.peer.name == "daskstats"), None)
        for row in sorted(group, key=lambda row: -(row.speed or 0)):
            if row.speed:
                yield [
                    series,
                    statistic,
                    row.peer.label + remarks(row, reference, rows),
                    row.speed,
                    row.speed / max(peers) if peers else None,
                    row.speed / max(limits) if limits else None,
                    common.mebibytes(row.peak),
                ]
        yield from absent(group)


def absent(group: list[Row]) -> Iterator[list[Any]]:
    """Yield one row for all peers that have no such statistic, one for those not installed."""
    main = [row for row in group if row.peer.name not in VARIANTS and not row.speed]
    for status in dict.fromkeys(row.status for row in main):
        names = ", ".join(row.peer.name for row in main if row.status == status)
        yield [group[0].series, group[0].statistic, names, status, None, None, "-"]


def remarks(row: Row, reference: Row | None, rows: list[Row]) -> str:
    """Return what has to be said of a figure: fewer rows, or another image."""
    if row.status != "ok":
        return ""
    if row.rows != max(other.rows or 0 for other in rows):
        return f"; {row.rows} rows"
    if row.sample and reference and reference.sample and reference.rows == row.rows:
        ours, theirs = np.array(reference.sample), np.array(row.sample)
        differ = np.abs(theirs - ours).max() / max(1.0, np.abs(ours).max())
        return f"; differs by {differ:.1g}" if not differ < 1e-3 else ""
    return ""


@dataclass(frozen=True)
class Goal:
    """A line of the second table: how many times one figure is another."""

    text: str
    target: float
    ours: tuple[str, str, str]
    """series, statistic and peer"""
    theirs: tuple[str, str, str]

    def line(self, speeds: dict[tuple, float | None]) -> list[Any]:
        ours, theirs = speeds.get(self.ours), speeds.get(self.theirs)
        if not ours or not theirs:
            return [self.text, "not measured", f"at least {self.target:g}", "-"]
        verdict = "met" if ours / theirs >= self.target else "missed"
        return [self.text, ours / theirs, f"at least {self.target:g}", verdict]


def goals() -> Iterator[Goal]:
    """Yield the goals that are ratios of speeds, on uint16 in memory unless they say otherwise."""

    def goal(target: float, statistic: str, peer: str, theirs: str = "", series: str = "uint16"):
        other = theirs or statistic
        where = "" if series == "uint16" else f" ({series})"
        text = f"{statistic}{where} / {peer}" + (f" {other}" if other != statistic else "")
        ours = (series, statistic, "daskstats")
        return Goal(text, target, ours, (series, other, peer))

    for statistic in ("median", "percentile"):
        yield goal(50, statistic, "numpy", "percentile")
        yield goal(15, statistic, "dask.array", "median")
        yield goal(60, statistic, "HEXRD loops", "median")
    for series in ("uint32", "int32", "float32", "uint32 spread"):
        yield goal(15, "median", "numpy", "percentile", series)
        yield goal(15, "percentile", "numpy", "percentile", series)
    for statistic in ("average", "sum"):
        yield goal(2.5, statistic, "HEXRD loops", "average")
        yield goal(6, statistic, "dask.array", "average")
    yield goal(12, "std", "dask.array")
    yield goal(12, "std", "numpy")
    yield goal(15, "std", "LiberTEM")
    for statistic in ("max", "min"):
        yield goal(1.5, statistic, "HEXRD loops")
        yield goal(2, statistic, "dask.array")
        yield goal(0.5, statistic, "read limit")


def reach(rows: list[Row], shape: Sequence[int]) -> Iterator[list[Any]]:
    """Yield the lines of the second table."""
    found = {(row.series, row.statistic, row.peer.name): row for row in rows}
    speeds = {key: row.speed for key, row in found.items()}
    for goal in goals():
        yield goal.line(speeds)
    steps = ("uint16", "median_iter", "daskstats"), ("uint16", "median_iter", YARDSTICKS[1])
    yield at_most(f"median_iter in {STEPS} steps / median, time", 1.1, speeds, *steps)
    for series in ("zarr zstd", "HDF5 gzip"):
        pair = (series, "average", "daskstats"), (series, "average", "decode only")
        yield at_most(f"average of {series} / decode only, time", 1.15, speeds, *pair)
    row = found.get(("uint16", "median", "daskstats"))
    allowed = shape[1] * shape[2] * 4 + (64 << 20)
    value = row.peak / allowed if row and row.peak is not None else None
    yield judged("peak memory of median beside its input / (output + 64 MB)", value, 1.0)


def at_most(text: str, target: float, speeds: dict, ours: tuple, theirs: tuple) -> list[Any]:
    fast, slow = speeds.get(theirs), speeds.get(ours)
    return judged(text, fast / slow if fast and slow else None, target)


def judged(text: str, value: float | None, target: float) -> list[Any]:
    verdict = "-" if value is None else "met" if value <= target else "missed"
    return [text, "not measured" if value is None else value, f"at most {target:g}", verdict]


# Command line


def chosen(only: str | None, quick: bool) -> dict[str, Series]:
    """Return the series to measure; names of statistics, peers and series leave out the others."""
    names = {name.strip() for name in only.split(",")} if only else set()
    unknown = names - {*STATISTICS, *PEERS, *SERIES}
    if unknown:
        known = ", ".join([*STATISTICS, *PEERS, *SERIES])
        raise SystemExit(f"--only: unknown {', '.join(sorted(unknown))}; known are {known}")
    peers = names & {*PEERS} | {"daskstats", "read limit", "decode only", "daskstats, plain call"}
    result = {}
    for name, series in (QUICK_SERIES if quick else SERIES).items():
        kept = {
            "statistics": tuple(s for s in series.statistics if s in names),
            "peers": tuple(p for p in series.peers if p in peers),
        }
        if not names & {*STATISTICS}:
            kept["statistics"] = series.statistics
        if not names & {*PEERS}:
            kept["peers"] = series.peers
        if kept["statistics"] and (name in names or not names & {*SERIES}):
            result[name] = Series(series.dtype, series.storage, series.spread, **kept)
    return result


def run(all_series: dict[str, Series], effort: Effort, scratch: str | None) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        for name, series in all_series.items():
            suffix = SUFFIXES.get(series.storage, ".zarr")
            path = Path(directory) / f"{name.replace(' ', '-')}{suffix}"
            frames = common.series(series.dtype, effort.shape, series.spread)
            write(frames, series.storage, path)
            del frames
            rows += measure(name, series, path, effort)
            if path.is_file():
                path.unlink()
    return rows


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer frames: about a minute")
    parser.add_argument("--only", help="statistics, peers and series, separated by commas")
    parser.add_argument("--scratch", help="directory for the files that are read")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        common.serve(Bench())
        return
    effort = TINY if options.tiny else QUICK if options.quick else FULL
    rows = run(chosen(options.only, options.quick), effort, options.scratch)
    packages = [peer.package for peer in PEERS.values() if peer.package]
    print(common.machine(dict.fromkeys([*common.MACHINE_PACKAGES, *packages])))
    nframes, *frame = effort.shape
    print(f"- Series: {nframes} frames of {' x '.join(map(str, frame))}\n")
    print(common.table(HEADER, lines(rows)), end="\n\n")
    print(common.table(("goal", "reached", "target", ""), reach(rows, effort.shape)))


if __name__ == "__main__":
    main()
