"""Frames in every memory order: recognised, copied, and turned back."""

import numpy as np
import pytest
from helpers import make_frames

from daskstats.series.flips import FLIPS, UNFLIPPED
from daskstats.series.orders import common_flip, copy_frames, flip_of, in_c_order, pooled_copy
from daskstats.series.piece import Piece

EVERY_FLIP = sorted({UNFLIPPED, *FLIPS.values()})


@pytest.mark.parametrize("flip", EVERY_FLIP)
@pytest.mark.parametrize("shape", [(7, 5, 6), (2, 520, 530), (3, 1, 4), (3, 4, 1), (1, 1, 1)])
def test_every_memory_order(flip, shape):
    frames = make_frames("u2", *shape)
    stored = in_c_order(flip.stored(frames))
    assert stored.flags.c_contiguous
    view = flip.of(stored)
    np.testing.assert_array_equal(view, frames)
    if min(shape[1:]) > 1:
        assert flip_of(view) == common_flip([view, view[1:]]) == flip
    assert flip_of(view).stored(view)[0].flags.c_contiguous, "one row or column has one order"
    for dtype in (None, np.dtype(">u2"), np.dtype("f8")):
        copy = in_c_order(view, dtype)
        assert copy.flags.c_contiguous
        np.testing.assert_array_equal(copy, frames)
    copy_frames(view, out := np.zeros((*shape[:2], 2 * shape[2]), "u2")[:, :, ::2])
    np.testing.assert_array_equal(out, frames)


def test_blocks_in_different_orders_have_none_in_common():
    frames = make_frames("u2")
    turned = np.asfortranarray(frames[0])[None]
    assert common_flip([frames, turned]) == common_flip([turned, frames]) == UNFLIPPED
    assert common_flip([turned, turned]) == FLIPS["t"]


def test_copies_of_large_frames_are_used_again_and_keep_their_order():
    frame = np.zeros((1000, 1100), "u2")[::-1].T
    places = set()
    for value in range(5):
        frame[...] = value
        copy = pooled_copy(frame, frame.dtype)
        assert copy.strides == frame.strides
        assert (copy == value).all()
        places.add(copy.ctypes.data)
        del copy
    assert len(places) == 1
    kept = [pooled_copy(frame[::2, ::3], frame.dtype) for _ in range(3)]
    assert len({copy.ctypes.data for copy in kept}) == 3


def test_a_piece_of_frames_in_another_order():
    frames = make_frames("u2")
    flip = FLIPS["r90"]
    stored = in_c_order(flip.stored(frames))
    piece = Piece([stored[:3], stored[3:]], flip)
    assert (piece.nframes, piece.shape, piece.dtype, len(piece)) == (7, (5, 6), frames.dtype, 2)
    assert piece.stored[0].base is stored
    np.testing.assert_array_equal(np.concatenate(list(piece.rows(1, 3))), frames[:, 1:3])
    assert piece.flip == UNFLIPPED, "it has been copied"
    assert [block.shape for block in piece.stored] == [(3, 5, 6), (4, 5, 6)]
    assert all(block.flags.c_contiguous for block in piece)
