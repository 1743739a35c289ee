"""Bands of rows of sparse frames: only the pixels that some frame stores are made dense."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from ..series.sparse import SparsePiece
from .base import Chunk, Piece, State, Statistic
from .folds import Fold
from .fusion import CACHED, Band, FusedStatistic, fuse_rows
from .ranks import ClippedAverage, Percentiles
from .shared import load_kernels

# Bytes for each pixel of a band: whether it is stored, its number, and its column.
PLACES = 1 + 8 + 4


def fuse_sparse(
    members: Sequence[Statistic], dtypes: Sequence[np.dtype], frames: np.dtype
) -> FusedStatistic | None:
    """Return the statistic of several that is computed from bands of sparse frames.

    None if one of them is the user's own: its image of a pixel may depend on other pixels.
    """
    if not all(isinstance(m.chunk, Fold | Percentiles | ClippedAverage) for m in members):
        return None
    dense = fuse_rows(members, dtypes, frames)
    fixed, each = dense.tile
    scratch = dense.scratch_size(frames)
    return replace(
        dense,
        chunk=SparseBand(dense.chunk, scratch),  # type: ignore[arg-type]
        scratch=scratch + PLACES,
        tile=(fixed + CACHED + scratch, each + frames.itemsize),
        made_of=(*dense.made_of, "sparse"),
    )


@dataclass(frozen=True)
class SparseBand(Chunk):
    """The rows of all images, from all sparse frames of a band of rows.

    All pixels that no frame stores have the same value: that of a pixel of zeros, which each group
    of stored pixels has at its end.
    """

    dense: Band
    scratch: int
    """bytes of temporaries of dense frames, for each pixel"""

    def __call__(self, pieces: Iterable[SparsePiece], start: int) -> State:
        """Compute the images of stored pixels, a few of these at a time."""
        piece = SparsePiece.joined(pieces)
        stored = np.zeros(prod(piece.shape), np.bool_)
        load_kernels().mark_stored(piece.blocks, piece.window, stored)
        pixels = np.flatnonzero(stored)
        each = piece.nframes * piece.dtype.itemsize + self.scratch
        size = max(1, CACHED // each)
        images: list[np.ndarray] = []
        for group in np.split(pixels, range(size, len(pixels), size)):
            found = self.dense([laid_out(piece, group)], 0).values()
            if not images:
                images = [of_zeros(image, len(stored)) for image in found]
            for image, rows in zip(images, found, strict=True):
                image[..., group] = rows[..., 0, :-1]
        shaped = (image.reshape(*image.shape[:-1], *piece.shape) for image in images)
        return {f"{number}.{start}": image for number, image in enumerate(shaped)}


def laid_out(piece: SparsePiece, pixels: np.ndarray) -> Piece:
    """Return rising pixels of all frames side by side in one row, and one of zeros at its end."""
    frames = load_kernels().pooled_zeros((piece.nframes, 1, len(pixels) + 1), piece.dtype)
    if len(pixels):
        first, last = int(pixels[0]), int(pixels[-1]) + 1
        columns = np.empty(last - first, np.int32)
        columns[pixels - first] = np.arange(len(pixels))
        # Others in between are not stored.
        edge = piece.window[0]
        load_kernels().lay_out(piece.blocks, (edge + first, edge + last), columns, frames[:, 0])
    return Piece([frames])


def of_zeros(rows: np.ndarray, pixels: int) -> np.ndarray:
    """Return a flat image of some pixels, with the value of the pixel of zeros in `laid_out`."""
    image = np.empty((*rows.shape[:-2], pixels), rows.dtype)
    image[...] = rows[..., 0, -1:]
    return image
