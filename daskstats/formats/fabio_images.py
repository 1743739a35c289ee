"""Images of X-ray detectors, such as EDF, CBF, MarCCD and GE, read and written with fabio.

fabio finds the format of a file by its first bytes. Frames that are not encoded are read in place;
the others are decoded by an image that is opened for each read, so that threads share nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from ..packages import load, require
from ..series.base import check_dtype, check_frame, rows_of
from .complaints import collected
from .notes import NONE, Facts, lines
from .placed import PlacedSource, is_compressed, naming_damage, only_image, open_file
from .writing import OutputFile, exactly, write_with

if TYPE_CHECKING:
    from fabio.fabioimage import FabioImage

# Shape of a frame, its dtype in the byte order of the file, the first byte of each frame.
Places = tuple[tuple[int, int], np.dtype, Sequence[int]]

SPE_HEADER = 4100

# The bytes before the pixels of a CBF file, and the longest header of text before these.
CBF_MAGIC = b"###CBF"
CBF_START, CBF_HEADER = b"\x0c\x1a\x04\xd5", 1 << 16


class FabioSource(PlacedSource):
    """The frames of a file that fabio reads."""

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__(path)
        self._decode = False
        places: Places | None = None
        layout: tuple[tuple[int, ...], np.dtype] | None = None
        with reading(self.path) as fabio:
            if _is_cbf(self.path):
                layout = _cbf_layout(self.path)
            else:
                header = _header(fabio, self.path)
                find = PLACES.get(type(header).__name__)
                places = find(header, self.path) if find else None
                layout = None if places else _decoded_layout(fabio, self.path)
        if places is not None:
            self.set_places(*places)
        if layout is not None:
            self._set_decoded(layout)

    def _set_decoded(self, layout: tuple[tuple[int, ...], np.dtype]) -> None:
        """Set the layout of frames that fabio decodes."""
        self._decode, self.row_unit = True, None
        self.stored = 1  # the bytes of the file, in memory while they are decoded
        self.set_layout(*layout)

    def layout(self) -> tuple:
        if self._decode:
            return self.nframes, self.shape, self.dtype.str
        return super().layout()

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        if not self._decode:
            return super().read(start, stop, first, last)
        self.check_unchanged()
        with reading(self.path) as fabio, fabio.open(str(self.path)) as image:
            if image.nframes != self.nframes:
                raise self.changed(f"{image.nframes} frames")
            frames = [_frame(image, index) for index in range(start, stop)]
        for index, frame in enumerate(frames, start):
            check_frame(frame.shape, self.shape, index)
        return [rows_of(frame, first, last) for frame in frames]


@contextmanager
def reading(path: Path) -> Iterator[ModuleType]:
    """Give fabio; an error that it raises or logs becomes one that names the file."""
    fabio = require("fabio", path)
    with collected("fabio") as errors, naming_damage(path, "a file that fabio reads"):
        yield fabio
    if errors:  # fabio goes on, and puts zeros for missing bytes
        raise ValueError(f"{path} is damaged or cut off: {errors[0]}")


def _header(fabio: ModuleType, path: Path) -> FabioImage:
    """Return the image of a file of which only the header has been read."""
    if ".spe" in (suffix.lower() for suffix in path.suffixes[-2:]):
        # The first bytes of some are those of a GE file.
        image = load("fabio.speimage").SpeImage()
        image.readheader(str(path))
        return image
    return fabio.openheader(str(path))


def _decoded_layout(fabio: ModuleType, path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and dtype of all frames, given the first, which has to be decoded."""
    with fabio.open(str(path)) as image:
        shape = image.data.shape
        if len(shape) != 2:
            raise ValueError(f"a frame has two dimensions (rows, cols), got shape {shape}")
        return (image.nframes, *shape), image.data.dtype


def _is_cbf(path: Path) -> bool:
    with open_file(path) as file:
        return file.read(len(CBF_MAGIC)) == CBF_MAGIC


