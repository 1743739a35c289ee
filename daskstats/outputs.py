"""What becomes of states: several statistics in one pass, and the images of each.

Statistics that are computed together fold the same pieces one after the other, while these are in
memory, into one state: the arrays of all. Where one of them is row-wise all are done by bands of
rows, each frame-wise one folded and finished there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .leases import Pool
from .statistics import (
    Piece,
    State,
    Statistic,
    covers,
    finish_rows,
    joined,
    place_rows,
)

# What a consumer has dropped of the last few images, 64 MB at the most; what it keeps is its own.
_images = Pool(pieces=8, largest=8 << 20)

# What the bands of the last images have left, 32 MB at the most: fresh memory for those of four
# images of 2 MB to 8 MB takes 7 ms of a core.
_bands = Pool(pieces=32, largest=1 << 20)

# Bytes of a band of rows that all statistics pass over before the next: small enough for a cache
# that is shared by the cores, large beside the cost of calling them (some 0.05 ms).
CACHED = 8 << 20

# Frames that float16 is widened for at once.
FEW_FRAMES = 8


@dataclass(frozen=True, eq=False)
class Output:
    """The images of one statistic: their shape and dtype, and what stands where nothing counts."""

    statistic: Statistic
    rows: int
    """of an image"""
    cols: int
    """of an image"""
    dtype: np.dtype
    """of an image"""
    mask: np.ndarray | None = None
    """(rows, cols) bool: pixels that are left out of every frame"""
    fill: Any = None
    """what stands there"""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image; several percentiles are planes before the rows."""
        return self.statistic.image_shape(self.rows, self.cols)

    def is_state(self, frames: np.dtype) -> bool:
        """Whether an image may be the one array of a state, folded from frames of a dtype."""
        # float16 is widened to be folded.
        return self.mask is None and self.dtype == frames and frames != np.float16

    def empty(self) -> np.ndarray:
        """Return an image to be written, in recycled memory."""
        return _images.array(self.shape, self.dtype)

    def blank(self) -> np.ndarray:
        """Return an image of nothing yet."""
        image = self.empty()
        image[...] = 0
        return image

    def image(self, state: State) -> np.ndarray:
        """Return the image of a state: always an array of its own."""
        image = self.blank() if self.statistic.along == "rows" else self.empty()
        self.write(state, image)
        return image

    def copy(self, image: np.ndarray) -> np.ndarray:
        """Return another image like one."""
        copy = self.empty()
        copy[...] = image
        return copy

    def write(self, state: State, image: np.ndarray, first: int = 0) -> None:
        """Write a state into an image, or into its rows from ``first`` on."""
        self.statistic.write(state, image)
        if self.statistic.along == "frames":
            self._leave_out(image, first)
            return
        for start, band in state.items():
            edge = int(start)
            self._leave_out(image[..., edge : edge + band.shape[-2], :], edge)

    def band(self, state: State) -> np.ndarray:
        """Return the rows of the one band that a state has."""
        ((first, band),) = state.items()
        finished = self.statistic.finalize is finish_rows and band.dtype == self.dtype
        if finished and self.mask is None:
            return band  # which nobody else has
        rows = _bands.array((*self.shape[:-2], *band.shape[-2:]), self.dtype)
        rows[...] = 0
        self.statistic.write({"0": band}, rows)
        self._leave_out(rows, int(first))
        return rows

    def _leave_out(self, image: np.ndarray, first: int) -> None:
        if self.mask is not None:
            image[..., self.mask[first : first + image.shape[-2]]] = self.fill

    def __dask_tokenize__(self) -> Any:
        return self.statistic, self.rows, self.cols, str(self.dtype), self.mask, self.fill


