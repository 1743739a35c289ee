"""A piece of an image series: the frames that a fold gets at once."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from .flips import UNFLIPPED, Flip
from .orders import in_c_order


class Piece:
    """Frames that follow one another, in one array or several.

    Iterating over a piece and indexing it give its arrays (frames, rows, cols), which are in native
    byte order, with every frame contiguous. Frames in another memory order are copied for that:
    a fold that does not depend on the place of a pixel takes the arrays that are `stored`.

    Parameters
    ----------
    arrays : iterable of ndarray
        At least one.
    flip : Flip
        The flip of the arrays that gives the frames.

    Examples
    --------
    >>> piece = Piece([np.zeros((3, 4, 5), "u2"), np.ones((2, 4, 5), "u2")])
    >>> piece.nframes, piece.shape, piece.dtype
    (5, (4, 5), dtype('uint16'))
    >>> [block.shape for block in piece.rows(1, 3)]
    [(3, 2, 5), (2, 2, 5)]
    """

    __slots__ = ("flip", "stored")

    def __init__(self, arrays: Iterable[np.ndarray], flip: Flip = UNFLIPPED) -> None:
        self.stored, self.flip = list(arrays), flip

    @property
    def arrays(self) -> list[np.ndarray]:
        """The frames in C order."""
        if self.flip != UNFLIPPED:
            for index, block in enumerate(self.stored):
                # In place of the other, so that both are in memory for one array at a time only.
                self.stored[index] = in_c_order(self.flip.of(block))
            self.flip = UNFLIPPED
        return self.stored

    @property
    def views(self) -> list[np.ndarray]:
        """The frames, as views of the stored arrays."""
        return [self.flip.of(block) for block in self.stored]

    @classmethod
    def of(cls, arrays: "Piece | Sequence[np.ndarray]") -> "Piece":
        """Return a piece itself, or the piece of some arrays."""
        return arrays if isinstance(arrays, Piece) else cls(arrays)

    @classmethod
    def joined(cls, pieces: "Iterable[Piece | Sequence[np.ndarray]]") -> "Piece":
        """Return one piece with the frames of several, none of them copied."""
        return cls(block for piece in pieces for block in piece)

    @property
    def nframes(self) -> int:
        """Number of frames."""
        return sum(map(len, self.stored))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a frame."""
        rows, cols = self.stored[0].shape[1:]
        return (cols, rows) if self.flip.turned else (rows, cols)

    @property
    def dtype(self) -> np.dtype:
        """Of the frames."""
        return self.stored[0].dtype

    def read_only(self) -> "Piece":
        """Return the frames as views that cannot be written to."""
        views = [block.view() for block in self.arrays]
        for view in views:
            view.flags.writeable = False
        return Piece(views)

    def rows(self, first: int, last: int) -> "Piece":
        """Return rows ``first:last`` of all frames, as views."""
        return Piece(block[:, first:last] for block in self.arrays)

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.arrays[index]

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.arrays)
