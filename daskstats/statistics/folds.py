"""Folds: the accumulators of one statistic, or of several, filled in one pass over the frames."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from math import prod

import numpy as np

from ..series.flips import UNFLIPPED, Flip
from ..series.orders import copy_frames
from ..series.sparse import SparsePiece
from .accumulators import Accumulator
from .base import BandLoops, Chunk, Loop, Piece, State, Statistic
from .counts import COUNT
from .extremes import MAX, MIN, Extreme
from .moments import MOMENTS, Squares
from .shared import Counting, applied, load_kernels, zero_counts
from .sparse import SparseFold
from .sums import SUM
from .validity import Validity

# Loops over integers of at most 16 bits that fill several accumulators, the most complete first;
# a loop is taken if its moments and its extremes are all wanted. Each other accumulator has a loop
# of its own.
SHARED_LOOPS = tuple(Squares("squares", found) for found in ((MAX, MIN), (MAX,), (MIN,), ()))


@lru_cache
def choose_loops(
    needs: tuple[Accumulator, ...], small: bool, counted: bool
) -> tuple[Accumulator, ...]:
    """Return the fewest accumulators with loops that fill all those needed.

    Parameters
    ----------
    needs : tuple of Accumulator
        Those that statistics are finished from.
    small : bool
        Whether the frames are of integers of at most 16 bits.
    counted : bool
        Whether some values do not count: then extremes have loops of their own.

    Examples
    --------
    >>> [loop.name for loop in choose_loops((MAX, SUM, COUNT, MOMENTS), True, False)]
    ['squares']
    >>> [loop.name for loop in choose_loops((MAX, SUM, COUNT, MOMENTS), False, False)]
    ['moments', 'max', 'sum']
    """
    left = set(needs)
    loops: list[Accumulator] = []
    for loop in SHARED_LOOPS if small else ():
        if {MOMENTS, *loop.extremes} <= left and not (counted and loop.extremes):
            loops.append(loop)
            left -= {MOMENTS, SUM, *loop.extremes}
    # Moments of floats depend on the counts of valid frames, so they come first and count them.
    ordered = sorted(needs, key=lambda accumulator: accumulator != MOMENTS)
    loops += [each for each in ordered if each in left and each != COUNT]
    found_in_passing = not counted or any(loop.counts for loop in loops)
    return tuple(loops if found_in_passing or COUNT not in left else [COUNT, *loops])


def turn_state(state: State, before: Flip, after: Flip) -> Flip:
    """Turn the arrays of a state from the memory order of frames with one flip to another's."""
    if before != after:
        for name, array in state.items():
            if array.ndim:  # not the number of frames
                view = after.stored(before.of(array))
                state[name] = load_kernels().pooled(view.shape, view.dtype)
                copy_frames(view, state[name])
    return after


def is_small(frames: np.dtype) -> bool:
    """Whether frames are of integers with squares of at most 32 bits."""
    return frames.kind in "biu" and frames.itemsize <= 2


