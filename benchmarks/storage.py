"""Files of series: how a benchmark writes them, and how peers open them."""

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

SUFFIXES = {"memory": ".npy", "npy": ".npy", "hdf5": ".h5", "npz": ".npz"}


def path_for(directory: str, name: str, storage: str) -> Path:
    """Return the path of a file of a kind of storage."""
    return Path(directory) / f"{name.replace(' ', '-')}{SUFFIXES.get(storage, '.zarr')}"


def write_frames(frames: np.ndarray, storage: str, path: Path) -> None:
    """Write frames to a file."""
    if storage.startswith("zarr"):
        write_zarr(frames, storage, path)
    elif storage == "hdf5":
        import h5py

        with h5py.File(path, "w") as file:
            options = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
            file.create_dataset("data", data=frames, chunks=(1, *frames.shape[1:]), **options)
    elif storage == "npz":
        write_frame_cache(frames, path)
    else:
        np.save(path, frames)


def write_zarr(frames: np.ndarray, storage: str, path: Path) -> None:
    import zarr

    codecs = {
        "zarr-blosc": zarr.codecs.BloscCodec(cname="lz4", shuffle="bitshuffle"),
        "zarr-zstd": zarr.codecs.ZstdCodec(level=1),
    }
    array = zarr.create_array(
        path,
        shape=frames.shape,
        chunks=(4, *frames.shape[1:]),
        dtype=frames.dtype,
        compressors=codecs[storage],
    )
    array[:] = frames


def write_frame_cache(frames: np.ndarray, path: Path) -> None:
    """Write a HEXRD frame cache: pixels above a threshold, about half a percent here."""
    lit = ((frame, *np.nonzero(frame > 125)) for frame in frames)
    write_sparse(path, frames.shape, ((row, col, frame[row, col]) for frame, row, col in lit))


def write_sparse(
    path: Path, shape: tuple[int, ...], frames: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> None:
    """Write a HEXRD frame cache of rows, columns and uint16 values of each frame."""
    nframes, *of_frame = shape
    arrays: dict[str, Any] = {"shape": of_frame, "nframes": nframes, "dtype": b"uint16"}
    for index, fields in enumerate(frames):
        for name, array in zip(("row", "col", "data"), fields, strict=True):
            arrays[f"{index}_{name}"] = array.astype("u2")
    np.savez_compressed(path, **arrays)


def opened(frames: Any) -> Any:
    """Return an array of frames in memory or in a file; of a frame cache, its path."""
    if not isinstance(frames, str):
        return frames
    path = Path(frames)
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r")
    if path.suffix == ".zarr":
        return import_module("zarr").open_array(path, mode="r")
    return import_module("h5py").File(path)["data"] if path.suffix == ".h5" else path
