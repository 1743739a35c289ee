"""Frame caches of HEXRD from the command line: time beyond that of a tiny file, and peak memory.

The cache is like that of a diffraction scan with a threshold: 34 GB of frames, of which 0.001 % of
the pixels are stored. HEXRD's loop makes every frame dense; it is timed for a part of the frames.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common
import numpy as np
from filebench import reached
from report import Report
from storage import write_sparse

HEADER = (
    "statistic",
    "seconds beyond a tiny file",
    "HEXRD loop, s",
    "goal",
    "met",
    "peak growth, MiB",
    "state, image and 64 MiB",
    "met",
)

# Frames, rows and columns, and values that each frame stores.
CACHE, STORED = (1440, 3888, 3072), 90

# Seconds, and bytes of a pixel in the state (rows that are finished) and in the image.
GOALS = {"max": (0.6, 4), "average": (0.6, 8), "std": (0.6, 20), "median": (0.9, 8)}

# Frames for which HEXRD's loop is timed.
PART = 20


def diffraction(
    shape: tuple[int, int, int], rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield rows, columns and values of each frame."""
    nframes, rows, cols = shape
    for _ in range(nframes):
        pixels = np.sort(rng.choice(rows * cols, min(STORED, rows), replace=False))
        yield *np.divmod(pixels, cols), rng.poisson(200, len(pixels))


def command(statistic: str, path: Path) -> tuple[float, float]:
    """Return seconds and peak memory in MiB of a command."""
    target = path.with_name("image.npy")
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "daskstats", statistic, path, "-o", target, "--force", "--quiet"]
    )
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, statistic
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def hexrd_loop(path: Path, statistic: str) -> float | None:
    """Return the seconds of HEXRD's loop over all frames, from its time for a part of them."""
    if statistic not in ("max", "average"):
        return None
    with np.load(path) as arrays:
        shape, nframes = tuple(arrays["shape"]), int(arrays["nframes"])
        image = np.zeros(shape, "u2" if statistic == "max" else "f4")
        began = time.perf_counter()
        for index in range(min(PART, nframes)):
            frame = np.zeros(shape, "u2")
            frame[arrays[f"{index}_row"], arrays[f"{index}_col"]] = arrays[f"{index}_data"]
            image = np.maximum(image, frame) if statistic == "max" else image + frame
        return (time.perf_counter() - began) * nframes / min(PART, nframes)


def lines(shape: tuple[int, int, int], place: Path, repeats: int) -> Iterator[list[Any]]:
    """Yield the rows of the table."""
    cache, tiny = place / "scan.npz", place / "tiny.npy"
    write_sparse(cache, shape, diffraction(shape, np.random.default_rng(1)))
    np.save(tiny, np.ones((2, 3, 4), "u2"))
    for statistic, (goal, each) in GOALS.items():
        command(statistic, cache)  # which may compile
        runs = [(command(statistic, cache), command(statistic, tiny)) for _ in range(repeats)]
        seconds = min(ours[0] for ours, _ in runs) - min(other[0] for _, other in runs)
        growth = max(ours[1] for ours, _ in runs) - max(other[1] for _, other in runs)
        room = shape[1] * shape[2] * each / 2**20 + 64
        met = reached(goal / max(seconds, 1e-3), 1)
        loop = hexrd_loop(cache, statistic)
        yield [statistic, seconds, loop, goal, met, growth, room, reached(room / max(growth, 1), 1)]


def main() -> None:
    options = common.parser(__doc__.splitlines()[0]).parse_args()
    shape, repeats = (common.TINY_SHAPE, 1) if options.tiny else (CACHE, 5)
    size = " x ".join(map(str, shape))
    report = Report([f"{size} uint16, {STORED} values a frame, {repeats} runs in turn"])
    with tempfile.TemporaryDirectory() as place:
        report.add(None, HEADER, list(lines(shape, Path(place), repeats)))
    report.save(options.json)


if __name__ == "__main__":
    main()
