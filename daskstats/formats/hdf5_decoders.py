"""Decoders of HDF5's chunk filters that run in any thread, without HDF5 and its lock.

Each fills an array with one chunk, or raises an error of any kind.
"""

from __future__ import annotations

import ctypes
import importlib.util
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ..packages import load

Decode = Callable[[np.ndarray, np.ndarray], None]
"""fills an array of bytes, given those of a stored chunk"""

Filters = Sequence[tuple[str, tuple[int, ...]]]
"""name and parameters of each filter, in the order in which they were applied"""

# Filters of hdf5plugin 7.1 that crash on a damaged chunk, or return anything without an error.
CRASHING = {"blosc", "bitshuffle", "zstd"}


def find_decoder(filters: Filters) -> Decode | None:
    """Return the function that decodes chunks of these filters; None if there is none here."""
    rest = list(filters)
    checked = bool(rest) and rest[-1][0] == "fletcher32"
    if checked:
        rest.pop()
    shuffled = len(rest) == 2 and rest[0][0] == "shuffle"
    if shuffled:
        itemsize = rest.pop(0)[1][0]
    if not rest and checked:
        decode: Decode | None = _copy
    else:
        # A chunk that was only shuffled cannot be told from one that a filter left as it was.
        decode = _decompressor(*rest[0]) if len(rest) == 1 else None
    if decode is not None and shuffled:
        decode = partial(_decode_shuffled, decode, itemsize)
    return partial(_decode_checked, decode) if decode is not None and checked else decode


def _decompressor(name: str, values: tuple[int, ...]) -> Decode | None:
    """Return the function that undoes one filter of compression."""
    if name == "bitshuffle":
        return _bitshuffle(values)
    if name == "blosc":
        return _decode_blosc
    if name == "gzip":  # libdeflate takes a third of zlib's time
        return _decode_into_by("deflate") or _decode_zlib
    if name == "zstd":
        return _decode_into_by("zstd") or _decode_zstd
    into = _decode_into_by("lz4h5") if name == "lz4" else None
    return into and partial(_decode_lz4, into)


def _decode_into_by(name: str) -> Decode | None:
    """Return the decoder of a codec of imagecodecs, where it is installed and has the codec."""
    codecs = _imagecodecs()
    if codecs is None or not getattr(codecs, name.upper()).available:
        return None
    return partial(_decode_into, getattr(codecs, f"{name}_decode"))


@cache
def _imagecodecs() -> Any:
    """Return the package imagecodecs if it is installed."""
    return load("imagecodecs") if importlib.util.find_spec("imagecodecs") else None


def _check_length(found: int, out: np.ndarray) -> None:
    if found != out.nbytes:
        raise ValueError(f"it holds {found} bytes of {out.nbytes}")


def _copy(raw: np.ndarray, out: np.ndarray) -> None:
    _check_length(raw.nbytes, out)
    out[:] = raw


def _decode_into(function: Callable, raw: np.ndarray, out: np.ndarray) -> None:
    """Decode with a function of imagecodecs, which returns the part of `out` that it has filled."""
    _check_length(function(raw, out=out).nbytes, out)


def _decode_zlib(raw: np.ndarray, out: np.ndarray) -> None:
    _copy(np.frombuffer(zlib.decompress(raw.data, bufsize=out.nbytes), np.uint8), out)


def _decode_zstd(raw: np.ndarray, out: np.ndarray) -> None:
    found = load("numcodecs.zstd").decompress(raw)
    _copy(np.frombuffer(found, np.uint8), out)


