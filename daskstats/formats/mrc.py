"""MRC files of electron microscopes, read and written with mrcfile: a section is a frame."""

import os
import warnings
from pathlib import Path

import numpy as np

from ..packages import load, require
from .notes import NONE, Facts
from .placed import PlacedSource, naming_damage, only_image
from .writing import exactly, write_with


class MrcSource(PlacedSource):
    """The sections of an MRC file, read in place."""

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__(path)
        mrcfile = require("mrcfile", self.path)
        with naming_damage(self.path, "an MRC file"):
            with mrcfile.open(self.path, header_only=True) as file:
                header = file.header
            *leading, rows, cols = mrcfile.utils.data_shape_from_header(header)
            dtype = mrcfile.utils.data_dtype_from_header(header)
            begin, nbytes = header.nbytes + int(header.nsymbt), rows * cols * dtype.itemsize
            end = begin + int(np.prod(leading, dtype=np.int64)) * nbytes
            places = range(begin, end, nbytes)
        self.set_places((rows, cols), dtype, places, "section")
        self.lead = tuple(leading)


def read_image(path: Path, dataset: str = "") -> np.ndarray:
    return only_image(MrcSource(path))


def write_image(image: np.ndarray, path: Path, notes: Facts = NONE) -> None:
    """Write an image in the first dtype of the format that holds each of its values.

    Its header has no room for notes.
    """
    pixels = exactly(image, ("f4",) if image.dtype.kind == "f" else ("i1", "i2", "u2", "f4"), path)

    def write(to: Path) -> None:
        with warnings.catch_warnings(), load("mrcfile").new(to) as file:
            warnings.simplefilter("ignore", RuntimeWarning)  # the image has NaN
            file.set_data(pixels)
            if pixels.ndim == 3:
                file.set_image_stack()  # planes, no volume

    write_with(path, write)
