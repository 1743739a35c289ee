"""The datasets of an HDF5 file that may hold images, and the links that lead nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..packages import load
from .choosing import Candidate, listed
from .hdf5_files import NO_OBJECT, absolute, open_file
from .hdf5_links import linked_file, target_of, walk
from .hdf5_nexus import is_image, measured
from .hdf5_sources import Sources, check_shape, named
from .natural import natural

if TYPE_CHECKING:
    import h5py
    import numpy as np


@dataclass
class Contents:
    """The datasets of a file that may hold images, and links that lead nowhere."""

    candidates: list[Candidate] = field(default_factory=list)
    dangling: dict[str, str] = field(default_factory=dict)
    """the target of each such link, by its name"""
    measured: set[h5py.h5d.DatasetID] = field(default_factory=set)
    """datasets that are measured data by the class of their group"""
    others: list[str] = field(default_factory=list)
    """name, shape and dtype of each other dataset"""

    def __str__(self) -> str:
        text = listed(self.candidates)
        if self.dangling:
            links = listed([f"{name} to {target}" for name, target in self.dangling.items()])
            text += f"{'; ' if text else ''}links that lead nowhere: {links}"
        return text


def contents(group: h5py.Group, base: str = "") -> Contents:
    """Return the datasets of a group, all groups below and all links included."""
    h5py = load("h5py")
    base = base.rstrip("/")
    found = Contents()
    for name, parent, node in [("", group, group), *_nodes(group, base, {group.id})]:
        if node is None:
            link = parent.get(name.rpartition("/")[2], getlink=True)
            found.dangling[name] = dangling_target(link, parent)
        elif isinstance(node, h5py.Group):
            found.measured |= _measured(node)
        elif is_numeric(node) and is_image(node):
            found.candidates.append(Candidate((name,), [node], base))
        else:
            found.others.append(f"{name} {node.shape} {kind_of(node)}")
    return found


def kind_of(dataset: h5py.Dataset) -> str:
    """Return the dtype of a dataset for people."""
    dtype = _dtype(dataset)
    if dtype is None:
        return "values of a type that h5py does not read"
    is_text = load("h5py").check_string_dtype(dtype) is not None
    return "strings" if is_text else str(dtype)


def _dtype(dataset: h5py.Dataset) -> np.dtype | None:
    """Return the dtype of a dataset; None if numpy has none, as for times or 24 bits."""
    with suppress(TypeError, ValueError):
        return dataset.dtype
    return None


def _measured(group: h5py.Group) -> set[h5py.h5d.DatasetID]:
    found = set()
    for key in measured(group):
        with suppress(*NO_OBJECT):
            found.add(group[key].id)
    return found


def dangling_target(link: h5py.ExternalLink | h5py.SoftLink, parent: h5py.Group) -> str:
    """Return where a link leads to; raise the error of a file that exists, but is being written."""
    own = absolute(parent.file)
    filename = getattr(link, "filename", None)
    there = filename and linked_file(link, own)
    if not there:
        return target_of(link, own)
    try:
        file = open_file(there, parent.file.swmr_mode, parent.file.mode)
        walk(file, link.path, f"{there} has no {link.path!r}")
    except (ValueError, FileNotFoundError, PermissionError, IsADirectoryError) as error:
        return f"{filename}::{link.path} ({error})"
    return target_of(link, own)


def _nodes(
    group: h5py.Group, base: str, seen: set
) -> Iterator[tuple[str, h5py.Group, h5py.Group | h5py.Dataset | None]]:
    """Yield (name, parent, object) of all below a group, each once; None if it is missing."""
    h5py = load("h5py")
    waiting = [(base, group)]
    while waiting:
        base, node = waiting.pop()
        below = []
        for key in sorted(node, key=natural):
            name = f"{base}/{key}"
            try:
                child = node[key]
            except NO_OBJECT:
                yield name, node, None
                continue
            if child.id in seen or not isinstance(child, h5py.Group | h5py.Dataset):
                continue
            # They stay open, or another file might be given the number of one that was closed.
            seen.add(child.id)
            yield name, node, child
            if isinstance(child, h5py.Group):
                below.append((name, child))
        waiting += reversed(below)


def is_numeric(dataset: h5py.Dataset) -> bool:
    check_shape(dataset)
    if not dataset.shape or dataset.ndim < 2 or not dataset.size:
        return False
    dtype = _dtype(dataset)
    return dtype is not None and dtype.kind in "biuf"


def without_mapped(candidates: list[Candidate]) -> list[Candidate]:
    """Leave out the datasets that a virtual dataset among the candidates shows."""
    if len(candidates) == 1:
        return candidates
    used = {
        mapped
        for candidate in candidates
        for dataset in candidate.datasets
        if dataset.is_virtual
        for mapped in _mapped(dataset)
    }
    return [
        candidate
        for candidate in candidates
        if not any(dataset.id in used for dataset in candidate.datasets)
    ]


def _mapped(dataset: h5py.Dataset) -> Iterator[h5py.h5d.DatasetID]:
    """Yield the identity of each dataset that a virtual dataset shows and that can be opened.

    Reading the virtual dataset reports the faults of the others.
    """
    sources = Sources(dataset)
    for names in {(mapping.file_name, mapping.dset_name): None for mapping in sources.maps}:
        with suppress(ValueError, OSError):
            yield sources.follow(named(names, 0))[0].id
