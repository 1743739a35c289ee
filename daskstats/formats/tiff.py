"""TIFF files, read and written with tifffile: a page is a frame, or a plane of an image.

A page object of tifffile must not be used from two threads: some frames would be wrong. So the
places of the pixels are read once, and frames are read from there with a file handle of their own.
tifffile's decoders are functions, and may be shared.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from ..arguments import warn
from ..memory.pool import block_of_frames
from ..packages import load, require
from ..series.base import check_dtype, check_frame, check_native
from ..series.files import digest_of_part
from .complaints import collected
from .notes import NONE, Facts, as_json
from .placed import PlacedSource, fill, is_compressed, open_file
from .writing import OutputFile

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage, TiffPageSeries


@dataclass
class Segments:
    """The strips or tiles of frames that have to be decoded."""

    offsets: array = field(default_factory=lambda: array("q"))
    """first byte of each segment, those of the first frame first"""
    counts: array = field(default_factory=lambda: array("q"))
    """bytes of each segment; 0 for one without data"""
    firsts: array = field(default_factory=lambda: array("q", [0]))
    """index of the first segment of each frame, and the number of all segments"""
    kinds: array = field(default_factory=lambda: array("q"))
    """for each frame the index of its decoder"""
    pages: list[int] = field(default_factory=list)
    """for each decoder a page of the file that has it"""


class TiffSource(PlacedSource):
    """The pages of a TIFF file in the order of their axes; each is decoded when it is read."""

    one_by_one = True
    handles = ("_decoders",)

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__(path)
        self._segments: Segments | None = None
        with collected("tifffile") as errors, opened(self.path) as file:
            pages, places = _frames(file, self.path)
            first = pages[0]
            # tifffile would read a page without data from the first byte of the file.
            if places is None and all(page.is_final and page.dataoffsets[0] for page in pages):
                places = [page.dataoffsets[0] for page in pages]
            if places is not None:
                dtype = check_native(first.dtype).newbyteorder(file.byteorder)
                self.one_by_one = False  # several frames are read from a file opened once
                self.set_places(first.shape, dtype, places, "page")
            else:
                self._segments = self._find_segments(pages)
                self._decoders = [_decoder(file.pages[index]) for index in self._segments.pages]
        for error in errors:  # tifffile went on without some metadata
            warn(f"{self.path}: {error}")

    def _find_segments(self, pages: list) -> Segments:
        """Set the layout, and return the places of the segments of all pages."""
        found, kinds = Segments(), {}  # type: Segments, dict[tuple, int]
        for page in pages:
            # Pages of one hash are decoded alike, but for the things that are not in it.
            key = page.hash, page.jpegtables, str(page.nodata)
            kind = kinds.setdefault(key, len(kinds))
            if kind == len(found.pages):
                found.pages.append(page.index)
            found.kinds.append(kind)
            for offset, count in zip(*_segments_of(page), strict=True):
                found.offsets.append(offset)
                found.counts.append(count if offset else 0)
            found.firsts.append(len(found.offsets))
        self.set_layout((len(pages), *pages[0].shape), pages[0].dtype)
        unit = pages[0].tilelength if pages[0].is_tiled else pages[0].rowsperstrip
        same = len(kinds) == 1 and unit < self.shape[0]
        self.row_unit = int(unit) if same else None
        self.buffers = 1  # the compressed bytes or a decoded segment, in addition to the frame
        return found

    def layout(self) -> tuple:
        if self._segments is None:
            return super().layout()
        return self.nframes, self.shape, self.dtype.str, self._segments

    def digest_of_frame(self, index: int) -> bytes | None:
        segments = self._segments
        if segments is None or is_compressed(self.path):
            return super().digest_of_frame(index)
        first = segments.firsts[index]
        return digest_of_part(self.path, segments.offsets[first], segments.counts[first])

    def open(self) -> None:
        self.check_unchanged()
        assert self._segments is not None
        with opened(self.path) as file:
            self._decoders = [_decoder(file.pages[index]) for index in self._segments.pages]

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        if self._segments is None:
            return super().read(start, stop, first, last)
        self.check_unchanged()
        with open_file(self.path) as file:
            return [self._decoded(file, i, first, last)[None] for i in range(start, stop)]

    def _decoded(self, file: BinaryIO, index: int, first: int, last: int) -> np.ndarray:
        """Return rows of a frame, made of the segments that have any of them."""
        assert self._segments is not None
        begin, end = self._segments.firsts[index : index + 2]
        decode, fill_value = self._decoders[self._segments.kinds[index]]
        (block,) = block_of_frames(1, last - first, self.shape, self.dtype)
        for number in range(end - begin):
            place, shape = decode(None, number)[1:]  # without data only the place is computed
            low, high = max(first, place[-3]), min(last, place[-3] + shape[-3])
            if low >= high:
                continue
            segment = self._segment(file, index, number, decode)
            part = block[low - first : high - first, place[-2] : place[-2] + shape[-2]]
            if segment is None:
                part[...] = fill_value
            elif segment.dtype != block.dtype:
                raise ValueError(f"{self.path}: page {index} is decoded as {segment.dtype}")
            else:
                part[...] = segment[low - place[-3] : high - place[-3], : part.shape[1]]
        return block

    def _segment(
        self, file: BinaryIO, index: int, number: int, decode: Callable
    ) -> np.ndarray | None:
        """Return a segment (rows, cols) of a frame, or None if it has no data."""
        assert self._segments is not None
        which = self._segments.firsts[index] + number
        if not self._segments.counts[which]:
            return None
        data = np.empty(self._segments.counts[which], np.uint8)
        if fill(file, data, self._segments.offsets[which]) < data.nbytes:
            raise ValueError(f"{self.path} is cut off in page {index}")
        try:
            return decode(data.tobytes(), number)[0][0, :, :, 0]
        except Exception as error:  # of any codec
            raise ValueError(f"{self.path}: page {index} cannot be decoded: {error}") from error


@contextmanager
def opened(path: Path) -> Iterator[TiffFile]:
    """Open a TIFF file with tifffile; an error of its structure names the file."""
    tifffile = require("tifffile", path)
    damaged = tifffile.TiffFileError, ValueError, IndexError, struct.error, ZeroDivisionError
    try:
        with tifffile.TiffFile(path) as file:
            file.pages.cache = True
            pages, files = list(file.pages), any(series.is_multifile for series in file.series)
            _check_complete(file, pages)
            if not files:
                yield file
                return
        # The other files of the set are series of their own.
        with tifffile.TiffFile(path, is_ome=False) as file:
            file.pages.cache = True
            yield file
    except Refused as error:
        raise error.reason from None
    except damaged as error:
        raise ValueError(f"{path} is not a TIFF file, or is cut off: {error}") from error


class Refused(Exception):
    """A sound file that is no series of frames, with the error for the user."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _check_complete(file: TiffFile, pages: list) -> None:
    """Refuse a file that lacks pixels, or a page that follows the last one that was found."""
    handle, form = file.filehandle, file.tiff
    handle.seek(pages[-1].offset)
    (tags,) = struct.unpack(form.tagnoformat, handle.read(form.tagnosize))
    handle.seek(tags * form.tagsize, os.SEEK_CUR)
    (following,) = struct.unpack(form.offsetformat, handle.read(form.offsetsize))
    for index, page in enumerate(pages):
        last = index == len(pages) - 1
        name = f"the last of {len(pages)} pages" if last else f"page {index} of {len(pages)}"
        offsets, counts = _segments_of(page)
        listed, needed = min(len(offsets), len(counts)), prod(page.chunked)
        # Some programs write one strip, and say that each has fewer rows.
        if listed < needed and not (page.is_contiguous and 0 < page.nbytes <= sum(counts)):
            raise ValueError(f"{name} is incomplete: it lists {listed} of {needed} strips or tiles")
        places = np.array([offsets[:listed], counts[:listed]], np.int64)
        if not listed or places.sum(axis=0).max() > handle.size or (last and following):
            raise ValueError(f"{name} is incomplete")