class Images:
    """The images of a running reduction, as the partial states of its steps come in.

    Parameters
    ----------
    statistic : Statistic
        What the states are of.
    outputs : sequence of Output
        One for each statistic in it.
    running : bool
        Whether what comes in is the state of all steps so far instead.

    Examples
    --------
    >>> from daskstats.statistics import maximum
    >>> frames = np.array([[[1, 2]], [[3, 0]]], "u1")
    >>> images = Images(maximum, [Output(maximum, 1, 2, frames.dtype)])
    >>> states = [maximum.chunk([[frame[None]]], k) for k, frame in enumerate(frames)]
    >>> [images.after([state])[0].tolist() for state in states]
    [[[1, 2]], [[3, 2]]]
    """

    def __init__(
        self, statistic: Statistic, outputs: Sequence[Output], running: bool = False
    ) -> None:
        self._statistic, self._outputs, self._running = statistic, outputs, running
        self._state: State | None = None
        # Rows that are done stay as they are: images are copies of these, which fill up.
        rowwise = statistic.along == "rows"
        self._rows = [np.zeros(o.shape, o.dtype) for o in outputs] if rowwise else None

    def after(self, states: Iterable[State]) -> list[np.ndarray]:
        """Return the images up to the next step, whose states are taken one by one."""
        for state in states:
            self._add(state)
        if self._rows is not None:
            return [o.copy(rows) for o, rows in zip(self._outputs, self._rows, strict=True)]
        assert self._state is not None
        states = self._statistic.split(self._state)
        return [output.image(own) for output, own in zip(self._outputs, states, strict=True)]

    def _add(self, state: State) -> None:
        before = self._state
        if self._rows is not None:
            new = state if before is None else {k: state[k] for k in state.keys() - before.keys()}
            every = zip(self._outputs, self._statistic.split(new), self._rows, strict=True)
            for output, own, rows in every:
                output.write(own, rows)
        elif before is not None and not self._running:
            state = self._statistic.combine(before, state)
        self._state = state


# ---------------------------------------------------------------------- several in one pass


@dataclass(frozen=True)
class Together(Statistic):
    """Several statistics whose states are kept in one, under the number of each."""

    members: tuple[Statistic, ...] = ()
    """whose images are wanted"""
    places: tuple[int, ...] = ()
    """the number of the state that each of them has"""

    def split(self, state: State) -> tuple[State, ...]:
        parts = split_state(state, max(self.places) + 1)
        return tuple(parts[place] for place in self.places)


def together(members: Sequence[Statistic], dtypes: Sequence[np.dtype], frames: np.dtype) -> Any:
    """Return the statistic that is several at once; one alone stays itself.

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
    >>> both = together([maximum, average], [frames.dtype, np.dtype("f4")], frames.dtype)
    >>> states = both.split(both.chunk([[frames]], 0))
    >>> [member.image(s, (1, 2), np.dtype("f4")).tolist() for member, s in
    ...  zip(both.members, states)]
    [[[3.0, 2.0]], [[2.0, 1.0]]]
    """
    if len(members) == 1:
        return members[0]
    name = "-".join(dict.fromkeys(member.name for member in members))
    if all(member.along == "frames" for member in members):
        return _frame_wise(name, members, frames)
    return _row_wise(name, members, dtypes, frames)


def _frame_wise(name: str, members: Sequence[Statistic], frames: np.dtype) -> Together:
    # A sum is part of what a variance of small integers needs: one fold serves several.
    folds: list[Statistic] = []
    for member in members:
        if not any(covers(fold, member, frames) for fold in folds):
            folds = [fold for fold in folds if not covers(member, fold, frames)] + [member]
    folds = joined(folds, frames)
    places = [
        next(index for index, fold in enumerate(folds) if covers(fold, member, frames))
        for member in members
    ]
    return Together(
        name=name,
        chunk=partial(_fold_together, folds=tuple(folds)),
        combine=partial(_combine_together, folds=tuple(folds)),
        finalize=_no_image,
        state_nbytes=partial(_sizes, folds=tuple(folds)),
        in_place=True,
        pack=partial(_pack_together, folds=tuple(folds)),
        members=tuple(members),
        places=tuple(places),
    )


def _fold_together(
    pieces: Iterable[Piece], start: int, state: State | None = None, *, folds: tuple
) -> State:
    states: list = [None] * len(folds) if state is None else split_state(state, len(folds))
    for piece in pieces:
        states = [
            fold.advance([piece], start, own) for fold, own in zip(folds, states, strict=True)
        ]
        start += sum(len(block) for block in piece)
        del piece  # or it would live on while the next is read
    return join_states(states)


def _combine_together(a: State, b: State, folds: tuple) -> State:
    every = zip(folds, split_state(a, len(folds)), split_state(b, len(folds)), strict=True)
    return join_states([fold.combine(one, other) for fold, one, other in every])


def _pack_together(state: State, folds: tuple) -> State:
    every = zip(folds, split_state(state, len(folds)), strict=True)
    return join_states([fold.packed(own) for fold, own in every])


def _no_image(state: State, image: np.ndarray) -> None:
    raise TypeError("several statistics together have no image: split their state")