def _decode_lz4(decode: Decode, raw: np.ndarray, out: np.ndarray) -> None:
    found, block = struct.unpack_from(">QI", raw.data)
    _check_length(found, out)
    _check_blocks(raw, -(-found // block), 0)
    decode(raw, out)


def _check_blocks(raw: np.ndarray, count: int, rest: int) -> None:
    """Check that blocks after a header, and other bytes after them, end with the chunk.

    Libraries rely on the lengths of blocks, and read on beyond the chunk.
    """
    position, unpack = 12, struct.Struct(">I").unpack_from
    for _ in range(count):
        position += 4 + unpack(raw.data, position)[0]
    if position + rest != raw.nbytes:
        raise ValueError(f"its blocks end at byte {position + rest} of {raw.nbytes}")


def _decode_blosc(raw: np.ndarray, out: np.ndarray) -> None:
    # The header has the bytes of the decoded chunk, and those of the stored one.
    found, stored = struct.unpack_from("<I4xI", raw.data, 4)
    _check_length(found, out)
    if stored > raw.nbytes:
        raise ValueError(f"it is cut off: {raw.nbytes} bytes of {stored}")
    load("numcodecs.blosc").decompress(raw, out)


def _decode_shuffled(decompress: Decode, itemsize: int, raw: np.ndarray, out: np.ndarray) -> None:
    """Decode a chunk that has the first bytes of all pixels, the second bytes, and so on."""
    planes = np.empty((itemsize, out.nbytes // itemsize), np.uint8)
    decompress(raw, planes.reshape(-1))
    pixels = out.reshape(-1, itemsize)
    for byte, plane in enumerate(planes):
        pixels[:, byte] = plane


def _decode_checked(decode: Decode, raw: np.ndarray, out: np.ndarray) -> None:
    """Decode a chunk that ends with a checksum."""
    load("numcodecs.fletcher32").Fletcher32().decode(raw)  # raises an error
    decode(raw[:-4], out)


# ---------------------------------------------------------------------- bitshuffle


def _bitshuffle(values: tuple[int, ...]) -> Decode | None:
    """Return the decoder of bitshuffle with LZ4.

    That is dectris-compression, if it is installed: 9.0 GB/s in two threads, the copy of its bytes
    included, and hdf5plugin's filter 5.1 (1024 x 1024 uint16, 3 photons a pixel on average).
    """
    if values[4:5] != (2,) or not values[2]:
        return None
    decompress = _dectris()
    if decompress is not None:
        return partial(_decode_dectris, decompress, values[2])
    library = _bitshuffle_library()
    if library is None:
        return None
    return partial(_decode_bitshuffle, library.bshuf_decompress_lz4, values[2])


@cache
def _dectris() -> Callable[..., bytes] | None:
    """Return the function of dectris-compression if it is installed."""
    try:
        return load("dectris.compression").decompress
    except ImportError:
        return None


@cache
def _bitshuffle_library() -> ctypes.CDLL | None:
    if not importlib.util.find_spec("hdf5plugin"):
        return None
    plugin = load("hdf5plugin")
    try:
        suffix = plugin.get_config().build_config.filter_file_extension
        library = ctypes.CDLL(str(Path(plugin.PLUGIN_PATH, f"libh5bshuf{suffix}")))
        function = library.bshuf_decompress_lz4
    except (OSError, AttributeError):  # another version of the package
        return None
    function.restype = ctypes.c_int64
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_size_t] * 3]
    return library


def _decode_dectris(decompress: Callable, itemsize: int, raw: np.ndarray, out: np.ndarray) -> None:
    _check_bitshuffle(itemsize, raw, out)
    _copy(np.frombuffer(decompress(raw, "bslz4", elem_size=itemsize), np.uint8), out)


def _decode_bitshuffle(function: Callable, itemsize: int, raw: np.ndarray, out: np.ndarray) -> None:
    pixels, block = _check_bitshuffle(itemsize, raw, out)
    used = function(raw.ctypes.data + 12, out.ctypes.data, pixels, itemsize, block)
    if used != raw.nbytes - 12:
        raise ValueError(f"bitshuffle stopped with {used} after {raw.nbytes} bytes")


def _check_bitshuffle(itemsize: int, raw: np.ndarray, out: np.ndarray) -> tuple[int, int]:
    """Return the pixels of a chunk and of a block; check all lengths, which libraries rely on."""
    found, block_nbytes = struct.unpack_from(">QI", raw.data)
    _check_length(found, out)
    pixels, block = out.nbytes // itemsize, block_nbytes // itemsize
    if block < 8 or block % 8:
        raise ValueError(f"it has blocks of {block} pixels")
    # The last block has fewer pixels, and up to seven pixels after it are not compressed.
    _check_blocks(raw, pixels // block + (pixels % block >= 8), pixels % 8 * itemsize)
    return pixels, block
