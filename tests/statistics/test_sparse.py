"""Sparse folds, bit for bit the states of dense frames."""

import numpy as np
import pytest

from daskstats.series.piece import Piece
from daskstats.series.sparse import SparseFrame, SparsePiece, joined_frames
from daskstats.statistics import as_statistic

NAMES = "max", "min", "range", "sum", "average", "std", "argmax", "argmin", "count"


def sparse_of(frames):
    """Return a piece of the pixels that are not zero, and of a few that are."""
    stored = []
    for number, frame in enumerate(frames.reshape(len(frames), -1)):
        lit = frame != 0
        lit[number::7] = True
        stored.append(SparseFrame(np.flatnonzero(lit), frame[lit]))
    return SparsePiece([joined_frames(stored, frames.dtype)], frames.shape[2], 0, frames.shape[1])


def frames_of(dtype, rng):
    frames = rng.integers(0, 5, (9, 6, 5)) - (2 if np.dtype(dtype).kind in "if" else 0)
    frames[:, 0] = np.abs(frames[:, 0]) + 1  # no zero in any frame
    frames[:, 1] = -frames[:, 0] if np.dtype(dtype).kind in "if" else 0
    frames[:, 5, ::2] = 0
    return frames.astype(dtype)


@pytest.mark.parametrize("dtype", ["u2", "i2", "i4", "f4"])
def test_folds_of_sparse_pieces(dtype, rng):
    frames = frames_of(dtype, rng)
    pieces = [sparse_of(frames[:4]), sparse_of(frames[4:])]
    for name in (*NAMES, ("count_above", 2), ("count_above", -1)):
        statistic = as_statistic(name)
        dense = statistic.chunk([Piece([frames[:4]]), Piece([frames[4:]])], 3)
        whole = statistic.chunk(pieces, 3)
        again = statistic.chunk(pieces[1:], 7, statistic.chunk(pieces[:1], 3))
        mixed = statistic.chunk([pieces[0], Piece([frames[4:6]]), sparse_of(frames[6:])], 3)
        band = statistic.chunk([piece.rows(1, 4) for piece in pieces], 3)
        kind = statistic.image_dtype(frames.dtype)
        expected = statistic.image(dense, frames.shape[1:], kind)
        for state, rows in (
            (whole, slice(None)),
            (again, slice(None)),
            (mixed, slice(None)),
            (band, slice(1, 4)),
        ):
            image = statistic.image(state, expected[rows].shape, kind)
            assert image.tobytes() == expected[rows].tobytes(), name


def test_dense_frames_of_a_sparse_piece(rng):
    frames = frames_of("u2", rng)
    piece = SparsePiece.joined([sparse_of(frames[:4]), sparse_of(frames[4:])])
    assert (piece.nframes, piece.shape, piece.dtype) == (9, (6, 5), frames.dtype)
    np.testing.assert_array_equal(np.concatenate(list(piece.rows(2, 5).dense())), frames[:, 2:5])
