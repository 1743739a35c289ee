"""On dask.distributed: against plain dask.array, streams against results, and how it grows."""

import contextlib
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common
import dask
import dask.array as da
import numpy as np
import zarr
from distributed import Client, LocalCluster
from report import Report, mebibytes

import daskstats as stats

HERE = "127.0.0.1"
STATISTICS = ("max", "average", "std", "median")
STEPS = 60
DELAY = 0.05


class Decoding:
    """A series whose frames are compressed in memory: reading one is decompressing it."""

    def __init__(self, nframes: int, shape: tuple[int, int]) -> None:
        self.shape, self.dtype, self._nframes = shape, np.dtype("u2"), nframes
        counts = np.random.default_rng(0).poisson(100, shape).astype("u2")
        self._frame = zlib.compress(counts, 1)

    def __len__(self) -> int:
        return self._nframes

    def __getitem__(self, index: int) -> np.ndarray:
        return np.frombuffer(zlib.decompress(self._frame), self.dtype).reshape(self.shape)


class Sleeping(Decoding):
    """A series whose frames take long to come, and cost no processor time."""

    def __getitem__(self, index: int) -> np.ndarray:
        time.sleep(DELAY)
        return np.zeros(self.shape, self.dtype)


@contextlib.contextmanager
def workers(count: int, processes: bool = True, limit: str = "auto") -> Iterator[Client]:
    """Give a client of a cluster of workers of one thread each."""
    here = f"{HERE}:0"
    options = {"dashboard_address": here, "worker_dashboard_address": here}
    options |= {"host": HERE, "protocol": "tcp", "processes": processes, "memory_limit": limit}
    cluster = LocalCluster(n_workers=count, threads_per_worker=1, **options)
    with cluster, Client(cluster) as client:
        yield client


def zero_peak(dask_worker: Any) -> int:
    """Lower a worker's high-water mark to its present size, and return the bytes it has sent."""
    Path("/proc/self/clear_refs").write_text("5")
    return dask_worker.transfer_outgoing_bytes_total


def peak(dask_worker: Any) -> tuple[int, int]:
    """Return a worker's high-water mark, and the bytes it has sent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    high = next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
    return high, dask_worker.transfer_outgoing_bytes_total


def finished(client: Client) -> int:
    """Return the number of tasks that a cluster has finished."""
    prefixes = client.cluster.scheduler.task_prefixes.values()
    return sum(prefix.state_counts["memory"] for prefix in list(prefixes))


def measured(client: Client, call: Callable[[], Any]) -> list[Any]:
    """Return seconds, peak MiB of a worker, tasks, and MiB that workers have sent."""
    before = sum(client.run(zero_peak).values()), finished(client)
    took = common.seconds(call)
    found = client.run(peak).values()
    sent = sum(sent for _, sent in found) - before[0]
    tasks = finished(client) - before[1]
    return [took, mebibytes(max(high for high, _ in found)), tasks, mebibytes(sent)]


def against_dask(client: Client, path: Path, repeats: int) -> Iterator[list[Any]]:
    """Yield a row for each statistic and library: the best of several runs."""
    array = da.from_zarr(str(path))
    for name in STATISTICS:
        mean = "mean" if name == "average" else name
        theirs = getattr(da, mean)
        calls: dict[str, Callable] = {
            "daskstats": lambda name=name: getattr(stats, name)(path).compute(),
            "dask.array": lambda theirs=theirs: theirs(array, axis=0).compute(),
        }
        for label, call in calls.items():
            call()  # compiles, and imports
            yield [name, label, *min(measured(client, call) for _ in range(repeats))]


def beyond_memory(tiny: bool) -> Iterator[list[Any]]:
    """Yield the cost of a median of ten times a worker's memory, by each strategy."""
    nframes, shape = (40, (64, 64)) if tiny else (3840, (1024, 1024))
    series = Decoding(nframes, shape)
    buffers = {f"distributed.p2p.{name}.buffer": "16MiB" for name in ("comm", "storage")}
    for way in ("scratch", "p2p"):
        with tempfile.TemporaryDirectory() as directory:
            place = {"daskstats.scratch-directory": directory if way == "scratch" else None}
            with dask.config.set(buffers | place), workers(2, limit="768MiB") as client:
                stats.median(Decoding(8, (16, 16))).compute()  # compiles
                plan = stats.plan(series, "median")
                took, high, tasks, sent = measured(client, stats.median(series).compute)
                part = float(high) / 768
                yield [plan.strategy, took, high, part, len(plan.blocks), tasks, sent]


