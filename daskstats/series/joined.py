"""Several series, one after the other: the files of a scan."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from .base import Origins, Source

# Files that stay open between two reads: a quarter of the lowest limit of any system, of macOS.
MOST_OPEN = 64


class JoinedSource(Source):
    """The frames of several series of one shape and dtype, in their order.

    Parameters
    ----------
    parts : sequence of Source
        At least one.

    Examples
    --------
    >>> from daskstats.series.arrays import ArraySource
    >>> joined = JoinedSource([ArraySource(np.full((n, 1, 2), n)) for n in (2, 3)])
    >>> joined, [block.shape[0] for block in joined.read(1, 4, 0, 1)]
    (<JoinedSource: 5 frames of 1 x 2 int64>, [1, 2])
    """

    def __init__(self, parts: Sequence[Source]) -> None:
        self.parts = list(parts)
        first = self.parts[0]
        for part in self.parts[1:]:
            check_alike(first, part)
        counts = [len(part) for part in self.parts]
        self._edges = np.fromiter(accumulate(counts, initial=0), np.int64)
        self.set_layout((int(self._edges[-1]), *first.shape), first.dtype)
        self.frame_unit = max(min(part.frame_unit, len(part)) for part in self.parts)
        units = {part.row_unit for part in self.parts}
        self.row_unit = units.pop() if len(units) == 1 else None
        self.buffers = max(part.buffers for part in self.parts)
        self.stored = max(part.stored for part in self.parts)
        self.kept = sum(part.kept for part in self.parts)
        self._open()

    def _open(self) -> None:
        # A series that was in memory may be read from its file elsewhere.
        self.in_memory = self.apart = all(part.in_memory for part in self.parts)
        self._opened: OrderedDict[int, Source] = OrderedDict()
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        left = ("_opened", "_lock", "_missing")
        return {name: value for name, value in vars(self).items() if name not in left}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def files(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(file for part in self.parts for file in part.files()))

    def origins(self) -> Origins:
        return [origin for part in self.parts for origin in part.origins()]

    def frames_without_data(self) -> np.ndarray:
        if "_missing" not in vars(self):
            every = zip(self.parts, self._edges, strict=False)
            self._missing = np.concatenate(
                [part.frames_without_data() + first for part, first in every]
            )
        return self._missing

    def _try(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        # Each part tries again itself, and names its own frames in errors.
        return self.read(start, stop, first, last)

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        blocks: list[np.ndarray] = []
        for number, begin, end in self._spans(start, stop):
            part = self.parts[number]
            try:
                for piece in part.pieces(begin, end, first, last, end):
                    blocks += piece.views
            except Exception as error:
                if part.files():
                    error.add_note(f"of {part.files()[0]}")
                raise
            self._note_open(number, part)
        return blocks

    def _spans(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield the number of each part that has some of the frames, and the first and last."""
        number = int(np.searchsorted(self._edges, start, side="right")) - 1
        while number < len(self.parts) and self._edges[number] < stop:
            begin, end = int(self._edges[number]), int(self._edges[number + 1])
            yield number, max(start, begin) - begin, min(stop, end) - begin
            number += 1

    def release(self) -> None:
        for part in self.parts:
            part.release()

    def _note_open(self, number: int, part: Source) -> None:
        """Close the file that was read longest ago, if too many are open."""
        with self._lock:
            self._opened[number] = part
            self._opened.move_to_end(number)
            if len(self._opened) > MOST_OPEN:
                _, oldest = self._opened.popitem(last=False)
                oldest.release()

    def __repr__(self) -> str:
        files = self.files()
        text = super().__repr__()
        return f"{text[:-1]} in {files[0]} to {files[-1]}>" if files else text

    def __dask_tokenize__(self) -> object:
        return "joined", *(part.__dask_tokenize__() for part in self.parts)


def check_alike(first: Source, other: Source) -> None:
    """Refuse a series with frames unlike those of the first one."""
    if (first.shape, first.dtype) != (other.shape, other.dtype):
        raise ValueError(
            f"the frames of a series must be alike: {_described(first)}, and {_described(other)}"
        )


def _described(source: Source) -> str:
    files = source.files()
    rows, cols = source.shape
    return f"{files[0] if files else 'one part'} has frames of {rows} x {cols} {source.dtype}"
