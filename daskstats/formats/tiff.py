"""TIFF files, read and written with tifffile."""

from pathlib import Path

import numpy as np

from ..packages import load
from .writing import OutputFile


def read_image(path: Path, dataset: str = "") -> np.ndarray:
    return load("tifffile").imread(path)


def write_image(image: np.ndarray, path: Path) -> None:
    if image.dtype == bool:
        # TIFF packs bool into bits, which few programs read.
        image = image.astype("u1")
    # Without the photometric tag three planes would be taken for the colours of one picture.
    with OutputFile(path) as file:
        load("tifffile").imwrite(file, image, photometric="minisblack")
