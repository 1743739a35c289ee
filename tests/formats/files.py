"""Files of every format, written by other libraries or by hand, and independent readers of them."""

import bz2
import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import fabio
import h5py
import mrcfile
import numpy as np
import tifffile
import zarr
from astropy.io import fits
from fabio.bruker100image import Bruker100Image
from fabio.cbfimage import CbfImage
from fabio.dtrekimage import DtrekImage
from fabio.edfimage import EdfImage
from fabio.esperantoimage import EsperantoImage
from fabio.fit2dmaskimage import Fit2dMaskImage
from fabio.mar345image import Mar345Image


class Kind(NamedTuple):
    """How files of a format are written and read by others."""

    write: Callable[[np.ndarray, Path], object]
    read: Callable[[Path], np.ndarray]
    dtype: str = "u2"
    shape: tuple[int, int, int] = (6, 12, 10)


def read_fabio(path: Path) -> np.ndarray:
    with fabio.open(str(path)) as image:
        return np.stack([image.get_frame(index).data for index in range(image.nframes)])


def read_fabio_frames(path: Path) -> np.ndarray:
    """Return the frames of a file that fabio opens one at a time."""
    count = fabio.open(str(path)).nframes
    return np.stack([fabio.open(str(path), frame=index).data for index in range(count)])


def write_edf(frames: np.ndarray, path: Path) -> None:
    image = EdfImage(data=frames[0])
    for frame in frames[1:]:
        image.append_frame(data=frame)
    image.write(str(path))


def fabio_writer(kind: type) -> Callable[[np.ndarray, Path], None]:
    return lambda frames, path: kind(data=frames[0]).write(str(path))


def write_mar345(frames: np.ndarray, path: Path) -> None:
    image = Mar345Image(data=frames[0])
    image.byteorder = "<"
    image.write(str(path))


def write_kcd(frames: np.ndarray, path: Path) -> None:
    rows, cols = frames.shape[1:]
    text = f"No\nByteorder = Little\nX dimension = {cols}\nY dimension = {rows}\n"
    text += "Data type = u16\nNumber of readouts = 1\n"
    path.write_bytes(text.encode() + b"\xff" * 200 + b"\n" + frames[0].tobytes())


def write_spe(frames: np.ndarray, path: Path) -> None:
    count, rows, cols = frames.shape
    header = bytearray(4100)
    header[:2], header[20:29], header[172:178] = b"\1\0", b"01Jan2024", b"120000"
    struct.pack_into("<h", header, 42, cols)
    struct.pack_into("<h", header, 108, 3)
    struct.pack_into("<h", header, 656, rows)
    struct.pack_into("<i", header, 1446, count)
    path.write_bytes(header + frames.tobytes())


def read_spe(path: Path) -> np.ndarray:
    content = path.read_bytes()
    cols, rows = np.frombuffer(content, "<i2", 1, 42)[0], np.frombuffer(content, "<i2", 1, 656)[0]
    frames = np.frombuffer(content, "<u2", -1, 4100).reshape(-1, rows, cols)
    # fabio reads the first frame only.
    np.testing.assert_array_equal(fabio.open(str(path)).data, frames[0])
    return frames


def write_ge(frames: np.ndarray, path: Path) -> None:
    header = bytearray(8192)
    fields = b"ADEPT", 1, 8192, 1, 0, *frames.shape, 16
    struct.pack_into("<10sHLHLHHHH", header, 0, *fields)
    path.write_bytes(header + frames.tobytes())


def write_mccd(frames: np.ndarray, path: Path) -> None:
    """Write a TIFF file of one page, its pixels after a header of 4096 bytes."""
    rows, cols = frames.shape[1:]
    tags = {256: cols, 257: rows, 258: 16, 259: 1, 262: 1, 273: 4096, 278: rows}
    tags |= {279: frames[0].nbytes, 339: 1}
    entries = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<LH", 8, len(tags)) + entries + bytes(4)
    path.write_bytes(head.ljust(4096, b"\0") + frames[0].tobytes())


def write_tiff(frames: np.ndarray, path: Path) -> None:
    with tifffile.TiffWriter(path) as file:
        for frame in frames:
            file.write(frame, compression="zlib", rowsperstrip=5, contiguous=False)


def read_tiff(path: Path) -> np.ndarray:
    with tifffile.TiffFile(path) as file:
        return np.stack([page.asarray() for page in file.pages])


def write_mrc(frames: np.ndarray, path: Path) -> None:
    with mrcfile.new(path) as file:
        file.set_data(frames)


def read_mrc(path: Path) -> np.ndarray:
    with mrcfile.open(path) as file:
        return np.array(file.data)


def write_compressed_fits(frames: np.ndarray, path: Path) -> None:
    image = fits.CompImageHDU(frames, compression_type="RICE_1")
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(path)


def write_fits_extensions(frames: np.ndarray, path: Path) -> None:
    images = [fits.ImageHDU(frame) for frame in frames]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(path)


