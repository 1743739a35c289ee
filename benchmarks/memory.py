"""Whether the memory limit is kept: each statistic of a series ten times the limit.

Every row has a process of its own. Its peak (VmHWM) is counted from the resident size after a
call on a small series has loaded everything. The floor of a row-wise statistic is the time of
writing the frames to the same disk and reading them back, as they are, by as many threads.
"8 at once" are calls from eight threads, of an eighth of the frames each, which share the limit.

The second table has shapes for which the limit is hard to keep: frames of a few pixels, of one
column, of one chunk, of float64 with values left out, and four threads. A refusal keeps it too.
"""

import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import common
import dask
import numpy as np
import psutil
from dask.utils import parse_bytes
from report import Report, mebibytes, text

import daskstats as stats
from daskstats.reduction import reduce

STATISTICS = ("max", "min", "sum", "average", "std", "percentile", "median", "aggregate")
ARGUMENTS = {"percentile": (25,), "aggregate": (["max", "average", "std", "median"],)}
STEPS, CALLS = 10, 8
PLAIN, STEPWISE, AT_ONCE = KINDS = "plain", f"{STEPS} steps", f"{CALLS} at once"
TIMES, TINY_TIMES = 10, 3

HEADER = (
    "series",
    "statistic",
    "call",
    "limit MiB",
    "strategy",
    "peak MiB",
    "peak / limit",
    "projected / peak",
    "reads",
    "seconds",
    "of the floor",
)

# Frames of a size that leaves room for a partial state of each worker.
SHAPES = {"256MiB": (1024, 1024), "1GiB": (2048, 2048)}
TINY = {"24MiB": (128, 256)}

# Calls for which the limit is hard to keep: (statistic, how, frames, shape, dtype, source, threads,
# MiB of the limit, options).
LEFT_OUT = {"invalid": [1, 2, 3, 4]}
SIX = ["max", "min", "average", "std", "median", ["percentile", 5]]
AWKWARD = (
    ("median", "plain", 200, (1024, 1024), "uint16", "generated", 4, 150, {}),
    ("median", "10 steps", 200, (1024, 1024), "uint16", "generated", 4, 150, {}),
    ("median", "plain", 200, (1024, 1024), "uint16", "h5", 4, 150, {}),
    ("six", "plain", 100_000, (16, 16), "uint16", "generated", 2, 200, {}),
    ("median", "plain", 100_000, (16, 16), "uint16", "generated", 2, 200, {}),
    ("median", "plain", 100_000, (16, 16), "uint16", "list", 2, 200, {}),
    ("max", "10 steps", 100_000, (16, 16), "uint16", "list", 2, 200, {}),
    ("median", "plain", 200, (512, 512), "float64", "generated", 2, 100, LEFT_OUT),
    ("std", "plain", 200, (512, 512), "float64", "generated", 2, 120, LEFT_OUT),
    ("average", "10 steps", 200, (512, 512), "float64", "generated", 2, 100, LEFT_OUT),
    ("max", "plain", 32, (1024, 1024), "uint16", "zarr of one chunk", 2, 320, {}),
    ("average", "plain", 32, (1024, 1024), "uint16", "zarr of one chunk", 1, 240, {}),
    ("median", "plain", 32, (1024, 1024), "uint16", "zarr of one chunk", 1, 260, {}),
    ("max", "10 steps", 20, (10_000_000, 1), "uint16", "generated", 2, 400, {}),
    ("max", "10 steps", 20, (10_000_000, 1), "uint16", "array", 2, 300, {}),
    ("max", "plain", 400, (1024, 1024), "float16", "array", 2, 100, {}),
    ("std", "10 steps", 400, (1024, 1024), "float16", "array", 2, 200, {}),
)

# Room in the data segment for the interpreter, besides the memory of the statistic.
HEADROOM = 1 << 28


class Generated:
    """Frames that are made as they are read, with a count of the reads."""

    def __init__(self, shape: tuple[int, int], nframes: int, dtype: str) -> None:
        self.shape, self.dtype, self.nframes = shape, np.dtype(dtype), nframes
        self.reads = np.zeros(nframes, int)
        rows, cols = shape
        base = np.random.default_rng(0).poisson(100, (rows + 61, cols))
        self._base = base.astype(self.dtype)

    def __len__(self) -> int:
        return self.nframes

    def __getitem__(self, index: int) -> np.ndarray:
        self.reads[index] += 1
        first = index * 37 % 61
        return self._base[first : first + self.shape[0]] + self.dtype.type(index % 7)


