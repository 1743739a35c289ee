"""Fusion: several statistics in one pass over the frames.

Frame-wise statistics are fused into one fold with the accumulators of all. If one of several is
row-wise, all are computed by bands of rows: a few rows of each while these are in a cache, until
the images of the band are finished.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat, zip_longest
from typing import ClassVar, NamedTuple

import numpy as np
from dask.base import tokenize

from ..memory.pool import BufferPool
from ..planning.values import PIECE
from .accumulators import Accumulator
from .base import BandLoops, Chunk, Loop, Piece, State, Statistic, finish_rows, place_rows
from .folds import Fold
from .ranks import Percentiles, SharedPercentiles
from .shared import Counting, load_kernels

# Bytes of rows that one loop passes over before the next: small enough for a cache that the cores
# share, large enough for the cost of a call not to matter.
CACHED = 2 << 20

# Folds that rebuild their state take four times as many rows per pass.
LONG_PASS = 4

# Buffers of the bands of the last images, at most 32 MB: fresh memory for those of four images of
# 2 MB to 8 MB takes 7 ms of a core.
band_pool = BufferPool(pieces=8, largest=4 << 20)


@dataclass(frozen=True)
class FusedStatistic(Statistic):
    """Several statistics, with their states as arrays of one state."""

    members: tuple[Statistic, ...] = ()
    """the statistics of the images"""
    prefixes: tuple[str, ...] = ()
    """for each member the prefix of the names of its arrays, "" if the arrays are shared"""
    made_of: tuple = ()
    """the arguments of `fuse`, which identify the result"""

    @cached_property
    def _token(self) -> str:
        return tokenize(*self.made_of)

    def split(self, state: State) -> tuple[State, ...]:
        return tuple(arrays_of(state, prefix) for prefix in self.prefixes)


@dataclass(frozen=True, eq=False)
class OwnState(Accumulator):
    """The state of a statistic with functions of its own, among the accumulators of others.

    ``name`` is the prefix of its arrays.
    """

    statistic: Statistic
    counts: ClassVar[bool] = False
    by_pixel: ClassVar[bool] = False
    # Those of an accumulator compare the name only, by which two statistics would be one.
    __eq__, __hash__ = object.__eq__, object.__hash__

    def open(self, piece: Piece, start: int, state: State, counting: Counting) -> None:
        before = arrays_of(state, self.name) or None
        state |= self._named(self.statistic.advance([piece], start, before))

    def folds_sparse(self, frames: np.dtype) -> bool:
        return False

    def combine(self, a: State, b: State) -> State:
        states = arrays_of(a, self.name), arrays_of(b, self.name)
        return self._named(self.statistic.combine(*states))

    def nbytes(self, frames: np.dtype, nframes: int) -> int:
        return self.statistic.state_size(frames, nframes)

    def temporaries(self, frames: np.dtype) -> int:
        return self.statistic.scratch_size(frames)

    def pack(self, state: State) -> State:
        return self._named(self.statistic.packed(arrays_of(state, self.name)))

    def _named(self, state: State) -> State:
        return {f"{self.name}{name}": array for name, array in state.items()}


def arrays_of(state: State, prefix: str) -> State:
    """Return the arrays with a prefix in their names, which is removed.

    >>> arrays_of({"max": 1, "2.lit": 2, "2.dark": 3}, "2.")
    {'lit': 2, 'dark': 3}
    """
    if not prefix:
        return state
    return {k.removeprefix(prefix): array for k, array in state.items() if k.startswith(prefix)}


def fuse(
    members: Sequence[Statistic], dtypes: Sequence[np.dtype], frames: np.dtype
) -> Statistic | FusedStatistic:
    """Return one statistic that computes several; a single one is returned as it is.

    Parameters
    ----------
    members : sequence of Statistic
        Frame-wise, row-wise, or both.
    dtypes : sequence of dtype
        Of the images.
    frames : dtype
        Of the frames.

    Examples
    --------
    >>> from daskstats.statistics import average, maximum
    >>> frames = np.array([[[1, 2]], [[3, 0]]], "u1")
    >>> both = fuse([maximum, average], [frames.dtype, np.dtype("f4")], frames.dtype)
    >>> states = both.split(both.chunk([[frames]], 0))
    >>> [member.image(s, (1, 2), np.dtype("f4")).tolist() for member, s in
    ...  zip(both.members, states)]
    [[[3.0, 2.0]], [[2.0, 1.0]]]
    """
    if len(members) == 1:
        return members[0]
    if any(member.along == "rows" for member in members):
        return fuse_rows(members, dtypes, frames)
    fold, prefixes = _united(dict(enumerate(members)))
    return FusedStatistic(
        name=_joint_name(members),
        chunk=fold,
        combine=fold.combine,
        finalize=_no_image,
        state_nbytes=fold.nbytes,
        scratch=fold.temporaries,
        in_place=True,
        pack=fold.pack,
        members=tuple(members),
        prefixes=prefixes,
        made_of=(tuple(members), tuple(dtypes), frames),
    )


def _joint_name(members: Sequence[Statistic]) -> str:
    return "-".join(dict.fromkeys(member.name for member in members))


def _united(members: dict[int, Statistic]) -> tuple[Fold, tuple[str, ...]]:
    """Return the fold of all accumulators of numbered statistics, and the prefix of each one.

    >>> from daskstats.statistics import maximum, std
    >>> fold, prefixes = _united({0: maximum, 1: std})
    >>> [need.name for need in fold.needs], prefixes
    (['max', 'moments', 'count'], ('', ''))
    """
    folds = {k: m.chunk for k, m in members.items() if isinstance(m.chunk, Fold)}
    validity = next((fold.validity for fold in folds.values()), None)
    needs: list[Accumulator] = []
    prefixes = []
    for number, member in members.items():
        fold = folds.get(number)
        shared = fold is not None and fold.validity == validity
        prefixes.append("" if shared else f"{number}.")
        needs += fold.needs if fold and shared else [OwnState(prefixes[-1], member)]
    return Fold(tuple(dict.fromkeys(needs)), validity), tuple(prefixes)


def _no_image(state: State, image: np.ndarray) -> None:
    raise TypeError("several statistics together have no image: split their state")


# ---------------------------------------------------------------------- bands of rows


class Part(NamedTuple):
    """A pass over a band of rows, and the statistics that are finished from its state."""

    chunk: Callable[..., State]
    begin: Callable[[Piece], BandLoops | None] | None
    along: str
    numbers: tuple[int, ...]
    """of the statistics"""
    prefixes: tuple[str, ...]
    """of the names of each one's arrays"""


