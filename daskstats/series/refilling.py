"""Whether the object that gave a frame may write to its memory again, and thus needs a lock.

Detector readers fill one buffer, or a few in turn, and return it for every frame. Such a frame must
be copied before the next one is fetched, by any thread. A frame without other references needs
neither a copy nor a lock, nor does a view of an array that holds the whole series.
"""

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

# Seconds between two checks of references to a frame, or of frames that other threads fetch.
LOOK = 0.001

# Checks of a frame with other references: a profiler, such as that of a worker, samples the stacks
# of all threads and for a moment keeps alive the variables of functions that have returned.
LOOKS = 30

# References to an array that one variable of the caller holds, and to one that a view holds, as
# `is_own` counts them. They differ between interpreters; see `_calibrated`.
_alone = _viewed = 0


def is_own(array: np.ndarray, looks: int = 1) -> bool:
    """Whether only one variable of the caller holds an array and its memory.

    That memory must be numpy's own, or of bytes, which never change: other owners may hold it
    without a counted reference.
    """
    while sys.getrefcount(array) > _alone or not _base_is_own(array):
        looks -= 1
        if looks <= 0:
            return False
        time.sleep(LOOK)
    return True


def _base_is_own(array: np.ndarray) -> bool:
    base = array.base
    while isinstance(base, np.ndarray):
        if sys.getrefcount(base) > _viewed:
            return False
        array, base = base, base.base
    return array.flags.owndata if base is None else type(base) is bytes


def _calibrated() -> bool:
    """Measure how this interpreter counts references; return whether the counts are exact."""
    global _alone, _viewed
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    if sys.implementation.name != "cpython" or not gil:
        return False
    array, view = np.empty(2), np.empty((2, 2))[0]
    while not is_own(array) and _alone < 9:
        _alone += 1
    while not is_own(view) and _viewed < 9:
        _viewed += 1
    alone = is_own(array) and is_own(view)
    held, base = array, view.base
    exact = alone and not is_own(array) and not is_own(view)
    del held, base
    return exact


COUNTED = _calibrated()


class StoredFrames:
    """Recognises views of one array that holds the whole series, which is never refilled.

    The address of such a frame follows from its number, and all frames lie within that array. One
    buffer, or a few used in turn, are too small for that. With at least as many buffers as frames,
    the address follows from the order of fetching: it advances by the same length every time, but
    after the last buffer. So the two are told apart only once frames were fetched out of order;
    until then one thread at a time fetches, and copies, unless the array has exactly the size of
    the series.
    """

    def __init__(self, ims: Any, nframes: int, frame_nbytes: int) -> None:
        self._ims = ims  # kept alive, so that no other object gets its id
        self._nframes, self._nbytes = nframes, nframes * frame_nbytes
        self._seen: tuple[int, int] | None = None
        self._line: tuple[int, int] | None = None
        self._previous = 0
        self._lengths: Counter[int] = Counter()
        self._steady = self._refuted = False

    def look(self, index: int, frame: np.ndarray) -> tuple[bool, bool | None]:
        """Return whether a frame needs no copy, and whether no other will; None if unknown.

        A frame outside of the array settles it for all that follow.
        """
        memory = frame
        while isinstance(memory.base, np.ndarray):
            memory = memory.base
        address: int = frame.__array_interface__["data"][0]
        self._refuted |= memory.nbytes < self._nbytes
        if self._line is None and not self._refuted:
            if self._seen in (None, (index, address)):
                self._seen = index, address
                return False, None
            self._line = self._learn(index, address, frame, memory)
        self._refuted |= self._line is None or address != self._line[0] + index * self._line[1]
        if self._refuted:
            return False, False
        if not self._steady:
            self._count(address)
        return self._steady or memory.nbytes == self._nbytes, self._steady or None

    def _learn(
        self, index: int, address: int, frame: np.ndarray, memory: np.ndarray
    ) -> tuple[int, int] | None:
        """Return the address of frame 0 and the step, from a second frame; None if none fits."""
        assert self._seen is not None
        number, self._previous = self._seen
        if number == index:
            return None
        step, rest = divmod(address - self._previous, index - number)
        low, high = np.lib.array_utils.byte_bounds(frame)
        ends = [(number - index) * step for number in (0, self._nframes - 1)]
        start, stop = np.lib.array_utils.byte_bounds(memory)
        fits = start <= low + min(ends) and high + max(ends) <= stop
        return (address - index * step, step) if fits and step and not rest else None

    def _count(self, address: int) -> None:
        """Count the distances between addresses: buffers used in turn have one, and a jump.

        There is one jump per round through all buffers.
        """
        if self._lengths.total() == self._nframes:
            self._lengths.clear()
        self._lengths[address - self._previous] += 1
        self._previous = address
        self._steady = self._lengths.total() - max(self._lengths.values()) > 1


class Gate:
    """Lets threads fetch frames of one object: one at a time, or in parallel while that is safe.

    It is safe as long as every frame lasts. A frame that does not, fetched in parallel, may have
    been overwritten by another thread already: it is fetched again, `alone`.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.refilled = False
        """whether a frame was found that does not last"""
        self.doubts = 0
        """frames fetched in parallel with other references; counted before they are released"""
        self._parallel = False
        self._fetching: list[None] = []
        self._lock = threading.RLock()

    def begin(self) -> bool:
        """Begin to fetch in parallel with others, until `end`; return False if that is not safe.

        Frames are small and many, so this takes no lock: this method increments the count before
        it reads the flag, and `alone` clears the flag before it reads the count.
        """
        if not self._parallel:
            return False
        self._fetching.append(None)
        if self._parallel:
            return True
        self._fetching.pop()
        return False

    def end(self) -> None:
        self._fetching.pop()

    def doubt(self) -> None:
        """Make threads fetch alone, because of a frame that was fetched in parallel."""
        self.doubts += 1
        self._parallel = False

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Fetch, and copy, while no other thread does, unless frames have turned out to last.

        Yields
        ------
        bool
            Whether this thread is alone.
        """
        with self._lock:
            if self._parallel:
                yield False
                return
            while self._fetching:
                time.sleep(LOOK)
            yield True

    def note(self, lasting: bool | None) -> None:
        """Record, while alone, whether frames last (None: unknown); one that does not settles it.

        Without exact counts of references nothing is known about later frames.
        """
        self.refilled |= lasting is False
        self._parallel = COUNTED and lasting is True and not self.refilled


_gates: WeakValueDictionary[int, Gate] = WeakValueDictionary()
_stored: WeakValueDictionary[int, StoredFrames] = WeakValueDictionary()
_lock = threading.Lock()


def gate_of(number: int) -> Gate:
    """Return the gate of an object, by its ``id`` in the process where it was first given.

    Two series of one object have one gate, and so have the copies of a series that are sent to one
    process, which may share a reader.
    """
    with _lock:
        return _gates.setdefault(number, Gate(number))


def stored_frames(ims: Any, nframes: int, frame_nbytes: int) -> StoredFrames:
    """Return the shared record of the addresses of an object's frames in this process."""
    with _lock:
        return _stored.setdefault(id(ims), StoredFrames(ims, nframes, frame_nbytes))
