"""TIFF files, read and written with tifffile: a page is a frame, or a plane of an image."""

import os
import struct
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from ..packages import load, require
from ..series.base import check_dtype, check_frame, check_native
from ..series.files import FileSource, naming_place
from .notes import NONE, Facts, as_json
from .writing import OutputFile


class TiffSource(FileSource):
    """The pages of a TIFF file; each is decoded when it is read."""

    one_by_one = True
    buffers = 1  # while a page is decoded, its compressed bytes are in memory
    handles = ("_pages",)

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__(path)
        self._pages = pages = self._open()
        self.set_layout((len(pages), *pages[0].shape), pages[0].dtype)

    def open(self) -> None:
        pages = self._open()
        found = len(pages), pages[0].shape, pages[0].dtype
        if found != (self.nframes, self.shape, self.dtype):
            raise self.changed("{} pages of shape {} and {}".format(*found))
        self._pages = pages

    def _open(self) -> list:
        """Return the pages, all of one shape and dtype; their pixels are still in the file."""
        tifffile = require("tifffile", self.path)
        try:
            file = tifffile.TiffFile(self.path)
            weakref.finalize(self, file.close)
            file.filehandle.set_lock(True)  # threads read in parallel
            pages = list(file.pages)
            if not _is_complete(file, pages):
                raise ValueError(f"the last of {len(pages)} pages is incomplete")
        except (tifffile.TiffFileError, ValueError, IndexError, struct.error) as error:
            raise ValueError(f"{self.path} is not a TIFF file, or is cut off: {error}") from error
        first, whole = pages[0], file.series[0].shape
        if first.ndim != 2 or np.prod(whole) > len(pages) * first.size:
            raise ValueError(
                f"{self.path}: a page must be a frame (rows, cols) without colours, got shape "
                f"{whole} in {len(pages)} pages: write a page for each frame"
            )
        with naming_place(self.path):
            for index, page in enumerate(pages):
                check_frame(page.shape, first.shape, index)
                check_dtype(check_native(page.dtype), check_native(first.dtype), index)
        return pages

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        return [self._rows(index, first, last)[None] for index in range(start, stop)]

    def _rows(self, index: int, first: int, last: int) -> np.ndarray:
        try:
            page = self._pages[index].asarray(maxworkers=1)
        except OSError:
            raise
        except Exception as error:  # of any codec
            raise ValueError(f"{self.path}: page {index} cannot be decoded: {error}") from error
        # A view of some rows would keep the whole page alive.
        return page if last - first == len(page) else page[first:last].copy()


def _is_complete(file: Any, pages: list) -> bool:
    """Whether all pixels are in the file, and no page follows the last one that was found."""
    handle, form = file.filehandle, file.tiff
    handle.seek(pages[-1].offset)
    (tags,) = struct.unpack(form.tagnoformat, handle.read(form.tagnosize))
    handle.seek(tags * form.tagsize, os.SEEK_CUR)
    (following,) = struct.unpack(form.offsetformat, handle.read(form.offsetsize))
    ends = (np.add(page.dataoffsets, page.databytecounts) for page in pages)
    return following == 0 and max(map(np.max, ends)) <= handle.size


def read_image(path: Path, dataset: str = "") -> np.ndarray:
    return load("tifffile").imread(path)


def write_image(image: np.ndarray, path: Path, notes: Facts = NONE) -> None:
    if image.dtype == bool:
        # TIFF packs bool into bits, which few programs read.
        image = image.astype("u1")
    # Without the photometric tag three planes would be taken for the colours of one picture.
    text = as_json(notes) if notes else None
    with OutputFile(path) as file:
        load("tifffile").imwrite(file, image, photometric="minisblack", description=text)
