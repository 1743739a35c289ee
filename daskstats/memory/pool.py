"""A pool of reusable buffers.

Memory fresh from the system costs a page fault for every 4 KB, and an allocator may keep freed
memory, in pieces that fit nothing: states, blocks and buffers that come and go by the megabyte
would take longer, and more memory than they have at any one time.
"""

import mmap
from collections import deque
from contextlib import suppress
from math import prod
from threading import RLock

import numpy as np
from numpy.typing import DTypeLike

from ..planning.values import MEBI

# Bytes of a huge page of the system: 2 MiB of new memory take 0.04 ms as one, 0.7 ms as 512 pages.
# Buffers from half of one on do not come from the allocator, which might keep them.
HUGE = 2 << 20
LARGE = MEBI


class PooledBuffer:
    """Memory of an array that returns to its pool when the array is deleted."""

    def __init__(
        self, pool: "BufferPool", memory: np.ndarray, shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self._pool, self._memory = pool, memory
        self.__array_interface__ = {
            "shape": shape,
            "typestr": dtype.str,
            "data": (memory.ctypes.data, False),
            "version": 3,
        }

    def __del__(self) -> None:
        self._pool.take_back(self._memory)


class BufferPool:
    """Buffers of deleted arrays, kept for new ones.

    Parameters
    ----------
    pieces : int
        Buffers to keep at most; one that is not reused soon is pushed out by others.
    largest : int, optional
        Bytes of the largest buffer to keep.
    nbytes : int, optional
        Bytes of all buffers that are kept, at most.
    busy : int, optional
        Free buffers may hold as many bytes as are in use, up to this many. A new buffer first frees
        as many bytes of other sizes, so that the total never exceeds the peak in use.
    smallest : int
        Bytes of the smallest array in a buffer: the allocator has smaller ones at hand itself.

    Examples
    --------
    >>> pool = BufferPool(pieces=2)
    >>> first = pool.array((2, 3), "u2").ctypes.data
    >>> pool.array((3, 2), "i2").ctypes.data == first
    True
    """

    def __init__(
        self,
        pieces: int,
        largest: int | None = None,
        nbytes: int | None = None,
        busy: int | None = None,
        smallest: int = 0,
    ) -> None:
        self._free: deque[np.ndarray] = deque(maxlen=pieces)
        self._largest, self._nbytes, self._busy = largest, nbytes, busy
        self.smallest = smallest
        # A buffer may come back while its thread counts another, so the lock is reentrant.
        self._used, self._lock = 0, RLock()

    def array(
        self, shape: tuple[int, ...], dtype: DTypeLike, nbytes: int | None = None
    ) -> np.ndarray:
        """Return an uninitialised array, at the beginning of ``nbytes`` if more are given."""
        dtype = np.dtype(dtype)
        nbytes = nbytes or prod(shape) * dtype.itemsize
        if nbytes < self.smallest:
            return np.empty(shape, dtype)
        memory = self._taken(nbytes)
        self._count(nbytes)
        return np.asarray(PooledBuffer(self, memory, shape, dtype))

    def _count(self, nbytes: int) -> None:
        """Count bytes in use, where the bytes to keep depend on them."""
        if self._busy is not None:
            with self._lock:
                self._used += nbytes

    def _taken(self, nbytes: int) -> np.ndarray:
        for _ in range(len(self._free)):
            try:
                # The last one to come back is the most likely to be in a cache.
                memory = self._free.pop()
            except IndexError:  # another thread was faster
                break
            if memory.nbytes == nbytes:
                return memory
            self._free.appendleft(memory)
        left = 0 if self._busy is None else nbytes
        with suppress(IndexError):  # no more of them
            while left > 0:
                left -= self._free.popleft().nbytes
        return _fresh(nbytes)

    def take_back(self, memory: np.ndarray) -> None:
        """Keep memory for the next array."""
        if self._largest is None or memory.nbytes <= self._largest:
            self._free.append(memory)
        self._count(-memory.nbytes)
        most = self._nbytes
        if self._busy is not None:
            most = max(most or 0, min(self._busy, self._used))
        if most is not None:
            with suppress(IndexError):  # other threads were faster
                while sum(piece.nbytes for piece in self._free.copy()) > most:
                    self._free.popleft()


def _fresh(nbytes: int) -> np.ndarray:
    """Return memory that returns to the system as soon as it is freed."""
    if nbytes < LARGE:
        return np.empty(nbytes, np.uint8)
    if nbytes < HUGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.frombuffer(_mapped(nbytes), np.uint8)
    pages = _mapped(nbytes + HUGE)
    memory = np.frombuffer(pages, np.uint8)
    # From where a huge page may begin, and no more of them than are filled.
    start = -memory.ctypes.data % HUGE
    with suppress(OSError):  # of a kernel that has none
        pages.madvise(mmap.MADV_HUGEPAGE, start, nbytes - nbytes % HUGE)
    return memory[start : start + nbytes]


def _mapped(nbytes: int) -> mmap.mmap:
    """Return new pages, which take memory only once they are written to."""
    if hasattr(mmap, "MAP_PRIVATE"):  # not on Windows
        return mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return mmap.mmap(-1, nbytes)


# Buffers of frames that were folded. Without them a frame of 2 MB costs 512 page faults, 0.7 ms,
# and larger ones are filled with zeros first: a thread finds the maximum of 60 raw frames of 8 MB
# in 127 ms instead of 69, and two that of 200 frames of 1 MB, handed out one by one, in 104 instead
# of 40. Frames of 0.25 MB would take 25 ms instead of 18: the allocator has them at hand.
frame_pool = BufferPool(pieces=64, nbytes=64 << 20, busy=512 << 20, smallest=LARGE)

# Bytes from which glibc maps every array anew, whatever was freed before. Smaller ones stay with
# the thread that has freed them, and in the cache of its core: with buffers for them, the maximum
# of HDF5 chunks of 2 MB takes an eighth longer.
MOST_ON_HEAP = 32 << 20


def block_of_frames(
    nframes: int, rows: int, frame_shape: tuple[int, int], dtype: DTypeLike
) -> np.ndarray:
    """Return an uninitialised block (frames, rows, cols), in a pooled buffer if that is faster.

    It is for large blocks, and for those that are in memory with others of their kind: single
    frames, of which each file of a folder has one, and rows of frames, of which a row-wise
    statistic needs those of all frames. Several that are released together go back to the system.
    """
    shape = nframes, rows, frame_shape[1]
    alone = nframes > 1 and rows == frame_shape[0]
    if alone and prod(shape) * np.dtype(dtype).itemsize < MOST_ON_HEAP:
        return np.empty(shape, dtype)
    return frame_pool.array(shape, dtype)
