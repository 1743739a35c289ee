"""The protocol of a peer: from frames to the functions that compute its images.

Peers import their libraries when they open frames, so that each process has only its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from common import THREADS
from storage import opened

PCTL = 95
STEPS = 60
DASK_FRAMES = 8

# "median_iter" is the median in STEPS steps, all images taken.
STATISTICS = ("max", "min", "sum", "average", "std", "median", "percentile", "median_iter")

# The setting of peers that use all threads.
TWO = f"{THREADS} threads"

Images = dict[str, Callable[[], Any]]
"""For each statistic that a peer has, the function that computes its image."""


@dataclass(frozen=True)
class Peer:
    """A library, or a way to use one, that computes statistics."""

    name: str
    setting: str
    open: Callable[[Any], Images]
    """called with an array of frames, or with the path of a file if the peer reads files"""
    package: str | None = None
    reads_files: bool = False
    role: Literal["alternative", "ours", "limit"] = "alternative"
    """whether a user could choose it instead of daskstats"""
    variant: bool = False
    """whether it is one more setting of another peer"""

    @property
    def label(self) -> str:
        return f"{self.name} ({self.setting})" if self.setting else self.name


def rows_of(frames: Any) -> int:
    """Return the number of rows of an array, or of the frames of a file."""
    return frames.shape[1] if hasattr(frames, "shape") else opened(frames).shape[1]


def is_frame_cache(source: Any) -> bool:
    return isinstance(source, Path)