@dataclass(frozen=True)
class Fold(Chunk):
    """The accumulators that are filled in one pass, as the `chunk` of a statistic.

    Examples
    --------
    >>> fold = Fold((MAX, SUM))
    >>> state = fold([[np.array([[[1, 2]], [[3, 0]]], "u1")]], 0)
    >>> state["max"].tolist(), state["sum"].tolist(), int(state["count"])
    ([[3, 2]], [[4, 2]], 2)
    """

    needs: tuple[Accumulator, ...]
    validity: Validity | None = None
    """None: every value counts"""

    def _loops(self, small: bool) -> tuple[Accumulator, ...]:
        return choose_loops(self.needs, small, self.validity is not None)

    def _loops_of(self, state: State) -> tuple[Accumulator, ...]:
        return self._loops("squares" in state)

    def __call__(
        self,
        pieces: Iterable[Piece | SparsePiece | Sequence[np.ndarray]],
        start: int,
        state: State | None = None,
    ) -> State:
        """Fold pieces, into a state that is overwritten if one is given."""
        state, sparse, flip = {} if state is None else state, None, UNFLIPPED
        for piece in pieces:
            if isinstance(piece, SparsePiece) and self.knows_sparse(piece.dtype):
                flip = turn_state(state, flip, UNFLIPPED)
                loops = self._loops(is_small(piece.dtype))
                sparse = sparse or SparseFold(loops, start, state, piece.dtype)
                start += sparse.add(piece)
            else:
                if sparse is not None:  # its frames follow one another
                    sparse.add_zeros()
                    sparse = None
                frames = piece.dense() if isinstance(piece, SparsePiece) else Piece.of(piece)
                if not all(each.by_pixel for each in self._loops(is_small(frames.dtype))):
                    frames = Piece(frames.arrays)
                flip = turn_state(state, flip, frames.flip)
                start += self._add(Piece(frames.stored), start, state)
                del frames
            del piece  # or it would live on while the next is read
        turn_state(state, flip, UNFLIPPED)
        if sparse is not None:
            sparse.add_zeros()
        return state

    def knows_sparse(self, frames: np.dtype) -> bool:
        """Whether sparse pieces of a dtype are folded as they are."""
        loops = self._loops(is_small(frames))
        return self.validity is None and all(each.folds_sparse(frames) for each in loops)

    def _add(self, piece: Piece, start: int, state: State) -> int:
        for loop in self._open(piece, start, state):
            if loop is not None:
                loop.run(0, prod(piece.shape))
            del loop  # or frames that it has widened would live on while the next widens them
        return piece.nframes

    def _open(self, piece: Piece, start: int, state: State) -> Iterator[Loop | None]:
        """Open the loops that fold a piece into a state, one after the other."""
        accumulators = self._loops(is_small(piece.dtype))
        counted = self.validity is not None
        counter = next((each for each in accumulators if each.counts and counted), None)
        if not state:
            state["count"] = np.array(0)
            if counter is not None:
                state["valid"] = zero_counts(piece)
        for accumulator in accumulators:
            counts = state["valid"] if accumulator is counter else None
            yield accumulator.open(piece, start, state, Counting(self.validity, counts))
        state["count"] = np.asarray(state["count"] + piece.nframes)

    def open_loops(self, piece: Piece | Sequence[np.ndarray]) -> BandLoops | None:
        """Return the loops over a band of rows, None if an accumulator has none."""
        piece = Piece.of(piece)
        if not self.has_loops(piece.dtype):
            return None
        state: State = {}
        loops = [loop for loop in self._open(piece, 0, state) if loop is not None]
        return BandLoops(loops, lambda: state)

    def has_loops(self, frames: np.dtype) -> bool:
        """Whether every accumulator has a loop that passes over a few pixels at a time."""
        return all(each.has_loop(frames) for each in self._loops(is_small(frames)))

    def combine(self, a: State, b: State) -> State:
        """Return the state of two that follow one another."""
        state: State = {"count": np.asarray(a["count"] + b["count"])}
        if "valid" in a:
            state["valid"] = applied(np.add, a["valid"], b["valid"])
        for accumulator in self._loops_of(a):
            state |= accumulator.combine(a, b)
        return state

    def pack(self, state: State) -> State:
        """Return a state with fewer bytes, to be sent."""
        packed = dict(state)
        for accumulator in self._loops_of(state):
            packed |= accumulator.pack(state)
        return packed

    def nbytes(self, frames: np.dtype, nframes: int) -> int:
        """Return the bytes of a state per pixel, for ``nframes`` frames of a dtype."""
        loops = self._loops(is_small(frames))
        counted = self.validity is not None and any(loop.counts for loop in loops)
        # One number of all frames counts as 4 bytes, because a plan expects a state of some size.
        return sum(loop.nbytes(frames, nframes) for loop in loops) + 4 * counted or 4

    def temporaries(self, frames: np.dtype) -> int:
        """Return the bytes of temporaries per pixel while a piece is folded."""
        return max((each.temporaries(frames) for each in self._loops(is_small(frames))), default=0)

    def unseen(self, state: State) -> np.ndarray:
        """Return the pixels where no value was valid."""
        return self.needs[0].unseen(state)


def accumulated(
    name: str,
    needs: tuple[Accumulator, ...],
    finish: Callable[[State, np.ndarray], None],
    dtype: str | None = "float32",
    empty: float | None = None,
    validity: Validity | None = None,
    fill_value: float | None = None,
) -> Statistic:
    """Return the statistic that is finished from accumulators.

    Parameters
    ----------
    name : str
        As in the registry.
    needs : tuple of Accumulator
        Those that ``finish`` uses.
    finish : callable
        (state, image): writes the image.
    dtype : str or None
        As of `Statistic`.
    empty : number, optional
        As of `Statistic`: otherwise pixels without a valid value get ``fill_value``.
    validity : Validity, optional
        Which values count.
    fill_value : number, optional
        As of `Statistic`.
    """
    fold = Fold(needs, validity)
    only = needs[0] if validity is None and dtype is None and len(needs) == 1 else None
    return Statistic(
        name=name,
        chunk=fold,
        combine=fold.combine,
        finalize=finish,
        dtype=dtype,
        state_nbytes=fold.nbytes,
        scratch=fold.temporaries,
        in_place=True,
        trail=only.trail if isinstance(only, Extreme) else None,
        begin=fold.open_loops,
        pack=fold.pack,
        leave_out=partial(accumulated, name, needs, finish, dtype, empty),
        fill_value=fill_value if empty is None else None,
        empty=empty,
        unseen=fold.unseen if validity is not None and empty is None else None,
    )
