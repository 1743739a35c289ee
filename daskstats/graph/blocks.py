"""Blocks of frames as tasks get them, piece by piece. Nothing here knows dask."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..planning.values import Range
from ..scratch.directories import DamagedScratchError
from ..scratch.store import GroupManifest, ScratchStore
from ..series.base import Source, as_frames, check_dtype, check_frame
from ..series.foreign import check_plain
from ..series.piece import Piece
from ..series.sparse import SparseBlock, SparsePiece, SparseSource


@dataclass(frozen=True)
class SourceBlocks:
    """Rows of frames of a series that a task reads itself, some frames at a time."""

    series: Source
    start: int
    stop: int
    first: int
    last: int
    count: int

    @property
    def dtype(self) -> np.dtype:
        return self.series.dtype

    def __iter__(self) -> Iterator[Piece]:
        return self.series.pieces(self.start, self.stop, self.first, self.last, self.count)


@dataclass(frozen=True)
class SparseBlocks(SourceBlocks):
    """Rows of sparse frames of a series that a task reads itself."""

    series: SparseSource

    def __iter__(self) -> Iterator[SparsePiece]:  # type: ignore[override]
        return self.series.sparse_pieces(self.start, self.stop, self.first, self.last, self.count)


@dataclass(frozen=True)
class ResidentBlocks:
    """Rows of frames that other tasks have read."""

    loads: Sequence[list[np.ndarray]]
    dtype: np.dtype
    first: int
    last: int

    def __iter__(self) -> Iterator[Piece | SparsePiece]:
        self._check()
        yield Piece.joined(self.loads).rows(self.first, self.last)

    def _check(self) -> None:
        if not all(self.loads):
            raise RuntimeError("frames that were kept in memory have been given back: compute anew")


@dataclass(frozen=True)
class ResidentSparseBlocks(ResidentBlocks):
    """Rows of sparse frames that other tasks have read."""

    loads: Sequence[list[SparseBlock]]  # type: ignore[assignment]
    cols: int

    def __iter__(self) -> Iterator[SparsePiece]:
        self._check()
        blocks = (block for load in self.loads for block in load)
        yield SparsePiece(blocks, self.cols, self.first, self.last)


@dataclass(frozen=True)
class DaskBlocks:
    """Rows of the blocks of a dask array, a list of neighbours in a row for each run of frames."""

    blocks: Sequence[Sequence[np.ndarray]]
    runs: Sequence[Range]
    """first frame and end of each run"""
    shape: tuple[int, int]
    """of a frame in the blocks of a run, side by side"""
    dtype: np.dtype
    first: int
    last: int

    def __iter__(self) -> Iterator[Piece]:
        for row, run in zip(self.blocks, self.runs, strict=True):
            yield Piece([self._block(row, *run)])

    def _block(self, row: Sequence[np.ndarray], start: int, stop: int) -> np.ndarray:
        for part in row:
            # Joined to others, it would lose its mask or its unit.
            check_plain(part, start, self.dtype)
        block = np.concatenate(row, axis=1) if len(row) > 1 else np.asarray(row[0])
        check_frame(block.shape, (stop - start, *self.shape), start)
        check_dtype(block.dtype, self.dtype, start)
        return as_frames(block[:, self.first : self.last], self.dtype)


@dataclass(frozen=True)
class ScratchBlocks:
    """Rows of all frames that other tasks have written to disk."""

    spool: ScratchStore
    written: Sequence[GroupManifest]
    band: int
    """its number"""

    @property
    def dtype(self) -> np.dtype:
        return self.spool.dtype

    def __iter__(self) -> Iterator[Piece]:
        try:
            yield Piece([self.spool.read(self.band, self.written)])
        except DamagedScratchError as error:
            self.spool.remove(error)  # which tasks that read at the same time get as well
            raise


Blocks = SourceBlocks | ResidentBlocks | DaskBlocks | ScratchBlocks
