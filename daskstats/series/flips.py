"""The eight ways to flip an image, and the names of them."""

from typing import Any, NamedTuple

from ..texts import shown


class Flip(NamedTuple):
    """A flip of images: first transposed or not, then rows and columns reversed or not."""

    turned: bool
    up: bool
    across: bool

    def of(self, images: Any) -> Any:
        """Return the flipped view of images (..., rows, cols), also of a dask array.

        >>> import numpy as np
        >>> FLIPS["r90"].of(np.array([[1, 2], [3, 4]])).tolist()
        [[2, 4], [1, 3]]
        """
        axes = *range(images.ndim - 2), -1, -2
        images = images.transpose(axes) if self.turned else images
        return images[..., :: -1 if self.up else 1, :: -1 if self.across else 1]

    def stored(self, images: Any) -> Any:
        """Return the view of images that is flipped to them: the inverse of `of`.

        >>> import numpy as np
        >>> FLIPS["r90"].stored(np.array([[2, 4], [1, 3]])).tolist()
        [[1, 2], [3, 4]]
        """
        images = images[..., :: -1 if self.up else 1, :: -1 if self.across else 1]
        return images.swapaxes(-1, -2) if self.turned else images

    def rows_of_file(self, first: int, last: int, rows: int) -> tuple[int, int]:
        """Return the rows of the file that hold rows ``first:last`` of the flipped image."""
        if self.turned:
            return 0, rows
        return (rows - last, rows - first) if self.up else (first, last)


UNFLIPPED = Flip(False, False, False)

# The names that HEXRD's ProcessedImageSeries knows. "v" reverses the columns, and "h" the rows.
FLIPS = {
    **dict.fromkeys(("v", "y"), Flip(False, False, True)),
    **dict.fromkeys(("h", "x"), Flip(False, True, False)),
    **dict.fromkeys(("hv", "vh", "r180"), Flip(False, True, True)),
    **dict.fromkeys(("t", "T"), Flip(True, False, False)),
    **dict.fromkeys(("r90", "ccw90"), Flip(True, True, False)),
    **dict.fromkeys(("r270", "cw90"), Flip(True, False, True)),
}


def check_flip(flip: object) -> Flip:
    """Return the flip of a name."""
    if not isinstance(flip, str) or flip not in FLIPS:
        raise ValueError(f"flip must be one of {', '.join(FLIPS)}, got {shown(flip)}")
    return FLIPS[flip]
