"""The manifest of a checkpoint: which call it is of, and which generations of its state are whole.

It is a small file of JSON that is replaced by a rename, so that it lists whole generations only.
Everything in it is checked before it is used: a checkpoint may come from anywhere.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = "daskstats checkpoint"
MANIFEST_VERSION = 1

# The longest manifest, in bytes: that of a series of 100,000 files has 20 MB.
MOST_MANIFEST = 256 << 20

JSON = Any
"""a value of JSON: None, bool, number, text, list, or dict of these with text as keys"""


class DamagedCheckpointError(ValueError):
    """A part of a checkpoint is missing, has been altered, or is of another program."""


@dataclass(frozen=True)
class SavedArray:
    """An array of a generation."""

    name: str
    """as in the state, or of an image"""
    shape: tuple[int, ...]
    dtype: str
    digest: str
    """SHA-256 of its bytes, in hexadecimal"""
    metadata: str
    """SHA-256 of its ``zarr.json``"""

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Generation:
    """A state that was stored, and the images of it."""

    number: int
    """the name of its directory"""
    done: int
    """frames, or rows, that the state covers"""
    total: int
    """frames, or rows, of the whole run"""
    nbytes: int
    """bytes of frames that had been read"""
    arrays: tuple[SavedArray, ...]

    @property
    def is_last(self) -> bool:
        """Whether it is that of a run that has finished."""
        return self.done == self.total


@dataclass(frozen=True)
class Manifest:
    """The content of a checkpoint."""

    identity: dict[str, JSON]
    """of the call"""
    unit: str
    """ "frames" or "rows", of ``done`` and ``total``"""
    names: tuple[str, ...]
    """of the images"""
    several: bool
    """whether the images are a dict for the caller"""
    generations: tuple[Generation, ...]
    """the newest first"""

    @property
    def newest(self) -> Generation:
        return self.generations[0]

    @property
    def nframes(self) -> int:
        """Number of frames that the newest image covers."""
        if self.unit == "frames":
            return self.newest.done
        frames: int = self.identity["number of frames"]
        return frames

    def text(self) -> str:
        """Return the manifest as it is stored, with a digest of itself."""
        fields = {"format": FORMAT, "version": MANIFEST_VERSION, **asdict(self)}
        return json.dumps({**fields, "digest": _digest(fields)}, indent=1)


def _digest(fields: dict[str, JSON]) -> str:
    text = json.dumps(fields, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of(arrays: Iterable[np.ndarray]) -> str:
    """Return the SHA-256 of the values of arrays, in the byte order of the files."""
    found = hashlib.sha256()
    for array in arrays:
        little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        found.update(little.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def read_manifest(path: Path) -> Manifest | None:
    """Return the manifest in a file, None if there is no file.

    Raises
    ------
    DamagedCheckpointError
        If it is not one; the message names the field.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamagedCheckpointError(f"{path} cannot be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        text = file.read(MOST_MANIFEST + 1)
    try:
        if len(text) > MOST_MANIFEST:
            raise ValueError(f"it is longer than {MOST_MANIFEST} bytes")
        fields = json.loads(text)
        return _manifest(fields)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise DamagedCheckpointError(
            f"{path} is no manifest of a checkpoint, or has been damaged: {reason}"
        ) from error


def _manifest(fields: dict[str, JSON]) -> Manifest:
    if not isinstance(fields, dict):
        raise TypeError(f"it holds {type(fields).__name__}")
    if fields.get("format") != FORMAT:
        raise ValueError(f"format is not {FORMAT!r}")
    if fields.get("version") != MANIFEST_VERSION:
        raise ValueError(f"version is {fields.get('version')!r}, expected {MANIFEST_VERSION}")
    digest = fields.pop("digest")
    if digest != _digest(fields):
        raise ValueError("its digest is that of another content")
    generations = tuple(_generation(each) for each in fields["generations"])
    if not generations:
        raise ValueError("generations are none")
    unit, identity = fields["unit"], fields["identity"]
    if unit not in ("frames", "rows") or not isinstance(identity, dict):
        raise ValueError(f"unit is {unit!r}, identity {type(identity).__name__}")
    names = tuple(map(str, fields["names"]))
    return Manifest(identity, unit, names, fields["several"] is True, generations)


def _generation(fields: dict[str, JSON]) -> Generation:
    number, done, total, nbytes = (
        _count(fields[name], name) for name in ("number", "done", "total", "nbytes")
    )
    if not done <= total:
        raise ValueError(f"done is {done} of {total}")
    return Generation(number, done, total, nbytes, tuple(map(_array, fields["arrays"])))


def _array(fields: dict[str, JSON]) -> SavedArray:
    shape = tuple(_count(length, "shape") for length in fields["shape"])
    dtype = np.dtype(str(fields["dtype"]))
    if dtype.kind not in "biufc":
        raise ValueError(f"dtype {fields['dtype']!r} is none of numbers")
    texts = (str(fields[name]) for name in ("digest", "metadata"))
    return SavedArray(str(fields["name"]), shape, dtype.str, *texts)


def _count(value: JSON, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} is {value!r}, not a number from 0 on")
    return value