def opened(source: str, shape: tuple[int, int], nframes: int, dtype: str, place: str) -> Any:
    """Return the series: the generated frames, or a file of them."""
    frames = Generated(shape, nframes, dtype)
    if source == "generated":
        return frames
    if source in ("list", "array"):
        every = [frames[index] for index in range(nframes)]
        return np.stack(every) if source == "array" else every
    path = Path(place) / f"frames.{source.partition(' ')[0]}"
    if source.startswith("zarr"):
        import zarr

        chunks = (nframes if source == "zarr of one chunk" else 8, *shape)
        array = zarr.create_array(path, shape=(nframes, *shape), chunks=chunks, dtype=dtype)
        for start in range(0, nframes, chunks[0]):
            stop = min(nframes, start + chunks[0])
            array[start:stop] = np.stack([frames[index] for index in range(start, stop)])
    else:
        import h5py

        with h5py.File(path, "w") as file:
            chunks = (1, *shape)
            array = file.create_dataset("x", (nframes, *shape), dtype, chunks=chunks, shuffle=True)
            for index in range(nframes):
                array[index] = frames[index]
    return str(path)


def call(ims: Any, statistic: str, kind: str, limit: int) -> None:
    """Compute a statistic, iterate over it, or compute it of parts of the series at once."""
    if kind == AT_ONCE:
        step = -(-len(ims) // CALLS)
        parts = [slice(start, start + step) for start in range(0, len(ims), step)]
        with ThreadPoolExecutor(CALLS) as pool:
            list(pool.map(lambda part: compute(ims, statistic, limit, frames=part), parts))
    elif kind == STEPWISE:
        iterate, arguments = getattr(stats, f"{statistic}_iter"), ARGUMENTS.get(statistic, ())
        with iterate(ims, *arguments, STEPS, memory_limit=limit) as images:
            for _ in images:
                pass
    else:
        compute(ims, statistic, limit)


def compute(ims: Any, statistic: str, limit: int, **selection: Any) -> None:
    """Compute the image of a statistic, or those of several."""
    arguments = ARGUMENTS.get(statistic, ())
    dask.compute(getattr(stats, statistic)(ims, *arguments, memory_limit=limit, **selection))


def plan_of(ims: Any, statistic: str, kind: str, limit: int) -> Any:
    """Return the plan of a call, of one that has the limit for itself."""
    statistics: Any = ARGUMENTS["aggregate"][0] if statistic == "aggregate" else statistic
    if statistic == "percentile":
        statistics = (statistic, *ARGUMENTS[statistic])
    running = kind == STEPWISE
    return reduce(
        ims, statistics, 0, STEPS if running else 1, memory_limit=limit, running=running
    ).plan


def answer(awkward: bool = False, threads: int = common.THREADS, **request: Any) -> dict:
    """Run one call in this process."""
    place = tempfile.mkdtemp(prefix="daskstats-benchmark-")
    measure = awkward_call if awkward else measured
    try:
        with dask.config.set({"num_workers": threads, "daskstats.scratch-directory": place}):
            return measure(place, **request)
    finally:
        shutil.rmtree(place)


def measured(
    place: str,
    source: str,
    statistic: str,
    kind: str,
    limit: int,
    shape: list[int],
    times: int,
    dtype: str,
    capped: bool,
) -> dict:
    rows, cols = shape
    nframes = times * limit // (rows * cols * np.dtype(dtype).itemsize)
    small = Generated((64, 256), 512, dtype)
    call(small, statistic, PLAIN if kind == AT_ONCE else kind, 14 << 20)
    ims = opened(source, (rows, cols), nframes, dtype, place)
    plan = plan_of(ims, statistic, kind, limit)
    if capped:
        cap = psutil.Process().memory_info().data + limit + HEADROOM
        resource.setrlimit(resource.RLIMIT_DATA, (cap, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    _, took, peak = common.peak_of(lambda: call(ims, statistic, kind, limit))
    lower = floor(Generated((rows, cols), nframes, dtype), place) if plan.groups else None
    return {
        "status": "ok",
        "strategy": plan.strategy,
        "peak": peak,
        "projected": plan.nbytes,
        "reads": float(ims.reads.mean()) if isinstance(ims, Generated) else plan.reads,
        "seconds": took,
        "floor": lower,
    }


def floor(ims: Generated, place: str) -> float:
    """Return the time of writing all frames to the disk and of reading them back."""
    path = Path(place) / "floor"
    path.mkdir()
    frame = ims[0]

    def write(index: int) -> None:
        frame.tofile(path / f"{index}")

    def read(index: int) -> None:
        np.fromfile(path / f"{index}", frame.dtype)

    def both() -> None:
        for each in (write, read):
            list(pool.map(each, range(len(ims))))

    with ThreadPoolExecutor(common.THREADS) as pool:
        took = common.seconds(both)
    shutil.rmtree(path)
    return took


def awkward_call(
    place: str,
    statistic: str,
    kind: str,
    nframes: int,
    shape: list[int],
    dtype: str,
    source: str,
    limit: int,
    options: dict,
) -> dict:
    """Make one of the calls of `AWKWARD` in this process."""
    six = [tuple(s) if isinstance(s, list) else s for s in SIX]
    statistics: Any = six if statistic == "six" else statistic
    limits = {**options, "memory_limit": limit}

    def compute_or_iterate(ims: Any, **given: Any) -> None:
        if kind == STEPWISE:
            with stats.snapshots(ims, statistics, STEPS, **given) as shots:
                for _ in shots:
                    pass
        else:
            several = six if statistic == "six" else [statistic]
            dask.compute(stats.aggregate(ims, several, **given))

    small = Generated((64, 256), 512, dtype)
    compute_or_iterate(small, **{**limits, "memory_limit": 32 << 20})
    ims = opened(source, tuple(shape), nframes, dtype, place)
    steps = STEPS if kind == STEPWISE else None
    try:
        plan = stats.plan(ims, statistics, steps, **limits)
    except stats.MemoryLimitError:
        return {"status": "refused"}
    _, took, peak = common.peak_of(lambda: compute_or_iterate(ims, **limits))
    return {
        "status": "ok",
        "strategy": plan.strategy,
        "peak": peak,
        "projected": plan.nbytes,
        "reads": plan.reads,
        "seconds": took,
        "floor": None,
    }


def awkward_lines() -> Iterator[list[Any]]:
    """Yield the rows of the second table."""
    for statistic, kind, nframes, shape, dtype, source, threads, limit, options in AWKWARD:
        request = {
            "statistic": statistic,
            "kind": kind,
            "nframes": nframes,
            "shape": shape,
            "dtype": dtype,
            "source": source,
            "limit": limit << 20,
            "options": options,
        }
        with common.Worker(__file__) as worker:
            got = worker.ask(awkward=True, threads=threads, **request)
        frames = f"{source}: {nframes} x {shape[0]} x {shape[1]} {dtype}, {threads} threads"
        yield line({**request, "source": frames}, got)


def lines(options: Any) -> Iterator[list[Any]]:
    """Yield the rows of the table."""
    shapes = TINY if options.tiny else SHAPES
    for source in options.sources.split(","):
        for limit, shape in shapes.items():
            for statistic in options.only.split(","):
                for kind in options.calls.split(","):
                    request = {
                        "source": source,
                        "statistic": statistic,
                        "kind": kind,
                        "limit": parse_bytes(limit),
                        "shape": shape,
                        "times": TINY_TIMES if options.tiny else TIMES,
                        "dtype": options.dtype,
                        "capped": options.capped,
                    }
                    with common.Worker(__file__) as worker:
                        yield line(request, worker.ask(**request))


def line(request: dict, got: dict) -> list[Any]:
    label = [request[name] for name in ("source", "statistic", "kind")]
    limit, alone = request["limit"], request["kind"] != AT_ONCE
    if got["status"] != "ok":
        return [*label, mebibytes(limit), got["status"], *[None] * 6]
    return [
        *label,
        mebibytes(limit),
        got["strategy"],
        mebibytes(got["peak"]),
        got["peak"] / limit,
        got["projected"] / max(1, got["peak"]) if alone else None,
        got["reads"],
        got["seconds"],
        got["seconds"] / got["floor"] if got["floor"] else None,
    ]


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--worker", action="store_true", help="answer requests (for itself)")
    parser.add_argument("--only", default=",".join(STATISTICS), help="statistics, with commas")
    parser.add_argument("--calls", default=",".join(KINDS), help="how, with commas")
    parser.add_argument("--sources", default="generated", help="generated, zarr, h5, with commas")
    parser.add_argument("--dtype", default="uint16", help="of the frames [uint16]")
    parser.add_argument("--awkward", action="store_true", help="only the table of awkward shapes")
    parser.add_argument("--capped", action="store_true", help="under RLIMIT_DATA as well")
    options = parser.parse_args()
    if options.worker:
        common.serve(answer)
        return
    times = TINY_TIMES if options.tiny else TIMES
    threads = f"{common.THREADS} threads"
    report = Report([f"{options.dtype}, series of {times} x the limit, {threads}"])
    if not options.awkward:
        report.add(None, HEADER, shown(lines(options)))
    if options.awkward or not (options.tiny or options.only != ",".join(STATISTICS)):
        report.add("Awkward shapes", HEADER, shown(awkward_lines()))
    report.save(options.json)


def shown(rows: Iterator[list[Any]]) -> Iterator[list[Any]]:
    """Yield rows, and show them on stderr as they come."""
    for row in rows:
        print(" ".join(text(cell) for cell in row), file=sys.stderr, flush=True)
        yield row


if __name__ == "__main__":
    main()