def _segments_of(page: TiffPage) -> tuple[Sequence[int], Sequence[int]]:
    """Return first byte and bytes of each strip or tile that a page needs, or of those it has."""
    needed = prod(page.chunked)
    return page.dataoffsets[:needed], page.databytecounts[:needed]


def _frames(file: TiffFile, path: Path) -> tuple[list, Sequence[int] | None]:
    """Return the page of each frame, or one page and the first byte of each frame.

    The frames of a series are in the order of its axes; pages that belong to no common series are
    in the order of the file.
    """
    pages, every = list(file.pages), file.series
    try:
        if pages[0].ndim != 2 or pages[0].samplesperpixel != 1:
            raise ValueError(
                f"a page must be a frame (rows, cols) without colours, got shape "
                f"{every[0].shape} in {len(pages)} pages: write a page for each frame"
            )
        for index, page in enumerate(pages):
            check_frame(page.shape, pages[0].shape, index)
            check_dtype(check_native(page.dtype), check_native(pages[0].dtype), index)
        found = (pages, None) if len(every) > 1 else _frames_of_series(every[0], pages)
        said = (file.imagej_metadata or {}).get("images", 1)
        if said > len(found[1] or found[0]):  # without all pixels tifffile takes it for one page
            raise ValueError(f"it has {len(pages)} pages, and should have {said} frames: cut off?")
        return found
    except (ValueError, TypeError) as error:
        raise Refused(type(error)(f"{path}: {error}")) from None


