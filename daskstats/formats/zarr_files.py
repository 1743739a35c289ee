"""Zarr arrays and groups of images: how they are written, and which directories are nothing else.

A directory is replaced only if every file in it belongs to zarr.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from .. import ending
from ..packages import load
from .notes import NONE, Facts
from .writing import OutputFile

# The directory of an array or a group has one of these files.
METADATA = ("zarr.json", ".zarray", ".zgroup")
ATTRIBUTES = (".zattrs", ".zmetadata")

# A chunk, or a directory of chunks, in either version; a killed writer may have left a part of one.
CHUNK = re.compile(r"(c|(c\.)?\d+(\.\d+)*)(\.[0-9a-f]{32}\.partial)?")


def write_image(image: np.ndarray, path: Path, notes: Facts = NONE) -> None:
    attributes = _as_attributes(notes)
    _write_store(
        path, lambda store: load("zarr").create_array(store, data=image, attributes=attributes)
    )


def write_group(images: Mapping[str, np.ndarray], path: Path, notes: Facts = NONE) -> None:
    attributes = _as_attributes(notes)
    _write_store(path, lambda store: load("zarr").create_group(store, attributes=attributes))
    for name, image in images.items():
        write_image(image, path / name)


def _as_attributes(notes: Facts) -> dict[str, object]:
    return {key: value if isinstance(value, str) else list(value) for key, value in notes.items()}


def _write_store(path: Path, fill: Callable[[object], object]) -> None:
    """Fill a zarr store in memory, and write it to disk.

    On a full disk zarr, which writes several chunks at a time, leaves tasks behind that complain
    until the program has ended. The store takes no more than the image, compressed.
    """
    files: dict = {}
    fill(load("zarr.storage").MemoryStore(files))
    for name, content in files.items():
        with ending.writing:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            with OutputFile(path / name) as file:
                file.write(content.to_bytes())


def is_store(path: Path) -> bool:
    """Whether a directory is a zarr array or group."""
    return any((path / name).is_file() for name in METADATA)


def foreign_file(store: Path) -> Path | None:
    """Return the first entry in the directory of a zarr array or group that is not zarr's."""
    inside = _foreign_chunk if _is_array(store) else _foreign_member
    found = (
        _foreign_metadata(entry) if entry.name in (*METADATA, *ATTRIBUTES) else inside(entry)
        for entry in sorted(store.iterdir())
    )
    return next(filter(None, found), None)


def _foreign_metadata(file: Path) -> Path | None:
    """Return a file of metadata if another program wrote it under that name."""
    plain = file.is_file() and not file.is_symlink()
    known = file.name in ATTRIBUTES or "zarr_format" in _read_metadata(file)
    return None if plain and known else file


def _foreign_member(path: Path) -> Path | None:
    """Return a file that is not zarr's in a member of a group."""
    is_member = path.is_dir() and not path.is_symlink() and is_store(path)
    return foreign_file(path) if is_member else path


def _foreign_chunk(path: Path) -> Path | None:
    """Return a file that is not zarr's in a chunk, or a directory of chunks."""
    if path.is_symlink() or not CHUNK.fullmatch(path.name):
        return path
    if path.is_dir():
        return next(filter(None, map(_foreign_chunk, sorted(path.iterdir()))), None)
    return None if path.is_file() else path


def _is_array(store: Path) -> bool:
    metadata = _read_metadata(store / "zarr.json")
    return (store / ".zarray").is_file() or metadata.get("node_type") == "array"


def _read_metadata(file: Path) -> dict[str, object]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
