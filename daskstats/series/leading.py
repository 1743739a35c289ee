"""Arrays of three and more dimensions as frames: all axes before the last two, in C order.

A scan (ny, nx, ky, kx) has ny * nx frames: frame ``iy * nx + ix`` is ``scan[iy, ix]``.
"""

from collections.abc import Iterator
from math import prod

Box = tuple[int | slice, ...]
"""an index for each leading axis"""


def flat_shape(
    shape: tuple[int, ...], given: str = "an array", named: bool = False
) -> tuple[int, ...]:
    """Return the shape (frames, rows, cols) of an array, with all leading axes as frames.

    One of fewer dimensions is left as it is: `Source.set_layout` refuses it.

    Parameters
    ----------
    shape : tuple of int
    given : str
        The kind of array, for errors.
    named : bool
        Whether the user has said which axes are those of frames.

    Raises
    ------
    ValueError
        If the last axis of four or more seems to be one of colours.

    Examples
    --------
    >>> flat_shape((5, 20, 64, 48)), flat_shape((25, 1, 8, 6)), flat_shape((8, 6))
    ((100, 64, 48), (25, 8, 6), (8, 6))
    """
    if len(shape) <= 3:
        return tuple(shape)
    if shape[-1] in (3, 4) and not named:
        raise ValueError(
            f"an image series is three-dimensional (frames, rows, cols), got {given} of shape "
            f"{tuple(shape)}, and its last axis is one of colours: take one colour of it"
        )
    return lengths(shape)


def lengths(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return frames, rows and columns of an array whose leading axes are frames, in C order.

    >>> lengths((25, 1, 8, 6)), lengths((8, 6))
    ((25, 8, 6), (1, 8, 6))
    """
    return prod(shape[:-2]), shape[-2], shape[-1]


def decoded_together(shape: tuple[int, ...], chunks: tuple[int, ...]) -> tuple[int, int | None]:
    """Return how many frames and rows a chunk has, which are decoded together; None: all rows.

    >>> decoded_together((100, 64, 48), (10, 16, 48))
    (10, 16)
    >>> decoded_together((5, 20, 64, 48), (1, 4, 64, 48))
    (4, None)
    """
    frames = 1
    for axis, chunk in enumerate(chunks[:-2]):
        if min(chunk, shape[axis]) > 1:
            frames = min(chunk, shape[axis]) * prod(shape[axis + 1 : -2])
            break
    return max(1, frames), chunks[-2] if chunks[-2] < shape[-2] else None


def boxes(start: int, stop: int, lead: tuple[int, ...]) -> Iterator[Box]:
    """Yield the fewest indices of the leading axes that together are frames ``start:stop``.

    Examples
    --------
    >>> list(boxes(2, 7, (25,)))
    [(slice(2, 7, None),)]
    >>> list(boxes(2, 13, (5, 4)))  # the end of row 0, rows 1 and 2, the beginning of row 3
    [(0, slice(2, 4, None)), (slice(1, 3, None), slice(None, None, None)), (3, slice(0, 1, None))]
    >>> list(boxes(0, 1, ()))
    [()]
    """
    if len(lead) < 2:
        yield (slice(start, stop),) if lead else ()
        return
    inner = prod(lead[1:])
    (begin, head), (end, tail) = divmod(start, inner), divmod(stop, inner)
    if head and begin == end:
        yield from ((begin, *box) for box in boxes(head, tail, lead[1:]))
        return
    if head:
        yield from ((begin, *box) for box in boxes(head, inner, lead[1:]))
        begin += 1
    if begin < end:
        yield slice(begin, end), *[slice(None)] * (len(lead) - 1)
    if tail:
        yield from ((end, *box) for box in boxes(0, tail, lead[1:]))
