"""The inner loops: folds and order statistics over blocks of frames.

A *piece* is a list of arrays (frames, rows, cols) that follow one another.
"""

from collections.abc import Sequence

import numpy as np

Piece = list[np.ndarray]

# Bytes of a tile of rows that order statistics copy, so that it stays in cache.
TILE = 1 << 20


def fold(ufunc: np.ufunc, piece: Piece, into: np.ndarray | None) -> np.ndarray:
    """Reduce the frames of a piece with a binary ufunc; ``into`` is folded in and overwritten."""
    for block in piece:
        if into is None:
            into = block[0].copy()
            block = block[1:]
        for frame in block:
            ufunc(into, frame, out=into)
    assert into is not None
    return into


def add_integers(piece: Piece, into: np.ndarray) -> None:
    """Add the frames of a piece to sums of 64 bits."""
    for block in piece:
        for frame in block:
            np.add(into, frame, out=into, casting="unsafe")


def add_limbs(piece: Piece, low: np.ndarray, high: np.ndarray) -> None:
    """Add 64-bit integers in two parts: their lower 32 bits and the signed or unsigned rest.

    Neither sum can overflow before 2^32 frames.
    """
    for block in piece:
        for frame in block:
            np.add(low, frame.view(np.uint64) & np.uint64(0xFFFFFFFF), out=low)
            np.add(high, frame >> frame.dtype.type(32), out=high)


def add_floats(piece: Piece, total: np.ndarray, rest: np.ndarray) -> None:
    """Add floats to the unevaluated sum ``total + rest`` of two float64.

    The rounding error of every addition is found exactly (Knuth's TwoSum) and summed as well.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        for block in piece:
            for frame in block:
                two_sum(total, rest, frame.astype(np.float64))


def two_sum(total: np.ndarray, rest: np.ndarray, term: np.ndarray) -> None:
    """Add ``term`` to ``total``, and the rounding error of that to ``rest``, in place.

    D. E. Knuth, The Art of Computer Programming, volume 2, section 4.2.2, theorem B.
    """
    new = total + term
    image = new - total
    rest += (total - (new - image)) + (term - image)
    total[...] = new


def order_statistics(piece: Piece, ranks: Sequence[int]) -> np.ndarray:
    """Return the values of the given ranks (0 is the smallest) at each pixel.

    Parameters
    ----------
    piece : list of ndarray
        All frames of a band of rows.
    ranks : sequence of int
        In rising order.

    Returns
    -------
    ndarray
        (ranks, rows, cols) of the frames' dtype; a pixel with a NaN in any frame is NaN.
    """
    rows, cols = piece[0].shape[1:]
    nframes = sum(len(block) for block in piece)
    dtype = piece[0].dtype
    out = np.empty((len(ranks), rows, cols), dtype)
    step = max(1, TILE // (nframes * cols * dtype.itemsize))
    wanted = sorted({*ranks, nframes - 1})
    for row in range(0, rows, step):
        tile = np.concatenate([block[:, row : row + step] for block in piece])
        tile.partition(wanted, axis=0)
        out[:, row : row + step] = tile[list(ranks)]
        if dtype.kind == "f":
            # NaN sorts behind everything else.
            missing = np.isnan(tile[-1])
            out[:, row : row + step][:, missing] = np.nan
    return out
