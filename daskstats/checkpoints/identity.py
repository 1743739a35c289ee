"""Which call a checkpoint is of: the arguments and the frames that decide the values of its images.

Memory limit, workers, scheduler and the number of images are not among them: the state is the same.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from dask.base import tokenize

from ..formats.inputs import read_image
from ..formats.placed import file_state
from ..names import IMAGES, SELECTION
from ..series.base import Source
from ..series.files import fingerprint
from ..statistics import Statistic
from ..texts import shown
from .manifest import JSON, digest_of

# The keywords of a call that decide values; each is a field of the identity.
KEYWORDS = ("dtype", *SELECTION)

# Bytes of an array that stands for itself in the identity; of larger ones there is a digest.
SHOWN_NBYTES = 256


class OtherCallError(ValueError):
    """A checkpoint is of another call, or of other frames."""


def identity_of(
    series: Source,
    nframes: int,
    statistic: Statistic,
    names: tuple[str, ...],
    options: Mapping[str, Any],
) -> dict[str, JSON]:
    """Return the identity of a call, as values of JSON.

    Parameters
    ----------
    series : Source
        With all corrections and selections.
    nframes : int
        Frames to use.
    statistic : Statistic
        Of the states.
    names : tuple of str
        Of the images.
    options : mapping
        The keywords of the call.
    """
    return {
        "statistic": ", ".join(names),
        "parameters": tokenize(statistic),
        "number of frames": nframes,
        "shape": [*series.shape],
        "dtype of the frames": str(series.dtype),
        **{name: _value(name, options.get(name)) for name in KEYWORDS},
        "files": _files(series),
        "content": sample(series, nframes),
    }


def _value(name: str, value: Any) -> JSON:
    """Return a keyword as a value of JSON."""
    if value is None or value is False:  # the defaults
        return None
    if name == "dtype":
        return str(np.dtype(value))
    if isinstance(value, str | os.PathLike):
        if name not in IMAGES:
            return str(value)
        value = read_image(value, name)
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, slice):
        return str(value)
    if isinstance(value, set | frozenset):
        value = sorted(value)
    return _array(np.asarray(value))


def _array(array: np.ndarray) -> JSON:
    if array.nbytes <= SHOWN_NBYTES:
        return array.tolist()
    return f"{array.dtype} {array.shape} {digest_of([array])}"


def _files(series: Source) -> list[list[JSON]]:
    """Return path and state of each file that frames come from."""
    return [[str(path), *_state(path)] for path in series.files()]


def _state(path: Path) -> tuple[int | str, ...]:
    """Return values that change with the content, also for a process on another machine."""
    return fingerprint(path) if path.is_dir() else file_state(path)


def sample(series: Source, nframes: int) -> dict[str, JSON]:
    """Return the indices of the first, middle and last frame, and the digest of their values."""
    return _sampled(series, sorted({0, nframes // 2, nframes - 1}))


def _sampled(series: Source, indices: list[int]) -> dict[str, JSON]:
    blocks = [
        block
        for index in indices
        for piece in series.pieces(index, index + 1, 0, series.shape[0], 1)
        for block in piece
    ]
    return {"frames": indices, "digest": digest_of(blocks)}


# ---------------------------------------------------------------------- comparing


def check_same(
    saved: dict[str, JSON],
    asked: dict[str, JSON],
    series: Source,
    grows: bool,
    written: bool = False,
) -> None:
    """Refuse a checkpoint of another call; frames may have been appended to the same series.

    Parameters
    ----------
    saved, asked : dict
        Identities of the checkpoint, and of the call.
    series : Source
        Of the call.
    grows : bool
        Whether a state can be continued with more frames.
    written : bool
        Whether a program writes the last file, which may have changed without more frames.

    Raises
    ------
    OtherCallError
        With the field that differs.
    """
    length = "number of frames"
    if saved.keys() != asked.keys():
        raise OtherCallError(f"it has the fields {shown([*saved])}")
    more = asked[length] - saved[length]
    if more < 0 or (more and not grows):
        remark = "" if more < 0 else ", and its rows are of all frames"
        raise OtherCallError(
            f"{length} was {saved[length]} there and is {asked[length]} here{remark}"
        )
    for field in asked:
        if field not in (length, "files", "content") and not _equal(saved[field], asked[field]):
            raise OtherCallError(_difference(field, saved[field], asked[field]))
    if more or written:
        _check_grown(saved, asked, series)
    else:
        _check_files(saved["files"], asked["files"])
        _check_content(saved["content"], asked["content"])


def _equal(saved: JSON, asked: JSON) -> bool:
    """Whether two values are equal; NaN is equal to NaN."""
    return saved == asked or json.dumps(saved) == json.dumps(asked)


def _difference(field: str, saved: JSON, asked: JSON) -> str:
    if field == "parameters":
        return "the parameters of the statistic, or the values that count, are others"
    return f"{field} was {shown(saved)} there and is {shown(asked)} here"


def _check_files(saved: list[list[JSON]], asked: list[list[JSON]]) -> None:
    if len(saved) != len(asked):
        raise OtherCallError(f"it is of {len(saved)} files, here are {len(asked)}")
    for before, now in zip(saved, asked, strict=True):
        if before[0] != now[0]:
            raise OtherCallError(f"it is of {before[0]}, here is {now[0]}")
        if before != now:
            raise OtherCallError(f"{now[0]} has changed since")


def _check_content(saved: JSON, asked: JSON) -> None:
    if saved != asked:
        frames = shown(asked["frames"])
        raise OtherCallError(f"the frames are others: {frames} have another digest")


def _check_grown(saved: dict[str, JSON], asked: dict[str, JSON], series: Source) -> None:
    """Refuse a longer series that does not begin with the frames of the checkpoint."""
    # The last file may have grown, and others may have followed.
    before, indices = saved["files"], saved["content"]["frames"]
    now = asked["files"][: len(before)]
    _check_files(before[:-1], now[:-1])
    _check_files([each[:1] for each in before[-1:]], [each[:1] for each in now[-1:]])
    if not all(0 <= index < saved["number of frames"] for index in indices):
        raise OtherCallError(f"content is of frames {shown(indices)}")
    _check_content(saved["content"], _sampled(series, indices))