def fuse_rows(
    members: Sequence[Statistic], dtypes: Sequence[np.dtype], frames: np.dtype
) -> FusedStatistic:
    """Return one row-wise statistic that computes several, row-wise or frame-wise.

    Percentiles of the same values are united, folds with loops over a few pixels, and the others.
    """
    parts, states = list(_row_wise_parts(members)), 0
    groups: dict[bool, dict[int, Statistic]] = {True: {}, False: {}}
    for number, member in enumerate(members):
        if member.along == "frames":
            loops = isinstance(member.chunk, Fold) and member.chunk.has_loops(frames)
            groups[loops][number] = member
    for group in filter(None, groups.values()):
        fold, prefixes = _united(group)
        parts.append(Part(fold, fold.open_loops, "frames", tuple(group), prefixes))
        states += fold.nbytes(frames, 1 << 40)
    images = tuple(map(_rows_of_image, members, dtypes))
    finished = sum(image.state_size(frames, 0) for image in images)
    return FusedStatistic(
        name=_joint_name(members),
        chunk=Band(tuple(parts), tuple(members), tuple(dtypes)),
        combine=place_rows,
        finalize=_no_image,
        along="rows",
        state_nbytes=finished,
        # A fold has, in addition to its state, temporaries of four arrays of float64.
        scratch=finished
        + (states + 32 if states else 0)
        + sum(member.scratch_size(frames) for member in members),
        tile=(sum(m.tile[0] for m in members), sum(m.tile[1] for m in members)),
        members=images,
        prefixes=tuple(f"{number}." for number in range(len(images))),
        made_of=(tuple(members), tuple(dtypes), frames),
    )


