"""Image series for tests: they log their reads, and are slow, broken or deadly on demand."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from daskstats import Statistic

U2 = np.dtype("u2")


class FakeSeries:
    """An image series as strict as HEXRD's: four names, and keys that are Python ints.

    A copy sent to another process keeps all of this; only the file `log` is common to all copies.

    Parameters
    ----------
    frames : array_like or callable
        The frames, or a function that returns the frame of an index: see `Filled` and `Ramp`.
    nframes : int, optional
        Length of the series; by default that of `frames`.
    shape, dtype : optional
        Claimed shape and dtype, returned unchanged; by default those of `frames`, or of frame 0.
    decode : callable, optional
        Applied to each frame before it is returned; ``np.copy`` makes every frame new.
    delay : float
        Seconds that a read takes.
    on_read : callable, optional
        Called with the index once the read has been logged: see `Fail` and `Kill`.
    log : path, optional
        File to which every process appends the numbers of the frames that it reads.

    Attributes
    ----------
    reads : list of int
        Frames read in this process, in order.
    most : int
        Largest number of reads at the same time.
    asked : Counter
        How often the length, the shape and the dtype were asked for.
    """

    def __init__(
        self,
        frames: Any,
        nframes: int | None = None,
        *,
        shape: Any = ...,
        dtype: Any = ...,
        decode: Callable[[Any], Any] | None = None,
        delay: float = 0,
        on_read: Callable[[int], object] | None = None,
        log: Path | None = None,
    ) -> None:
        self._frames, self._nframes = frames, nframes
        self._shape, self._dtype = shape, dtype
        self._decode, self._delay, self._on_read = decode, delay, on_read
        self._log = None if log is None else str(log)
        # Appending and removing are atomic; adding to a number, or keeping the largest, is not.
        self._active: list[int] = []
        self._together: list[int] = []
        self.reads: list[int] = []
        self.asked: Counter[str] = Counter()

    def __len__(self) -> int:
        self.asked["len"] += 1
        return self._length()

    def _length(self) -> int:
        return len(self._frames) if self._nframes is None else self._nframes

    def __getitem__(self, index: int) -> Any:
        if type(index) is not int:
            raise IndexError(f"{index!r} is a {type(index).__name__}, not an int")
        if not 0 <= index < self._length():
            raise IndexError(f"there is no frame {index}")
        self._active.append(index)
        self._together.append(len(self._active))
        try:
            self._note(index)
            if self._on_read is not None:
                self._on_read(index)
            if self._delay:
                time.sleep(self._delay)
            return self.frame(index)
        finally:
            self._active.remove(index)

    def _note(self, index: int) -> None:
        self.reads.append(index)
        if self._log is not None:
            file = os.open(self._log, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
            os.write(file, b"%d\n" % index)
            os.close(file)

    @property
    def most(self) -> int:
        return max(self._together, default=0)

    @property
    def shape(self) -> Any:
        self.asked["shape"] += 1
        return self._example().shape if self._shape is ... else self._shape

    @property
    def dtype(self) -> Any:
        self.asked["dtype"] += 1
        return self._example().dtype if self._dtype is ... else self._dtype

    def _example(self) -> Any:
        """Return an object with the shape and the dtype of a frame."""
        return self._frames if callable(self._frames) else self._frames[0]

    def frame(self, index: int) -> Any:
        """Return a frame without a trace in the log."""
        frame = self._frames(index) if callable(self._frames) else self._frames[index]
        return frame if self._decode is None else self._decode(frame)

    def stack(self) -> np.ndarray:
        """Return all frames without a trace in the log."""
        return np.array([self.frame(index) for index in range(self._length())])

    def logged(self) -> Counter[int]:
        """Return how often each frame has been read by any process, from the file."""
        path = Path(str(self._log))
        return Counter(map(int, path.read_text().split())) if path.exists() else Counter()


def wait_for_another(ims: FakeSeries, seconds: float = 0.2) -> None:
    """Wait until two threads have read at once, which takes a busy machine a while."""
    deadline = time.monotonic() + seconds
    while ims.most < 2 and time.monotonic() < deadline:
        time.sleep(0.002)


# Frames that follow from their numbers, so that few bytes are sent with a series.


@dataclass(frozen=True)
class Filled:
    """Frames of one value: the number of the frame, or its remainder."""

    shape: tuple[int, int]
    dtype: np.dtype = U2
    modulus: int | None = None

    def __call__(self, index: int) -> np.ndarray:
        return np.full(self.shape, index % self.modulus if self.modulus else index, self.dtype)


@dataclass(frozen=True)
class Ramp:
    """Frames with a different value in almost every pixel."""

    shape: tuple[int, int] = (16, 24)
    dtype: np.dtype = U2

    def __call__(self, index: int) -> np.ndarray:
        ramp = np.arange(self.shape[0] * self.shape[1], dtype="u4").reshape(self.shape)
        return ((ramp * 7 + index * 7919) % 60013).astype(self.dtype)


class Noise:
    """Poisson counts: windows that move over one larger frame."""

    def __init__(self, shape: tuple[int, int] = (96, 128), dtype: Any = "u2") -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        rows, cols = shape
        self._base = np.random.default_rng(7).poisson(60, (rows + 31, cols)).astype(dtype)

    def __call__(self, index: int) -> np.ndarray:
        first = index * 13 % 31
        return self._base[first : first + self.shape[0]] + self.dtype.type(index % 5)


# Functions for `on_read`.


class Fail:
    """Raise an error when a frame is read, as many times as given for it."""

    def __init__(self, times: dict[int, int], error: Exception) -> None:
        self.times, self.error = dict(times), error

    def __call__(self, index: int) -> None:
        if self.times.get(index, 0) > 0:
            self.times[index] -= 1
            raise self.error


@dataclass(frozen=True)
class At:
    """Call a function when one frame is read."""

    index: int
    function: Callable[[], object]

    def __call__(self, index: int) -> None:
        if index == self.index:
            self.function()


@dataclass(frozen=True)
class Kill:
    """Kill the process that reads one frame."""

    index: int

    def __call__(self, index: int) -> None:
        if index == self.index:
            os.kill(os.getpid(), signal.SIGKILL)


# Series that differ in more than their reads.


class NumpyIntegers(FakeSeries):
    """A series whose length and shape are numpy integers, and whose dtype is a string."""

    def __len__(self) -> int:
        return np.int64(super().__len__())

    @property
    def shape(self) -> Any:
        return np.array(super().shape, np.uint16)

    @property
    def dtype(self) -> Any:
        return super().dtype.str


class Mock(FakeSeries):
    """A series that has every attribute, as test doubles of other packages do."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_frames":
            raise AttributeError(name)
        return mock.MagicMock()