def _sizes(frames: np.dtype, nframes: int, folds: tuple) -> int:
    return sum(fold.state_size(frames, nframes) for fold in folds)


def _row_wise(
    name: str, members: Sequence[Statistic], dtypes: Sequence[np.dtype], frames: np.dtype
) -> Together:
    folded = [member for member in members if member.along == "frames"]
    inner = together(folded, [np.dtype("f8")] * len(folded), frames) if folded else None
    bands = tuple(
        member if member.along == "rows" else _by_rows(member, dtype)
        for member, dtype in zip(members, dtypes, strict=True)
    )
    images = sum(dtype.itemsize for dtype in dtypes)
    tiles = [member.tile for member in members]
    return Together(
        name=name,
        chunk=partial(
            _bands_together,
            members=tuple(members),
            dtypes=tuple(map(str, dtypes)),
            inner=inner,
        ),
        combine=place_rows,
        finalize=_no_image,
        along="rows",
        state_nbytes=sum(int(band.state_size(frames, 0)) for band in bands),
        # One after the other; what a fold makes beside its state is four arrays of float64.
        scratch=images
        + max(member.scratch for member in members)
        + (inner.state_size(frames, 1 << 40) + 32 if inner else 0),
        tile=(max(tile[0] for tile in tiles), max(tile[1] for tile in tiles)),
        members=bands,
        places=tuple(range(len(bands))),
    )


def _by_rows(member: Statistic, dtype: np.dtype) -> Statistic:
    """Return the row-wise statistic whose bands are finished rows of a frame-wise one."""
    return Statistic(
        name=member.name,
        chunk=_no_image,  # type: ignore[arg-type]
        combine=place_rows,
        finalize=finish_rows,
        along="rows",
        dtype=str(dtype),
        state_nbytes=dtype.itemsize,
        planes=member.planes,
    )


def _bands_together(
    pieces: Iterable[Piece],
    start: int,
    members: tuple[Statistic, ...],
    dtypes: tuple[str, ...],
    inner: Any,
) -> State:
    """Compute the rows of all statistics, a few rows at a time."""
    piece = [block for piece in pieces for block in piece]
    height = piece[0].shape[1]
    row = sum(block[:, :1].nbytes for block in piece)
    few = max(1, CACHED // row)
    parts = [
        _rows_of_all([block[:, first : first + few] for block in piece], members, dtypes, inner)
        for first in range(0, height, few)
    ]
    bands = [_stacked(rows, height) for rows in zip(*parts, strict=True)]
    return {f"{index}.{start}": band for index, band in enumerate(bands)}


def _stacked(parts: Sequence[np.ndarray], height: int) -> np.ndarray:
    """Return rows below each other as one band, in recycled memory."""
    first = parts[0]
    band = _bands.array((*first.shape[:-2], height, first.shape[-1]), first.dtype)
    return np.concatenate(parts, axis=-2, out=band)


def _rows_of_all(
    piece: Piece, members: tuple[Statistic, ...], dtypes: tuple[str, ...], inner: Any
) -> list[np.ndarray]:
    shape = piece[0].shape[1:]
    folded: tuple[State, ...] = ()
    if inner is not None:
        folded = inner.split(inner.chunk(_few_frames(piece), 0))
    states = iter(folded)
    return [
        member.image(next(states), member.image_shape(*shape), np.dtype(dtype))
        if member.along == "frames"
        else next(iter(member.chunk([piece], 0).values()))
        for member, dtype in zip(members, dtypes, strict=True)
    ]


def _few_frames(piece: Piece) -> Iterable[Piece]:
    """Return all frames as one piece, or a few at a time where a fold would copy them."""
    if piece[0].dtype != np.float16:
        return [piece]
    return (
        [block[edge : edge + FEW_FRAMES]]
        for block in piece
        for edge in range(0, len(block), FEW_FRAMES)
    )


def split_state(state: State, count: int) -> list[State]:
    """Return the states that were joined.

    >>> split_state({"0.max": 1, "1.sum": 2, "1.count": 3}, 2)
    [{'max': 1}, {'sum': 2, 'count': 3}]
    """
    parts: list[State] = [{} for _ in range(count)]
    for key, array in state.items():
        index, _, name = key.partition(".")
        parts[int(index)][name] = array
    return parts


def join_states(states: Iterable[State]) -> State:
    """Return one state with the arrays of several, each under its number."""
    return {
        f"{index}.{name}": array
        for index, state in enumerate(states)
        for name, array in state.items()
    }
