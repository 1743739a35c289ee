"""Several statistics in one pass, and what does not count: beside each alone and its peers."""

import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import common
import dask
import numpy as np

import daskstats as stats

STATISTICS = ["max", "average", "std", "median"]
INVALID, SATURATION = 100, 130

# Of the frames that are clipped: astropy takes seconds for so many.
CLIPPED_ROWS = 16


def alone(ims: Any, name: str, **options: Any) -> Callable[[], Any]:
    """Return what computes one statistic."""
    return lambda: getattr(stats, name)(ims, **options).compute()


def one_pass(sources: dict[str, Any], repeats: int) -> Iterator[list[Any]]:
    """Yield the time of each statistic, and of all together, from each source."""
    for label, ims in sources.items():
        calls = {name: alone(ims, name) for name in STATISTICS}
        calls["all"] = lambda ims=ims: dask.compute(stats.aggregate(ims, STATISTICS))
        best = common.in_turn(calls, repeats)
        slowest = max(best[name] for name in STATISTICS)
        for name, took in best.items():
            yield [label, name, took, took / slowest]


def left_out(frames: np.ndarray, repeats: int) -> Iterator[list[Any]]:
    """Yield what it costs to leave pixels and values out."""
    mask = np.random.default_rng(0).random(frames.shape[1:]) < 0.05
    ways: dict[str, dict] = {
        "nothing": {},
        "mask": {"mask": mask},
        "invalid": {"invalid": INVALID},
        "invalid and saturation": {"invalid": [INVALID, 7], "saturation": SATURATION},
    }
    for name in STATISTICS:
        calls = {way: alone(frames, name, **options, fill_value=0) for way, options in ways.items()}
        best = common.in_turn(calls, repeats)
        for way, took in best.items():
            yield [name, way, took, took / best["nothing"]]


def clipped(frames: np.ndarray) -> Iterator[list[Any]]:
    """Yield the time of a sigma-clipped mean beside astropy's and ccdproc's."""
    peers = {"astropy": by_astropy, "ccdproc (one round)": by_ccdproc}
    ours = alone(frames, "clipped_average", dtype="f8")
    ours()
    image, took = ours(), min(common.seconds(ours) for _ in range(3))
    yield ["daskstats", took, 1.0, 0.0]
    for name, peer in peers.items():
        try:
            run = peer(frames)
        except ImportError:
            yield [f"{name}: not installed", None, None, None]
            continue
        found: list[Any] = []
        theirs = common.seconds(lambda run=run, found=found: found.append(run()))
        yield [name, theirs, theirs / took, float(np.abs(found[0] - image).max())]


def by_astropy(frames: np.ndarray) -> Callable[[], np.ndarray]:
    clip = import_module("astropy.stats").sigma_clipped_stats
    return lambda: clip(frames.astype("f8"), sigma=3, maxiters=5, axis=0)[0]


def by_ccdproc(frames: np.ndarray) -> Callable[[], np.ndarray]:
    ccdproc = import_module("ccdproc")
    data = import_module("astropy.nddata").CCDData

    def combine() -> np.ndarray:
        combiner = ccdproc.Combiner([data(frame.astype("f8"), unit="adu") for frame in frames])
        combiner.sigma_clipping(3, 3, func="median", dev_func="std")
        return np.ma.getdata(combiner.average_combine())

    return combine


def main() -> None:
    tiny = common.parser(__doc__.splitlines()[0]).parse_args().tiny
    shape, repeats = (common.TINY_SHAPE, 1) if tiny else (common.SHAPE, 7)
    frames = common.series("uint16", shape)
    warnings.simplefilter("ignore")
    print(common.machine())
    print(f"- {shape[0]} frames of {shape[1]} x {shape[2]} uint16, {common.THREADS} threads,")
    print(f"  best of {repeats}")
    with dask.config.set(num_workers=common.THREADS), tempfile.TemporaryDirectory() as directory:
        zarr = import_module("zarr")
        zstd = zarr.codecs.ZstdCodec(level=1)
        options = {"chunks": (4, *shape[1:]), "dtype": frames.dtype, "compressors": zstd}
        path = Path(directory) / "scan.zarr"
        zarr.create_array(path, shape=shape, **options)[...] = frames
        header = ["source", "statistic", "seconds", "of the slowest alone"]
        rows = list(one_pass({"in memory": frames, "zarr zstd": path}, repeats))
        print(f"\n### Several statistics in one pass\n\n{common.table(header, rows)}")
        header = ["statistic", "left out", "seconds", "of the plain call"]
        rows = list(left_out(frames, repeats))
        print(f"\n### What does not count\n\n{common.table(header, rows)}")
        few = np.ascontiguousarray(frames[:, :: max(1, shape[1] // CLIPPED_ROWS)])
        header = ["by", "seconds", "of daskstats", "largest difference"]
        rows = list(clipped(few))
        print(f"\n### Sigma-clipped mean of {few.shape[1]} rows\n\n{common.table(header, rows)}")


if __name__ == "__main__":
    main()
