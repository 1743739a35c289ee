"""The images that states become: their shape and dtype, their mask, and their fill value."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .memory.pool import BufferPool
from .reprs import described
from .statistics import State, Statistic
from .statistics.base import finish_rows
from .statistics.fusion import band_pool
from .statistics.validity import can_hold
from .texts import shown

# Buffers of images that the caller has released, at most 64 MB.
_images = BufferPool(pieces=8, largest=8 << 20)


@dataclass(frozen=True, eq=False)
class ImageSpec:
    """The images of one statistic: their shape and dtype, and their value where nothing counts."""

    statistic: Statistic
    rows: int
    """of an image"""
    cols: int
    """of an image"""
    dtype: np.dtype
    """of an image"""
    mask: np.ndarray | None = None
    """(rows, cols) bool: pixels that are left out of every frame"""
    fill: float | None = None
    """value of the image where the mask is True: see `value_if_empty`"""
    in_pixels: bool = False
    """whether states are of columns of single pixels: the frames' rows one after the other"""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image; several percentiles are planes before the rows."""
        return self.statistic.image_shape(self.rows, self.cols)

    def __repr__(self) -> str:
        masked = "" if self.mask is None else f", {np.count_nonzero(self.mask)} pixels masked"
        return f"<ImageSpec {self.statistic.name}: {described(self.shape, self.dtype)}{masked}>"

    def is_state(self, frames: np.dtype) -> bool:
        """Whether an image can be the one array of a state folded from frames of a dtype."""
        # A fold widens float16.
        return self.mask is None and self.dtype == frames and frames != np.float16

    def empty(self) -> np.ndarray:
        """Return an uninitialised image, in recycled memory."""
        return _images.array(self.shape, self.dtype)

    def blank(self) -> np.ndarray:
        """Return an image of zeros."""
        image = self.empty()
        image[...] = 0
        return image

    def image(self, state: State) -> np.ndarray:
        """Return the image of a state, always in a new array."""
        image = self.blank() if self.statistic.along == "rows" else self.empty()
        self.write(state, image)
        return image

    def copy(self, image: np.ndarray) -> np.ndarray:
        """Return a copy of an image, in recycled memory."""
        copy = self.empty()
        copy[...] = image
        return copy

    def write(self, state: State, image: np.ndarray, first: int = 0) -> None:
        """Write a state into an image, or into its rows from ``first`` on."""
        if self.in_pixels:
            image = image.reshape(*image.shape[:-2], -1, 1)
        self.statistic.write(state, image)
        if self.statistic.along == "frames":
            self._fill_masked(image, first)
            return
        for start, band in state.items():
            edge = int(start)
            self._fill_masked(image[..., edge : edge + band.shape[-2], :], edge)

    def band(self, state: State) -> np.ndarray:
        """Return the rows of the one band that a state has."""
        ((first, band),) = state.items()
        finished = self.statistic.finalize is finish_rows and band.dtype == self.dtype
        if finished and self.mask is None:
            return band  # which no other task uses
        rows = band_pool.array((*self.shape[:-2], *band.shape[-2:]), self.dtype)
        rows[...] = 0
        self.statistic.write({"0": band}, rows)
        self._fill_masked(rows, int(first))
        return rows

    def _fill_masked(self, image: np.ndarray, first: int) -> None:
        if self.mask is not None:
            mask = self.mask.reshape(-1, 1) if self.in_pixels else self.mask
            image[..., mask[first : first + image.shape[-2]]] = self.fill

    def __dask_tokenize__(self) -> tuple[object, ...]:
        # The names of the states that images are made of identify the statistic.
        return self.rows, self.cols, str(self.dtype), self.mask, self.fill, self.in_pixels


def are_states(specs: Sequence[ImageSpec], statistic: Statistic, frames: np.dtype) -> bool:
    """Whether a loop can write the images of steps while it folds frames of a dtype."""
    return statistic.trail is not None and all(spec.is_state(frames) for spec in specs)


def value_if_empty(statistic: Statistic, dtype: np.dtype, fill: float | None) -> float:
    """Return the value of an image where no frame counts at all.

    Raises
    ------
    ValueError
        If the image cannot hold the fill value, or is of integers and no fill value was given.
    """
    if statistic.empty is not None:
        return statistic.empty
    if fill is None and dtype.kind != "f":
        raise ValueError(
            f"the {dtype} image of {statistic.name} has no NaN for pixels that are masked: "
            f"give a fill_value, or a float as dtype"
        )
    if fill is not None and not can_hold(fill, dtype):
        raise ValueError(
            f"fill_value {shown(fill)} cannot be held by the {dtype} image of {statistic.name}"
        )
    return np.nan if fill is None else fill
