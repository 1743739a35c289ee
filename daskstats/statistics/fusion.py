"""Several statistics in one pass.

Those that are computed together fold the same pieces one after the other, while these are in
memory, into one state: the arrays of all. Where one of them is row-wise all are done by bands of
rows: a few rows of each while these are in a cache, until the images of the band are finished.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import repeat, zip_longest
from typing import Any

import numpy as np
from dask.base import tokenize

from ..memory.pool import BufferPool
from .base import Piece, State, Statistic, finish_rows, place_rows
from .extremes import combine_extremes, fold_extremes
from .moments import begin_moments, fold_moments, is_small, moments_size, pack_squares
from .shared import compiled
from .sums import add_sums, finish_sum, fold_sums

# Bytes of a few rows that several loops pass over before the next: small enough for a cache that
# is shared by the cores, large beside the cost of calling them.
CACHED = 2 << 20

# So many times as many rows make a turn of what makes its state anew.
LONG_TURN = 4

# Frames that float16 is widened for at once.
FEW_FRAMES = 8


# What the bands of the last images have left, 32 MB at the most: fresh memory for those of four
# images of 2 MB to 8 MB takes 7 ms of a core.
band_pool = BufferPool(pieces=8, largest=4 << 20)

Target = tuple[Statistic, np.ndarray]
"""a statistic and its image"""


@dataclass(frozen=True)
class FusedStatistic(Statistic):
    """Several statistics whose states are kept in one, under the number of each."""

    members: tuple[Statistic, ...] = ()
    """whose images are wanted"""
    places: tuple[int, ...] = ()
    """the number of the state that each of them has"""
    made_of: tuple = ()
    """what `together` was given, which tells this from others"""

    @cached_property
    def _token(self) -> str:
        return tokenize(*self.made_of)

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
    if all(member.along == "frames" for member in members):
        one = _frame_wise(members, frames)
    else:
        one = _row_wise(members, dtypes, frames)
    return replace(one, made_of=(tuple(members), tuple(dtypes), frames))


def _name(members: Sequence[Statistic]) -> str:
    return "-".join(dict.fromkeys(member.name for member in members))


def _frame_wise(members: Sequence[Statistic], frames: np.dtype) -> FusedStatistic:
    folds = _folds(members, frames)
    return FusedStatistic(
        name=_name(members),
        chunk=partial(_fold_together, folds=tuple(folds)),
        combine=partial(_combine_together, folds=tuple(folds)),
        finalize=_no_image,
        state_nbytes=partial(_sizes, folds=tuple(folds)),
        scratch=max(fold.scratch_size(frames) for fold in folds),
        in_place=True,
        pack=partial(_pack_together, folds=tuple(folds)),
        members=tuple(members),
        places=_places(folds, members, frames),
    )


def _folds(members: Sequence[Statistic], frames: np.dtype) -> list[Statistic]:
    """Return the fewest folds whose states all members can be finished from."""
    # A sum is part of what a variance of small integers needs: one fold serves several.
    folds: list[Statistic] = []
    for member in members:
        if not any(covers(fold, member, frames) for fold in folds):
            folds = [fold for fold in folds if not covers(member, fold, frames)] + [member]
    return joined(folds, frames)


def _places(
    folds: Sequence[Statistic], members: Sequence[Statistic], frames: np.dtype
) -> tuple[int, ...]:
    """Return the number of the fold whose state each member is finished from."""
    return tuple(
        next(index for index, fold in enumerate(folds) if covers(fold, member, frames))
        for member in members
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
    members: Sequence[Statistic], dtypes: Sequence[np.dtype], frames: np.dtype
) -> FusedStatistic:
    folds = _folds(members, frames)
    folded = [fold for fold in folds if fold.along == "frames"]
    states = sum(fold.state_size(frames, 1 << 40) for fold in folded)
    images = tuple(_by_rows(*each) for each in zip(members, dtypes, strict=True))
    finished = sum(int(image.state_size(frames, 0)) for image in images)
    return FusedStatistic(
        name=_name(members),
        chunk=partial(
            _band_of_all,
            folds=tuple(folds),
            members=tuple(members),
            places=_places(folds, members, frames),
            dtypes=tuple(dtypes),
        ),
        combine=place_rows,
        finalize=_no_image,
        along="rows",
        state_nbytes=finished,
        # What a fold makes beside its state is four arrays of float64.
        scratch=finished
        + sum(member.scratch_size(frames) for member in members)
        + (states + 32 if folded else 0),
        tile=(sum(member.tile[0] for member in members), sum(member.tile[1] for member in members)),
        members=images,
        places=tuple(range(len(images))),
    )


def _by_rows(member: Statistic, dtype: np.dtype) -> Statistic:
    """Return the row-wise statistic whose states are finished rows of another one."""
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


def _band_of_all(
    pieces: Iterable[Piece],
    start: int,
    folds: tuple[Statistic, ...],
    members: tuple[Statistic, ...],
    places: tuple[int, ...],
    dtypes: tuple[np.dtype, ...],
) -> State:
    """Compute the rows of all images, a few of each fold's after those of the others."""
    piece = Piece.joined(pieces)
    shape = piece[0].shape[1:]
    few = _rows_in_cache(piece)
    images = [
        band_pool.array(member.image_shape(*shape), dtype)
        for member, dtype in zip(members, dtypes, strict=True)
    ]
    targets: list[list] = [[] for _ in folds]
    for member, place, image in zip(members, places, images, strict=True):
        targets[place].append((member, image))
    begun = [fold.begun(piece) for fold in folds]
    loops = compiled().sharing(loop for each in begun if each for loop in each[0])
    if len(loops) == 1 and None not in begun:
        few = shape[0]  # nobody else has a turn
    walks: list[Iterator] = [_run_in_turn(loops, piece, few)] if loops else []
    for fold, each, own in zip(folds, begun, targets, strict=True):
        if each is None:
            walks.append(_fold_in_turn(fold, piece, few, start, own))
    for _ in zip_longest(*walks):
        pass
    for each, own in zip(begun, targets, strict=True):
        if each is not None:
            _write_rows(each[1](), 0, shape[0], own)
    return {f"{index}.{start}": image for index, image in enumerate(images)}