def stream(name: str, ims: Any, steps: int) -> tuple[float, float]:
    """Return the seconds to the first image and to the last."""
    began = time.perf_counter()
    for index, _ in enumerate(getattr(stats, f"{name}_iter")(ims, steps)):
        if index == 0:
            first = time.perf_counter() - began
    return first, time.perf_counter() - began


def streaming(client: Client, every: list[Decoding], repeats: int) -> Iterator[list[Any]]:
    """Yield the cost of intermediate images, and the time of the first one."""
    for name in ("max", "average", "std"):
        stream(name, every[0], 2)  # compiles, and imports
        for series in every:
            steps = min(STEPS, len(series))
            plain, best = np.inf, (np.inf, np.inf)
            for _ in range(repeats):
                plain = min(plain, common.seconds(getattr(stats, name)(series).compute))
                best = min(best, stream(name, series, steps), key=lambda times: times[1])
            parts = best[1] / plain, best[0], best[0] / best[1]
            yield [name, len(series), plain, best[1], *parts]


def warm_up() -> None:
    """Load the compiled code of an average, in a worker."""
    with dask.config.set(scheduler="synchronous"):
        stats.average(np.zeros((4, 8, 8), "u2")).compute()


def scaling(
    counts: tuple[int, ...], series: Decoding, processes: bool, repeats: int = 1
) -> Iterator[list[Any]]:
    """Yield the time of an average by the number of workers."""
    base = None
    for count in counts:
        with workers(count, processes) as client:
            client.run(warm_up)
            took = min(common.seconds(stats.average(series).compute) for _ in range(repeats))
        base = base or took * count
        yield [type(series).__name__.lower(), count, took, base / took]


def per_block(client: Client, tiny: bool) -> Iterator[list[Any]]:
    """Yield the overhead of a block: frames of 16 pixels, a block to each step."""
    few, many = (5, 20) if tiny else (50, 550)
    series = Decoding(many, (4, 4))
    times = {count: min(stream("max", series, count)[1] for _ in range(2)) for count in (few, many)}
    yield ["max_iter, a block and an image", 1e3 * (times[many] - times[few]) / (many - few)]
    lazy = {count: stats.partials(series, "max", count)[-1] for count in (few, many)}
    best = {count: min(common.seconds(lazy[count].compute) for _ in range(2)) for count in lazy}
    yield ["partials(...)[-1], a block", 1e3 * (best[many] - best[few]) / (many - few)]


def main() -> None:
    options = common.parser(__doc__.splitlines()[0]).parse_args()
    tiny = options.tiny
    shape = common.TINY_SHAPE if tiny else (120, 1024, 1024)
    repeats = 1 if tiny else 2
    size = f"{shape[0]} frames of {shape[1]} x {shape[2]} uint16 in zarr"
    report = Report([f"{size}, best of {repeats}; four or 16 times as many that are decompressed"])
    short, long = (Decoding(times * shape[0], shape[1:]) for times in (4, 16))
    with tempfile.TemporaryDirectory() as directory, workers(2) as client:
        path = Path(directory) / "scan.zarr"
        store = zarr.create_array(path, shape=shape, chunks=(4, *shape[1:]), dtype="u2")
        store[...] = common.series("uint16", shape)
        header = ["statistic", "by", "seconds", "peak MiB", "tasks", "sent MiB"]
        report.add("Two workers: zarr of 4 frames", header, against_dask(client, path, repeats))
        header = [
            "statistic",
            "frames",
            "result s",
            f"{STEPS} images s",
            "ratio",
            "first s",
            "of all",
        ]
        rows = streaming(client, [short, long], repeats)
        report.add("Streams: frames that are decompressed", header, rows)
        report.add("Scheduling", ["call", "ms"], per_block(client, tiny))
    header = ["by", "seconds", "peak MiB", "of limit", "bands", "tasks", "sent MiB"]
    report.add("Median, ten times a worker's memory", header, beyond_memory(tiny))
    header = ["source", "workers", "seconds", "speed-up"]
    report.add("One worker to two", header, scaling((1, 2), long, True, repeats))
    sleeping = Sleeping(*((8, (64, 64)) if tiny else (1280, (512, 1024))))
    counts = (1, 2) if tiny else (1, 2, 4, 8, 16)
    report.add("One worker to sixteen, that sleep", header, scaling(counts, sleeping, False))
    report.save(options.json)


if __name__ == "__main__":
    main()
