"""Small pictures of images for looking: a palette PNG, its limits, and a histogram, in a few ms.

Blocks of pixels are averaged until at most 512 remain along an edge. Pixels without a value, which
are NaN or not computed yet, are transparent: a page shows hatching through them.
"""

import base64
import html
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from .packages import load

# Pixels along an edge, at most; a small image is enlarged to half of them.
SIZE = 512

# Percentiles of the pixels with the darkest and the brightest colour.
CONTRAST = (1.0, 99.5)

# Pixels that limits and histogram are taken from: sorting 20,000 takes a third of a millisecond.
SAMPLED = 20_000

# Bars of a histogram.
BARS = 60

# The brightest colour over the darkest on the logarithmic scale.
DECADES = 3

# Colours in equal steps; other names are taken from matplotlib where it is installed.
PALETTES = {
    "gray": "000000 ffffff",
    "viridis": "440154 472d7b 3b528b 2c728e 21918c 28ae80 5ec962 addc30 fde725",
    "inferno": "000004 210c4a 57106e 8a226a bc3754 e45a31 f98e09 f9cb35 fcffa4",
}

HATCHING = "repeating-linear-gradient(45deg,#bbb 0 4px,#ddd 4px 8px)"


@dataclass(frozen=True)
class Picture:
    """A small picture of an image."""

    png: bytes
    """PNG file with 255 colours and one that is transparent"""
    shape: tuple[int, int]
    """rows and columns of the image"""
    size: tuple[int, int]
    """rows and columns of the picture"""
    low: float
    """value of the darkest colour, NaN if no pixel has a value"""
    high: float
    """value of the brightest colour"""
    bars: np.ndarray
    """numbers of sampled pixels in equal ranges of values, a little wider than the limits"""

    def html(self, name: str = "") -> str:
        """Return the picture as an HTML figure with name, shape, limits and histogram."""
        rows, cols = self.shape
        width = round(self.size[1] * max(1, SIZE / 2 / max(self.size)))
        text, source = html.escape(name), base64.b64encode(self.png).decode()
        limits = f"{self.low:.4g} … {self.high:.4g}" if self.bars.size else "no values"
        return (
            f'<figure style="margin:0 8px 0 0;flex:1 1 120px;max-width:{width}px">'
            f'<figcaption style="font:12px sans-serif"><b>{text}</b> {rows} x {cols} &nbsp; '
            f"{limits}</figcaption>"
            f'<img alt="{text}" style="width:100%;display:block;image-rendering:pixelated;'
            f'background:{HATCHING}" src="data:image/png;base64,{source}">'
            f"{self._histogram()}</figure>"
        )

    def _histogram(self) -> str:
        if not self.bars.size:
            return ""
        heights = np.log1p(self.bars)
        tops = 12 - 12 * heights / heights.max()
        path = "".join(f"V{top:.1f}h1" for top in tops)
        return (
            f'<svg viewBox="0 0 {BARS} 12" preserveAspectRatio="none" '
            f'style="width:100%;height:26px;display:block">'
            f'<path fill="#777" d="M0 12{path}V12Z"/></svg>'
        )