def _rows_in_cache(piece: Piece) -> int:
    """Return how many rows of a piece are passed over by several loops before the next ones."""
    return max(1, CACHED // sum(block[:, :1].nbytes for block in piece))


def _run_in_turn(loops: Sequence[Any], piece: Piece, few: int) -> Iterator[None]:
    """Run loops over a few rows at a time."""
    rows, cols = piece[0].shape[1:]
    for first in range(0, rows, few):
        for loop in loops:
            loop.run(first * cols, min(first + few, rows) * cols)
        yield


def _fold_in_turn(
    fold: Statistic, piece: Piece, few: int, start: int, targets: Sequence[Target]
) -> Iterator[None]:
    """Fold some rows of a piece after the other and write their rows of images."""
    height, several = piece[0].shape[1], few * LONG_TURN
    for first in range(0, height, several):
        last = min(first + several, height)
        rows = _few_frames(piece.rows(first, last))
        if fold.along == "rows":
            (band,) = fold.chunk(rows, start + first).values()
            state = {"0": band}
        else:
            state = fold.chunk(rows, 0)
        _write_rows(state, first, last, targets)
        # To stay in step with others.
        yield from repeat(None, LONG_TURN)


def _few_frames(piece: Piece) -> Iterable[Piece]:
    """Return all frames as one piece, or a few at a time where a fold would copy them."""
    if piece[0].dtype != np.float16:
        return [piece]
    return (
        Piece([block[edge : edge + FEW_FRAMES]])
        for block in piece
        for edge in range(0, len(block), FEW_FRAMES)
    )


def _write_rows(state: State, first: int, last: int, targets: Sequence[Target]) -> None:
    """Write the rows of images that are finished from a state."""
    for member, image in targets:
        rows = image[..., first:last, :]
        if member.along == "rows" and member.finalize is not finish_rows:
            rows[...] = 0
        member.write(state, rows)


# ---------------------------------------------------------------------- one fold for several


def covers(fold: Statistic, other: Statistic, frames: np.dtype) -> bool:
    """Whether the state of a frame-wise statistic is enough to finish another.

    >>> from daskstats.statistics import average, std
    >>> covers(std, average, np.dtype("u2")), covers(std, average, np.dtype("f4"))
    (True, False)
    """
    one, two = _folding(fold), _folding(other)
    if one == two:
        return True
    if not (is_small(frames) and one[0] is fold_moments):
        return False
    if one[1]["validity"] != two[1].get("validity"):
        return False
    return two[0] in (fold_sums, fold_moments) or (
        two[0] is fold_extremes and set(two[1]["names"]) <= set(one[1].get("extremes", ()))
    )


def _folding(statistic: Statistic) -> tuple[Any, dict]:
    """Return what folds the frames, and how; two that are equal have the same state."""
    chunk = statistic.chunk
    if not isinstance(chunk, partial) or chunk.args:
        return chunk, {}
    return chunk.func, chunk.keywords


def joined(folds: Sequence[Statistic], frames: np.dtype) -> list[Statistic]:
    """Return as many or fewer statistics whose states are enough to finish the same ones.

    Extremes of small integers are found while their squares are summed, which reads them once.

    >>> from daskstats.statistics import maximum, std
    >>> [fold.name for fold in joined([maximum, std], np.dtype("u2"))]
    ['std-max']
    """
    moments = [fold for fold in folds if _folding(fold) == (fold_moments, {"validity": None})]
    extremes = [
        fold
        for fold in folds
        if _folding(fold)[0] is fold_extremes and _folding(fold)[1]["validity"] is None
    ]
    if not (is_small(frames) and moments and extremes):
        return list(folds)
    both = [*moments, *extremes]
    names = sorted({name for fold in extremes for name in _folding(fold)[1]["names"]})
    options: dict[str, Any] = {"validity": None, "extremes": tuple(names)}
    one = Statistic(
        name="-".join(fold.name for fold in both),
        chunk=partial(fold_moments, **options),
        combine=_merge_with_extremes,
        finalize=finish_sum,
        state_nbytes=partial(_joined_size, extremes=len(names)),
        in_place=True,
        begin=partial(begin_moments, **options),
        pack=pack_squares,
    )
    return [one, *(fold for fold in folds if fold not in both)]


def _merge_with_extremes(a: State, b: State) -> State:
    names = [name for name in a if name in ("max", "min")]
    sums, others = ({name: state[name] for name in state if name not in names} for state in (a, b))
    return {**add_sums(sums, others), **combine_extremes({name: a[name] for name in names}, b)}


def _joined_size(frames: np.dtype, nframes: int, extremes: int) -> int:
    return moments_size(frames, nframes, False) + extremes * frames.itemsize


# ---------------------------------------------------------------------- states of several


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
