"""How paths and objects become image series: `as_series` opens them."""

import inspect
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import PurePath
from typing import Any

import numpy as np
from dask.utils import SerializableLock

from ..arguments import check_lock
from . import arrays, daskarrays, foreign, readers  # noqa: F401 (found by `_kinds`)
from .base import Source
from .foreign import advice_for, refusal
from .locked import LockedSource
from .sequence import SequenceSource


def as_series(ims: Any, lock: bool | AbstractContextManager = False) -> Source:
    """Return the image series for a path or an object.

    Parameters
    ----------
    ims : path, list of paths, array, list of 2-D arrays, or HEXRD-like image series
        Anything with ``len(ims)``, ``ims[i]`` (a 2-D array for a Python int ``i``), ``.shape`` (of
        a frame, or of all) and ``.dtype``; a numpy, zarr, h5py or dask array (..., rows, cols)
        with all leading axes as frames in C order; a group of h5py or zarr; a list of 2-D
        arrays or of h5py datasets; a sequence of PIMS, fabio or scikit-image; the path or address
        of a file, a folder or a pattern, or several: see `daskstats.formats.files.open_files`.
    lock : bool or lock
        Whether only one thread at a time may read from it; or the lock to use.

    Returns
    -------
    Source
        With ``len``, ``shape`` and ``dtype``, which are read once.

    Examples
    --------
    >>> as_series(np.zeros((3, 4, 5), ">u2"))
    <ArraySource: 3 frames of 4 x 5 uint16>
    """
    source = open_source(ims)
    if lock is False or lock is None:
        return source
    check_lock(lock)
    # Two series of one object have one lock: one computation may read both.
    return LockedSource(source, SerializableLock(f"{id(ims)}") if lock is True else lock)


# The formats stand above this room: their table is imported by name. Every class that opens an
# object is defined once these imports are done.
_formats = import_module("daskstats.formats.files")
import_module("daskstats.formats.hdf5_objects")


def _kinds(cls: type[Source] = Source) -> list[type[Source]]:
    """Return all subclasses of a class, those derived from them included."""
    return [kind for sub in cls.__subclasses__() for kind in (sub, *_kinds(sub))]


def open_source(ims: Any) -> Source:
    """Return the image series for a path or an object, chosen by its type.

    Parameters
    ----------
    ims : path, list of paths, array, list of 2-D arrays, or HEXRD-like image series
        A path may name a dataset in a file: ``"scan.h5::/entry/data"``.

    Raises
    ------
    TypeError, ValueError
        If it is no image series; the message says why.
    FileNotFoundError
        If there is no such file.
    ImportError
        If the format needs a package that is not installed.
    """
    given = type(ims)
    if issubclass(given, Source):
        return ims
    if _is_path(ims):
        return _formats.open_files(ims)
    paths = _list_of_paths(ims)
    if paths is not None:
        return _formats.open_files(paths)
    if advice_for(given) is not None and not issubclass(given, np.ndarray):
        text = refusal(given, "the image series", "an array (frames, rows, cols)")
        raise TypeError(text + foreign.variables_of(ims))
    # A test double may claim another class: only its type counts.
    kinds = _kinds() if ims.__class__ is given else []
    for kind in kinds:
        if not vars(kind).keys().isdisjoint(("accepts", "opens")) and kind.accepts(ims):
            return kind(ims)  # type: ignore[call-arg]
    held = foreign.array_of(ims)
    return SequenceSource(ims) if held is None else open_source(held)


def _is_path(ims: object) -> bool:
    """Whether an object is a path; one that also has the four names of a series is not."""
    if issubclass(type(ims), str | PurePath):
        return True
    return issubclass(type(ims), os.PathLike) and not all(
        _has(ims, name) for name in ("__len__", "__getitem__", "shape", "dtype")
    )


def _list_of_paths(ims: object) -> list | None:
    """Return the paths of a list, a set or an iterator of them; None for anything else."""
    kind = type(ims)
    if issubclass(kind, Iterator) and not hasattr(kind, "__len__"):
        given = list(ims)  # type: ignore[call-overload]
        if not given:
            raise TypeError(
                f"{kind.__name__} is not an image series: it has nothing left, because no file "
                f"matched or it was used before"
            )
        if not all(map(_is_path, given)):
            return None
        ims = given
    elif issubclass(kind, set | frozenset):
        ims = _formats.ordered(ims)
    elif not issubclass(kind, list | tuple):
        return None
    found = [_is_path(item) for item in ims]  # type: ignore[attr-defined]
    if any(found) and not all(found):
        index = found.index(not found[0])
        raise TypeError(
            f"a list of files must hold paths only: item {index} is of type "
            f"{type(ims[index]).__name__}"  # type: ignore[index]
        )
    return list(ims) if any(found) else None  # type: ignore[call-overload]


def _has(ims: object, name: str) -> bool:
    """Whether an object has an attribute; its value is computed only where that is unavoidable.

    The shape of a processed series may cost it a whole frame.
    """
    try:
        inspect.getattr_static(ims, name)
    except AttributeError:
        return not name.startswith("__") and hasattr(ims, name)
    return True
