"""Which dataset of an HDF5 file is the image series, if none is named.

A file of a beamline has hundreds of datasets: positions, masks, flat fields, tables, and one series
of images, maybe behind links. The series is chosen if a person would have no doubt; otherwise the
error lists every candidate.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .hdf5_files import NO_OBJECT, absolute, import_h5py, open_file
from .hdf5_links import find_file, follow, linked_file, numbered, target_of, walk
from .hdf5_storage import lengths

if TYPE_CHECKING:
    import h5py

# Names of datasets, or of groups they are in, that are never the series.
CORRECTIONS = re.compile(
    r"mask|flat|gain|bad_?pix|dead_?pix|hot_?pix|correction|efficien|pedestal|sensitiv|thumb|"
    r"preview|calib|weight|error|sigma|std|variance",
    re.IGNORECASE,
)

# Names of series of images without a sample, which are chosen only if there are no others.
BACKGROUNDS = re.compile(r"dark|drk|background|bkg|white|open_?beam|empty", re.IGNORECASE)

# The datasets of a long series in several parts, by DECTRIS among others.
NUMBERED = re.compile(r"data_(\d+)")

# Names of links that would hold the series if they led anywhere.
IMAGES = re.compile(r"(data|images?|frames?)(_?\d+)?", re.IGNORECASE)

# A dataset with fewer columns is a table, and a small square one a matrix.
FEWEST_COLUMNS, LARGEST_MATRIX = 5, 6


@dataclass(eq=False)
class Candidate:
    """A dataset that may be the series, or several that are one."""

    names: tuple[str, ...]
    datasets: list[h5py.Dataset]

    @property
    def shape(self) -> tuple[int, ...]:
        first = self.datasets[0].shape
        if len(self.datasets) == 1:
            return first
        return (sum(dataset.shape[0] for dataset in self.datasets), *first[1:])

    @property
    def name(self) -> str:
        """The name of the dataset, or for several the name of their group; users can give both."""
        return self.names[0] if len(self.names) == 1 else self.names[0].rpartition("/")[0] or "/"

    def __str__(self) -> str:
        names = self.name if len(self.names) == 1 else f"{self.names[0]} to {self.names[-1]}"
        return f"{names} {self.shape} {self.datasets[0].dtype}"


@dataclass
class Contents:
    """The datasets of a file that may hold images, and links that lead nowhere."""

    candidates: list[Candidate] = field(default_factory=list)
    dangling: dict[str, str] = field(default_factory=dict)
    """the target of each such link, by its name"""

    def __str__(self) -> str:
        text = ", ".join(map(str, self.candidates))
        if self.dangling:
            links = ", ".join(f"{name} to {target}" for name, target in self.dangling.items())
            text += f"{'; ' if text else ''}links that lead nowhere: {links}"
        return text


def find_datasets(group: h5py.Group, path: str | os.PathLike, base: str = "") -> tuple[str, ...]:
    """Return the name of the dataset that is the image series, or the names of its parts.

    Parameters
    ----------
    group : h5py.Group
        The file itself, or a group in it.
    path : path
        Of the file, for errors.
    base : str
        Name of the group.

    Raises
    ------
    ValueError
        If there is none, or none without a doubt; all candidates are listed.
    FileNotFoundError
        If a link that holds it leads to a file that is not there.
    """
    found = contents(group, base)
    every = _without_mapped(_joined(found.candidates, found.dangling))
    lost = [name for name in found.dangling if IMAGES.fullmatch(name.rpartition("/")[2])]
    chosen = None if lost and not _covers(every) else chosen_series(every)
    if chosen is None and not found.dangling:
        chosen = chosen_image(every)
    if chosen is None:
        raise no_series(Contents(every, found.dangling), bool(lost), path)
    return chosen.names


def find_image(file: h5py.File, path: str | os.PathLike) -> tuple[str, ...]:
    """Return the name of the only image of a file: a mask or a flat field, say."""
    found = contents(file)
    images = [c for c in found.candidates if like_detector(c.shape)] or found.candidates
    if len(images) != 1:
        raise no_series(Contents(images, found.dangling), False, path)
    return images[0].names


def no_series(found: Contents, lost: bool, path: str | os.PathLike) -> Exception:
    """Return an error that lists all candidates."""
    every = found.candidates
    if not every:
        kind = FileNotFoundError if found.dangling else ValueError
        more = f": {found}" if found.dangling else ""
        return kind(f"{path} has no numeric dataset of two or three dimensions{more}")
    if lost and not any(map(is_series, every)):
        return FileNotFoundError(f"{path}: {found}")
    scans = [candidate for candidate in every if is_scan(candidate)]
    # Tables and masks are listed where there is nothing better.
    found.candidates = (
        [candidate for candidate in every if is_series(candidate) or is_scan(candidate)]
        or [candidate for candidate in every if like_detector(candidate.shape)]
        or every
    )
    count = len(found.candidates)
    more = ""
    if scans:
        name, shape = scans[0].name, scans[0].shape
        more = f"; {name} has frames along {len(shape) - 2} axes: {reshaping(path, name, shape)}"
    return ValueError(
        f"{path} has {count} dataset{'' if count == 1 else 's'}, "
        f"name one as {path}::{found.candidates[0].name}: {found}{more}"
    )


def contents(group: h5py.Group, base: str = "") -> Contents:
    """Return the datasets of a group, all groups below and all links included."""
    h5py = import_h5py(group.file.filename)
    found = Contents()
    for name, parent, node in _nodes(group, base.rstrip("/"), {group.id}):
        if node is None:
            link = parent.get(name.rpartition("/")[2], getlink=True)
            found.dangling[name] = dangling_target(link, parent)
        elif isinstance(node, h5py.Dataset) and is_numeric(node):
            found.candidates.append(Candidate((name,), [node]))
    return found


def dangling_target(link: h5py.ExternalLink | h5py.SoftLink, parent: h5py.Group) -> str:
    """Return where a link leads to; raise the error of a file that exists, but is being written."""
    own = absolute(parent.file)
    filename = getattr(link, "filename", None)
    there = filename and linked_file(link, own)
    if not there:
        return target_of(link, own)
    try:
        file = open_file(there, parent.file.swmr_mode, parent.file.mode)
        walk(file, link.path, f"{there} has no {link.path!r}")
    except (ValueError, FileNotFoundError, PermissionError, IsADirectoryError) as error:
        return f"{filename}::{link.path} ({error})"
    return target_of(link, own)


def _nodes(
    group: h5py.Group, base: str, seen: set
) -> Iterator[tuple[str, h5py.Group, h5py.Group | h5py.Dataset | None]]:
    """Yield (name, parent, object) of all below a group, each once; None if it is missing."""
    h5py = import_h5py(group.file.filename)
    waiting = [(base, group)]
    while waiting:
        base, node = waiting.pop()
        below = []
        for key in node:
            name = f"{base}/{key}"
            try:
                child = node[key]
            except NO_OBJECT:
                yield name, node, None
                continue
            if child.id in seen or not isinstance(child, h5py.Group | h5py.Dataset):
                continue
            # They stay open, or another file might be given the number of one that was closed.
            seen.add(child.id)
            yield name, node, child
            if isinstance(child, h5py.Group):
                below.append((name, child))
        waiting += reversed(below)


def is_numeric(dataset: h5py.Dataset) -> bool:
    return bool(
        dataset.shape and dataset.ndim > 1 and dataset.size and dataset.dtype.kind in "biuf"
    )


# ---------------------------------------------------------------------- one candidate


def is_series(candidate: Candidate) -> bool:
    """Whether it looks like a series: three dimensions, and a frame like that of a detector."""
    return _frame_axes(candidate) == 1


def is_scan(candidate: Candidate) -> bool:
    """Whether it has frames along more than one axis."""
    return _frame_axes(candidate) > 1


def is_image(candidate: Candidate) -> bool:
    return _frame_axes(candidate) == 0 and not _named(candidate, BACKGROUNDS)


def _frame_axes(candidate: Candidate) -> int:
    """Return the number of axes of frames; -1 for a table, a matrix or a correction."""
    shape = without_singletons(candidate.shape)
    fits = like_detector(shape) and not _named(candidate, CORRECTIONS)
    return len(shape) - 2 if fits else -1


def like_detector(shape: tuple[int, ...]) -> bool:
    """Whether the last two axes may be those of a detector, and not of a table or a matrix.

    >>> like_detector((25, 8, 6)), like_detector((25, 2)), like_detector((100, 3, 3))
    (True, False, False)
    """
    rows, cols = shape[-2:]
    # Along a third axis there may be lines of few rows; two axes of which one is short are a table.
    if (cols if len(shape) > 2 else min(rows, cols)) < FEWEST_COLUMNS:
        return False
    return not rows == cols <= LARGEST_MATRIX


def without_singletons(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without axes of length one, beyond the first of three.

    >>> without_singletons((25, 1, 8, 6)), without_singletons((1, 8, 6))
    ((25, 8, 6), (1, 8, 6))
    """
    if len(shape) <= 3:
        return shape
    lead = [length for length in shape[:-2] if length != 1]
    return (*(lead or [1]), *shape[-2:])


