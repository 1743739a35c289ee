"""Following a series that grows: the delay of images, and the load while frames come and do not.

A process adds frames at 50 Hz. The delay of a frame is the time from the end of its writing to the
first image that has it. The load is the CPU time of the following process, in percent of a core.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import dask
import numpy as np
from report import Report

import daskstats as stats

FRAMES, SHAPE, RATE = 200, (1024, 1024), 50

STATISTICS = ["max", "average"]

# Seconds of delay at the median, and percent of a core while no frames come.
GOALS = 0.5, 5

# Seconds without frames that the load is measured in.
IDLE = 5.0

HEADER = (
    *("files", "frames", "images", "delay, median, s", "90 %, s", "longest, s"),
    *("load at 50 Hz, %", "load when idle, %", "goals", "met"),
)


def zarr_writer(place: Path, shape: tuple[int, int]) -> Callable[[int, np.ndarray], Any]:
    import zarr

    array = zarr.create_array(place, shape=(0, *shape), chunks=(1, *shape), dtype="u2")

    def write(index: int, frame: np.ndarray) -> None:
        array.resize((index + 1, *shape))
        array[index] = frame

    return write


def hdf5_writer(place: Path, shape: tuple[int, int]) -> Callable[[int, np.ndarray], Any]:
    import h5py

    file = h5py.File(place, "w", libver="latest")
    lengths = {"maxshape": (None, *shape), "chunks": (1, *shape)}
    data = file.create_dataset("images", (0, *shape), "u2", **lengths)
    file.swmr_mode = True

    def write(index: int, frame: np.ndarray) -> None:
        data.resize(index + 1, axis=0)
        data[index] = frame
        data.flush()

    return write


def tiff_writer(place: Path, shape: tuple[int, int]) -> Callable[[int, np.ndarray], Any]:
    import tifffile

    place.mkdir()
    return lambda index, frame: tifffile.imwrite(place / f"scan_{index}.tif", frame)


# The name of the files, and how they are written.
WRITERS = {
    "zarr": ("scan.zarr", zarr_writer),
    "HDF5, SWMR": ("scan.h5", hdf5_writer),
    "folder of TIFF files": ("scan", tiff_writer),
}


def write_frames(kind: str, place: str, count: int, *shape: int) -> None:
    """Write frames at 50 Hz, and print the time when each of them is there."""
    name, writer = WRITERS[kind]
    frames = common.series("u2", (8, *shape))
    write = writer(Path(place, name), shape)
    due = time.monotonic()
    for index in range(count):
        due += 1 / RATE
        time.sleep(max(0, due - time.monotonic()))
        write(index, frames[index % len(frames)])
        print(time.time(), flush=True)


def followed(kind: str, count: int, shape: tuple[int, int], idle: float) -> list[Any]:
    """Return a line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--writer", kind, folder, count, *shape]
        writer = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
        seen: list[tuple[float, int]] = []
        times = [(time.monotonic(), time.process_time())]
        shots = stats.follow(Path(folder, WRITERS[kind][0]), STATISTICS, timeout=60)
        for shot in shots:
            if not seen:
                times[0] = time.monotonic(), time.process_time()
            seen.append((time.time(), shot.done))
            if shot.done == count:
                break
        times.append((time.monotonic(), time.process_time()))
        shots.close()
        text, _ = writer.communicate()
        assert writer.returncode == 0
        waiting = load_of_waiting(Path(folder, WRITERS[kind][0]), count, idle)
    written = map(float, text.split())
    delays = [
        next(at for at, done in seen if done > index) - end for index, end in enumerate(written)
    ]
    load = 100 * (times[1][1] - times[0][1]) / max(1e-9, times[1][0] - times[0][0])
    middle = float(np.median(delays))
    met = middle <= GOALS[0] and waiting <= GOALS[1]
    figures = middle, float(np.quantile(delays, 0.9)), max(delays), load, waiting
    goals = f"{GOALS[0]} s at the median, {GOALS[1]} %"
    return [kind, count, len(seen), *figures, goals, "yes" if met else "no"]


def load_of_waiting(place: Path, count: int, idle: float) -> float:
    """Return the percent of a core that waiting takes, once all frames have been counted."""
    shots = stats.follow(place, STATISTICS, timeout=idle)
    while next(shots).done < count:
        pass
    began, spent = time.monotonic(), time.process_time()
    for _ in shots:
        pass
    return 100 * (time.process_time() - spent) / (time.monotonic() - began)


def main() -> None:
    if sys.argv[1:2] == ["--writer"]:
        kind, place, *numbers = sys.argv[2:]
        write_frames(kind, place, *map(int, numbers))
        return
    options = common.parser(__doc__.splitlines()[0]).parse_args()
    count, shape, idle = (20, (64, 64), 0.3) if options.tiny else (FRAMES, SHAPE, IDLE)
    rows, cols = shape
    fact = f"{count} frames of {rows} x {cols} uint16 at {RATE} Hz, {', '.join(STATISTICS)}"
    report = Report([f"{fact}, {common.THREADS} threads; idle for {idle:g} s"])
    with dask.config.set(num_workers=common.THREADS):
        # The first image of a process has to wait for compiled code.
        dask.compute(stats.aggregate(common.series("u2", (2, *shape)), STATISTICS))
        lines = [followed(kind, count, shape, idle) for kind in WRITERS]
    report.add(None, HEADER, lines)
    report.save(options.json)


if __name__ == "__main__":
    main()
