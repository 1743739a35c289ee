"""The datasets that a name in an HDF5 file means: a dataset, a group, or a pattern."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from ..packages import load
from ..series.base import Choice
from .choosing import listed
from .hdf5_files import NO_OBJECT
from .hdf5_links import walk
from .hdf5_search import find_datasets
from .natural import natural

if TYPE_CHECKING:
    import h5py

WILDCARD = re.compile(r"[*?[]")


def find_named(group: h5py.Group, name: str, path: Path) -> Choice:
    """Return the datasets that a name below a group means; search for them if there is no name.

    Parameters
    ----------
    group : h5py.Group
        The file itself, or a group in it.
    name : str
        Of a dataset; of a group, which is searched; or a pattern such as ``/scan*/frame_*`` (as of
        a shell, for each part of a name), with its matches joined, scan_2 before scan_10.
    path : path
        Of the file, for errors.

    Raises
    ------
    ValueError, FileNotFoundError
        If there is no such dataset, or no series in such a group.
    """
    h5py = load("h5py")
    if not name:
        return find_datasets(group, path)
    node = None
    with suppress(*NO_OBJECT):  # `follow` names the fault
        node = group[name]
    if isinstance(node, h5py.Group):
        return _in_group(node, name, path)
    if node is None and WILDCARD.search(name):
        return _matching(group, name, path)
    return Choice((name,), "named")


def _in_group(group: h5py.Group, name: str, path: Path) -> Choice:
    """Return the series in a group that was named."""
    base = "/" + name.strip("/")
    return find_datasets(group, path, base if base != "/" else "")


def _matching(group: h5py.Group, pattern: str, path: Path) -> Choice:
    """Return the datasets that match a pattern; of a group that matches, the series in it."""
    h5py = load("h5py")
    names: dict[str, None] = {}
    seen = set()
    parts = [part for part in pattern.split("/") if part]
    for name in _matches(group, group.name.rstrip("/"), parts):
        node = _child(group, name)
        if node.id in seen:
            continue
        seen.add(node.id)
        found = _in_group(node, name, path).names if isinstance(node, h5py.Group) else (name,)
        names |= dict.fromkeys(found)
    if not names:
        raise ValueError(
            f"{path} has nothing that matches {pattern!r}: its names are "
            f"{listed(sorted(group, key=natural))}"
        )
    return Choice(tuple(names), f"all that match {pattern}")


def _matches(node: h5py.Group | h5py.Dataset, base: str, parts: list[str]) -> Iterator[str]:
    """Yield the names below a group that match a pattern, part by part."""
    if not parts:
        yield base
        return
    if not isinstance(node, load("h5py").Group):
        return
    part, *rest = parts
    for key in sorted(node, key=natural):
        if fnmatchcase(key, part):
            child = _child(node, key) if rest else node
            yield from _matches(child, f"{base}/{key}", rest)


def _child(node: h5py.Group, key: str) -> h5py.Group | h5py.Dataset:
    try:
        return node[key]
    except NO_OBJECT:
        return walk(node, key, f"{node.file.filename} has no {key!r}")[0]
