"""Variables of xarray that stay in their file: each read indexes them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..series.base import Source
from ..series.foreign import is_a
from ..series.leading import boxes, decoded_together, flat_shape

if TYPE_CHECKING:
    import xarray


class VariableSource(Source):
    """A variable of `xarray.open_dataset` without chunks; all leading dimensions count as frames.

    xarray decodes its values (``_FillValue``, ``scale_factor``), reads in several threads under the
    locks that its backends need, and opens the file again where the variable was sent.

    Parameters
    ----------
    variable : xarray.Variable
    dims : sequence
        Its dimensions in the order (frames, ..., rows, cols).
    named : bool
        Whether the user has said which of them are those of frames.
    """

    # Measured of netCDF4, h5netcdf and zarr: 1.5 times the frames for chunks and for values that
    # are not decoded yet, and one more if the byte order or the order of dimensions is another.
    buffers, stored = 2.5, 1

    def __init__(
        self, variable: xarray.Variable, dims: Sequence[Hashable], named: bool = False
    ) -> None:
        self._variable, self._dims = variable, tuple(dims)
        shape = tuple(variable.sizes[dim] for dim in dims)
        self.set_layout(flat_shape(shape, "a DataArray", named), variable.dtype, "a DataArray")
        # A file that is not chunked can be read in any pieces; of other formats nothing is known.
        known, rows = variable.encoding.get("preferred_chunks", {}), shape[-2]
        own_rows = 1 if variable.encoding.get("contiguous") else rows
        chunks = *(known.get(dim, 1) for dim in dims[:-2]), known.get(dims[-2], own_rows), shape[-1]
        self.frame_unit, self.row_unit = decoded_together(shape, chunks)

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        lead = tuple(self._variable.sizes[dim] for dim in self._dims[:-2])
        every = ((*box, slice(first, last)) for box in boxes(start, stop, lead))
        return [self._read_box(box).reshape(-1, last - first, self.shape[1]) for box in every]

    def _read_box(self, box: tuple[int | slice, ...]) -> np.ndarray:
        part = self._variable.isel(dict(zip(self._dims, box, strict=False))).load()
        # Transposed before it is loaded, it would be read pixel by pixel.
        return part.transpose(*(dim for dim in self._dims if dim in part.dims)).to_numpy()


def stays_in_file(variable: xarray.Variable) -> bool:
    """Whether the values of a variable are read when it is indexed.

    Its attribute ``data`` would read them all.
    """
    wrapped = is_a(variable._data, "xarray.core.indexing", "ExplicitlyIndexed")
    return wrapped and not variable._in_memory
