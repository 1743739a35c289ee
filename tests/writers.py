"""Programs that write frames one by one, as a detector does, in processes of their own."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from forking import start_method

SHAPE = 24, 30

Write = Callable[[int, np.ndarray], object]
"""writes the frame of a number"""


def frame(index: int) -> np.ndarray:
    """Return a frame that no other is equal to, without the value 0."""
    return np.random.default_rng(index).integers(1, 4000, SHAPE).astype("u2")


def frames(count: int) -> np.ndarray:
    return np.stack([frame(index) for index in range(count)])


@contextmanager
def zarr_writer(place: Path, version: int, chunk: int) -> Iterator[Write]:
    """Write to a zarr array, whose shape is changed before each frame."""
    import zarr

    settings = {"chunks": (chunk, *SHAPE), "dtype": "u2", "zarr_format": version}
    array = zarr.create_array(place, shape=(0, *SHAPE), **settings)

    def write(index: int, image: np.ndarray) -> None:
        array.resize((index + 1, *SHAPE))
        time.sleep(0.002)
        array[index] = image

    yield write


@contextmanager
def hdf5_writer(place: Path, chunk: int) -> Iterator[Write]:
    """Write to an HDF5 file in the mode SWMR."""
    import h5py

    with h5py.File(place, "w", libver="latest") as file:
        shape = {"shape": (0, *SHAPE), "maxshape": (None, *SHAPE), "chunks": (chunk, *SHAPE)}
        data = file.create_dataset("images", dtype="u2", **shape)
        file.swmr_mode = True

        def write(index: int, image: np.ndarray) -> None:
            data.resize(index + 1, axis=0)
            data.flush()
            time.sleep(0.002)
            data[index] = image
            data.flush()

        yield write


@contextmanager
def tiff_writer(place: Path) -> Iterator[Write]:
    """Write a file for each frame: first it is empty, then half there, then whole."""
    import tifffile

    place.mkdir()
    whole = place.with_suffix(".whole")

    def write(index: int, image: np.ndarray) -> None:
        tifffile.imwrite(whole, image)
        content = whole.read_bytes()
        with (place / f"scan_{index}.tif").open("wb") as file:
            time.sleep(0.002)
            file.write(content[:600])
            file.flush()
            time.sleep(0.002)
            file.write(content[600:])

    yield write


WRITERS: dict[str, Callable[[Path], Any]] = {
    "zarr v3": lambda place: zarr_writer(place, 3, 1),
    "zarr v2": lambda place: zarr_writer(place, 2, 1),
    "zarr, 4 to a chunk": lambda place: zarr_writer(place, 3, 4),
    "HDF5": lambda place: hdf5_writer(place, 1),
    "HDF5, 4 to a chunk": lambda place: hdf5_writer(place, 4),
    "TIFF": tiff_writer,
}

PLACES = {"zarr": "scan.zarr", "HDF5": "scan.h5", "TIFF": "scan"}


def place_of(kind: str) -> str:
    return next(name for start, name in PLACES.items() if kind.startswith(start))


def work(kind: str, place: Path, count: int, pause: float, told: Any) -> None:
    """Write frames, one in each ``pause`` seconds; send the time when each is there."""
    with WRITERS[kind](place) as write:
        due = time.monotonic()
        for index in range(count):
            image = frame(index)
            due += pause
            time.sleep(max(0, due - time.monotonic()))
            write(index, image)
            told.send(time.time())


@contextmanager
def writing(kind: str, place: Path, count: int, pause: float = 0.02) -> Iterator[Any]:
    """Run a writer in a process; yield the connection that receives the time of each frame."""
    context: Any = multiprocessing.get_context(start_method())
    times, told = multiprocessing.Pipe(duplex=False)
    process = context.Process(target=work, args=(kind, place, count, pause, told))
    process.start()
    told.close()
    try:
        yield times
        process.join(60)
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join()
        times.close()
        process.close()
