"""Generations of a state on disk: each is whole, or does not count.

::

    scan.checkpoint/
      manifest.json       which call, and the last two generations with checksums of their arrays
      7/  0/  1/  ...     generation 7: a zarr array for each array of the state, and each image
      6/  0/  1/  ...     the one before
      scratch-3f.../      frames in row order, until the run has finished: see `scratch.recorded`
      frames/             the same of a series that grows, until it is complete: `scratch.growing`
      owner-3             the process that may write

`CheckpointStore.commit` writes a new generation, waits until it is on the disk, and replaces the
manifest by a rename. A process that is killed at any moment leaves the old manifest or the new one.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..formats.addresses import check_is_path
from ..formats.writing import OutputFile, naming_disk_errors, remove, sync
from ..packages import load
from .manifest import (
    JSON,
    DamagedCheckpointError,
    Generation,
    Manifest,
    SavedArray,
    digest_of,
    read_manifest,
)

MANIFEST, UNFINISHED = "manifest.json", "manifest.new"

# The beginning of the names of directories for scratch data.
SCRATCH = "scratch-"

# The directory of the frames of a growing series.
FRAMES = "frames"

# Generations that are kept: the newest, and the one before in case that it cannot be read.
KEPT_GENERATIONS = 2

# The codecs of the arrays. Others are refused: codecs of zarr may run any code.
CODECS = ["bytes", "crc32c"]


class CheckpointStore:
    """The generations in a directory.

    Parameters
    ----------
    directory : path
        Made by the first `commit`.
    """

    def __init__(self, directory: str | os.PathLike) -> None:
        if not os.fspath(directory):
            raise ValueError("checkpoint must be the path of a directory, got an empty one")
        check_is_path(directory, "the checkpoint")
        self.directory = Path(os.path.realpath(directory))
        if self.directory.exists() and not self.directory.is_dir():
            raise NotADirectoryError(f"{self.directory} is a file: a checkpoint is a directory")

    def manifest(self) -> Manifest | None:
        """Return the manifest, None if there is no checkpoint yet."""
        return read_manifest(self.directory / MANIFEST)

    def commit(self, manifest: Manifest, arrays: Mapping[str, np.ndarray]) -> Manifest:
        """Store the newest generation of a manifest, made of these arrays, and then the manifest.

        Returns
        -------
        Manifest
            As it is stored: with the checksums of the arrays, and the generations that are kept.
        """
        number = manifest.newest.number
        place = self.directory / f"{number}"
        remove(place)  # of a process that was killed before its manifest was in place
        with naming_disk_errors(self.directory, self.directory):
            try:
                place.mkdir(parents=True)
                saved = [_write(place / f"{k}", *each) for k, each in enumerate(arrays.items())]
                _sync_tree(place)
            except OSError:
                remove(place)  # it would fill the disk further
                raise
        newest = replace(manifest.newest, arrays=tuple(saved))
        kept = (newest, *manifest.generations[1:KEPT_GENERATIONS])
        manifest = replace(manifest, generations=kept)
        self._put(manifest)
        self._remove_others({each.number for each in kept})
        return manifest

    def _put(self, manifest: Manifest) -> None:
        unfinished = self.directory / UNFINISHED
        remove(unfinished)
        with OutputFile(unfinished) as file:
            file.write(manifest.text().encode())
        _sync_directory(self.directory)  # the generation's own entry
        unfinished.replace(self.directory / MANIFEST)
        _sync_directory(self.directory)

    def _remove_others(self, kept: set[int]) -> None:
        for path in self.directory.iterdir():
            if path.name.isascii() and path.name.isdigit() and int(path.name) not in kept:
                remove(path)

    def read(self, generation: Generation, names: Iterable[str] = ()) -> dict[str, np.ndarray]:
        """Return the arrays of a generation, or those with some names, checked.

        Raises
        ------
        DamagedCheckpointError
            If an array differs from the manifest; the message names it.
        """
        wanted, place = set(names), self.directory / f"{generation.number}"
        return {
            saved.name: self._read(place / f"{k}", saved)
            for k, saved in enumerate(generation.arrays)
            if not wanted or saved.name in wanted
        }

    def _read(self, place: Path, saved: SavedArray) -> np.ndarray:
        try:
            return _read(place, saved)
        except Exception as error:
            raise DamagedCheckpointError(
                f"{saved.name} in {place} is damaged, or not of this checkpoint: {error}"
            ) from error

    def scratch_name(self, identity: dict[str, JSON]) -> str:
        """Return the name of the directory for scratch data of a call; others are removed."""
        text = json.dumps(identity, sort_keys=True)
        name = f"{SCRATCH}{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        self.remove_scratch(keep=name)
        return name

    def remove_scratch(self, keep: str = "") -> None:
        """Remove all scratch data, but those of one name."""
        for path in self.directory.glob(f"{SCRATCH}*"):
            if path.name != keep:
                remove(path)

    def clear(self) -> None:
        """Remove all generations and scratch data; the manifest goes first."""
        self.remove_scratch()
        for name in (MANIFEST, UNFINISHED, FRAMES):
            remove(self.directory / name)
        if self.directory.is_dir():
            self._remove_others(set())


def check_storable(state: Mapping[str, np.ndarray]) -> None:
    """Refuse a state that cannot be stored.

    Raises
    ------
    TypeError
        If an array of it is not of numbers of at most 64 bits, or empty.
    """
    for name, array in state.items():
        found = np.asarray(array)
        number = found.dtype.itemsize <= (16 if found.dtype.kind == "c" else 8)
        if found.dtype.kind not in "biufc" or not number or not found.size:
            raise TypeError(
                f"a checkpoint holds arrays of numbers of at most 64 bits, and {name!r} of the "
                f"state has shape {found.shape} and dtype {found.dtype}: leave checkpoint out"
            )


def _write(place: Path, name: str, array: np.ndarray) -> SavedArray:
    """Write an array of a state in one chunk."""
    array = np.asarray(array, order="C")
    codecs = load("zarr.codecs")
    # Chunks of zeros are written, too: a missing one would be read as zeros.
    config = {"write_empty_chunks": True}
    stored = load("zarr").create_array(
        place,
        shape=array.shape,
        chunks=array.shape,
        dtype=array.dtype.newbyteorder("="),
        filters=None,
        compressors=[codecs.Crc32cCodec()],
        config=config,
    )
    stored[...] = array
    metadata = hashlib.sha256((place / "zarr.json").read_bytes()).hexdigest()
    dtype = array.dtype.newbyteorder("<").str
    return SavedArray(name, array.shape, dtype, digest_of([array]), metadata)


def _read(place: Path, saved: SavedArray) -> np.ndarray:
    """Read an array; nothing that differs from its description is opened."""
    metadata = _bytes_of(place / "zarr.json", most=1 << 20)
    if hashlib.sha256(metadata).hexdigest() != saved.metadata:
        raise ValueError("zarr.json has been altered")
    _check_metadata(json.loads(metadata), saved)
    chunk = place.joinpath("c", *("0" for _ in saved.shape))
    _check_links(chunk, place.parent)
    size, expected = chunk.stat().st_size, saved.nbytes + 4  # its checksum
    if size != expected:
        raise ValueError(f"{chunk.name} has {size} bytes, expected {expected}")
    array = np.asarray(load("zarr").open_array(place, mode="r")[...])
    if digest_of([array]) != saved.digest:
        raise ValueError("its values have another digest")
    return array


def _check_metadata(metadata: dict[str, Any], saved: SavedArray) -> None:
    """Refuse metadata of another array than `_write` makes."""
    grid = {"name": "regular", "configuration": {"chunk_shape": [*saved.shape]}}
    expected = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [*saved.shape],
        "data_type": np.dtype(saved.dtype).name,
        "chunk_grid": grid,
        "storage_transformers": [],
    }
    for field, value in expected.items():
        if metadata.get(field) != value:
            raise ValueError(f"{field} is {metadata.get(field)!r}, expected {value!r}")
    codecs = [each.get("name") for each in metadata["codecs"]]
    if codecs != CODECS:
        raise ValueError(f"codecs are {codecs}, expected {CODECS}")
    if metadata["chunk_key_encoding"]["name"] != "default":
        raise ValueError(f"chunk_key_encoding is {metadata['chunk_key_encoding']['name']!r}")


def _check_links(path: Path, above: Path) -> None:
    """Refuse a path that leaves its directory by a link."""
    while path != above.parent:
        if not stat.S_ISREG(path.lstat().st_mode) and not stat.S_ISDIR(path.lstat().st_mode):
            raise ValueError(f"{path} is a link, or no plain file")
        path = path.parent


def _bytes_of(path: Path, most: int) -> bytes:
    _check_links(path, path.parent.parent)
    with path.open("rb") as file:
        found = file.read(most + 1)
    if len(found) > most:
        raise ValueError(f"{path.name} is longer than {most} bytes")
    return found


# ---------------------------------------------------------------------- on the disk for certain


def _sync_directory(path: Path) -> None:
    """Wait until the entries of a directory are on the disk."""
    if os.name == "nt":  # where a directory cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(place: Path) -> None:
    for directory, _, files in os.walk(place, topdown=False):
        for name in files:
            with Path(directory, name).open("rb+") as file:
                sync(file.fileno())
        _sync_directory(Path(directory))