def _named(candidate: Candidate, pattern: re.Pattern) -> bool:
    return any(pattern.search(part) for part in candidate.names[0].split("/"))


def chosen_series(every: list[Candidate]) -> Candidate | None:
    """Return the only series; one of background only if there is none with a sample."""
    found = [candidate for candidate in every if is_series(candidate)]
    others = [candidate for candidate in found if not _named(candidate, BACKGROUNDS)]
    scans = [candidate for candidate in every if is_scan(candidate)]
    found = [*(others or found), *scans]
    return found[0] if len(found) == 1 and not scans else None


def chosen_image(every: list[Candidate]) -> Candidate | None:
    """Return the only single image, where there is no series."""
    found = [candidate for candidate in every if is_image(candidate)]
    if len(found) != 1 or any(is_series(c) or is_scan(c) for c in every):
        return None
    return found[0]


def _covers(every: list[Candidate]) -> bool:
    """Whether a virtual dataset is there: it may need none of the links that lead nowhere."""
    found = [candidate for candidate in every if is_series(candidate)]
    return len(found) == 1 and found[0].datasets[0].is_virtual


def reshaping(path: str | os.PathLike, name: str, shape: tuple[int, ...]) -> str:
    """Return how to reshape several axes of frames into one."""
    nframes, rows, cols = lengths(shape)
    return (
        f"reshape it to ({nframes}, {rows}, {cols}), frames in C order, as in "
        f"dask.array.from_array(h5py.File({os.fspath(path)!r})[{name!r}])"
        f".reshape(-1, {rows}, {cols})"
    )


