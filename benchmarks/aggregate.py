"""Several statistics in one pass, values left out, and clipping: against one alone and peers."""

import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import common
import dask
import numpy as np
from peers import CLIPPED_MEANS
from report import Report
from storage import path_for, write_frames

import daskstats as stats

STATISTICS = ["max", "average", "std", "median"]
INVALID, SATURATION = 100, 130

# Rows of the frames that are clipped: astropy takes seconds for them.
CLIPPED_ROWS = 16


def alone(ims: Any, name: str, **options: Any) -> Callable[[], Any]:
    """Return the function that computes one statistic."""
    return lambda: getattr(stats, name)(ims, **options).compute()


def one_pass(sources: dict[str, Any], repeats: int) -> Iterator[list[Any]]:
    """Yield the time of each statistic alone and of all in one call, for each source."""
    for label, ims in sources.items():
        calls = {name: alone(ims, name) for name in STATISTICS}
        calls["all"] = lambda ims=ims: dask.compute(stats.aggregate(ims, STATISTICS))
        best = common.in_turn(calls, repeats)
        slowest = max(best[name] for name in STATISTICS)
        for name, took in best.items():
            yield [label, name, took, took / slowest]


def left_out(frames: np.ndarray, repeats: int) -> Iterator[list[Any]]:
    """Yield the cost of leaving pixels and values out."""
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
    """Yield the time of a sigma-clipped mean, and those of its peers."""
    ours = alone(frames, "clipped_average", dtype="f8")
    ours()
    image, took = ours(), min(common.seconds(ours) for _ in range(3))
    yield ["daskstats", took, 1.0, 0.0]
    for name, peer in CLIPPED_MEANS.items():
        try:
            run = peer(frames)
        except ImportError:
            yield [f"{name}: not installed", None, None, None]
            continue
        found: list[Any] = []
        theirs = common.seconds(lambda run=run, found=found: found.append(run()))
        yield [name, theirs, theirs / took, float(np.abs(found[0] - image).max())]


def main() -> None:
    options = common.parser(__doc__.splitlines()[0]).parse_args()
    shape, repeats = (common.TINY_SHAPE, 1) if options.tiny else (common.SHAPE, 7)
    frames = common.series("uint16", shape)
    warnings.simplefilter("ignore")
    size = f"{shape[0]} frames of {shape[1]} x {shape[2]} uint16"
    report = Report([f"{size}, {common.THREADS} threads, best of {repeats}"])
    with dask.config.set(num_workers=common.THREADS), tempfile.TemporaryDirectory() as directory:
        path = path_for(directory, "scan", "zarr-zstd")
        write_frames(frames, "zarr-zstd", path)
        header = ["source", "statistic", "seconds", "of the slowest alone"]
        rows = one_pass({"in memory": frames, "zarr zstd": path}, repeats)
        report.add("Several statistics in one pass", header, rows)
        header = ["statistic", "left out", "seconds", "of the plain call"]
        report.add("Values left out", header, left_out(frames, repeats))
        few = np.ascontiguousarray(frames[:, :: max(1, shape[1] // CLIPPED_ROWS)])
        header = ["by", "seconds", "of daskstats", "largest difference"]
        report.add(f"Sigma-clipped mean of {few.shape[1]} rows", header, clipped(few))
    report.save(options.json)


if __name__ == "__main__":
    main()
