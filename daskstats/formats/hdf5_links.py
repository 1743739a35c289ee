"""Which files and objects the names in an HDF5 file lead to: soft and external links, prefixes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..packages import load
from .hdf5_files import absolute, open_file

if TYPE_CHECKING:
    import h5py

# Links that may be followed one after the other, as a guard against circles.
DEEPEST = 32


def find_file(name: str, own: Path, prefixes: str = "") -> Path | None:
    """Return the file that the library opens for a name in another file; None if there is none."""
    for directory, relative in lookups(name, own, prefixes):
        if (directory / relative).is_file():
            return Path(os.path.abspath(directory / relative))  # noqa: PTH100 (links stay links)
    return None


def lookups(name: str, own: Path, prefixes: str = "") -> Iterator[tuple[Path, str]]:
    """Yield the directories in which the library looks for a file, and its name there.

    It looks for the name itself, if that is absolute; and then in the directories that are
    configured, next to the file, in the working directory, and next to the file behind a link.
    """
    relative = Path(name)
    if relative.is_absolute():
        yield Path(relative.anchor), str(relative.relative_to(relative.anchor))
        relative = Path(relative.name)
    home = str(own.parent)
    configured = [prefix.replace("${ORIGIN}", home) for prefix in prefixes.split(":") if prefix]
    for place in [*map(Path, configured), own.parent, Path.cwd(), own.resolve().parent]:
        yield place, str(relative)


def linked_file(link: h5py.ExternalLink, own: Path) -> Path | None:
    """Return the file of an external link."""
    return find_file(link.filename, own, os.environ.get("HDF5_EXT_PREFIX", ""))


def target_of(link: h5py.ExternalLink | h5py.SoftLink, own: Path) -> str:
    """Return where a link leads to, and the part that is missing there, for people."""
    filename = getattr(link, "filename", None)
    if filename is None:
        return f"{link.path}, which is not there"
    found = linked_file(link, own)
    if found is None:
        return f"{filename}::{link.path}, and there is no file {own.parent / filename}"
    return f"{found}::{link.path}, which cannot be opened"


def follow(file: h5py.File, name: str, where: str = "") -> tuple[h5py.Dataset, list[Path]]:
    """Return a dataset of a file, and all files that links on the way to it lead through.

    Raises
    ------
    FileNotFoundError, ValueError
        If a link leads nowhere or a name is not there; the message says which.
    """
    where = where or f"{absolute(file)} has no dataset {name!r}"
    node, files = walk(file, name, where)
    if not isinstance(node, load("h5py").Dataset):
        raise ValueError(f"{where}: there is no such dataset")
    return node, [*dict.fromkeys(files)]


def walk(
    group: h5py.Group, name: str, where: str, depth: int = 0
) -> tuple[h5py.Group | h5py.Dataset, list[Path]]:
    """Return the object of a name, component by component, and the files that links lead to."""
    h5py = load("h5py")
    if depth > DEEPEST:
        raise ValueError(f"{where}: links lead in circles")
    node, files = (group.file["/"] if name.startswith("/") else group), [absolute(group.file)]
    for part in name.split("/"):
        if part in ("", "."):
            continue
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            raise ValueError(f"{where}: there is no {part!r} in {node.name}")
        if isinstance(link, h5py.HardLink):
            node = node[part]
            continue
        own, start = absolute(node.file), node
        if isinstance(link, h5py.ExternalLink):
            start = _open_linked(link, node, where)
        step = f" ({own}::{node.name})"
        here = where if step in where else where + step  # in a circle each is named once
        node, passed = walk(start, link.path, here, depth + 1)
        files += passed
    return node, files


def _open_linked(link: h5py.ExternalLink, node: h5py.Group, where: str) -> h5py.Group:
    own = absolute(node.file)
    path = linked_file(link, own)
    if path is None:
        raise FileNotFoundError(f"{where}: {own}::{node.name} has a link to {target_of(link, own)}")
    if path == own:
        return node.file
    return open_file(path, node.file.swmr_mode, node.file.mode)["/"]


def numbered(name: str, number: int) -> str:
    """Return a name of a pattern.

    >>> numbered("scan_%b_%%.h5", 3)
    'scan_3_%.h5'
    """
    return re.sub("%[b%]", lambda found: str(number) if found[0] == "%b" else "%", name)
