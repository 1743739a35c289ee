"""Simulated series of a detector: powder rings and spots of grains, written block by block."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from . import ending
from .arguments import integer
from .formats import nexus, npy, outputs
from .formats.places import check_place
from .formats.writing import OutputFile, check_room
from .names import DTYPES
from .packages import load, require
from .planning.cuts import SMALLEST_BLOCK

# Largest value of wider dtypes: the counters of many detectors have 20 bits.
SATURATION = 1 << 20

# Relative brightness of a spot in successive frames (a rocking curve).
ROCKING = np.exp(-0.5 * ((np.arange(5) - 2) / 0.9) ** 2)

# h^2 + k^2 + l^2 of the reflections of a face-centred cubic crystal: at small angles, the radii of
# its rings are proportional to the roots.
REFLECTIONS = (3, 4, 8, 11, 12, 16, 19, 20, 24, 27, 32, 35, 36, 40)

Write = Callable[[int, np.ndarray], object]
"""writes a block of frames, given the number of the first"""


def simulate(
    path: str | os.PathLike,
    nframes: int = 100,
    shape: tuple[int, int] = (1024, 1024),
    dtype: DTypeLike = "uint16",
    seed: int = 0,
    force: bool = False,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Write a simulated series of detector images, a block of frames at a time.

    A smooth background and the rings of a powder carry Poisson noise; spots of single grains
    light up on the rings for a few frames; each pixel has its own gain, some are dead (0) and some
    hot. Frame k depends on the seed, k, the shape and the dtype only.

    Parameters
    ----------
    path : path
        ``.zarr``, in chunks of whole frames; ``.npy``; ``.h5`` or ``.hdf5``, dataset
        "/entry/data/data"; ``.npz``, a HEXRD frame cache, where pixels up to a threshold above
        the background are left out, that is, zero.
    nframes : int
        Number of frames.
    shape : (int, int)
        Rows and columns of a frame.
    dtype : dtype
        uint8, uint16, uint32, int32 or float32.
    seed : int
        Of the random numbers, not negative.
    force : bool
        Whether an existing file is replaced.
    progress : callable, optional
        Called with the number of frames that have just been written.

    Raises
    ------
    ValueError, TypeError, ImportError, FileExistsError, FileNotFoundError
        If an argument is wrong, or the file cannot be written; nothing is left behind then.

    Notes
    -----
    Counts are not drawn from the Poisson distribution of mean m but as
    ``(sqrt(m) + z / 2) ** 2 - 1 / 4`` with normal z, which costs a fifth of the time. This has
    the mean m, the variance m + 1/8, and a tail to the same side.

    Examples
    --------
    >>> simulate("scan.txt")
    Traceback (most recent call last):
        ...
    ValueError: scan.txt has no known suffix: expected one of .h5, .hdf5, .npy, .npz, .zarr
    """
    nframes, shape, dtype, seed = check_arguments(path, nframes, shape, dtype, seed, force)
    opened = FORMATS[Path(path).suffix.lower()][0]
    scene = Scene(shape, dtype, seed)
    # Frames that are simulated and written together are a chunk of a zarr array.
    size = max(1, min(nframes, SMALLEST_BLOCK // scene.frame_nbytes))
    with (
        outputs.new_output(path, force) as temporary,
        opened(temporary, nframes, size, scene) as write,
    ):
        for start in range(0, nframes, size):
            block = scene.frames(start, min(nframes, start + size))
            with ending.writing:
                write(start, block)
            if progress is not None:
                progress(len(block))


def check_arguments(
    path: str | os.PathLike,
    nframes: int,
    shape: tuple[int, int],
    dtype: DTypeLike,
    seed: int,
    force: bool = False,
) -> tuple[int, tuple[int, int], np.dtype, int]:
    """Return nframes, shape, dtype and seed as `simulate` takes them, or refuse a wrong one."""
    suffix = check_place(path, FORMATS, (), force)
    require(FORMATS[suffix][1], path)
    shape = _check_shape(shape, suffix)
    return _count(nframes, "nframes", 1), shape, _check_dtype(dtype), _count(seed, "seed", 0)


def _check_dtype(dtype: DTypeLike) -> np.dtype:
    """Return the dtype of frames that can be simulated."""
    try:
        checked = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype must be a numpy dtype, got {dtype!r}") from None
    if checked.name not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {checked}")
    return checked.newbyteorder("=")


def _check_shape(shape: tuple[int, int], suffix: str) -> tuple[int, int]:
    try:
        rows, cols = shape
    except (TypeError, ValueError):
        raise ValueError(f"shape must be (rows, cols), got {shape!r}") from None
    rows, cols = _count(rows, "rows", 1), _count(cols, "cols", 1)
    if suffix == ".npz" and max(rows, cols) > 1 << 16:
        raise ValueError(f"a frame cache holds at most {1 << 16} rows and columns, got {shape}")
    return rows, cols


def _count(value: object, name: str, least: int) -> int:
    number = integer(value, name)
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


class Spot(NamedTuple):
    """A grain's reflection in one frame."""

    row: float
    """of its centre"""
    col: float
    """of its centre"""
    width: float
    """standard deviation, in pixels"""
    peak: float
    """expected counts in the centre"""


class Scene:
    """The background, rings and pixels that all frames share, and how to draw a frame."""

    def __init__(self, shape: tuple[int, int], dtype: np.dtype, seed: int) -> None:
        self.shape, self.dtype, self.seed = shape, dtype, seed
        narrow = dtype.itemsize == 1
        self.level = 12.0 if narrow else 100.0
        self.threshold = 2 * self.level
        largest = np.iinfo(dtype).max if dtype.kind in "iu" else SATURATION
        self.saturation = min(largest, SATURATION)
        self.radius = min(shape) / 2
        random = self._random(0)
        self.centre = tuple(length * random.uniform(0.47, 0.53) for length in shape)
        self._root = np.sqrt(self._expected())
        self._gain = 1 + np.float32(0.04) * random.standard_normal(shape, np.float32)
        self._flaws(random)

    @property
    def frame_nbytes(self) -> int:
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def frames(self, start: int, stop: int) -> np.ndarray:
        """Return frames ``start:stop`` as (frames, rows, cols)."""
        block = np.empty((stop - start, *self.shape), self.dtype)
        for index, frame in enumerate(block, start):
            self._draw(index, frame)
        return block

    def _random(self, *key: int) -> np.random.Generator:
        """Return a generator of random numbers for each key: 0 the scene, 1 frames, 2 spots."""
        return np.random.Generator(
            np.random.SFC64(np.random.SeedSequence(self.seed, spawn_key=key))
        )

    def _expected(self) -> np.ndarray:
        """Return the expected counts of background and rings, float32 (rows, cols)."""
        rows, cols = (
            np.arange(length, dtype="f4") - np.float32(centre)
            for length, centre in zip(self.shape, self.centre, strict=True)
        )
        radius = np.hypot(rows[:, None], cols)
        # The profile of a line from the centre, finer than a pixel, is bent round the centre.
        line = np.linspace(0, float(radius.max()) + 1, 4 * int(radius.max() + 2))
        profile = self.level * (0.4 + 0.6 * np.exp(-((line / self.radius) ** 2)))
        width = 1 + self.radius / 400
        for number, ring in enumerate(self._rings()):
            bell = np.exp(-0.5 * ((line - ring) / width) ** 2)
            profile += self.level * 3 / (1 + 0.35 * number) * bell
        return np.interp(radius, line, profile).astype("f4")

    def _rings(self) -> np.ndarray:
        """Return the radii of the rings in pixels; the last ones reach into the corners."""
        return self.radius * 0.4 * np.sqrt(np.array(REFLECTIONS) / REFLECTIONS[0])

    def _flaws(self, random: np.random.Generator) -> None:
        """Choose 200 dead and 100 hot pixels per million, at least one of each in four pixels."""
        pixels = self.shape[0] * self.shape[1]
        least = int(pixels >= 4)
        dead, hot = (max(least, pixels * part // 1_000_000) for part in (200, 100))
        flawed = random.choice(pixels, dead + hot, replace=False)
        self.dead, self.hot = flawed[:dead], flawed[dead:]
        # A fiftieth below saturation at most: hot pixels differ among themselves.
        below = random.integers(0, self.saturation // 50, hot)
        self._hot_values = (self.saturation - below).astype(self.dtype)

    def _draw(self, index: int, frame: np.ndarray) -> None:
        root = self._root.copy()
        for spot in self._spots(index):
            self._add(root, spot)
        counts = self._random(1, index).standard_normal(self.shape, np.float32)
        counts *= np.float32(0.5)
        counts += root
        np.square(counts, out=counts)
        counts -= np.float32(0.25)
        counts *= self._gain
        if self.dtype.kind in "iu":
            np.rint(counts, out=counts)
        np.clip(counts, 0, self.saturation, out=counts)
        frame[...] = counts
        frame.reshape(-1)[self.dead] = 0
        frame.reshape(-1)[self.hot] = self._hot_values

    def _spots(self, index: int) -> Iterator[Spot]:
        """Yield the spots of a frame, which lit up in it or a few frames before."""
        pixels = self.shape[0] * self.shape[1]
        for age, brightness in enumerate(ROCKING):
            # The first frames have spots that lit up before the series; keys are not negative.
            random = self._random(2, index - age + len(ROCKING))
            for _ in range(random.poisson(pixels / 100_000)):
                angle = random.uniform(0, 2 * np.pi)
                ring = random.choice(self._rings())
                yield Spot(
                    row=self.centre[0] + ring * np.sin(angle),
                    col=self.centre[1] + ring * np.cos(angle),
                    width=random.uniform(0.8, 1.8),
                    peak=self.level * (5 + random.exponential(20)) * brightness,
                )

    def _add(self, root: np.ndarray, spot: Spot) -> None:
        """Add a spot to the square root of the expected counts, where it lies in the frame."""
        reach = 6  # pixels from the centre to the edge: over three times the largest width
        rows, cols = (
            slice(max(0, int(centre) - reach), max(0, int(centre) + reach + 1))
            for centre in (spot.row, spot.col)
        )
        patch = root[rows, cols]
        up = np.arange(patch.shape[0]) + rows.start - spot.row
        along = np.arange(patch.shape[1]) + cols.start - spot.col
        squares = (up[:, None] ** 2 + along**2) / spot.width**2
        patch[...] = np.sqrt(patch**2 + spot.peak * np.exp(-0.5 * squares))


@contextmanager
def open_npy(path: Path, nframes: int, size: int, scene: Scene) -> Iterator[Write]:
    shape = (nframes, *scene.shape)
    header = {"descr": scene.dtype.str, "fortran_order": False, "shape": shape}
    check_room(path.parent, nframes * scene.frame_nbytes)
    # Not a memory map, which ends the process on a full disk.
    with OutputFile(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        yield lambda start, block: file.write(block)


@contextmanager
def open_zarr(path: Path, nframes: int, size: int, scene: Scene) -> Iterator[Write]:
    zarr = load("zarr")

    array = zarr.create_array(
        path,
        shape=(nframes, *scene.shape),
        chunks=(size, *scene.shape),
        dtype=scene.dtype,
        # Four times as fast on noisy counts as zarr's default, and a tenth smaller.
        compressors=zarr.codecs.BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
    )
    yield lambda start, block: array.__setitem__(slice(start, start + len(block)), block)


@contextmanager
def open_hdf5(path: Path, nframes: int, size: int, scene: Scene) -> Iterator[Write]:
    with nexus.new_file(path) as (file, check):
        dataset = file.create_dataset(
            "/entry/data/data",
            shape=(nframes, *scene.shape),
            dtype=scene.dtype,
            chunks=(1, *scene.shape),
            compression="gzip",
            compression_opts=1,
            shuffle=True,
        )

        def write(start: int, block: np.ndarray) -> None:
            for index, frame in enumerate(block, start):
                dataset[index] = frame
                check()

        yield write


@contextmanager
def open_npz(path: Path, nframes: int, size: int, scene: Scene) -> Iterator[Write]:
    with npy.new_archive(path, zipfile.ZIP_DEFLATED) as add:
        add("shape", np.array(scene.shape, "i8"))
        add("nframes", np.array(nframes))
        add("dtype", np.array(scene.dtype.name.encode()))
        edges = np.arange(nframes + 1) * 0.25
        add("omega", np.stack([edges[:-1], edges[1:]], axis=1))

        def write(start: int, block: np.ndarray) -> None:
            for index, frame in enumerate(block, start):
                row, col = np.nonzero(frame > scene.threshold)
                add(f"{index}_row", row.astype("u2"))
                add(f"{index}_col", col.astype("u2"))
                add(f"{index}_data", frame[row, col])

        yield write


# For each suffix the function that opens a new file, and the optional package that it needs.
FORMATS: dict[str, tuple[Callable, str | None]] = {
    ".npy": (open_npy, None),
    ".npz": (open_npz, None),
    ".zarr": (open_zarr, None),
    ".h5": (open_hdf5, "h5py"),
    ".hdf5": (open_hdf5, "h5py"),
}
