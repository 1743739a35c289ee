"""Two limits: the speed of reading the memory, and that of only decoding the frames of a file."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from common import THREADS
from storage import opened

from .base import DASK_FRAMES, STATISTICS, TWO, Images, Peer, is_frame_cache


def open_read_limit(frames: np.ndarray) -> Images:
    """Add up all bytes, as 64-bit words, in two threads: no statistic can be faster."""
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


def open_decoding(frames: Any) -> Images:
    """Read every frame once, in two threads, with the library that reads the file."""
    source = opened(frames)
    pool = ThreadPoolExecutor(THREADS)
    if is_frame_cache(source):
        return dict.fromkeys(STATISTICS, lambda: decode_frame_cache(source, pool))
    unit = (getattr(source, "chunks", None) or (DASK_FRAMES,))[0]

    def read(start: int) -> int:
        # A sum makes sure that the pages of a memory map are read.
        block = source[start : start + unit]
        return int(np.add.reduce(block.reshape(-1)[::1024])) if unit else 0

    starts = range(0, source.shape[0], unit)
    return dict.fromkeys(STATISTICS, lambda: list(pool.map(read, starts)) and None)


def decode_frame_cache(path: Path, pool: ThreadPoolExecutor) -> None:
    with np.load(path) as arrays:
        shape, dtype = tuple(arrays["shape"]), arrays["dtype"].item().decode()
        nframes = int(arrays["nframes"])

        def dense(index: int) -> None:
            frame = np.zeros(shape, dtype)
            row, col, data = (arrays[f"{index}_{name}"] for name in ("row", "col", "data"))
            frame[row, col] = data

        list(pool.map(dense, range(nframes)))


PEERS = (
    Peer("read limit", f"{TWO}, sum of 64-bit words", open_read_limit, role="limit"),
    Peer("decode only", f"{TWO}, every frame once", open_decoding, reads_files=True, role="limit"),
)
