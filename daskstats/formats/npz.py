"""``.npz`` archives of plain arrays, one of which is the series."""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..series.base import Choice
from .npy import read_header
from .placed import PlacedSource, only_image, open_file, several

# Errors of reading a damaged archive, and those of a member that is no array.
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError)
UNREADABLE = (*DAMAGED, ValueError, struct.error, NotImplementedError)

# Bytes of a local file header, and where it has the lengths of the name and of the extra field.
LOCAL_HEADER, LENGTHS = 30, slice(26, 30)


@dataclass(frozen=True)
class Member:
    """An array in an archive."""

    name: str
    filename: str
    """of the member, which may lack ``.npy``"""
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    begin: int
    """first byte of the pixels in the member"""
    stored_at: int | None
    """first byte of the member in the file, None if it is compressed"""

    @property
    def is_image(self) -> bool:
        number = self.dtype.kind in "biuf" and self.dtype.itemsize <= 8
        return number and len(self.shape) >= 2 and 0 not in self.shape


class NpzSource(PlacedSource):
    """The only array of three or more dimensions in an archive, or else the only 2-D one.

    Parameters
    ----------
    path : path
        Of the archive. Where it is compressed, frames are read forwards.
    dataset : str
        Name of the array, if there are several.
    """

    has_datasets = True

    def __init__(self, path: str | os.PathLike, dataset: str = "") -> None:
        super().__init__(path, dataset=dataset)
        try:
            with zipfile.ZipFile(self.path) as archive, self.path.open("rb") as file:
                # Of members of one name the last one counts, as for numpy.
                infos = archive.NameToInfo.values()
                members = [
                    _member(archive, info, file) for info in infos if _is_array(archive, info)
                ]
        except UNREADABLE as error:
            raise ValueError(f"{self.path} is damaged or cut off: {error}") from error
        self._member = found = _chosen(members, dataset.strip("/"), self.path)
        self.choice = Choice((found.name,), "named" if dataset else _why(members))
        if found.fortran and len(found.shape) > 1:
            raise ValueError(f"{self.path}: {found.name} is in Fortran order: save it in C order")
        *leading, rows, cols = found.shape
        nbytes = rows * cols * found.dtype.itemsize
        begin = found.begin + (found.stored_at or 0)
        places = range(begin, begin + prod(leading) * nbytes, nbytes)
        self.set_places((rows, cols), found.dtype, places, check=found.stored_at is not None)
        self.lead = tuple(leading)

    def layout(self) -> tuple:
        return *super().layout(), self._member

    def opened(self) -> AbstractContextManager[BinaryIO]:
        return opened(self.path, self._member.filename if self.forwards else None)


@contextmanager
def opened(path: Path, filename: str | None) -> Iterator[BinaryIO]:
    """Open an archive, or one of its members to be decompressed."""
    with open_file(path) as file:
        if filename is None:
            yield file
            return
        try:
            with zipfile.ZipFile(file) as archive, archive.open(filename) as member:
                yield member  # type: ignore[misc]
        except UNREADABLE as error:
            raise ValueError(f"{path} is damaged or cut off: {error}") from error


def holds_frame_cache(path: Path) -> bool:
    """Whether an archive is a frame cache of HEXRD, or is too damaged to tell."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            # Archives of arrays may say the number of their frames as well.
            described = "nframes.npy" in names and not names.isdisjoint({"shape.npy", "dtype.npy"})
            return described or "0_row.npy" in names
    except UNREADABLE:
        return True


def data_offset(file: BinaryIO | io.FileIO, header_offset: int) -> int:
    """Return the first byte of a member as it is stored, given the offset of its local header."""
    file.seek(header_offset)
    lengths = struct.unpack("<HH", file.read(LOCAL_HEADER)[LENGTHS])
    return header_offset + LOCAL_HEADER + sum(lengths)


def _is_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    """Whether a member is an array: by its name, or else by its first bytes, as for numpy."""
    if info.filename.endswith(".npy"):
        return True
    magic = np.lib.format.MAGIC_PREFIX
    with archive.open(info) as member:
        return member.read(len(magic)) == magic


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: BinaryIO) -> Member:
    with archive.open(info) as member:
        shape, fortran, dtype = read_header(member)
        begin = member.tell()
    stored_at = None
    if info.compress_type == zipfile.ZIP_STORED:
        stored_at = data_offset(file, info.header_offset)
    if info.file_size < begin + prod(shape) * dtype.itemsize and not dtype.hasobject:
        raise ValueError(f"{info.filename} has {info.file_size} bytes, too few for {shape} {dtype}")
    name = info.filename.removesuffix(".npy")
    return Member(name, info.filename, shape, dtype, fortran, begin, stored_at)


def _chosen(members: list[Member], name: str, path: Path) -> Member:
    """Return the array of a name, or the only one that is a series."""
    images = [member for member in members if member.is_image]
    deep = [member for member in images if len(member.shape) > 2]
    if name:
        named = [member for member in images if member.name == name]
    else:
        named = deep if len(deep) == 1 or not images else images
        named = named if len(named) == 1 else []
    if named:
        return named[0]
    if not images:
        raise ValueError(f"{path} has no array of two or three dimensions and numbers")
    listed = {each.name: f"{' x '.join(map(str, each.shape))} {each.dtype}" for each in images}
    which = f"no array {name}" if name else f"{len(images)} arrays"
    raise ValueError(f"{path} has {which}: {several(path, listed)}")


def _why(members: list[Member]) -> str:
    """Return why the array that was chosen is the series."""
    alone = sum(member.is_image for member in members) == 1
    return "the only image or series" if alone else "the only series of images"


def read_image(path: Path, dataset: str = "") -> np.ndarray:
    return only_image(NpzSource(path, dataset))
