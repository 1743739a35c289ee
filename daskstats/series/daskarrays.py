"""dask arrays: their blocks are used as they are."""

import numpy as np
from dask.array import Array

from .base import Source
from .foreign import check_plain, is_plain, refusal
from .leading import flat_shape


class DaskSource(Source):
    """A dask array (..., rows, cols); all leading axes count as frames.

    Graphs name its blocks instead of calling `read`, which computes.
    """

    opens = (("dask.array", "Array"),)
    again = False  # dask keeps a block until all that need it have run

    def __init__(self, array: Array, named: bool = False) -> None:
        if array._meta is not None and not is_plain(type(array._meta)):
            # Where dask does not know the type, the first block tells.
            raise TypeError(
                refusal(type(array._meta), "a block of the dask array", "plain numpy arrays")
            )
        if array.ndim > 2 and any(np.isnan(array.shape)):
            raise ValueError(
                f"the dask array has unknown lengths, shape {array.shape}: "
                f"call its compute_chunk_sizes() first"
            )
        array = without_empty_blocks(array)
        if array.ndim > 3:
            # Blocks keep their lengths along the last leading axis, and get one of the others.
            shape = flat_shape(array.shape, "a dask array", named)
            if not hasattr(array, "reshape"):
                raise TypeError(
                    f"dask's array expressions cannot reshape: give frames of shape {shape} "
                    f"instead of {array.shape}"
                )
            array = array.reshape(shape, merge_chunks=False)
        self.set_layout(array.shape, array.dtype, "a dask array")
        self.frame_unit = max(array.chunks[0])
        self.row_unit = max(array.chunks[1]) if len(array.chunks[1]) > 1 else None
        self.array = array.astype(self.dtype)

    @property
    def checked(self) -> Array:
        """The array, with a check of each block."""
        return with_checks(self.array)

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        return [self.array[start:stop, first:last].compute()]

    def __dask_tokenize__(self) -> object:
        return self.array.name


def without_empty_blocks(array: Array) -> Array:
    """Return a dask array without blocks of no frames, rows or columns; one without them as it is.

    Neither folds nor dask's own slices expect any.
    """
    chunks = tuple(tuple(filter(None, lengths)) or lengths for lengths in array.chunks)
    # A block that is joined to others may have lost its unit.
    return array if chunks == array.chunks else with_checks(array).rechunk(chunks, method="tasks")


def with_checks(array: Array) -> Array:
    """Return a dask array with a check of each block."""
    dtype = array.dtype.newbyteorder("=")
    return array.map_blocks(checked_block, dtype, dtype=dtype, meta=array._meta)


def checked_block(block: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return a block of a dask array in native byte order, if it is plain memory of the dtype."""
    check_plain(block, None, dtype)
    if block.dtype.newbyteorder("=") != dtype:
        raise ValueError(f"a block of the dask array has dtype {block.dtype}, expected {dtype}")
    return block.astype(dtype, copy=False)
