"""FITS files, read and written with astropy: images, their compressed form, scaled pixels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from ..packages import load, require
from ..series.base import Choice
from .forward import DeferredSeeks
from .notes import NONE, Facts, lines
from .placed import (
    ReopenedSource,
    in_native_order,
    is_compressed,
    naming_damage,
    only_image,
    open_file,
    several,
)
from .writing import OutputFile

if TYPE_CHECKING:
    from astropy.io import fits

# The decoder of this compression keeps its place in variables that all threads share.
ONE_AT_A_TIME = {"HCOMPRESS_1"}

# Letters of a card after its keyword.
CARD = 72

# The first bytes of the header of an extension.
EXTENSION = b"XTENSION"

_decoding = Lock()


class FitsSource(ReopenedSource):
    """An image of two or more dimensions, or the 2-D images of several extensions.

    Parameters
    ----------
    path : path
        Of the file.
    dataset : str
        Number or name of the extension: "1" or "SCI"; by default the only image there is, or all
        images if they are 2-D and alike.
    """

    has_datasets = True
    one_by_one = True
    stored = 1  # the bytes of the file, before pixels are scaled

    def __init__(self, path: str | os.PathLike, dataset: str = "") -> None:
        super().__init__(path, dataset=dataset)
        with opened(self.path) as file:
            _check_complete(file, self.path)
            name = dataset.strip("/")
            self._numbers = _chosen(file, name, self.path)
            why = "named" if name else "every image in the file"
            self.choice = Choice((*map(str, self._numbers),), why)
            first = file[self._numbers[0]]
            *leading, rows, cols = first.shape
            self._leading = (*leading, 1) if len(self._numbers) == 1 else (len(self._numbers),)
            count = int(np.prod(self._leading, dtype=np.int64))
            self.set_layout((count, rows, cols), _dtype(first))
            self.lead = tuple(leading) if len(self._numbers) == 1 else None
            tile = getattr(first, "tile_shape", (1, 1))  # of a compressed image
            self._alone = getattr(first, "compression_type", "") in ONE_AT_A_TIME
            self.forwards = is_compressed(self.path)
            self.row_unit = None if self.forwards else min(int(tile[-2]), rows)

    def layout(self) -> tuple:
        return *super().layout(), self._numbers

    def opened(self) -> AbstractContextManager[fits.HDUList]:
        return opened(self.path)

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        self.check_unchanged()
        end = None if stop == len(self) else stop
        with _decoding if self._alone else nullcontext(), self.opened_at(start, end) as file:
            return [self._rows(file, index, first, last) for index in range(start, stop)]

    def _rows(self, file: fits.HDUList, index: int, first: int, last: int) -> np.ndarray:
        if len(self._numbers) > 1:
            pixels = file[self._numbers[index]].section[first:last]
        else:
            place = np.unravel_index(index, self._leading)[:-1]
            pixels = file[self._numbers[0]].section[(*map(int, place), slice(first, last))]
        return in_native_order(np.array(pixels))[None]


@contextmanager
def opened(path: Path) -> Iterator[fits.HDUList]:
    """Open a FITS file; an error of its structure or its pixels names the file."""
    require("astropy", path)
    # astropy does not close a file that it cannot open.
    with (
        naming_damage(path, "a FITS file"),
        open_file(path) as bare,
        DeferredSeeks(bare) if is_compressed(path) else bare as stream,
        load("astropy.io.fits").open(stream, memmap=False, uint=True) as file,
    ):
        yield file


def _chosen(file: fits.HDUList, name: str, path: Path) -> list[int]:
    """Return the numbers of the extensions that are the series."""
    images = [index for index, hdu in enumerate(file) if _is_image(hdu)]
    if name:
        try:
            number = file.index_of(int(name) if name.isdecimal() else name)
        except (KeyError, IndexError):
            number = -1
        if number in images:
            return [number]
        raise ValueError(f"{path} has no image {name}: {_listed(file, images, path)}")
    if not images:
        raise ValueError(f"{path} has no image of two or more dimensions")
    kinds = {(file[index].shape, _dtype(file[index])) for index in images}
    if len(images) == 1 or (len(kinds) == 1 and len(file[images[0]].shape) == 2):
        return images
    raise ValueError(f"{path} has {len(images)} images: {_listed(file, images, path)}")


def _is_image(hdu: Any) -> bool:
    return bool(hdu.is_image) and len(hdu.shape) >= 2 and 0 not in hdu.shape


def _listed(file: fits.HDUList, images: list[int], path: Path) -> str:
    """Return at most ten images, as the text that names each."""
    shapes = {index: " x ".join(map(str, file[index].shape)) for index in images}
    return several(path, {str(i): f"{text} {_dtype(file[i])}" for i, text in shapes.items()})


def _dtype(hdu: Any) -> np.dtype:
    """Return the dtype of pixels once they are scaled, given that of one of them."""
    corner = hdu.section[(0,) * (len(hdu.shape) - 2) + (slice(0, 1), slice(0, 1))]
    return np.asarray(corner).dtype.newbyteorder("=")


def _check_complete(file: fits.HDUList, path: Path) -> None:
    """Refuse a file that ends within one of its parts, for which astropy only warns."""
    places = [file.fileinfo(number) for number in range(len(file))]
    handle, end = places[0]["file"], 0
    for number, place in enumerate(places):
        end = place["datLoc"] + place["datSpan"]
        if end > handle.size:
            text = f"part {number} ends at byte {end} of {handle.size}"
            raise ValueError(f"{path} is cut off: {text}")
    # astropy leaves out a part without all of its header. Others may have put anything at the end.
    handle.seek(end)
    begin = handle.read(len(EXTENSION))
    if begin and EXTENSION.startswith(begin):
        raise ValueError(
            f"{path} is cut off: it ends at byte {handle.size}, in the header of part {len(places)}"
        )


def _cards(text: str) -> Iterator[str]:
    """Yield parts of a text, which fit in a card each: astropy drops blanks at the end of one.

    >>> list(_cards("a" * 70 + "  b"))[1]
    '  b'
    """
    while text:
        part = text[:CARD].rstrip() or text[:CARD]
        yield part
        text = text[len(part) :]


def read_image(path: Path, dataset: str = "") -> np.ndarray:
    return only_image(FitsSource(path, dataset))


def write_image(image: np.ndarray, path: Path, notes: Facts = NONE) -> None:
    """Write an image as the first of a file; bool as uint8, and float16 as float32."""
    wider = {"bool": "u1", "float16": "f4"}.get(image.dtype.name, image.dtype)
    picture = load("astropy.io.fits").PrimaryHDU(image.astype(wider))
    for key, text in lines(notes).items():
        for line in _cards(f"{key} = {text}"):
            picture.header.add_history(line)
    # astropy replaces an error of the disk by one of its own.
    with OutputFile(path, deferred=True) as file:
        picture.writeto(file)
        file.check()
