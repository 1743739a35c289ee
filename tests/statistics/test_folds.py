"""Folds: which loops fill the accumulators that are needed, and states of several statistics."""

import pickle

import dask
import numpy as np
import pytest
from cuts import cut
from dask.base import tokenize

import daskstats as stats
from daskstats.series.flips import FLIPS, UNFLIPPED
from daskstats.series.orders import in_c_order
from daskstats.series.piece import Piece
from daskstats.statistics import Statistic, Validity, as_statistic
from daskstats.statistics.counts import COUNT
from daskstats.statistics.extremes import ARGMAX, MAX, MIN
from daskstats.statistics.folds import Fold, choose_loops
from daskstats.statistics.fusion import fuse
from daskstats.statistics.moments import MOMENTS
from daskstats.statistics.sums import SUM

LOOPS = {
    "squares give the sum": ((SUM, MOMENTS, COUNT), True, False, ["squares"]),
    "and extremes": ((MAX, SUM, MOMENTS), True, False, ["squares"]),
    "both of them": ((MIN, MOMENTS, MAX), True, False, ["squares"]),
    "but not a position": ((MAX, ARGMAX, MOMENTS), True, False, ["squares", "argmax"]),
    "extremes of valid values have loops": ((MAX, MOMENTS), True, True, ["squares", "max"]),
    "wide integers have a loop for each": ((SUM, MOMENTS), False, False, ["moments", "sum"]),
    "a sum alone needs no squares": ((MAX, SUM), True, False, ["max", "sum"]),
    "valid frames are counted in passing": ((COUNT, SUM), True, True, ["sum"]),
    "or by themselves": ((ARGMAX, COUNT), True, True, ["count", "argmax"]),
    "frames are counted without a loop": ((COUNT,), True, False, []),
}


@pytest.mark.parametrize(("needs", "small", "counted", "names"), LOOPS.values(), ids=LOOPS)
def test_loops(needs, small, counted, names):
    assert [loop.name for loop in choose_loops(needs, small, counted)] == names


NEEDS = {
    "max": (MAX,),
    "sum": (SUM, COUNT),
    "var": (MOMENTS, SUM, COUNT),
    "range": (MOMENTS, SUM, MAX, MIN, COUNT),
    "min": (MIN, MOMENTS),
}


@pytest.mark.parametrize(("name", "dtype"), cut(NEEDS, ["u2", "i4", "u8", "f4"]))
def test_states_have_the_bytes_that_are_planned(rng, name, dtype):
    frames = rng.poisson(50, (9, 6, 5)).astype(dtype)
    needs = NEEDS[name]
    for validity in (None, Validity((50,))):
        fold = Fold(needs, validity)
        state = fold([Piece([frames])], 0)
        planned = 30 * fold.nbytes(frames.dtype, 9)
        assert sum(array.nbytes for array in state.values()) - state["count"].nbytes == planned
        assert pickle.loads(pickle.dumps(fold)) == fold
        assert tokenize(fold) == tokenize(Fold(needs, validity))


def lit(pieces, start, state=None):
    found = sum((block > 50).sum(axis=0) for piece in pieces for block in piece)
    return {"max": found if state is None else state["max"] + found}


def add(a, b):
    return {"max": a["max"] + b["max"]}


def write(state, image):
    image[...] = state["max"]


@pytest.mark.parametrize("in_place", [False, True])
def test_arrays_of_ones_own_may_have_any_name(rng, in_place):
    """Also that of an array of another statistic."""
    frames = rng.poisson(50, (30, 17, 13)).astype("u2")
    mine = Statistic("mine", lit, add, write, dtype="int64", in_place=in_place)
    for others in (["max", "std"], ["max", "median"]):
        (images,) = dask.compute(stats.aggregate(frames, [mine, *others], memory_limit="64 MiB"))
        np.testing.assert_array_equal(images["mine"], (frames > 50).sum(axis=0))
        np.testing.assert_array_equal(images["max"], frames.max(axis=0))
        *_, last = stats.aggregate_iter(frames, [mine, *others], 4)
        np.testing.assert_array_equal(last["mine"], images["mine"])


def test_statistics_that_count_other_values_have_states_of_their_own(rng):
    frames = rng.integers(0, 9, (20, 4, 5)).astype("u2")
    names = ("max", "average", "std")
    members = [*map(as_statistic, names), as_statistic("max").excluding(Validity((8,)), 0)]
    dtypes = [member.image_dtype(frames.dtype) for member in members]
    fused = fuse(members, dtypes, frames.dtype)
    parts = [fused.packed(fused.chunk([[part]], 0)) for part in (frames[:7], frames[7:])]
    states = fused.split(fused.combine(*parts))
    for member, state, dtype in zip(members, states, dtypes, strict=True):
        expected = member.image(member.chunk([[frames]], 0), (4, 5), dtype)
        np.testing.assert_array_equal(member.image(state, (4, 5), dtype), expected)


def test_chunk_functions_take_a_piece_for_a_list():
    frames = np.arange(24, dtype="u2").reshape(4, 3, 2)
    piece = Piece([frames[:3], frames[3:]])
    assert len(piece) == 2
    assert piece[0] is piece.arrays[0]
    assert [block.shape for block in piece] == [(3, 3, 2), (1, 3, 2)]
    assert Piece.of(piece) is piece
    assert Piece.of([frames]).nframes == 4
    assert (piece.rows(1, 2)[0] == frames[:3, 1:2]).all()
    assert np.shares_memory(Piece.joined([piece, [frames]])[2], frames)


def _in_order(frames, flip):
    return Piece([in_c_order(flip.stored(frames))], flip)


def _own(pieces, start):
    return {"last": [block[-1].copy() for piece in pieces for block in piece][-1]}


OWN = Statistic("own", _own, lambda a, b: b, lambda state, image: np.copyto(image, state["last"]))


def test_frames_in_any_memory_order(rng):
    """The state is turned if each pixel is folded by itself, and otherwise the frames are."""
    frames = rng.integers(0, 9, (9, 6, 5)).astype("u2")
    turned, tilted = FLIPS["t"], FLIPS["r90"]
    validity = Validity(invalid=(3,))
    together = [as_statistic("max"), as_statistic("average"), OWN]
    for statistic in (
        *(as_statistic(name) for name in ("max", "average", "range", "std", "argmax", "count")),
        as_statistic("max").excluding(validity, 0),
        as_statistic("average").excluding(validity, 0),
        fuse(together, [np.dtype("f4")] * 3, frames.dtype),
    ):
        dense = statistic.chunk([Piece([frames])], 2)
        ways = {
            "one order": [turned, turned, turned],
            "another order": [tilted, tilted, tilted],
            "C order in between": [turned, UNFLIPPED, turned],
            "every one": [UNFLIPPED, turned, tilted],
        }
        for name, flips in ways.items():
            pieces = [_in_order(frames[3 * i : 3 * i + 3], flip) for i, flip in enumerate(flips)]
            whole = statistic.chunk(pieces, 2)
            first = statistic.chunk([_in_order(frames[:3], flips[0])], 2)
            rest = _in_order(frames[3:], flips[1])
            for state in (whole, statistic.advance([rest], 5, first)):
                assert state.keys() == dense.keys()
                for key, array in state.items():
                    assert array.tobytes() == dense[key].tobytes(), (statistic.name, name, key)
                    assert array.flags.c_contiguous
