"""The files and datasets that the names in a virtual HDF5 dataset lead to.

A pattern such as ``scan_%b.h5`` names one for each number. The library asks for one number after
the other and takes the series to end before the first that it does not find, so that a lost file
would end it without a word: files of later numbers tell that it was lost.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from glob import escape
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from ..packages import load
from .hdf5_files import absolute, open_file
from .hdf5_links import find_file, follow, lookups, numbered

if TYPE_CHECKING:
    import h5py

Names = tuple[str, str]
"""of a file and of a dataset in it"""


class Sources:
    """Finds and opens the files and datasets that a virtual dataset names.

    Parameters
    ----------
    dataset : h5py.Dataset
    """

    def __init__(self, dataset: h5py.Dataset) -> None:
        self.dataset, self.own = dataset, absolute(dataset.file)
        self.maps = list(dataset.virtual_sources())
        self._opened: dict[Path, h5py.File] = {}

    def where(self, names: Names) -> str:
        """Return the beginning of an error."""
        file, name = names
        return f"{self.own}: the virtual dataset {self.dataset.name!r} refers to {file}::{name}"

    def find(self, name: str) -> Path | None:
        return self.own if name == "." else find_file(name, self.own, self._prefixes())

    def _prefixes(self) -> str:
        prefixes = os.environ.get("HDF5_VDS_PREFIX")
        if prefixes is None:
            properties = self.dataset.id.get_access_plist()
            prefixes = os.fsdecode(properties.get_virtual_prefix() or b"")
        return prefixes

    def _file(self, name: str) -> h5py.File:
        path = self.find(name)
        if path is None:
            raise FileNotFoundError(
                f"{self.own}: the virtual dataset {self.dataset.name!r} refers to {name}, and "
                f"there is no file {self.own.parent / name}"
            )
        parent = self.dataset.file
        if path == self.own:
            return parent
        if path not in self._opened:
            self._opened[path] = open_file(path, parent.swmr_mode, parent.mode, len(self.maps))
        return self._opened[path]

    def follow(self, names: Names) -> tuple[h5py.Dataset, list[Path]]:
        """Return a dataset, and all files that links on the way to it lead through."""
        return follow(self._file(names[0]), names[1], self.where(names))

    # ------------------------------------------------------------------ numbers

    def check_end(self, pattern: Names, number: int) -> None:
        """Raise an error if a number is missing that later ones follow.

        A program that is writing may create its files in any order, and a caller of the library may
        have said how many are left out by choice.
        """
        gap = self.dataset.id.get_access_plist().get_virtual_printf_gap()
        if gap or self.dataset.file.swmr_mode:
            return
        later = sorted(each for each in self._numbers(pattern) if each > number)
        # Files that were created beforehand have no frames yet.
        if any(self._is_there(named(pattern, each)) for each in (*later[:1], *later[-1:])):
            self.follow(named(pattern, number))

    def _numbers(self, pattern: Names) -> Iterator[int]:
        """Yield all numbers for which there are files of a pattern, or datasets of its one file."""
        file, name = pattern
        if has_number(file):
            return file_numbers(file, self.own, self._prefixes())
        return dataset_numbers(self._file(numbered(file, 0)), name)

    def _is_there(self, names: Names) -> bool:
        try:
            self.follow(names)
        except (OSError, ValueError):
            return False
        return True

    def check_each(self) -> None:
        """Raise an error for the first name that leads nowhere, and is not the end of a pattern."""
        for mapping in self.maps:
            pattern = mapping.file_name, mapping.dset_name
            for number in count() if any(map(has_number, pattern)) else (0,):
                names = named(pattern, number)
                if number and self.find(names[0]) is None:
                    break
                self.follow(names)


def check_shape(dataset: h5py.Dataset) -> None:
    """Raise an error if the library cannot find the shape of a dataset.

    It asks the files of patterns for that of a virtual one, and does not say which has a fault.
    """
    try:
        dataset.id.get_space()
    except RuntimeError as error:
        if dataset.is_virtual:
            Sources(dataset).check_each()
        problem = f"{absolute(dataset.file)}: dataset {dataset.name!r} has no shape: {error}"
        raise ValueError(problem) from error


def named(pattern: Names, number: int) -> Names:
    """Return the names of a number."""
    file, name = pattern
    return numbered(file, number), numbered(name, number)


def has_number(name: str) -> bool:
    """Whether a name is a pattern.

    >>> has_number("scan_%b.h5"), has_number("scan_%%b.h5")
    (True, False)
    """
    return "%b" in re.findall("%[b%]", name)


def file_numbers(pattern: str, own: Path, prefixes: str = "") -> Iterator[int]:
    """Yield the numbers of all files of a pattern, wherever the library looks for them."""
    for directory, name in lookups(pattern, own, prefixes):
        if has_number(name):
            paths = directory.glob(_translated(name, "*", escape))
            found = (str(path.relative_to(directory)) for path in paths)
            matches = map(_expression(name).fullmatch, found)
            yield from (int(match[1]) for match in matches if match)


def dataset_numbers(file: h5py.File, pattern: str) -> Iterator[int]:
    """Yield the numbers of all datasets of a pattern; the library numbers no groups."""
    parent, _, last = pattern.rpartition("/")
    group = file.get(numbered(parent, 0) or "/")
    names = group if isinstance(group, load("h5py").Group) else ()
    yield from (int(match[1]) for match in map(_expression(last).fullmatch, names) if match)


def _expression(pattern: str) -> re.Pattern:
    """Return an expression for the names of a pattern; its first group is the number."""
    text = _translated(pattern, r"\1", re.escape)
    return re.compile(text.replace(r"\1", r"(0|[1-9]\d*)", 1))


def _translated(pattern: str, number: str, literal: Callable[[str], str]) -> str:
    """Return a pattern with another text for the number, and all other text made literal."""
    parts = re.split("(%[b%])", pattern)
    return "".join(number if part == "%b" else literal(numbered(part, 0)) for part in parts)