class Refilling(FakeSeries):
    """A series that returns a buffer which it fills again, as detector readers do.

    Parameters
    ----------
    frames : array_like
        As of `FakeSeries`.
    buffers : int or list of ndarray
        Buffers that are used in turn, or their number.
    fresh : int
        Frames before this one have memory of their own.
    delay : float
        Seconds before the buffer is filled, and again after it.
    """

    def __init__(self, frames: Any, buffers: Any = 1, fresh: int = 0, delay: float = 0) -> None:
        super().__init__(frames, delay=delay)
        if isinstance(buffers, int):
            buffers = [np.empty_like(frames[0]) for _ in range(buffers)]
        self.buffers, self.fresh, self.fills = buffers, fresh, 0

    def frame(self, index: int) -> np.ndarray:
        frame = super().frame(index)
        if index < self.fresh:
            buffer = frame.copy()
        else:
            buffer = self.buffers[self.fills % len(self.buffers)]
            self.fills += 1
            buffer[...] = frame
        time.sleep(self._delay)
        return buffer


def holding(frames: Any, held: object) -> FakeSeries:
    """Return a series that holds an object: with a lock, it cannot be pickled."""
    ims = FakeSeries(frames)
    ims.held = held
    return ims


def count_unequal(value: Any = None) -> Statistic:
    """Return a statistic made of lambdas, which cloudpickle sends if it can send the value."""
    return Statistic(
        "lit",
        lambda pieces, start: {"lit": sum((b != value).sum(axis=0) for p in pieces for b in p)},
        lambda a, b: {"lit": a["lit"] + b["lit"]},
        lambda state, image: np.copyto(image, state["lit"]),
        dtype="int64",
    )


def read_only(frame: np.ndarray) -> np.ndarray:
    """Return a view of a frame that cannot be written to: for `decode`."""
    view = frame.view()
    view.flags.writeable = False
    return view
