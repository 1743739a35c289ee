"""Speed of file formats: the maximum of a series beside reading each frame with other libraries.

The library of the format reads each frame once, in as many threads, and computes nothing. It opens
the file in each thread, as its objects may not be shared.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import common
import fabio
import mrcfile
import numpy as np
import tifffile
from astropy.io import fits
from fabio.cbfimage import CbfImage
from fabio.edfimage import EdfImage
from filebench import measure_files, reached

import daskstats as stats
from daskstats.formats.raw import RawSource

SHAPE = (200, 1024, 1024)
SKIP = 8192

HEADER = ("format", "read by", "daskstats, GB/s", "the library, GB/s", "ratio", "goal", "met")

# Reads some frames of a file, given their numbers.
ReadFrames = Callable[[Path, Sequence[int]], None]


# ---------------------------------------------------------------------- files


def write_edf(frames: np.ndarray, path: Path) -> None:
    image = EdfImage(data=frames[0])
    for frame in frames[1:]:
        image.append_frame(data=frame)
    image.write(str(path))


def write_cbf_files(frames: np.ndarray, path: Path) -> None:
    path.mkdir()
    for index, frame in enumerate(frames):
        CbfImage(data=frame.astype("i4")).write(str(path / f"{index:05}.cbf"))


def write_tiff(frames: np.ndarray, path: Path) -> None:
    with tifffile.TiffWriter(path) as file:
        for frame in frames:
            file.write(frame, compression="zlib", contiguous=False, photometric="minisblack")


def write_mrc(frames: np.ndarray, path: Path) -> None:
    with mrcfile.new(path) as file:
        file.set_data(frames)


# ---------------------------------------------------------------------- other libraries


def read_tiff(path: Path, numbers: Sequence[int]) -> None:
    with tifffile.TiffFile(path) as file:
        for number in numbers:
            file.pages[number].asarray(maxworkers=1)


def read_edf(path: Path, numbers: Sequence[int]) -> None:
    with fabio.open(str(path)) as image:
        for number in numbers:
            np.asarray(image.get_frame(number).data)


def read_cbf_files(path: Path, numbers: Sequence[int]) -> None:
    for number in numbers:
        np.asarray(fabio.open(str(path / f"{number:05}.cbf")).data)


def read_mrc(path: Path, numbers: Sequence[int]) -> None:
    with mrcfile.mmap(path) as file:
        for number in numbers:
            np.array(file.data[number])


def read_fits(path: Path, numbers: Sequence[int]) -> None:
    with fits.open(path, memmap=False) as file:
        for number in numbers:
            np.array(file[0].section[number])


# ---------------------------------------------------------------------- formats


def formats(frames: np.ndarray) -> dict[str, tuple[Callable, ReadFrames, str, float | None]]:
    """Return for each format how its file is written, how a library reads it, which, and a goal."""
    rows, cols = frames.shape[1:]

    def write_raw(frames: np.ndarray, path: Path) -> None:
        path.write_bytes(bytes(SKIP) + frames.tobytes())

    def read_raw(path: Path, numbers: Sequence[int]) -> None:
        for number in numbers:
            place = SKIP + number * frames[0].nbytes
            np.fromfile(path, frames.dtype, rows * cols, offset=place).reshape(rows, cols)

    plain = {"photometric": "minisblack"}
    return {
        "pages.tif": (lambda f, p: tifffile.imwrite(p, f, **plain), read_tiff, "tifffile", 0.9),
        "deflate.tif": (write_tiff, read_tiff, "tifffile", 0.9),
        "frames.edf": (write_edf, read_edf, "fabio", 0.9),
        "cbf files": (write_cbf_files, read_cbf_files, "fabio", 0.9),
        "stack.mrc": (write_mrc, read_mrc, "mrcfile", 0.8),
        "flat.raw": (write_raw, read_raw, "numpy", 0.8),
        "cube.fits": (lambda f, p: fits.PrimaryHDU(f).writeto(p), read_fits, "astropy", None),
    }


def maximum(path: Path, frames: np.ndarray) -> Callable[[], Any]:
    """Return the call under test: opening the file, and the maximum of its frames."""
    if path.suffix == ".raw":
        return lambda: stats.max(RawSource(path, frames.shape[1:], frames.dtype, SKIP)).compute()
    return lambda: stats.max(path).compute()


def lines(frames: np.ndarray, place: Path, repeats: int) -> Iterator[list[Any]]:
    """Yield the rows of the table."""
    for name, (write, read, library, goal) in formats(frames).items():
        path = place / name
        write(frames, path)
        ours = maximum(path, frames)
        assert np.array_equal(ours(), frames.max(axis=0)), name
        functions = {
            "daskstats": ours,
            "library": lambda read=read, path=path: common.in_threads(
                lambda numbers: read(path, numbers), len(frames)
            ),
        }
        best = common.in_turn(functions, repeats)
        ratio = best["library"] / best["daskstats"]
        speeds = [frames.nbytes / best[who] / 1e9 for who in ("daskstats", "library")]
        met = reached(ratio, goal)
        yield [name, library, *speeds, ratio, goal, met]


def main() -> None:
    measure_files(
        __doc__,
        SHAPE,
        [(None, HEADER, lines)],
        ("numpy", "tifffile", "fabio", "mrcfile", "astropy"),
    )


if __name__ == "__main__":
    main()