# ---------------------------------------------------------------------- several datasets


def _joined(candidates: list[Candidate], dangling: dict[str, str]) -> list[Candidate]:
    """Join the numbered parts of a series in one group; in order, and none may be missing."""
    groups: dict[str, dict[int, Candidate]] = defaultdict(dict)
    for candidate in candidates:
        parent, _, last = candidate.names[0].rpartition("/")
        match = NUMBERED.fullmatch(last)
        if match:
            groups[parent][int(match[1])] = candidate
    links = [name.rpartition("/") for name in dangling]
    incomplete = {parent for parent, _, last in links if NUMBERED.fullmatch(last)}
    result = list(candidates)
    for parent, parts in groups.items():
        numbers = sorted(parts)
        every = [parts[number] for number in numbers]
        gaps = numbers[-1] - numbers[0] + 1 - len(numbers)
        if parent in incomplete or len(every) < 2 or gaps or not _fit(every):
            continue
        names = tuple(part.names[0] for part in every)
        whole = Candidate(names, [part.datasets[0] for part in every])
        result[result.index(every[0])] = whole
        result = [candidate for candidate in result if candidate not in every[1:]]
    return result


def _fit(parts: list[Candidate]) -> bool:
    """Whether all parts are series of the same frames."""
    kinds = {(part.shape[1:], part.datasets[0].dtype) for part in parts}
    return len(kinds) == 1 and all(len(part.shape) == 3 for part in parts)


def _without_mapped(candidates: list[Candidate]) -> list[Candidate]:
    """Leave out the datasets that a virtual dataset among the candidates shows."""
    if len(candidates) == 1:
        return candidates
    used = {
        mapped
        for candidate in candidates
        for dataset in candidate.datasets
        if dataset.is_virtual
        for mapped in _mapped(dataset)
    }
    return [
        candidate
        for candidate in candidates
        if not any(dataset.id in used for dataset in candidate.datasets)
    ]


def _mapped(dataset: h5py.Dataset) -> Iterator[h5py.h5d.DatasetID]:
    """Yield the identity of each dataset that a virtual dataset shows and that can be opened.

    Reading the virtual dataset reports the faults of the others.
    """
    own = absolute(dataset.file)
    names = {(mapping.file_name, mapping.dset_name): None for mapping in dataset.virtual_sources()}
    for file_name, name in names:
        with suppress(ValueError, OSError):
            path = own if file_name == "." else find_file(numbered(file_name, 0), own)
            if path is not None:
                file = dataset.file if path == own else open_file(path, dataset.file.swmr_mode)
                yield follow(file, numbered(name, 0))[0].id
