"""Whether the object that gave a frame may write to its memory again, and what follows from that.

Detector readers fill one buffer, or a few in turn, and return it for every frame. Such a frame must
be copied before the next one is fetched, by any thread. One that nobody else holds needs neither a
copy nor a lock, nor does a view of an array that holds the whole series.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

import numpy as np

# Seconds between looks whether other threads have fetched their frames; it happens once a series.
LOOK = 0.001

# References to an array that one variable of the caller holds, and to one that a view holds, as
# `is_own` counts them. They differ between interpreters; see `_calibrated`.
_alone = _viewed = 0


def is_own(array: np.ndarray) -> bool:
    """Whether nothing but one variable of the caller holds an array and its memory.

    That memory must be numpy's own, or of bytes, which nobody changes: anything else may be known
    to others without being counted.
    """
    if sys.getrefcount(array) > _alone:
        return False
    base = array.base
    while isinstance(base, np.ndarray):
        if sys.getrefcount(base) > _viewed:
            return False
        array, base = base, base.base
    return array.flags.owndata if base is None else type(base) is bytes


def _calibrated() -> bool:
    """Find out how this interpreter counts references; return whether it does so exactly."""
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
    """Recognises views of one array that holds the whole series, where nothing needs refilling.

    The address of such a frame follows from its number, and all of them lie within that array. One
    buffer, or a few that are used in turn, have no room for that.
    """

    def __init__(self, nframes: int, frame_nbytes: int) -> None:
        self._last, self._nbytes = nframes - 1, nframes * frame_nbytes
        self._seen: tuple[int, int] | None = None
        self._line: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def has(self, index: int, frame: np.ndarray) -> bool | None:
        """Whether a frame is one of them; None if that cannot be told before another is seen."""
        memory = frame
        while isinstance(memory.base, np.ndarray):
            memory = memory.base
        if memory.nbytes < self._nbytes:
            return False
        address: int = frame.__array_interface__["data"][0]
        if self._line is None:
            return self._learn(index, address, frame, memory)
        return address == self._line[0] + index * self._line[1]

    def _learn(
        self, index: int, address: int, frame: np.ndarray, memory: np.ndarray
    ) -> bool | None:
        with self._lock:
            seen = self._seen = self._seen or (index, address)
        if seen[0] == index:
            return None if seen[1] == address else False
        step, rest = divmod(address - seen[1], index - seen[0])
        low, high = np.lib.array_utils.byte_bounds(frame)
        ends = [(number - index) * step for number in (0, self._last)]
        start, stop = np.lib.array_utils.byte_bounds(memory)
        if rest or not step or low + min(ends) < start or high + max(ends) > stop:
            return False
        self._line = address - index * step, step
        return True


class Gate:
    """Lets threads fetch frames of one object: one at a time, or in parallel while that is safe.

    It is safe as long as every frame that turns up lasts. One that does not, fetched in parallel,
    may have been filled again by another thread already: it is fetched again, `alone`.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._parallel = self._refilled = False
        self._fetching: list[None] = []
        self._lock = threading.RLock()

    def begin(self) -> bool:
        """Begin to fetch in parallel with others, until `end`; return False if that is not safe.

        Frames are small and many, so this takes no lock: it is counted first and looked up then,
        while `alone` forbids it first and looks at the count then.
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

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Fetch, and copy, while no other thread does, unless that has turned out not to be needed.

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

    def note(self, lasts: bool | None) -> None:
        """Note whether a frame lasts, None if that is not known; one that does not settles it.

        Without exact counts of references nothing is known of the frames to come.
        """
        self._refilled |= lasts is False
        self._parallel = COUNTED and lasts is True and not self._refilled


_gates: WeakValueDictionary[int, Gate] = WeakValueDictionary()
_lock = threading.Lock()


def gate_of(number: int) -> Gate:
    """Return the gate of an object, by its ``id`` in the process where it was first given.

    Two series of one object have one gate, and so have the copies of a series that are sent to one
    process, which may share a reader.
    """
    with _lock:
        return _gates.setdefault(number, Gate(number))
