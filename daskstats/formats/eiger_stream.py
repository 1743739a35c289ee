"""Streams of Eiger detectors as HEXRD saves them in HDF5: a group for each compressed frame."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.lib.npyio import NpzFile

from ..packages import require
from ..series.base import Choice, check_native, check_shape, rows_of
from .fch5 import text_of
from .hdf5_decoders import find_decoder
from .hdf5_files import open_file
from .hdf5_lock import hdf5_lock
from .placed import ReopenedSource

if TYPE_CHECKING:
    import h5py

# The images of a frame in version 2, as HEXRD names them; the last one is the difference.
IMAGES = ("threshold_1", "threshold_2", "man_diff")


class Encoded(NamedTuple):
    """An image as it is in the file."""

    data: bytes
    compression: str
    """lz4, bslz4, csrnpz, or "" for none"""
    dtype: np.dtype
    shape: tuple[int, int]


class EigerStreamSource(ReopenedSource):
    """The frames in ``/data/0``, ``/data/1``, ...; in version 2 those of one threshold.

    Parameters
    ----------
    path : path
    dataset : str
        In version 2 ``"threshold_1"``, which is the default, ``"threshold_2"``, or ``"man_diff"``,
        the first less the second in float64.
    """

    has_datasets = True
    uses_h5py = True
    one_by_one = True

    def __init__(self, path: str | os.PathLike, dataset: str = "") -> None:
        super().__init__(path, dataset=dataset)
        with hdf5_lock(), open_file(path) as file:
            frames = file["data"]
            nframes = len(frames)
            missing = [index for index in range(nframes) if str(index) not in frames]
            if missing:
                raise ValueError(
                    f"{self.path} has {nframes} frames in /data, and none is {missing[0]}"
                )
            if not nframes:
                raise ValueError(f"{self.path} has no frames in /data")
            self._images = _images_of(frames, dataset, self.path)
            if self._images != ("",):
                self.choice = Choice((dataset or IMAGES[0],), "named" if dataset else "the default")
            first = self._encoded(file, 0)[0]
        dtype = np.dtype("f8") if len(self._images) == 2 else first.dtype
        self.set_layout((nframes, *first.shape), dtype)
        # Each image compressed and decoded, in addition to the frame.
        self.buffers = 2.0 * len(self._images)

    def _encoded(self, file: h5py.File, index: int) -> list[Encoded]:
        entry = file["data"][str(index)]
        return [_encoded_image(entry[name] if name else entry) for name in self._images]

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        self.check_unchanged()
        with hdf5_lock(), open_file(self.path) as file:
            every = [self._encoded(file, index) for index in range(start, stop)]
        blocks = []
        for encoded in every:
            frame, *less = (_decoded(image, self.path) for image in encoded)
            frame = frame - np.float64(1) * less[0] if less else frame
            blocks.append(rows_of(frame, first, last))
        return blocks


def is_stream(file: h5py.File) -> bool:
    """Whether an open file is such a stream."""
    entry = file.get("data/0")
    if not hasattr(entry, "keys"):  # not a group
        return False
    image = entry.get(IMAGES[0], entry)
    return hasattr(image, "keys") and {"data", "dtype", "shape"} <= set(image)


def _images_of(frames: h5py.Group, dataset: str, path: Path) -> tuple[str, ...]:
    """Return the groups within that of a frame: "" for the group itself."""
    found = [name for name in IMAGES if name in frames["0"]]
    if not found:
        if dataset:
            raise ValueError(f"{path} holds one image for each frame: leave out ::{dataset}")
        return ("",)
    names = IMAGES[:2] if dataset == IMAGES[2] else (dataset or IMAGES[0],)
    for name in names:
        if name not in found:
            raise ValueError(f"{path} has no {name}: it has {', '.join(found)}")
    return names


def _encoded_image(group: h5py.Group) -> Encoded:
    given = group.get("compression_type")
    compression = "" if given is None or given.shape is None else text_of(given[()])
    return Encoded(
        np.asarray(group["data"][()]).tobytes(),
        "" if compression == "None" else compression,
        check_native(text_of(group["dtype"][()])),
        check_shape(np.asarray(group["shape"][()]).tolist()),
    )


def _decoded(image: Encoded, path: Path) -> np.ndarray:
    """Return the image that was compressed; refuse one that is damaged."""
    try:
        if image.compression == "csrnpz":
            frame = _dense(image.data)
        else:
            frame = _decompressed(image, path).view(image.dtype).reshape(image.shape)
    except ImportError:
        raise
    except Exception as error:
        text = f"{path}: a frame compressed as {image.compression or 'none'} is damaged: {error}"
        raise ValueError(text) from error
    if (frame.shape, frame.dtype) != (image.shape, image.dtype):
        raise ValueError(
            f"{path}: a frame is of {frame.shape} {frame.dtype}, and its group says "
            f"{image.shape} {image.dtype}"
        )
    return frame


def _decompressed(image: Encoded, path: Path) -> np.ndarray:
    """Return the pixels of an image, decoded as the chunks of HDF5 with these filters are."""
    filters = {"lz4": ("lz4", ()), "bslz4": ("bitshuffle", (0, 0, image.dtype.itemsize, 0, 2))}
    raw = np.frombuffer(image.data, np.uint8)
    if not image.compression:
        return raw
    if image.compression not in filters:
        raise ValueError("the known compressions are lz4, bslz4 and csrnpz")
    decode = find_decoder([filters[image.compression]])
    if decode is None:
        require("imagecodecs" if image.compression == "lz4" else "hdf5plugin", path)
        raise ValueError(f"no package decodes {image.compression}")
    pixels = np.empty(image.shape, image.dtype)
    decode(raw, pixels.reshape(-1).view(np.uint8))
    return pixels


def _dense(data: bytes) -> np.ndarray:
    """Return the image of a sparse matrix that scipy saved, behind a length of eight bytes."""
    with NpzFile(io.BytesIO(data[8:]), allow_pickle=False) as arrays:
        kind = text_of(arrays["format"])
        if kind != "csr":
            raise ValueError(f"a sparse matrix of format {kind}, expected csr")
        values, cols, starts = (arrays[name] for name in ("data", "indices", "indptr"))
        dense = np.zeros(arrays["shape"], values.dtype)
        np.add.at(dense, (np.repeat(np.arange(len(starts) - 1), np.diff(starts)), cols), values)
    return dense
