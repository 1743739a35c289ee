"""Arrays that are not plain memory: which types they have, and how to make plain arrays of them.

Everything here is decided by type, never by an attribute: test doubles have them all.
"""

from typing import TypeVar

import numpy as np

from ..arguments import shown
from ..packages import loaded

_FILLED = (
    ".filled(value)",
    ", with a value that no pixel has, and give invalid=value (for floats .filled(numpy.nan) and "
    "skipna=True), or else masked values would count",
)
_IN_ONE_UNIT = ".to_value(unit)", ", the same unit for all"
_VALUES = ".values", " (or .data, to keep dask arrays lazy)"

# How to make plain arrays of the classes of other packages, and of their subclasses: by the names
# of the package and of the class, since no package is imported for this.
ADVICE = {
    ("numpy", "MaskedArray"): _FILLED,
    ("astropy", "MaskedNDArray"): _FILLED,
    ("astropy", "Quantity"): _IN_ONE_UNIT,
    ("unyt", "unyt_array"): _IN_ONE_UNIT,
    ("pint", "Quantity"): (".m_as(unit)", ", the same unit for all"),
    ("xarray", "DataArray"): _VALUES,
    ("xarray", "Variable"): _VALUES,
    ("xarray", "Dataset"): ("[name]", ", of one of its variables"),
    ("xarray", "DataTree"): ("[path]", ", of one of its variables"),
    ("pandas", "DataFrame"): (".to_numpy()", ""),
    ("pandas", "Series"): (".to_numpy()", ""),
    # Of spectra; of images `array_of` takes the data.
    ("hyperspy", "Signal1D"): (".as_signal2D(axes)", ", with the axes of a frame"),
    ("astropy", "NDData"): (".data", ", and give the mask that all images share as mask"),
    ("sparse", "SparseArray"): (".todense()", ""),
    ("scipy", "spmatrix"): (".toarray()", ""),
    ("scipy", "sparray"): (".toarray()", ""),
    ("cupy", "ndarray"): (".get()", ""),
    ("torch", "Tensor"): (".numpy(force=True)", ""),
}

# The attribute with the array of an object, likewise.
HOLDING = {("hyperspy", "BaseSignal"): "data", ("nexusformat", "NXfield"): "nxdata"}

# Stores that only zarr 2 can open, and the first version with stores for zarr 3.
OUTDATED = {("tifffile", "ZarrStore"): "tifffile 2025.5"}

T = TypeVar("T")


def is_plain(kind: type) -> bool:
    """Whether arrays of a type mean what their bytes say.

    Plain are numpy arrays, memory maps, and subclasses that only add attributes. One that changes
    how numpy computes with it, or that has a mask or units, is not.

    >>> is_plain(np.memmap), is_plain(np.ma.MaskedArray)
    (True, False)
    """
    if kind is np.ndarray:
        return True
    if not issubclass(kind, np.ndarray) or issubclass(kind, np.ma.MaskedArray):
        return False
    own = (kind.__array_ufunc__, kind.__array_function__)
    computes = own != (np.ndarray.__array_ufunc__, np.ndarray.__array_function__)
    return not computes and not any(hasattr(kind, name) for name in ("mask", "unit", "units"))


def check_plain(array: object, index: int | None, dtype: np.dtype) -> None:
    """Refuse a frame, or a block that begins with one, that is not plain memory."""
    if not is_plain(type(array)):
        name = "a block of the dask array" if index is None else f"frame {index}"
        raise ValueError(refusal(type(array), name, f"a plain numpy array of {dtype}"))


def refusal(kind: type, name: str, expected: str, items: bool = False) -> str:
    """Return the error of an object, or an item of a list, that is of an unexpected type.

    >>> refusal(np.ma.MaskedArray, "frame 3", "a plain array").partition(", with a value")[0]
    'frame 3 is a MaskedArray, expected a plain array: take its .filled(value)'
    """
    type_name = called(kind)
    article = "an" if type_name[0] in "aeioux" else "a"
    text = f"{name} is {article} {type_name}, expected {expected}"
    advice = advice_for(kind)
    if advice is None:
        return text
    how, remark = advice
    return f"{text}: take {f'[image{how} for image in images]' if items else f'its {how}'}{remark}"


def called(kind: type) -> str:
    """Return the name of a type, with its package unless that is numpy or builtin.

    >>> called(list), called(np.ma.MaskedArray)
    ('list', 'MaskedArray')
    """
    package = _package(kind)
    known = package in ("builtins", "numpy", "__main__")
    return kind.__name__ if known else f"{package}.{kind.__name__}"


def advice_for(kind: type) -> tuple[str, str] | None:
    """Return how to make plain arrays of a type, and a remark; None if the type is unknown."""
    return _named_for(kind, ADVICE)


def is_a(value: object, module: str, name: str) -> bool:
    """Whether an object is of a class of a package, by its type: a test double claims any."""
    kind = loaded(module, name)
    return kind is not None and issubclass(type(value), kind)


def is_data_array(ims: object) -> bool:
    """Whether an object is a DataArray of xarray."""
    return is_a(ims, "xarray", "DataArray")


def variables_of(ims: object) -> str:
    """Return the names of the variables of a Dataset, as the end of its refusal."""
    if not is_a(ims, "xarray", "Dataset"):
        return ""
    return f": {shown(list(ims.data_vars))}"  # type: ignore[attr-defined]


def array_of(ims: object) -> object:
    """Return the array that an object of another package holds, None for objects of other types.

    Raises
    ------
    TypeError
        If it is a store that zarr cannot open any more.
    """
    newer = _named_for(type(ims), OUTDATED)
    if newer is not None:
        raise TypeError(
            f"{called(type(ims))} is a store for zarr 2, which zarr 3 cannot open: give the path "
            f"of the file, or update to {newer} or later"
        )
    attribute = _named_for(type(ims), HOLDING)
    return None if attribute is None else getattr(ims, attribute)


def _named_for(kind: type, table: dict[tuple[str, str], T]) -> T | None:
    """Return the entry of a table for a type, or for the first class it is derived from."""
    names = [(_package(base), base.__name__) for base in kind.__mro__]
    return next((table[name] for name in names if name in table), None)


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]
