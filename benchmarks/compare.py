"""Statistics side by side: daskstats and the alternatives, on the same frames.

Prints one table of speed and peak memory, and then how far each goal was met.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import common
import numpy as np
from goals import reached
from peers import PEERS, Peer
from peers.base import STATISTICS
from report import MACHINE_PACKAGES, Report, mebibytes
from storage import opened, path_for, write_frames

# Series, in memory and in files


@dataclass(frozen=True)
class Series:
    """A series of frames, with the statistics and the peers measured on it."""

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

# Fewer series, for a run of about a minute.
SHORT = {"statistics": ("median", "percentile"), "peers": ("daskstats", "numpy", "read limit")}
QUICK_SERIES = {
    "uint16": Series("uint16"),
    "uint32": Series("uint32", **SHORT),
    "float32": Series("float32", **SHORT),
    "zarr zstd": Series("uint16", "zarr-zstd", statistics=("average",), peers=FILES["peers"]),
    "HDF5 gzip": Series("uint16", "hdf5", statistics=("average",), peers=FILES["peers"]),
}

# In a worker


class Bench:
    """The work of a process: one peer on one series."""

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
        """Compute a twentieth of the image, to import and to compile everything."""
        frames = self.frames
        if isinstance(frames, str):
            # This imports the library that reads the file.
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
            # A changed file is parsed again; a process that kept its contents would hide that cost.
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
        peers = [row.speed for row in group if row.speed and row.peer.role == "alternative"]
        limits = [row.speed for row in group if row.speed and row.peer.role == "limit"]
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
                    mebibytes(row.peak),
                ]
        yield from absent(group)


def absent(group: list[Row]) -> Iterator[list[Any]]:
    """Yield one row for all peers that have no such statistic, one for those not installed."""
    main = [row for row in group if not row.peer.variant and not row.speed]
    for status in dict.fromkeys(row.status for row in main):
        names = ", ".join(row.peer.name for row in main if row.status == status)
        yield [group[0].series, group[0].statistic, names, status, None, None, "-"]


def remarks(row: Row, reference: Row | None, rows: list[Row]) -> str:
    """Return the remarks on a figure: fewer rows, or another image."""
    if row.status != "ok":
        return ""
    if row.rows != max(other.rows or 0 for other in rows):
        return f"; {row.rows} rows"
    if row.sample and reference and reference.sample and reference.rows == row.rows:
        ours, theirs = np.array(reference.sample), np.array(row.sample)
        differ = np.abs(theirs - ours).max() / max(1.0, np.abs(ours).max())
        return f"; differs by {differ:.1g}" if not differ < 1e-3 else ""
    return ""


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
            path = path_for(directory, name, series.storage)
            frames = common.series(series.dtype, effort.shape, series.spread)
            write_frames(frames, series.storage, path)
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
    nframes, *frame = effort.shape
    report = Report(
        [f"Series: {nframes} frames of {' x '.join(map(str, frame))}"],
        dict.fromkeys([*MACHINE_PACKAGES, *packages]),
    )
    report.add(None, HEADER, lines(rows))
    found = {(row.series, row.statistic, row.peer.name): row for row in rows}
    report.add("Goals", ("goal", "reached", "target", ""), reached(found, effort.shape))
    report.save(options.json)


if __name__ == "__main__":
    main()