def read_fits(path: Path) -> np.ndarray:
    with fits.open(path) as file:
        found = [hdu.data for hdu in file if hdu.data is not None]
        stacked = found[0] if len(found) == 1 else np.stack(found)
        return stacked.astype(stacked.dtype.newbyteorder("="))


def write_hdf5(frames: np.ndarray, path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["data"] = frames


def read_hdf5(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        return file["data"][...]


def compressed(kind: Kind, opener: Callable) -> Kind:
    """Return a kind of files that are compressed as a whole."""

    def write(frames: np.ndarray, path: Path) -> None:
        plain = path.with_suffix("")
        kind.write(frames, plain)
        with opener(path, "wb") as file:
            file.write(plain.read_bytes())
        plain.unlink()

    return kind._replace(write=write)


ONE, SQUARE = (1, 12, 10), (1, 256, 256)
EDF, CBF = Kind(write_edf, read_fabio), Kind(fabio_writer(CbfImage), read_fabio, "i4", ONE)
GE = Kind(write_ge, read_fabio_frames)
MRC = Kind(write_mrc, read_mrc)
FITS = Kind(lambda frames, path: fits.PrimaryHDU(frames).writeto(path), read_fits)
HDF5 = Kind(write_hdf5, read_hdf5)
TIFF = Kind(write_tiff, read_tiff)
ESPERANTO = Kind(fabio_writer(EsperantoImage), read_fabio, "i4", SQUARE)
MAR345 = Kind(write_mar345, read_fabio, "u4", SQUARE)

KINDS = {
    ".npy": Kind(lambda frames, path: np.save(path, frames), np.load),
    ".npz": Kind(
        lambda frames, path: np.savez_compressed(path, images=frames),
        lambda path: np.load(path)["images"],
    ),
    ".zarr": Kind(
        lambda frames, path: zarr.create_array(path, data=frames),
        lambda path: zarr.open_array(path)[...],
    ),
    **dict.fromkeys((".h5", ".hdf5", ".hdf", ".he5", ".nc", ".nx5", ".nxs"), HDF5),
    **dict.fromkeys((".cxi", ".emd", ".fch5", ".hspy", ".mat"), HDF5),
    ".tif": TIFF,
    ".tiff": TIFF._replace(write=lambda frames, path: tifffile.imwrite(path, frames)),
    ".mccd": Kind(write_mccd, lambda path: tifffile.imread(path)[None], shape=ONE),
    ".edf": EDF,
    ".cor": EDF,
    ".edf.gz": compressed(EDF, gzip.open),
    ".edf.bz2": compressed(EDF, bz2.open),
    ".cbf": CBF,
    ".cbf.gz": compressed(CBF, gzip.open),
    ".cbf.bz2": compressed(CBF, bz2.open),
    ".msk": Kind(
        lambda frames, path: Fit2dMaskImage(data=(frames[0] & 1).astype("u1")).write(str(path)),
        read_fabio,
        "u1",
        ONE,
    ),
    ".img": Kind(fabio_writer(DtrekImage), read_fabio, shape=ONE),
    ".sfrm": Kind(fabio_writer(Bruker100Image), read_fabio, "i4", ONE),
    ".esper": ESPERANTO,
    ".esperanto": ESPERANTO,
    ".kcd": Kind(write_kcd, read_fabio, "i4", ONE)._replace(
        write=lambda frames, path: write_kcd(frames.astype("u2"), path)
    ),
    ".spe": Kind(write_spe, read_spe),
    **{f".ge{number}": GE for number in ("", 1, 2, 3, 4, 5)},
    **{f".mar{n}": MAR345 for n in (1200, 1600, 1800, 2000, 2300, 2400, 3000, 3450)},
    ".mrc": MRC,
    ".mrcs": MRC,
    ".map": MRC._replace(dtype="f4"),
    ".mrc.gz": compressed(MRC, gzip.open),
    ".mrc.bz2": compressed(MRC, bz2.open),
    ".fits": FITS,
    ".fit": FITS._replace(dtype="f4"),
    ".fts": FITS._replace(write=write_fits_extensions),
    ".fits.gz": compressed(FITS, gzip.open),
    ".fits.bz2": compressed(FITS, bz2.open),
    ".fz": FITS._replace(write=write_compressed_fits),
}


def frames_of(kind: Kind, seed: int = 6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 30000, kind.shape).astype(kind.dtype)


def written(suffix: str, place: Path, seed: int = 6) -> tuple[Path, np.ndarray]:
    """Return the path of a new file of a format, and its frames as an independent reader sees them.

    All but masks keep every value.
    """
    kind = KINDS[suffix]
    path, frames = place / f"scan{suffix}", frames_of(kind, seed)
    kind.write(frames, path)
    found = kind.read(path)
    assert suffix == ".msk" or np.array_equal(found, frames)
    return path, found
