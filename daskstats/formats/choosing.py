"""Which of several arrays is the series of images: by their names, shapes and dtypes.

A file of a beamline has hundreds of arrays: positions, masks, flat fields, tables, and one series
of images. The series is chosen if a person would have no doubt.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..series.leading import lengths

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

# Names of single images that are counted: frames of one series where a file has nothing else.
COUNTED = re.compile(r"(.*\d{3}(\.\w{1,4})?|(data|image|img|frame|scan)_?\d+)", re.IGNORECASE)

# A dataset with fewer columns is a table, and a small square one a matrix.
FEWEST_COLUMNS, LARGEST_MATRIX = 5, 6

# Candidates that an error lists.
MOST_LISTED = 10


@dataclass(eq=False)
class Candidate:
    """A dataset that may be the series, or several that are one."""

    names: tuple[str, ...]
    datasets: Sequence[Any]
    """of h5py or arrays of zarr"""
    base: str = ""
    """name of the group that is searched"""

    @property
    def shape(self) -> tuple[int, ...]:
        first = self.datasets[0].shape
        if len(self.datasets) == 1:
            return first
        return (sum(lengths(dataset.shape)[0] for dataset in self.datasets), *first[-2:])

    @property
    def dtype(self) -> np.dtype:
        return self.datasets[0].dtype

    @property
    def parent(self) -> str:
        return self.names[0].rpartition("/")[0] or "/"

    @property
    def last(self) -> str:
        return self.names[0].rpartition("/")[2]

    @property
    def name(self) -> str:
        """The name of the dataset, or for several the name of their group; users can give both."""
        return self.names[0] if len(self.names) == 1 else self.parent

    def __str__(self) -> str:
        names = self.name if len(self.names) == 1 else f"{self.names[0]} to {self.names[-1]}"
        return f"{names} {self.shape} {self.dtype}"

    def named(self, pattern: re.Pattern) -> bool:
        """Whether a part of its name, below the group that is searched, fits a pattern."""
        return any(map(pattern.search, self.names[0].removeprefix(self.base).split("/")))


def listed(items: Sequence[object]) -> str:
    """Return the first items for people, and the number of all others."""
    more = len(items) - MOST_LISTED
    return ", ".join(map(str, items[:MOST_LISTED])) + (f", and {more} more" if more > 0 else "")


def is_series(candidate: Candidate) -> bool:
    """Whether it looks like a series: three or more dimensions, and frames as of a detector."""
    fits = len(candidate.shape) > 2 and like_detector(candidate.shape)
    return fits and not candidate.named(CORRECTIONS)


def is_picture(candidate: Candidate) -> bool:
    """Whether it looks like a single image with a sample."""
    fits = len(candidate.shape) == 2 and like_detector(candidate.shape)
    return fits and not (candidate.named(CORRECTIONS) or candidate.named(BACKGROUNDS))


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


def is_one_part(candidate: Candidate, every: list[Candidate]) -> bool:
    """Whether a dataset is numbered, and others of its group are that were not joined to it.

    Those are series, or single frames of its size; a numbered table is no part of a series.
    """
    return len(parts_of([candidate], every)) > 1


def parts_of(series: list[Candidate], every: list[Candidate]) -> list[Candidate]:
    """Return all numbered datasets that may be parts of a series."""
    numbered = [c for c in series if NUMBERED.fullmatch(c.last)]
    parents = {c.parent for c in numbered}
    sizes = {(c.parent, c.shape[-2:]) for c in numbered}
    return [
        c
        for c in every
        if c.parent in parents
        and NUMBERED.fullmatch(c.last)
        and (is_series(c) or (c.parent, c.shape[-2:]) in sizes)
    ]


def chosen_series(
    every: list[Candidate], measured: Sequence[Candidate] = ()
) -> tuple[Candidate | None, str]:
    """Return the only series, and why; one of background only if there is none with a sample.

    Of several, it is the only one among those that are measured data by the class of their group.
    """
    found = [candidate for candidate in every if is_series(candidate)]
    found = [candidate for candidate in found if not candidate.named(BACKGROUNDS)] or found
    data = [candidate for candidate in found if candidate in measured]
    if len(data) == 1 and len(found) > 1 and not is_one_part(data[0], every):
        return data[0], "the only data of a NeXus detector"
    alone = len(found) == 1 and not is_one_part(found[0], every)
    return (found[0] if alone else None), "the only series of images"


def chosen_image(
    every: list[Candidate], picture: Candidate | None, named: bool
) -> tuple[Candidate | None, str]:
    """Return the only single image, or all images of one group, where there is no series.

    Parameters
    ----------
    every : list of Candidate
    picture : Candidate, optional
        Chosen by attributes of NeXus.
    named : bool
        Whether the group was named; otherwise its images must be counted, in order not to join the
        images of two detectors.
    """
    counted = all(COUNTED.fullmatch(c.last) and not c.named(CORRECTIONS) for c in every)
    if alike(every) and (named or counted):
        whole = _as_one(every)
        return whole, f"all images of the group {whole.parent}"
    if picture is not None:
        return picture, "the signal of the NeXus default"
    found = [candidate for candidate in every if is_picture(candidate)]
    if len(found) != 1 or any(is_series(candidate) for candidate in every):
        return None, ""
    return found[0], "the only image"


def best(every: list[Candidate]) -> list[Candidate]:
    """Return the candidates that an error lists: tables and masks if there is nothing better."""
    series = [candidate for candidate in every if is_series(candidate)]
    named = {*series, *parts_of(series, every)}
    return (
        [candidate for candidate in every if candidate in named]
        or [candidate for candidate in every if like_detector(candidate.shape)]
        or every
    )


def alike(every: list[Candidate]) -> bool:
    """Whether candidates are single frames of one shape and dtype, in one group."""
    kinds = {(c.parent, c.shape[-2:], c.dtype) for c in every}
    single = all(len(c.names) == 1 and lengths(c.shape)[0] == 1 for c in every)
    return len(every) > 1 and len(kinds) == 1 and single and like_detector(every[0].shape)


def _as_one(parts: list[Candidate]) -> Candidate:
    names = tuple(name for part in parts for name in part.names)
    return Candidate(names, [part.datasets[0] for part in parts], parts[0].base)


def joined(candidates: list[Candidate], dangling: dict[str, str]) -> list[Candidate]:
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
        result[result.index(every[0])] = _as_one(every)
        result = [candidate for candidate in result if candidate not in every[1:]]
    return result


def _fit(parts: list[Candidate]) -> bool:
    """Whether all parts are series of the same frames; some may be a single frame each."""
    kinds = {(part.shape[-2:], part.dtype) for part in parts}
    dimensions = {len(part.shape) for part in parts}
    return len(kinds) == 1 and 3 in dimensions and dimensions <= {2, 3}
