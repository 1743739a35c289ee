"""The largest counts that detectors can measure, as the headers of their files give them."""

import re
from contextlib import suppress
from math import isfinite, prod
from pathlib import Path

import numpy as np

from .hdf5_files import open_file
from .hdf5_lock import hdf5_lock
from .placed import open_file as open_plain
from .table import HDF5_SIGNATURE

# In the text that a Pilatus writes at the beginning of TIFF and CBF files.
PILATUS = re.compile(rb"(Count_cutoff)[ :=]+(\d+) counts")

# Bytes that its header takes at most.
HEADER = 16 << 10

# Datasets of a group NXdetector; the second is in one of DECTRIS.
NEXUS = ("saturation_value", "detectorSpecific/countrate_correction_count_cutoff")


def cutoffs(path: Path) -> dict[str, int]:
    """Return the numbers of a file from which on counts are no counts, under their names."""
    if not path.is_file():
        return {}
    with open_plain(path) as file:
        head = file.read(HEADER)
    if head.startswith(HDF5_SIGNATURE):
        return _in_nexus(path)
    return {name.decode(): int(value) for name, value in PILATUS.findall(head)[:1]}


def _in_nexus(path: Path) -> dict[str, int]:
    """Return those of the detectors in ``/entry/instrument/detector``, whatever their names."""
    found: dict[str, int] = {}
    # Optional facts: another layout, or a link that leads nowhere, has none.
    with suppress(OSError, ValueError, KeyError), hdf5_lock(), open_file(path) as file:
        for entry in file.values():
            instrument = _member(entry, "instrument")
            for detector in getattr(instrument, "values", tuple)():
                for name in NEXUS:
                    value = _number(_member(detector, name))
                    if value is not None:
                        found.setdefault(name.rpartition("/")[2], value)
    return found


def _number(member: object) -> int | None:
    """Return the integer of a dataset; None if it has no value, infinity, or several."""
    shape = getattr(member, "shape", None)
    if shape is None or prod(shape) != 1:
        return None
    value = np.asarray(member)
    return int(value.item()) if value.dtype.kind in "iuf" and isfinite(value.item()) else None


def _member(group: object, name: str) -> object | None:
    """Return an object in a group, None if there is none or it is no group."""
    get = getattr(group, "get", None)
    return get(name) if get is not None else None
