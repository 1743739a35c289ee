"""NeXus: the attributes by which an HDF5 file says which of its datasets is the picture to show.

::

    /            @default = "entry"
    /entry       @NX_class = "NXentry"     @default = "data"
    /entry/data  @NX_class = "NXdata"      @signal = "data"

Groups of the classes NXdetector and NXdata hold measured data as ``data``, where no attribute says
otherwise.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from ..packages import load
from .hdf5_files import NO_OBJECT
from .hdf5_links import DEEPEST

if TYPE_CHECKING:
    import h5py

# Values of @interpretation for datasets without images along their last two axes.
NO_IMAGE = ("spectrum", "scalar", "rgb-image", "rgba-image")


def attribute(node: h5py.Group | h5py.Dataset, name: str) -> str:
    """Return an attribute as text, "" if it is missing or cannot be read."""
    with suppress(OSError, KeyError, TypeError, ValueError, RuntimeError):
        value = node.attrs.get(name, "")
        value = value.flat[0] if getattr(value, "size", 0) == 1 else value
        return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return ""


def default_signal(group: h5py.Group, base: str) -> tuple[str, h5py.Dataset | None]:
    """Return the name of the dataset that @default and @signal lead to, and the dataset.

    The name is "" if there is no such attribute, the dataset None if it cannot be opened.

    Parameters
    ----------
    group : h5py.Group
        The file itself, or a group in it.
    base : str
        Name of the group, without a slash at its end.
    """
    name, node = base, group
    for _ in range(DEEPEST):
        signal = signal_of(node)
        if signal:
            return f"{name}/{signal}", _dataset(node, signal)
        child = attribute(node, "default") or _only_entry(node)
        found = node.get(child) if child else None
        if not isinstance(found, load("h5py").Group):
            return "", None
        name, node = (child if child.startswith("/") else f"{name}/{child}"), found
    return "", None


def _dataset(node: h5py.Group, key: str) -> h5py.Dataset | None:
    with suppress(*NO_OBJECT):
        found = node[key]
        return found if isinstance(found, load("h5py").Dataset) else None
    return None


def signal_of(node: h5py.Group) -> str:
    """Return the name of the signal in a group of class NXdata, "" for other groups."""
    if attribute(node, "NX_class") != "NXdata":
        return ""
    named = attribute(node, "signal")
    if named in node:
        return named
    marked = [key for key in node if _is_marked(node, key)]
    return marked[0] if len(marked) == 1 else ""


def _is_marked(node: h5py.Group, key: str) -> bool:
    """Whether a dataset is the signal by an attribute of its own, as in older files."""
    try:
        return attribute(node[key], "signal") == "1"
    except NO_OBJECT:
        return False


def _only_entry(node: h5py.Group) -> str:
    """Return the name of the only NXentry in a file, "" if there are several or none."""
    if node.name != "/":
        return ""
    entries = []
    for key in node:
        with suppress(*NO_OBJECT):
            if attribute(node[key], "NX_class") == "NXentry":
                entries.append(key)
    return entries[0] if len(entries) == 1 else ""


def measured(node: h5py.Group) -> list[str]:
    """Return the names of the datasets of a group that hold measured data by their class."""
    kind = attribute(node, "NX_class")
    if kind not in ("NXdata", "NXdetector"):
        return []
    signal = signal_of(node)
    return [signal] if signal else [key for key in ("data",) if key in node]


def is_image(dataset: h5py.Dataset) -> bool:
    """Whether the last two axes may be those of an image, as far as the file says."""
    return attribute(dataset, "interpretation") not in NO_IMAGE
