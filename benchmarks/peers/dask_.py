"""dask.array in chunks of a few frames."""

from typing import Any

from common import THREADS
from storage import opened

from .base import DASK_FRAMES, PCTL, TWO, Images, Peer, is_frame_cache


def array_of(source: Any) -> Any:
    """Return a dask array of a few frames to a chunk, and set the number of threads."""
    import dask
    import dask.array as da

    dask.config.set(num_workers=THREADS)
    return da.from_array(source, chunks=(DASK_FRAMES, -1, -1), name=False)


def open_images(frames: Any) -> Images:
    import dask.array as da

    source = opened(frames)
    if is_frame_cache(source):
        return {}
    array = array_of(source)
    bands = array.rechunk((-1, max(1, array.shape[1] // 16), -1))
    return {
        "max": lambda: array.max(axis=0).compute(),
        "min": lambda: array.min(axis=0).compute(),
        "sum": lambda: array.sum(axis=0).compute(),
        "average": lambda: array.mean(axis=0).compute(),
        "std": lambda: array.std(axis=0).compute(),
        "median": lambda: da.median(bands, axis=0).compute(),
        "percentile": lambda: da.quantile(bands, PCTL / 100, axis=0).compute(),
    }


def open_float32(frames: Any) -> Images:
    array = array_of(opened(frames))
    return {
        "sum": lambda: array.sum(axis=0, dtype="f4").compute(),
        "average": lambda: array.mean(axis=0, dtype="f4").compute(),
        "std": lambda: array.std(axis=0, dtype="f4").compute(),
    }


CHUNKED = f"{TWO}, {DASK_FRAMES}-frame chunks"
PEERS = (
    Peer("dask.array", CHUNKED, open_images, "dask", reads_files=True),
    Peer(
        "dask.array in float32",
        f"{CHUNKED}, inexact",
        open_float32,
        "dask",
        reads_files=True,
        variant=True,
    ),
)
