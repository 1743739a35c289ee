"""DataArrays of xarray: the series in one, and the labels that its images keep.

xarray is not imported here: where there is a DataArray, it has been imported.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from dask.array import Array

from .arguments import check_region, shown
from .formats.xarray_variable import VariableSource, stays_in_file
from .packages import load
from .series.arrays import ArraySource, FrameListSource
from .series.corrected import check_flip
from .series.daskarrays import DaskSource
from .series.foreign import advice_for, is_data_array, refusal
from .statistics import Statistic
from .statistics.ranks import Percentiles

Planes = dict[str, Sequence[float] | None]
"""the dimensions before the rows, and the coordinates of each"""


@dataclass(frozen=True, eq=False)
class Labels:
    """The dimensions, coordinates, attributes and name of results.

    They are kept in DataArrays of one value for all pixels, which takes no memory.
    """

    series: Any
    """of all frames: (frames, ..., rows, cols)"""
    image: Any
    """of an image: (rows, cols)"""
    planes: tuple[Planes, ...] = ()
    """of each image"""

    def of_call(self, statistics: Sequence[Statistic], flip: str | None, region: Any) -> "Labels":
        """Return the labels of the images of a call: of statistics of flipped frames, in a region.

        Coordinates are flipped and cut as the pixels are.
        """
        image = self.image
        if flip is not None:
            turned, up, across = check_flip(flip)
            image = image.transpose() if turned else image
            image = image[:: -1 if up else 1, :: -1 if across else 1]
        rows, cols = check_region(region, image.shape)
        image = image[slice(*rows), slice(*cols)]
        return replace(self, image=image, planes=tuple(map(planes_of, statistics)))

    def labelled(self, image: Array, number: int = 0, leading: Planes | None = None) -> Any:
        """Return the lazy image of a statistic, given its number, as a DataArray."""
        planes = {**(leading or {}), **self.planes[number]}
        known = {name: list(values) for name, values in planes.items() if values is not None}
        return self._made(image, tuple(planes)).assign_coords(known)

    def dataset(self, images: Mapping[str, Array]) -> Any:
        """Return the lazy images by the names of their statistics, as a Dataset."""
        lists = [planes["percentile"] for planes in self.planes if "percentile" in planes]
        if len(lists) > 1:
            raise ValueError(
                f"the percentiles {lists[0]} and {lists[1]} would share the dimension "
                f'"percentile" of a Dataset: ask for all of them in one list'
            )
        self._check_free(images)
        every = enumerate(images.items())
        # In a Dataset, a variable and a coordinate cannot have the same name.
        return load("xarray").Dataset(
            {
                name: self.labelled(image, number).drop_vars(images, errors="ignore")
                for number, (name, image) in every
            }
        )

    def frames(self, array: Array) -> Any:
        """Return the frames, a lazy array (frames, rows, cols), as a DataArray.

        Several dimensions of frames become one, without coordinates.
        """
        if self.series.ndim == 3:
            return self.series[: array.shape[0]].copy(deep=False, data=array)
        return self._made(array, ("frame",))

    def _check_free(self, names: Iterable[str]) -> None:
        """Refuse names that a dimension of the frames has."""
        for name in names:
            if name in self.image.dims:
                raise ValueError(
                    f'the frames have a dimension "{name}", which the result needs for itself: '
                    f"rename it"
                )

    def _made(self, data: Array, leading: tuple[str, ...]) -> Any:
        self._check_free(leading)
        image = self.image.drop_vars(leading, errors="ignore")
        dims = *leading, *image.dims
        made = load("xarray").DataArray(data, image.coords, dims, attrs=image.attrs)
        return made.rename(image.name)  # for no name it takes that of the dask array


def planes_of(statistic: Statistic) -> Planes:
    """Return the dimension of the planes of a statistic's image, if it has planes.

    >>> from .statistics import maximum, percentile
    >>> planes_of(maximum), planes_of(percentile([5, 95]))
    ({}, {'percentile': (5.0, 95.0)})
    """
    if statistic.planes is None:
        return {}
    if isinstance(statistic.chunk, Percentiles):
        return {"percentile": statistic.chunk.percentiles}
    return {"plane": None}


def without_labels(array: Any, dim: object) -> tuple[object, Labels]:
    """Return the series in a DataArray, and its labels; nothing is read.

    Parameters
    ----------
    array : xarray.DataArray
    dim : str or sequence of str, optional
        The dimension of the frames, or several; by default all before the last two.

    Raises
    ------
    ValueError, TypeError
        If it has other dimensions, or holds values that are no plain arrays.
    """
    dims = ordered(array.dims, dim)
    series = array.copy(deep=False, data=np.broadcast_to(False, array.shape)).transpose(*dims)
    pixels = np.broadcast_to(False, series.shape[-2:])
    # xarray itself chooses the coordinates that are left.
    image = series.reduce(lambda _, axis: pixels, dims[:-2], keep_attrs=True)
    return _data(array.variable, dims, dim is not None), Labels(series, image)


def _data(variable: Any, dims: Sequence[Hashable], named: bool) -> object:
    """Return the values of a variable, with its dimensions in an order, as they are stored.

    ``named``: whether the user has said which of them are those of frames.
    """
    if stays_in_file(variable):
        return VariableSource(variable, dims, named)
    data = variable.transpose(*dims).data
    if advice_for(type(data)) is not None:
        expected = "a numpy or dask array"
        raise TypeError(refusal(type(data), "the data of the DataArray", expected))
    kinds = (ArraySource, FrameListSource, DaskSource) if named else ()
    return next((kind(data, named) for kind in kinds if kind.accepts(data)), data)


def ordered(dims: Sequence[Hashable], dim: object) -> tuple[Hashable, ...]:
    """Return dimensions in the order (frames, ..., rows, cols).

    >>> ordered(("y", "x", "time"), "time"), ordered(("time", "y", "x"), None)
    (('time', 'y', 'x'), ('time', 'y', 'x'))
    """
    known = ", ".join(map(str, dims))
    if dim is None:
        if len(dims) < 3:
            raise ValueError(
                f"an image series is three-dimensional (frames, rows, cols), got a DataArray of "
                f"{len(dims)} dimensions: {known}"
            )
        return tuple(dims)
    frames = list(dim) if isinstance(dim, list | tuple) and dim not in dims else [dim]
    if any(name not in dims for name in frames):
        raise ValueError(f"dim is {shown(dim)}, but the DataArray has the dimensions {known}")
    rest = [name for name in dims if name not in frames]
    if len(rest) != 2 or len(frames) + 2 != len(dims):
        raise ValueError(
            f"dim is {shown(dim)}, which leaves {len(rest)} of the dimensions {known} for a frame: "
            f"it must leave two"
        )
    return (*frames, *rest)


def values_of(image: Any, labels: Labels | None = None) -> Any:
    """Return the values of a DataArray that goes with the frames; any other object as it is.

    Its dimensions are put in the order of the images if they have the same names.
    """
    if not is_data_array(image):
        return image
    dims = () if labels is None else labels.image.dims
    same = set(dims) == set(image.dims)
    return (image.transpose(*dims) if same else image).to_numpy()
