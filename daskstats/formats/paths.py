"""Names of inputs: a file, a dataset in it, a pattern, a folder, or several of these.

Names may be written as other programs write them::

    scan.h5::/entry/data                      a dataset
    scan.h5?path=/entry/data&slice=0:10       as silx and fabio write it, "silx:" before it or not
    scan_*.tif                                the files that match, scan_2 before scan_10
    run7/                                     the files in a folder
    file:///data/scan.h5::/entry/data         a file on this machine, and any of the above

An address of another machine is left to `zarr_url`.
"""

import glob
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs

from ..arguments import warn
from ..texts import frame_slice, shown
from .addresses import as_path, is_url
from .natural import natural
from .zarr_files import is_store
from .zarr_search import find_store

# Before names of datasets, in silx and fabio.
SCHEMES = re.compile(r"(silx|fabio):(//)?")


SuffixOf = Callable[[str], str | None]


class Name(NamedTuple):
    """One input, without a pattern."""

    file: str
    dataset: str = ""
    frames: slice | None = None

    def __str__(self) -> str:
        return f"{self.file}::{self.dataset}" if self.dataset else self.file


def parse(text: str, role: str = "file") -> Name:
    """Return the file, the dataset and the frames that a text names; ``role`` is for errors.

    >>> parse("scan.h5::/entry/data")
    Name(file='scan.h5', dataset='/entry/data', frames=None)
    >>> parse("silx:scan.h5?path=/entry/data&slice=0:10")
    Name(file='scan.h5', dataset='/entry/data', frames=slice(0, 10, None))
    """
    name = _parsed(text)
    if not name.file:  # which would be the working directory
        raise ValueError(f"the name of the {role} is empty")
    return name


def _parsed(text: str) -> Name:
    bare = as_path(SCHEMES.sub("", text))
    for literal in (text, bare):
        if Path(literal).exists():
            return Name(literal)
    if is_url(bare):
        return Name(bare)
    file, _, query = bare.partition("?")
    if "=" not in query:  # the question mark, if any, is part of a pattern
        file, _, dataset = bare.partition("::")
        return Name(file, dataset)
    given = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
    unknown = sorted(given.keys() - {"path", "slice"})
    if unknown:
        raise ValueError(f"{text} has {unknown[0]!r} after the '?': expected path and slice")
    frames = given.get("slice")
    return Name(file, given.get("path", ""), None if frames is None else _frame_slice(frames, text))


def _frame_slice(text: str, name: str) -> slice:
    """Return the frames of a slice such as "0:10" or "3"; further axes must be whole."""
    first, *others = text.split(",")
    try:
        if any(part.strip() not in (":", "", "...") for part in others):
            raise ValueError(text)
        if ":" in first:
            return frame_slice(first)
        return slice(int(first), int(first) + 1 or None)
    except ValueError:
        raise ValueError(
            f"{name}: slice={shown(text)} does not select frames: write slice=0:10, or use the "
            f"arguments frames and region"
        ) from None


def expand(name: Name, suffix_of: SuffixOf, without: Path | None = None) -> list[Name]:
    """Return the inputs that a name stands for: the files of a pattern or a folder, or itself.

    Parameters
    ----------
    name : Name
    suffix_of : function
        Returns the suffix of a file name, None if it is unknown; see `table.known_suffix`.
    without : Path, optional
        A file that is left out: the output.

    Raises
    ------
    FileNotFoundError
        If no file matches, or the folder holds none of the suffixes.
    ValueError
        If a folder has two kinds of files equally often, or a pattern matches a folder.
    """
    path = Path(name.file)
    if is_url(name.file) or path.is_file() or find_store(path):
        return [name]
    if path.is_dir():
        return [name._replace(file=str(file)) for file in _in_folder(path, suffix_of, without)]
    if not glob.has_magic(name.file):
        return [name]
    # glob leaves hidden files out.
    matches = glob.glob(name.file, recursive=True)  # noqa: PTH207 (Path needs a relative pattern)
    found = sorted(_once(matches) if "**" in name.file else matches, key=natural)
    files = [file for file in found if not same_file(Path(file), without)]
    if not files:
        raise FileNotFoundError(f"no file matches the pattern {name.file}")
    for file in files:
        if suffix_of(file) is None and Path(file).is_dir() and not find_store(Path(file)):
            raise ValueError(
                f"the pattern {name.file} matches the folder {file}: end it with the names of "
                f"files, as in {name.file.rstrip('/')}/*.tif"
            )
    return [name._replace(file=file) for file in files]


def _once(files: list[str]) -> list[str]:
    """Leave out files of folders that were found before: ``**`` follows links to folders."""
    folders: dict[str, str] = {}
    found: dict[tuple[str, str], str] = {}
    for file in sorted(files, key=len):
        folder, name = os.path.split(file)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        found.setdefault((folders[folder], name), file)
    return list(found.values())


def _in_folder(folder: Path, suffix_of: SuffixOf, without: Path | None) -> list[Path]:
    """Return the files of a folder that have its most frequent known suffix, in natural order."""
    entries = [
        entry
        for entry in sorted(folder.iterdir(), key=lambda entry: natural(entry.name))
        if not entry.name.startswith(".") and not same_file(entry, without)
    ]
    found = {entry: suffix_of(entry.name) for entry in entries if _is_input(entry)}
    counts = Counter(suffix for suffix in found.values() if suffix is not None)
    if not counts:
        if not entries:
            raise FileNotFoundError(f"the folder {folder} is empty")
        raise FileNotFoundError(
            f"the folder {folder} has no file of a known suffix: it has {len(entries)} entries, "
            f"{entries[0].name} the first"
        )
    (suffix, most), *others = counts.most_common()
    held = " and ".join(f"{count} {other}" for other, count in counts.most_common())
    if others and others[0][1] == most:
        raise ValueError(
            f"the folder {folder} holds {held} files: name a pattern, such as {folder}/*{suffix}"
        )
    if others:
        warn(f"the folder {folder} holds {held} files: the {suffix} files are used")
    return [entry for entry, found_suffix in found.items() if found_suffix == suffix]


def _is_input(entry: Path) -> bool:
    """Whether an entry of a folder is a file or a store, or a link to one that is gone."""
    return entry.is_file() or is_store(entry) or (entry.is_symlink() and not entry.exists())


def same_file(path: Path, other: Path | None) -> bool:
    """Whether a path is the same file as another one, if there is another; that one exists."""
    return other is not None and path.exists() and path.samefile(other)
