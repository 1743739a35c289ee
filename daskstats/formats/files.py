"""Series of files: names are expanded, each file is opened, and their frames are joined."""

import os
from collections.abc import Callable, Iterable
from functools import partial
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np  # noqa: F401 (for the example)
from numpy.typing import DTypeLike

from ..arguments import warn
from ..series.base import Source
from ..series.joined import MOST_OPEN, JoinedSource
from ..series.selection import select
from .addresses import is_url
from .natural import natural
from .paths import Name, SuffixOf, expand, parse, same_file
from .raw import RawSource
from .table import known_suffix, locate
from .zarr_url import open_url

PathLike = str | os.PathLike[str]
Expanded = list[tuple[str, list[Name]]]
"""each name that was given, and the files that it stands for"""


def open_file(name: Name) -> Source:
    """Return the series in one file, or at one address."""
    if is_url(name.file):
        return open_url(name.file)
    path, dataset, found = locate(str(name), "series")
    assert found.series is not None
    return found.series(path, **({"dataset": dataset} if dataset else {}))


class Opener(NamedTuple):
    """How the files of a series are found in a folder, and opened."""

    open: Callable[[Name], Source] = open_file
    suffix_of: SuffixOf = partial(known_suffix, column="series")
    """returns the suffix of a file name, None if it is unknown"""
    description: str = ""
    """of the files, where they do not describe themselves"""


def open_files(
    names: PathLike | Iterable[PathLike],
    without: PathLike | None = None,
    opener: Opener | None = None,
) -> Source:
    """Return the series of one or more files, folders and patterns; see `paths`.

    Parameters
    ----------
    names : path, or iterable of paths
        In the order in which their frames are joined. The files of a pattern and of a folder are in
        natural order.
    without : path, optional
        A file that patterns and folders leave out: the output.
    opener : Opener, optional
        Opens each file; by default in the format of its suffix.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or a pattern or folder has none.
    ValueError
        If the frames of two files differ in shape or dtype, or one file shows another one's.
    """
    one = isinstance(names, str | os.PathLike)
    given = [os.fsdecode(name) for name in ([names] if one else names)]  # type: ignore[arg-type, union-attr]
    if not given:
        raise ValueError("the list of files is empty")
    opener = opener or Opener()
    output = Path(without) if without is not None and Path(without).exists() else None
    every = [(text, expand(parse(text), opener.suffix_of, output)) for text in given]
    every = _without_output(every, output) if len(every) > 1 else every
    many = sum(len(found) for _, found in every) > MOST_OPEN
    parts = [(text, selected(name, opener.open, many)) for text, found in every for name in found]
    if len(parts) == 1:
        return parts[0][1]
    # Of a file that the user has named nothing is left out silently.
    chosen = {text for text, found in every if [str(name) for name in found] == [text]}
    return JoinedSource(_without_shown(parts, chosen))


def frames_from_raw(
    paths: PathLike | Iterable[PathLike],
    shape: tuple[int, int],
    dtype: DTypeLike,
    skip: int = 0,
    gap: int = 0,
) -> Source:
    """Return the series in flat binary files, which do not describe their frames.

    Parameters
    ----------
    paths : path, or iterable of paths
        Files, folders or patterns; of several files the frames follow one another.
    shape : (int, int)
        Rows and columns of a frame.
    dtype : dtype
        Of the pixels; ``">u2"`` where the most significant byte comes first.
    skip : int, optional
        Bytes of the header, before the first frame of each file.
    gap : int, optional
        Bytes between two frames.

    Returns
    -------
    Source
        A series that every function takes.

    Raises
    ------
    ValueError
        If a file does not hold a whole number of frames; the message has the numbers.
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> import daskstats as stats
    >>> _ = np.arange(24, dtype="<u2").tofile("scan.raw")
    >>> stats.max(stats.frames_from_raw("scan.raw", (2, 3), "<u2")).compute()
    array([[18, 19, 20],
           [21, 22, 23]], dtype=uint16)
    """
    return open_files(paths, opener=raw_opener(shape, dtype, skip, gap))


def raw_opener(shape: tuple[int, int], dtype: DTypeLike, skip: int = 0, gap: int = 0) -> Opener:
    """Return the opener of flat binary files; see `frames_from_raw`."""

    def open_raw(name: Name) -> Source:
        if name.dataset:
            raise ValueError(f"{name} is read as raw bytes: leave out ::{name.dataset}")
        if not Path(name.file).is_file():
            raise FileNotFoundError(f"there is no file {name.file}")
        return RawSource(name.file, shape, dtype, skip, gap)

    return Opener(open_raw, lambda file: Path(file).suffix.lower() or file)


def _without_output(every: Expanded, output: Path | None) -> Expanded:
    """Leave the output out, which a shell has found by a pattern after an earlier run."""
    kept = [(text, found) for text, found in every if not same_file(Path(text), output)]
    if len(kept) < len(every):
        warn(f"{output} is the output, and is left out of the input")
    return kept


def ordered(names: Iterable[PathLike]) -> list[PathLike]:
    """Return names in natural order."""
    return sorted(names, key=natural)


def selected(name: Name, opener: Callable[[Name], Source], many: bool = False) -> Source:
    """Open a file and select the frames that its name gives; one of many is closed again."""
    source = opener(name)
    if name.frames is not None:
        _check_first_axis(name, source.lead)
    source = select(source, name.frames)
    if many:
        source.release()
    return source


def _check_first_axis(name: Name, lead: tuple[int, ...] | None) -> None:
    """Refuse the slice of a name, which is one of the first axis, where that is no axis of frames.

    Raises
    ------
    ValueError
        If the array has other axes of frames as well, or is a single frame.
    """
    if lead is not None and (not lead or prod(lead[1:]) != 1):
        axis = f"that has {lead[0]} x {prod(lead[1:])} frames" if lead else "of rows"
        raise ValueError(
            f"{name.file}: slice= is along the first axis, {axis}: leave it out, and use the "
            f"arguments frames and region"
        )


def _without_shown(parts: list[tuple[str, Source]], chosen: set[str]) -> list[Source]:
    """Leave out files with frames that another one shows already: they would count twice.

    The master file of a detector refers to its data files, which are in the same directory.
    """
    shown = {file.resolve(): part.files()[0] for _, part in parts for file in part.files()[1:]}
    left, kept = [], []
    for text, part in parts:
        own = part.files()[0] if part.files() else None
        master = None if own is None else shown.get(own.resolve())
        if own is None or master is None or master == own:
            kept.append(part)
        elif text in chosen:
            raise ValueError(
                f"{master} shows the frames of {own}, which would count twice: leave one out"
            )
        else:
            left.append((own, master))
    if left:
        own, master = left[0]
        more = f" and of {len(left) - 1} more files" if len(left) > 1 else ""
        warn(f"{master} shows the frames of {own}{more}: they count once")
    return kept