def _cbf_layout(path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and dtype of the frame of a CBF file, from its header.

    A file without all its pixels is refused: fabio would search for them for ever.
    """
    with open_file(path) as file:
        head, there = file.read(CBF_HEADER), path.stat().st_size
    text, start, _ = head.partition(CBF_START)
    fields = dict(re.findall(rb'(?m)^\s*(X-Binary-[\w-]+): *"?([^"\r\n]*)', text))
    try:
        size = int(fields[b"X-Binary-Size"])
        rows = int(fields[b"X-Binary-Size-Second-Dimension"])
        cols = int(fields[b"X-Binary-Size-Fastest-Dimension"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"its header of {len(text)} bytes lacks {error}") from error
    end = len(text) + len(start) + size
    if not start or (not is_compressed(path) and end > there):
        raise ValueError(f"its pixels end at byte {end} of {there}")
    types = load("fabio.cbfimage").DATA_TYPES
    name = fields.get(b"X-Binary-Element-Type", b"").decode(errors="replace").strip()
    return (1, rows, cols), np.dtype(types.get(name, "int32"))


def _frame(image: FabioImage, index: int) -> np.ndarray:
    return np.asarray(image.data if image.nframes == 1 else image.get_frame(index).data)


# ---------------------------------------------------------------------- frames in place


def _edf_places(header: FabioImage, path: Path) -> Places | None:
    """Return the places of the frames of an EDF file, None if they are encoded, or elsewhere."""
    with load("fabio").open(str(path)) as image:
        if image.incomplete_file:
            raise ValueError(f"it ends within frame {image.nframes - 1}, or the header after it")
        frames = [image.get_frame(index) for index in range(image.nframes)]
        texts = [{name.upper(): text for name, text in f.header.items()} for f in frames]
        shape, dtype = tuple(frames[0].shape), frames[0].dtype
        orders = {"HIGH" in text.get("BYTEORDER", "").upper() for text in texts}
        encoded = any(not t.get("COMPRESSION", "NO").upper().startswith("NO") for t in texts)
        for index, frame in enumerate(frames):
            check_frame(frame.shape, shape, index)
            check_dtype(frame.dtype, dtype, index)
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if encoded or len(orders) > 1 or any(frame.bfname for frame in frames):
            return None
        for index, frame in enumerate(frames):
            if frame.blobsize < nbytes:
                raise ValueError(f"frame {index} has {frame.blobsize} bytes of {nbytes}")
        if len(shape) < 2:
            raise ValueError(f"a frame has two dimensions (rows, cols), got shape {shape}")
        step = shape[-2] * shape[-1] * dtype.itemsize
        starts = [frame.start for frame in frames]
    offsets = [begin for start in starts for begin in range(start, start + nbytes, step)]
    return (shape[-2], shape[-1]), dtype.newbyteorder(">" if orders.pop() else "<"), offsets


def _ge_places(header: FabioImage, path: Path) -> Places:
    """Return the places of the frames of a GE file, which must end with the last one."""
    text = header.header
    rows, cols = int(text["NumberOfRowsInFrame"]), int(text["NumberOfColsInFrame"])
    begin = int(text["StandardHeaderSizeInBytes"]) + int(text["UserHeaderSizeInBytes"])
    dtype = np.dtype(header.BITDEPTH_TO_DATATYPES[text["ImageDepthInBits"]])
    nbytes, count = rows * cols * dtype.itemsize, int(text["NumberOfFrames"])
    _check_end(path, begin + count * nbytes, count)
    return (rows, cols), dtype.newbyteorder("<"), range(begin, begin + count * nbytes, nbytes)


def _spe_places(header: FabioImage, path: Path) -> Places:
    """Return the places of the frames of a Princeton file; fabio itself reads the first only."""
    text = header.header
    rows, cols, count = (int(text[name]) for name in ("y_dim", "x_dim", "num_frames"))
    dtype = np.dtype(header.DATA_TYPES[int(text["data_type"])])
    nbytes = rows * cols * dtype.itemsize
    # Version 3 has a footer; its frames may be followed by numbers of their own.
    end = header.xml_offset if int(text["version"]) == 3 else None
    _check_end(path, SPE_HEADER + count * nbytes, count, end)
    places = range(SPE_HEADER, SPE_HEADER + count * nbytes, nbytes)
    return (rows, cols), dtype.newbyteorder("<"), places


PLACES = {"EdfImage": _edf_places, "GeImage": _ge_places, "SpeImage": _spe_places}


def _check_end(path: Path, expected: int, count: int, found: int | None = None) -> None:
    """Refuse a file that does not end where its last frame does."""
    if found is None and not is_compressed(path):
        found = path.stat().st_size
    if found is not None and found != expected:
        raise ValueError(f"its {count} frames end at byte {expected} of {found}")


# ---------------------------------------------------------------------- images


def read_image(path: Path, dataset: str = "") -> np.ndarray:
    return only_image(FabioSource(path))


def write_edf(image: np.ndarray, path: Path, notes: Facts = NONE) -> None:
    """Write an EDF file, a frame for each plane; bool as uint8, and float16 as float32."""
    wider = {"bool": "u1", "float16": "f4"}.get(image.dtype.name)
    planes = image.reshape(-1, *image.shape[-2:]).astype(wider or image.dtype.newbyteorder("="))
    # Braces and semicolons end headers and their lines: they are escaped as other letters are.
    header = {key: re.sub("[{};]", _escaped, text) for key, text in lines(notes).items()}
    edf = load("fabio.edfimage").EdfImage(data=planes[0], header=header)
    for plane in planes[1:]:
        edf.append_frame(data=plane)
    with OutputFile(path) as file:
        edf.write(file)


def _escaped(found: re.Match) -> str:
    return f"\\x{ord(found[0]):02x}"


def write_cbf(image: np.ndarray, path: Path, notes: Facts = NONE) -> None:
    """Write a CBF file of int32; refuse an image of several planes, or of other values.

    Its header has no room for notes.
    """
    if image.ndim != 2:
        raise ValueError(f"a .cbf file holds a 2-D image only, got shape {image.shape}")
    pixels = exactly(image, ("i4",), path)
    _check_steps(pixels, path)
    write_with(path, lambda to: load("fabio.cbfimage").CbfImage(data=pixels).write(str(to)))


def _check_steps(pixels: np.ndarray, path: Path) -> None:
    """Refuse an image with a step of 2**31 between neighbouring pixels, which fabio writes as 0.

    >>> _check_steps(np.array([[0, 5], [-(2**31), -(2**31)]], "i4"), Path("image.cbf"))
    >>> _check_steps(np.array([[5, 0], [-(2**31), -(2**31)]], "i4"), Path("image.cbf"))
    Traceback (most recent call last):
        ...
    ValueError: a .cbf file holds no step of 2**31 from one pixel to the next, as to pixel ...
    """
    # As fabio does, from 0 to the first pixel and on, in 32 bits: greater steps come back right.
    lost = np.diff(pixels.ravel(), prepend=np.int32(0)) == np.iinfo(np.int32).min
    if lost.any():
        place = divmod(int(lost.argmax()), pixels.shape[1])
        raise ValueError(
            f"a .cbf file holds no step of 2**31 from one pixel to the next, as to pixel {place} "
            f"of the image, {pixels[place]}: use .edf, .tif or .h5"
        )