def _row_wise_parts(members: Sequence[Statistic]) -> Iterator[Part]:
    """Yield the parts of row-wise statistics: one for all percentiles of the same valid values."""
    shared: dict[tuple, dict[int, Percentiles]] = {}
    for number, member in enumerate(members):
        if isinstance(band := member.chunk, Percentiles):
            shared.setdefault((band.validity, band.fill), {})[number] = band
        elif member.along == "rows":
            yield Part(member.first_state, member.begin, "rows", (number,), ("",))
    for bands in shared.values():
        prefixes = tuple(f"{number}." for number in bands)
        loops = SharedPercentiles(tuple(bands.values()), prefixes).open_loops
        chunk: Callable[..., State] = _no_image  # type: ignore[assignment]
        yield Part(chunk, loops, "rows", tuple(bands), prefixes)


def _rows_of_image(member: Statistic, dtype: np.dtype) -> Statistic:
    """Return the row-wise statistic that places finished rows of another one's image."""
    return Statistic(
        name=member.name,
        chunk=_no_image,  # type: ignore[arg-type]
        combine=place_rows,
        finalize=finish_rows,
        along="rows",
        dtype=str(dtype),
        state_nbytes=dtype.itemsize * (member.planes or 1),
        planes=member.planes,
    )


@dataclass(frozen=True)
class Band(Chunk):
    """The rows of all images, from all frames of a band of rows."""

    parts: tuple[Part, ...]
    members: tuple[Statistic, ...]
    dtypes: tuple[np.dtype, ...]

    def __call__(self, pieces: Iterable[Piece], start: int) -> State:
        """Compute a few rows of each part's images after those of the others."""
        piece = Piece.joined(pieces)
        every = zip(self.members, self.dtypes, strict=True)
        images = [band_pool.array(m.image_shape(*piece.shape), dtype) for m, dtype in every]
        opened = [part.begin and part.begin(piece) for part in self.parts]
        loops = load_kernels().sharing(loop for each in opened if each for loop in each.loops)
        alone = len(loops) == 1 and None not in opened
        few = piece.shape[0] if alone else _rows_in_cache(piece)
        passes: list[Iterator[None]] = [_run_loops(loops, piece, few)] if loops else []
        for part, each in zip(self.parts, opened, strict=True):
            if each is None:
                passes.append(self._fold_rows(part, piece, few, start, images))
        for _ in zip_longest(*passes):
            pass
        for part, each in zip(self.parts, opened, strict=True):
            if each is not None:
                self._write(part, each.state(), images)
        return {f"{number}.{start}": image for number, image in enumerate(images)}

    def _fold_rows(
        self, part: Part, piece: Piece, few: int, start: int, images: list[np.ndarray]
    ) -> Iterator[None]:
        """Fold some rows of a piece at a time, and write these rows of the images."""
        height, several = piece.shape[0], few * LONG_PASS
        for first in range(0, height, several):
            last = min(first + several, height)
            rows = _few_frames(piece.rows(first, last))
            if part.along == "rows":
                (band,) = part.chunk(rows, start + first).values()
                state = {"0": band}
            else:
                state = part.chunk(rows, 0)
            self._write(part, state, [image[..., first:last, :] for image in images])
            # To stay in step with the other passes.
            yield from repeat(None, LONG_PASS)

    def _write(self, part: Part, state: State, images: list[np.ndarray]) -> None:
        """Write the images, or rows of them, that are finished from a state of a part."""
        for number, prefix in zip(part.numbers, part.prefixes, strict=True):
            member, image = self.members[number], images[number]
            if member.along == "rows" and member.finalize is not finish_rows:
                image[...] = 0
            member.write(arrays_of(state, prefix), image)


def _rows_in_cache(piece: Piece) -> int:
    """Return the rows of a piece that each loop passes over before the next one does."""
    return max(1, CACHED // sum(block[:, :1].nbytes for block in piece))


def _run_loops(loops: Sequence[Loop], piece: Piece, few: int) -> Iterator[None]:
    """Run all loops over a few rows at a time."""
    rows, cols = piece.shape
    for first in range(0, rows, few):
        for loop in loops:
            loop.run(first * cols, min(first + few, rows) * cols)
        yield


def _few_frames(piece: Piece) -> Iterable[Piece]:
    """Return all frames as one piece, or a few at a time where a fold would copy them."""
    if piece.dtype != np.float16:
        return [piece]
    return (
        Piece([block[edge : edge + PIECE]])
        for block in piece
        for edge in range(0, len(block), PIECE)
    )