def _frames_of_series(series: TiffPageSeries, pages: list) -> tuple[list, range | None]:
    """Return the frames of the only series in a file, in the order of its axes."""
    lengths = dict(zip(series.axes, series.shape, strict=True))
    channels = lengths.pop("C", 1)
    if channels > 1 and any(lengths.get(axis, 1) > 1 for axis in "TZ"):
        raise ValueError(
            f"it has {channels} channels (axes {series.axes}, shape {series.shape}), which are no "
            f"frames of one series: write a file for each channel"
        )
    if series.transform is not None:
        raise ValueError(f"its pixels ({series.kind}) are no values of intensity")
    count, nbytes = series.size // pages[0].size, pages[0].nbytes
    if count > len(pages):  # ImageJ writes one page, and the pixels of all frames behind it
        begin = series.dataoffset
        if not begin or begin + count * nbytes > series.parent.filehandle.size:
            raise ValueError(
                f"it has {len(pages)} pages, and should have {count} frames (shape {series.shape})"
            )
        return pages[:1], range(begin, begin + count * nbytes, nbytes)
    found = list(series.pages)
    if len(found) != len(pages) or any(page is None for page in found):
        raise ValueError(
            f"it has {len(pages)} pages, of which {len(found)} make a series of {count} frames "
            f"(axes {series.axes}, shape {series.shape})"
        )
    return found, None


def _decoder(page: TiffPage) -> tuple[Callable, float]:
    """Return the function that decodes segments of pages like this one, and the fill value."""
    tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
    given = {name: value for name, value in tables.items() if value is not None}
    return partial(page.decode, **given), page.nodata


def read_image(path: Path, dataset: str = "") -> np.ndarray:
    with opened(path) as file:
        return file.asarray()


def write_image(image: np.ndarray, path: Path, notes: Facts = NONE) -> None:
    if image.dtype == bool:
        # TIFF packs bool into bits, which few programs read.
        image = image.astype("u1")
    text = as_json(notes) if notes else None
    with OutputFile(path) as file, load("tifffile").TiffWriter(file) as writer:
        # tifffile takes planes of one column for the rows of one page, so each is written alone; it
        # would lose the axis of a single one. Without the photometric tag three planes would be
        # taken for the colours of one picture.
        alone = image.ndim == 3 and (len(image) > 1 or image.shape[-1] == 1)
        for plane in image if alone else [image]:
            writer.write(plane, photometric="minisblack", description=text, contiguous=True)
