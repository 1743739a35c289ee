"""The images that states become."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .memory.pool import BufferPool
from .statistics import State, Statistic
from .statistics.base import finish_rows
from .statistics.fusion import band_pool

# What a consumer has dropped of the last few images, 64 MB at the most; what it keeps is its own.
_images = BufferPool(pieces=8, largest=8 << 20)


@dataclass(frozen=True, eq=False)
class ImageSpec:
    """The images of one statistic: their shape and dtype, and what stands where nothing counts."""

    statistic: Statistic
    rows: int
    """of an image"""
    cols: int
    """of an image"""
    dtype: np.dtype
    """of an image"""
    mask: np.ndarray | None = None
    """(rows, cols) bool: pixels that are left out of every frame"""
    fill: Any = None
    """what stands there"""
    in_pixels: bool = False
    """whether states are of columns of single pixels: the frames' rows one after the other"""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image; several percentiles are planes before the rows."""
        return self.statistic.image_shape(self.rows, self.cols)

    def is_state(self, frames: np.dtype) -> bool:
        """Whether an image may be the one array of a state, folded from frames of a dtype."""
        # float16 is widened to be folded.
        return self.mask is None and self.dtype == frames and frames != np.float16

    def empty(self) -> np.ndarray:
        """Return an image to be written, in recycled memory."""
        return _images.array(self.shape, self.dtype)

    def blank(self) -> np.ndarray:
        """Return an image of nothing yet."""
        image = self.empty()
        image[...] = 0
        return image

    def image(self, state: State) -> np.ndarray:
        """Return the image of a state: always an array of its own."""
        image = self.blank() if self.statistic.along == "rows" else self.empty()
        self.write(state, image)
        return image

    def copy(self, image: np.ndarray) -> np.ndarray:
        """Return another image like one."""
        copy = self.empty()
        copy[...] = image
        return copy

    def write(self, state: State, image: np.ndarray, first: int = 0) -> None:
        """Write a state into an image, or into its rows from ``first`` on."""
        if self.in_pixels:
            image = image.reshape(*image.shape[:-2], -1, 1)
        self.statistic.write(state, image)
        if self.statistic.along == "frames":
            self._leave_out(image, first)
            return
        for start, band in state.items():
            edge = int(start)
            self._leave_out(image[..., edge : edge + band.shape[-2], :], edge)

    def band(self, state: State) -> np.ndarray:
        """Return the rows of the one band that a state has."""
        ((first, band),) = state.items()
        finished = self.statistic.finalize is finish_rows and band.dtype == self.dtype
        if finished and self.mask is None:
            return band  # which nobody else has
        rows = band_pool.array((*self.shape[:-2], *band.shape[-2:]), self.dtype)
        rows[...] = 0
        self.statistic.write({"0": band}, rows)
        self._leave_out(rows, int(first))
        return rows

    def _leave_out(self, image: np.ndarray, first: int) -> None:
        if self.mask is not None:
            mask = self.mask.reshape(-1, 1) if self.in_pixels else self.mask
            image[..., mask[first : first + image.shape[-2]]] = self.fill

    def __dask_tokenize__(self) -> Any:
        # The statistic is in the names of the states that images are made of.
        return self.rows, self.cols, str(self.dtype), self.mask, self.fill, self.in_pixels
