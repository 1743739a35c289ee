"""Tools of all benchmarks: series of frames, fair timing, peak memory, and processes."""

import argparse
import contextlib
import ctypes
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

# Two threads everywhere, so that figures of machines with more cores can be compared.
THREADS = 2

SHAPE = (240, 1024, 1024)
QUICK_SHAPE = (24, 1024, 1024)
TINY_SHAPE = (12, 64, 64)

# Detectors of more than 16 bits saturate about here.
BRIGHTEST = 1 << 20

# Pixels of a frame to a spot, and its brightness in the frames in which it is lit.
PIXELS_PER_SPOT = 20_000
ROCKING = np.array([0.02, 0.2, 1.0, 0.2, 0.02])


# Series


def series(dtype: Any, shape: tuple[int, int, int], spread: bool = False) -> np.ndarray:
    """Return frames of Poisson(100) counts with a few bright peaks, the same in every run.

    Parameters
    ----------
    dtype : dtype
        uint16, uint32 or int32; float32 frames are divided by a gain, and are no integers.
    shape : (int, int, int)
        Frames, rows and columns.
    spread : bool
        Whether values are instead spread evenly from 0 to 2^20: the hardest case for a median.
    """
    frames = np.empty(shape, dtype)
    gain = np.random.default_rng(1).normal(1, 0.04, shape[1:]).astype("f4")

    def fill(index: int) -> None:
        counts = _spread(index, shape[1:]) if spread else _counts(index, shape)
        if frames.dtype.kind == "f":
            frames[index] = counts / gain
        else:
            frames[index] = np.minimum(counts, min(BRIGHTEST, np.iinfo(frames.dtype).max))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(fill, range(shape[0])))
    return frames


def _spread(index: int, shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng((2, index)).integers(0, BRIGHTEST, shape)


def _counts(index: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Return one frame: the background, and the spots that are lit in it."""
    nframes, rows, cols = shape
    counts = np.random.default_rng((3, index)).poisson(100, (rows, cols))
    spots = np.random.default_rng(4)
    number = max(1, rows * cols // PIXELS_PER_SPOT)
    centres = spots.integers(0, (rows - 2, cols - 2), (number, 2))
    ages = index - spots.integers(-4, nframes, number)
    peaks = np.exp(spots.uniform(math.log(1e3), math.log(2 * BRIGHTEST), number))
    for (row, col), age, peak in zip(centres, ages, peaks, strict=True):
        if 0 <= age < len(ROCKING):
            counts[row : row + 3, col : col + 3] += int(peak * ROCKING[age])
    return counts


# Timing


def seconds(function: Callable[[], Any]) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def in_turn(functions: Mapping[Any, Callable[[], Any]], repeats: int) -> dict[Any, float]:
    """Return the best time of each function, called A B A B after a call of each to warm up.

    A disturbance of the machine then meets all of them.
    """
    best = dict.fromkeys(functions, math.inf)
    for function in functions.values():
        function()
    for _ in range(repeats):
        for name, function in functions.items():
            best[name] = min(best[name], seconds(function))
    return best


def in_threads(function: Callable[[Sequence[int]], Any], count: int) -> list[Any]:
    """Call a function with an equal part of the numbers below ``count`` in each thread."""
    edges = np.linspace(0, count, THREADS + 1, dtype=int)
    parts = [range(first, end) for first, end in pairwise(edges.tolist())]
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, parts))


# Memory


def peak_bytes() -> int | None:
    """Return the largest resident size so far (VmHWM), or None where it is not known."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")), None)


def peak_of(function: Callable[[], Any]) -> tuple[Any, float, int | None]:
    """Return the result of a call, its seconds, and the bytes by which the process grew.

    The process should be fresh: memory that glibc has kept is given back first, and the high-water
    mark lowered to the resident size, but not every allocator can be told to.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    before = peak_bytes()
    start = time.perf_counter()
    result = function()
    took = time.perf_counter() - start
    after = peak_bytes()
    return result, took, None if before is None or after is None else max(0, after - before)


# Processes


def environment() -> dict[str, str]:
    """Return an environment in which libraries use `THREADS` threads."""
    names = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, str(THREADS)), "PYTHONWARNINGS": "ignore"}


class Worker:
    """A fresh process that answers requests, one JSON object to a line."""

    def __init__(self, script: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, script, "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(),
        )

    def send(self, **request: Any) -> None:
        """Ask for something without waiting for the answer."""
        # A process that has died answers for itself in `receive`.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def receive(self) -> dict:
        """Wait for the answer."""
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"status": "failed: the process died"}

    def ask(self, **request: Any) -> dict:
        """Ask, and wait for the answer."""
        self.send(**request)
        return self.receive()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()


def serve(answer: Callable[..., dict]) -> None:
    """Answer the requests of a `Worker`; other output goes to stderr."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            reply = answer(**json.loads(line))
        except Exception as error:
            text = " ".join(str(error).split())[:80]
            reply = {"status": f"failed: {type(error).__name__}: {text}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


# Command line


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options of every benchmark."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--tiny", action="store_true", help="small shapes, for the tests: seconds")
    result.add_argument("--json", metavar="PATH", help="also write the results as JSON")
    return result