def draw(
    image: np.ndarray,
    seen: int | None = None,
    *,
    size: int = SIZE,
    contrast: tuple[float, float] = CONTRAST,
    log: bool = False,
    cmap: str = "gray",
) -> Picture:
    """Return a small picture of an image.

    Parameters
    ----------
    image : ndarray (rows, cols)
        Numbers; NaN is a pixel without a value.
    seen : int, optional
        Leading rows that have values; by default all.
    size : int
        Pixels of the picture along an edge, at most.
    contrast : tuple of float
        Percentiles of the pixels with the darkest and the brightest colour.
    log : bool
        Whether colours follow the logarithm of the values, over three decades below the brightest.
    cmap : str
        "gray", "viridis" or "inferno", or another colour map of matplotlib.

    Examples
    --------
    >>> picture = draw(np.arange(12.0).reshape(3, 4), seen=2, contrast=(0, 100))
    >>> picture.low, picture.high, picture.png[:4]
    (0.0, 7.0, b'\\x89PNG')
    """
    rows, cols = image.shape
    step = -(-max(rows, cols) // size)
    height, width = -(-rows // step), -(-cols // step)
    means = block_means(image[: rows if seen is None else seen], step)
    sample = sorted_sample(means)
    low, high = limits(sample, contrast)
    # Each row begins with the filter of PNG, 0 for none.
    lines = np.zeros((height, 1 + width), "u1")
    lines[: len(means), 1:] = colours(means, low, high, log)
    return Picture(
        _png(lines, palette(cmap)), (rows, cols), (height, width), low, high,
        histogram(sample, low, high),
    )  # fmt: skip


def side_by_side(images: dict[str, np.ndarray], seen: int | None = None, most: int = 16) -> str:
    """Return pictures of images as an HTML line, which takes no more bytes than a single picture.

    The first ``most`` pictures are shown, and the number of the others.

    >>> side_by_side({"max": np.zeros((3, 4)), "both": np.zeros((2, 3, 4))}).count("<figure")
    3
    """
    every = planes(images)
    count = min(most, len(every))
    size = SIZE // (1 + math.isqrt(count - 1))
    more = f"<p>and {len(every) - count} more</p>" if len(every) > count else ""
    return in_a_row(dict(islice(every.items(), count)), seen, size=size) + more


def in_a_row(images: dict[str, np.ndarray], seen: int | None, **look: Any) -> str:
    """Return pictures as an HTML line, each as `draw` makes it with the same keywords."""
    figures = "".join(draw(image, seen, **look).html(name) for name, image in images.items())
    return f'<div style="display:flex;flex-wrap:wrap">{figures}</div>'


def planes(images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the planes of images, each with a name.

    >>> list(planes({"max": np.zeros((2, 3)), "percentile_5_95": np.zeros((2, 2, 3))}))
    ['max', 'percentile_5_95 [0]', 'percentile_5_95 [1]']
    """
    found = {}
    for name, image in images.items():
        if image.ndim == 2:
            found[name] = image
        else:
            found |= {f"{name} [{number}]": plane for number, plane in enumerate(image)}
    return found


def block_means(image: np.ndarray, step: int) -> np.ndarray:
    """Return the means of blocks of step x step pixels, over those that are not NaN.

    They are float64 for values that float32 does not hold, and float32 for others.

    >>> block_means(np.array([[1, 3, 5], [5, 7, 7]]), 2)
    array([[4., 6.]], dtype=float32)
    """
    with np.errstate(over="ignore", invalid="ignore"):
        # Sums of float64 take longer.
        means = _means(image, step, "f8" if _is_small(image, step) else "f4")
        overflow = image.dtype.kind == "f" and np.isinf(means).any()
        return _means(image, step, "f8") if overflow else means


def _is_small(image: np.ndarray, step: int) -> bool:
    """Whether values are below the 38 decades of float32."""
    if image.dtype != "f8":
        return False
    largest = np.fmax.reduce(np.abs(image[::step, ::step]), axis=None, initial=0)
    return bool(0 < largest < 1e-30)


def _means(image: np.ndarray, step: int, dtype: str) -> np.ndarray:
    if step == 1:
        return image.astype(dtype)
    sums = _block_sums(image, step, dtype)
    rows, cols = (np.diff(np.r_[0:length:step, length]) for length in image.shape)
    counts = np.multiply.outer(rows, cols).astype(dtype)
    if image.dtype.kind == "f" and np.isnan(sums).any():
        values = image.astype(dtype)
        nan = np.isnan(values)
        np.copyto(values, 0, where=nan)
        sums, counts = _block_sums(values, step, dtype), _block_sums(~nan, step, dtype)
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def _block_sums(image: np.ndarray, step: int, dtype: str) -> np.ndarray:
    # Added slice by slice: `numpy.add.reduceat` takes nine times as long.
    rows = image[::step].astype(dtype)
    for offset in range(1, step):
        part = image[offset::step]
        rows[: len(part)] += part
    sums = rows[:, ::step].copy()
    for offset in range(1, step):
        part = rows[:, offset::step]
        sums[:, : part.shape[1]] += part
    return sums


def sorted_sample(means: np.ndarray) -> np.ndarray:
    """Return some of the finite values in order."""
    flat, step = means.ravel(), max(1, means.size // SAMPLED)
    # With a common factor, a step would miss the same columns in every row.
    while math.gcd(step, means.shape[1]) > 1:
        step += 1
    sample = flat[::step]
    return np.sort(sample[np.isfinite(sample)])


def limits(sample: np.ndarray, contrast: Sequence[float]) -> tuple[float, float]:
    """Return two percentiles of a sorted sample; if they coincide, its minimum and maximum.

    >>> limits(np.arange(101.0), (1, 99.5))
    (1.0, 99.0)
    >>> limits(np.array([0.0] * 999 + [5]), (1, 99.5))
    (0.0, 5.0)
    """
    if not sample.size:
        return np.nan, np.nan
    low, high = (float(sample[int(each / 100 * (sample.size - 1))]) for each in contrast)
    return (low, high) if low < high else (float(sample[0]), float(sample[-1]))


def histogram(sample: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the numbers of values in equal ranges from a tenth below to a tenth above limits."""
    if not sample.size:
        return np.zeros(0, int)
    # Large values that are close to each other have no room for so many ranges between them.
    return np.histogram(_parts(sample, low, high), BARS, (-0.1, 1.1))[0]


def _parts(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the places of values between limits, 0 to 1, as float64; 0.5 if these coincide."""
    if low == high:
        return np.full(values.shape, 0.5)
    if not math.isfinite(high - low):
        values, low, high = values / 4, low / 4, high / 4
    return (values - np.float64(low)) / (high - low)


def colours(means: np.ndarray, low: float, high: float, log: bool) -> np.ndarray:
    """Return the colour of each value, 1 to 255, and 0 for NaN.

    >>> colours(np.array([[0, 5, 20, np.nan]], "f4"), 0, 10, log=False)
    array([[  1, 128, 255,   0]], dtype=uint8)
    """
    if not high > low:  # one value only, or none
        return np.where(np.isnan(means), 0, np.where(means > high, 255, 1)).astype("u1")
    part = np.clip(_parts(means, low, high), 0, 1).astype("f4")
    if log:
        part = np.log1p((10**DECADES - 1) * part) / (DECADES * np.log(10))
    return (1 + np.nan_to_num(254 * part, copy=False, nan=-1)).astype("u1")


def palette(name: str) -> bytes:
    """Return the colours of a map as 256 times red, green and blue; the first is not used.

    Raises
    ------
    ValueError
        If there is no such colour map.
    """
    table = np.zeros((256, 3), "u1")
    anchors = PALETTES.get(name) if isinstance(name, str) else None
    if anchors is None:
        table[1:] = _from_matplotlib(name)
        return table.tobytes()
    values = np.array([list(bytes.fromhex(each)) for each in anchors.split()])
    places = np.linspace(0, len(values) - 1, 255)
    for channel in range(3):
        table[1:, channel] = np.interp(places, np.arange(len(values)), values[:, channel]).round()
    return table.tobytes()


def _from_matplotlib(name: str) -> np.ndarray:
    try:
        found = load("matplotlib").colormaps[name]
    except (ImportError, KeyError, TypeError):
        raise ValueError(
            f"cmap must be one of {', '.join(PALETTES)}, or a colour map of matplotlib if it is "
            f"installed, got {name!r}"
        ) from None
    return found(np.linspace(0, 1, 255), bytes=True)[:, :3]


def _png(lines: np.ndarray, colors: bytes) -> bytes:
    """Return a PNG file of rows of palette indices, each after a byte for its filter."""
    height, width = lines.shape
    # Runs only: on noise a search for repetitions takes three times as long and saves nothing.
    packer = zlib.compressobj(1, strategy=zlib.Z_RLE)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width - 1, height, 8, 3, 0, 0, 0),
        b"PLTE": colors,
        b"tRNS": b"\0",
        b"IDAT": packer.compress(lines.data) + packer.flush(),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )
