"""The loops of HEXRD's module of statistics, written afresh: by frames, and a buffer of rows."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from .base import PCTL, STEPS, Images, Peer, rows_of


def open_images(frames: np.ndarray) -> Images:
    return {
        "max": lambda: fold(np.maximum, frames, frames.dtype),
        "min": lambda: fold(np.minimum, frames, frames.dtype),
        "sum": lambda: fold(np.add, frames, np.float64),
        "average": lambda: fold(np.add, frames, np.float32) / np.float32(len(frames)),
        "median": lambda: by_rows(np.median, frames, 1),
        "percentile": lambda: by_rows(partial(np.percentile, q=PCTL), frames, 1),
        "median_iter": lambda: by_rows(np.median, frames, min(STEPS, rows_of(frames))),
    }


def fold(ufunc: np.ufunc, frames: np.ndarray, dtype: Any) -> np.ndarray:
    image = np.array(frames[0], dtype)
    for index in range(1, len(frames)):
        ufunc(image, frames[index], out=image)
    return image


def by_rows(function: Callable, frames: np.ndarray, nchunks: int) -> np.ndarray:
    """Fill the image chunk by chunk; one holds all rows, as half the memory suffices here."""
    rows = rows_of(frames)
    edges = [rows * chunk // nchunks for chunk in range(nchunks + 1)]
    image = np.zeros(frames.shape[1:])
    for first, last in pairwise(edges):
        buffer = np.array([frames[index][first:last] for index in range(len(frames))])
        image[first:last] = function(buffer, axis=0)
    return image


PEERS = (Peer("HEXRD loops", "1 thread, written afresh", open_images),)
