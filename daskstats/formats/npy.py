"""``.npy`` files, memory mapped, or read in the process they are sent to; ``.npz`` of images."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from ..memory.pool import block_of_frames
from ..series.arrays import ArraySource
from ..series.base import Source
from ..series.files import FileSource, digest_of_part, naming_place, restore
from .notes import NONE, Facts
from .placed import fill
from .writing import OutputFile


class NpySource(FileSource, ArraySource):
    """A 3-D array in a ``.npy`` file, or one image; pages come in as they are read."""

    handles = ("_array",)

    def __init__(self, path: str | os.PathLike) -> None:
        FileSource.__init__(self, path)
        array = self._map()
        self._layout, self._begin = _layout(array), array.offset
        ArraySource.__init__(self, array)

    def _map(self) -> np.memmap:
        try:
            check_header(self.path)
            array = np.lib.format.open_memmap(self.path, mode="r")
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(
                f"{self.path} is not a .npy file of numbers, or is cut off: {error}"
            ) from error
        if array.ndim == 2 and array.size:
            return array[None]  # type: ignore[return-value]
        return array

    def open(self) -> None:
        array = self._map()
        if _layout(array) != self._layout:
            raise self.changed(f"an array of shape {array.shape} and {array.dtype}")
        self._array = array

    def digest_of_frame(self, index: int) -> bytes | None:
        if not self._array.flags.c_contiguous:
            return None  # its frames are not in one piece
        nbytes = self._array[index].nbytes
        return digest_of_part(self.path, self._begin + index * nbytes, nbytes)

    def part(self, start: int, stop: int, first: int, last: int) -> Source | None:
        return None

    def view(self, start: int, stop: int, first: int, last: int) -> Source | None:
        return ArraySource.part(self, start, stop, first, last)

    def __reduce__(self) -> tuple:
        return restore, (ReadNpySource, self.__getstate__() | {"in_memory": False})


class ReadNpySource(NpySource):
    """A ``.npy`` file in another process, where reads allocate their own memory.

    Mapped pages count as memory of the process: the worker of a cluster that has read much of a
    file would be stopped for using too much, though the system could take all of it back.
    """

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        array = self._array  # the file's header is checked before the first read
        if not array.flags.c_contiguous:
            return [array[start:stop, first:last].copy()]
        block = block_of_frames(stop - start, last - first, self.shape, array.dtype)
        with naming_place(self.path):
            file = self.path.open("rb")
        with file:
            if block.shape[1] == self.shape[0]:
                self._fill(file, block, start, 0)
            else:
                for frame in range(start, stop):
                    self._fill(file, block[frame - start], frame, first)
        return [block]

    def _fill(self, file: BinaryIO, block: np.ndarray, frame: int, row: int) -> None:
        rows, cols = self.shape
        offset = self._layout[0] + (frame * rows + row) * cols * block.itemsize
        if fill(file, block, offset) < block.nbytes:
            raise ValueError(f"{self.path} is cut off in frame {frame}")

    def view(self, start: int, stop: int, first: int, last: int) -> Source | None:
        return None

    def __dask_tokenize__(self) -> tuple:
        # It reads the same frames as the series that was sent.
        return NpySource.__name__, *super().__dask_tokenize__()[1:]


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, whether it is in Fortran order, and dtype of the array that follows."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0
    if version > (1, 0):  # 3.0 is as 2.0, with other letters in the names of fields
        read = np.lib.format.read_array_header_2_0
    return read(file)


def check_header(path: Path) -> None:
    """Refuse a header that claims more bytes than the file has: mapping it may overflow."""
    with path.open("rb") as file:
        shape, _, dtype = read_header(file)
        begin = file.tell()
        there = file.seek(0, os.SEEK_END) - begin
    # numpy multiplies the lengths in 64 bits, also where one of them is zero.
    fits = prod(max(length, 1) for length in shape) * max(dtype.itemsize, 1) <= sys.maxsize
    if not fits or min(shape, default=0) < 0 or prod(shape) * dtype.itemsize > there:
        raise ValueError(f"its header says shape {shape} and {dtype}, and {there} bytes follow")


def _layout(array: np.memmap) -> tuple[int, tuple[int, ...], str, bool]:
    """Return where the pixels of a mapped file are."""
    return array.offset, array.shape, array.dtype.str, bool(array.flags.c_contiguous)


def read_image(path: Path, dataset: str = "") -> np.ndarray:
    return np.load(path, allow_pickle=False)


def write_image(image: np.ndarray, path: Path, notes: Facts = NONE) -> None:
    with OutputFile(path) as file:
        np.save(file, image, allow_pickle=False)


def write_archive(images: Mapping[str, np.ndarray], path: Path, notes: Facts = NONE) -> None:
    with new_archive(path) as add:
        for name, image in images.items():
            add(name, image)


@contextmanager
def new_archive(
    path: Path, compression: int = zipfile.ZIP_STORED
) -> Iterator[Callable[[str, np.ndarray], None]]:
    """Give a function that adds a named array to a new ``.npz`` archive."""
    # An archive that cannot be written complains again when it is closed, and deleted.
    with OutputFile(path, deferred=True) as output:
        with zipfile.ZipFile(output, "w", compression) as archive:

            def add(name: str, array: np.ndarray) -> None:
                # Without a date the same arrays give the same file.
                member = zipfile.ZipInfo(f"{name}.npy")
                member.compress_type = compression
                with archive.open(member, "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
                output.check()

            yield add
        output.check()
