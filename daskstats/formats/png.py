"""PNG pictures: masks are read, and images are written as 8-bit grey values for looking."""

from pathlib import Path

import numpy as np

from ..packages import load
from ..pictures import CONTRAST
from .notes import NONE, Facts
from .writing import OutputFile


def read_image(path: Path, dataset: str = "") -> np.ndarray:
    with load("PIL.Image").open(path) as image:
        return np.asarray(image)


def write_image(image: np.ndarray, path: Path, notes: Facts = NONE) -> None:
    with OutputFile(path) as file:
        load("PIL.Image").fromarray(picture(image)).save(file, format="PNG")


def picture(image: np.ndarray) -> np.ndarray:
    """Return 8-bit grey values for looking at an image.

    Parameters
    ----------
    image : ndarray (rows, cols)
        NaN comes out black, as does all of a constant image; infinities are the darkest and the
        brightest grey.

    Returns
    -------
    ndarray (rows, cols)
        uint8; black and white are the percentiles `CONTRAST` of the finite pixels or, where
        these coincide (sparse images), their minimum and maximum.

    Examples
    --------
    >>> picture(np.array([[0.0, 1.0], [2.0, np.nan]])).tolist()
    [[0, 128], [255, 0]]
    """
    flat = image.reshape(-1)
    low, high = _contrast(flat)
    grey, step = np.empty(flat.shape, "u1"), 1 << 18  # pixels that are float64 at a time
    for start in range(0, flat.size, step):
        grey[start : start + step] = _greys(flat[start : start + step].astype("f8"), low, high)
    return grey.reshape(image.shape)


def _contrast(pixels: np.ndarray) -> tuple[float, float]:
    """Return the values of black and white; both are 0 if no pixel is finite."""
    finite = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels.copy()
    if not finite.size:
        return 0.0, 0.0
    # Pixels as they are, where an interpolation might overflow.
    places = np.around((finite.size - 1) * np.divide(CONTRAST, 100)).astype(int)
    finite.partition(places)
    low, high = map(float, finite[places])
    return (low, high) if low < high else (float(finite.min()), float(finite.max()))


def _greys(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the greys of float64 values."""
    # Halves, because the difference of two float64 may be infinite.
    span = high / 2 - low / 2
    if span == 0:
        return np.where(values > high, 255, 0).astype("u1")
    grey = (np.clip(values, low, high) / 2 - low / 2) / span
    return np.rint(255 * np.nan_to_num(grey, nan=0)).astype("u1")
