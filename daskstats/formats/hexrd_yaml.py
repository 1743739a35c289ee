"""HEXRD's descriptions of series in YAML: image files, a raw file, or a frame cache."""

import glob
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml

from ..arguments import integer
from ..series.base import CutSource, Source, check_native
from ..series.files import FileSource
from ..series.joined import MOST_OPEN, JoinedSource
from ..series.selection import select
from ..texts import shown
from .raw import RawSource

# The options of image files, and their defaults.
OPTIONS = {"empty-frames": 0, "max-file-frames": 0, "max-total-frames": 0, "dtype": None}

# For HEXRD's type of numbers, numpy's kind; the bytes are those of integers only.
KINDS = {"f": "f4", "d": "f8", "b": "?"}
ORDERS = {"little": "<", "big": ">"}


class HexrdYamlSource(CutSource, FileSource):
    """The series that a YAML file of HEXRD describes."""

    def __init__(self, path: str | os.PathLike) -> None:
        FileSource.__init__(self, path)
        CutSource.__init__(self, open_described(self.path))
        self.in_memory = self.apart = False

    def files(self) -> tuple[Path, ...]:
        return self.path, *self.source.files()

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        pieces = self.source.pieces(start, stop, first, last, stop)
        return [block for piece in pieces for block in piece.views]


def open_described(path: Path) -> Source:
    """Open the series that a YAML file describes."""
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{path} is not a file of YAML: {shown(text)}") from error
    openers: dict[str, Callable[[dict, Path], Source]] = {
        "image-files": _image_files,
        "filename": _raw_image,
        "data": _frame_cache,
    }
    for key, opener in openers.items():
        if isinstance(content, dict) and key in content:
            return opener(content, path)
    raise ValueError(
        f"{path} describes no image series of HEXRD: it has none of {', '.join(openers)}"
    )


def _image_files(content: dict, path: Path) -> Source:
    """Join the frames of all files, in the order of HEXRD: that of the text of their names."""
    from .files import open_file  # which finds this module in the table
    from .paths import Name

    entry = _mapping(content, "image-files", path)
    given = _mapping(content, "options", path) if content.get("options") else {}
    options = {**OPTIONS, **given}
    unknown = sorted(options.keys() - OPTIONS.keys())
    if unknown:
        raise ValueError(f"{path} has the option {unknown[0]}: expected {', '.join(OPTIONS)}")
    names = _matches(entry, path)
    empty, most = (_count(options, name, path) for name in ("empty-frames", "max-file-frames"))
    parts = []
    for name in names:
        part = open_file(Name(name))
        if empty >= len(part):
            raise ValueError(f"{path}: empty-frames is {empty}, and {name} has {len(part)} frames")
        stop = min(len(part), empty + most) if most else len(part)
        if len(names) > MOST_OPEN:
            part.release()
        whole = (empty, stop) == (0, len(part))
        parts.append(part if whole else select(part, slice(empty, stop)))
    joined = parts[0] if len(parts) == 1 else JoinedSource(parts)
    total = _count(options, "max-total-frames", path)
    if 0 < total < len(joined):
        joined = select(joined, slice(0, total))
    return joined if options["dtype"] is None else _converted(joined, options["dtype"], path)


def _matches(entry: dict, path: Path) -> list[str]:
    """Return the files of all patterns, which blanks separate."""
    directory = _place(_text(entry, "directory", path), path)
    names: list[str] = []
    for pattern in _text(entry, "files", path).split():
        # As HEXRD: hidden files are left out.
        found = glob.glob(pattern, root_dir=directory)  # noqa: PTH207
        if not found:
            raise FileNotFoundError(f"{path}: no file matches {directory / pattern}")
        twice = sorted(set(names) & set(found))
        if twice:
            raise ValueError(f"{path}: {twice[0]} matches two patterns, and would count twice")
        names += found
    return [str(directory / name) for name in sorted(names)]


def _raw_image(content: dict, path: Path) -> Source:
    """Open a flat file by its shape, the numbers in it and the bytes before the first frame."""
    scalar = _mapping(content, "scalar", path)
    kind, order = (_text(scalar, name, path) for name in ("type", "endian"))
    if order not in ORDERS:
        raise ValueError(f"{path}: endian must be little or big, got {shown(order)}")
    if kind == "i":
        nbytes = _count(scalar, "bytes", path)
        dtype = f"{'i' if scalar.get('signed', False) else 'u'}{nbytes}"
    else:
        dtype, nbytes = KINDS.get(kind, ""), 1
    if not dtype or nbytes not in (1, 2, 4, 8):
        raise ValueError(
            f"{path}: a scalar is of type i with 1, 2, 4 or 8 bytes, f, d or b, "
            f"got {shown(kind)} with {nbytes}"
        )
    given = content.get("shape")
    lengths = given.split() if isinstance(given, str) else given
    try:
        rows, cols = (int(length) for length in lengths)  # type: ignore[union-attr]
    except (TypeError, ValueError):
        raise ValueError(f"{path}: shape must be two numbers, got {shown(given)}") from None
    file = _place(_text(content, "filename", path), path)
    skip = _count({"skip": 0, **content}, "skip", path)
    return RawSource(file, (rows, cols), f"{ORDERS[order]}{dtype}", skip)


def _frame_cache(content: dict, path: Path) -> Source:
    """Open the frame cache that a YAML file names, and compare the facts of both."""
    from .files import open_file  # which finds this module in the table
    from .paths import Name

    entry = _mapping(content, "data", path)
    file = path.parent / _text(entry, "file", path)
    if not file.is_file():
        raise FileNotFoundError(f"{path}: there is no file {file}")
    cache = open_file(Name(str(file)))
    found = {"nframes": len(cache), "shape": list(cache.shape), "dtype": str(cache.dtype)}
    given = {name: entry.get(name, found[name]) for name in found}
    try:
        given |= {"shape": list(given["shape"]), "dtype": str(np.dtype(given["dtype"]))}
    except TypeError as error:
        raise ValueError(f"{path} has another shape or dtype than an array: {error}") from None
    nframes = _count(given, "nframes", path)
    if not 0 < nframes <= len(cache) or any(
        given[name] != found[name] for name in given.keys() - {"nframes"}
    ):
        raise ValueError(f"{path} describes {given}, and {file} holds {found}")
    return cache if nframes == len(cache) else select(cache, slice(0, nframes))


# ---------------------------------------------------------------------- entries


def _mapping(content: dict, name: str, path: Path) -> dict:
    entry = content.get(name)
    if not isinstance(entry, dict):
        raise ValueError(f"{path}: {name} must have entries of its own, got {shown(entry)}")
    return entry


def _text(entry: dict, name: str, path: Path) -> str:
    text = entry.get(name)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{path}: {name} must be text, got {shown(text)}")
    return text


def _count(entry: dict, name: str, path: Path) -> int:
    """Return a number that is at least 0; None, as for an option that is left empty, is 0."""
    value = entry.get(name)
    number = 0 if value is None else integer(value, f"{path}: {name}")
    if number < 0:
        raise ValueError(f"{path}: {name} must be at least 0, got {number}")
    return number


def _place(text: str, path: Path) -> Path:
    """Return a file or directory, which HEXRD looks for from the working directory.

    One that is not there is looked for in the directory of the YAML file. With one in both places,
    neither is taken.
    """
    here, beside = Path(text).absolute(), path.parent / text
    if here.exists() and beside.exists() and not here.samefile(beside):
        raise ValueError(f"{path}: {text} is both {here} and {beside}: write the whole path")
    if not here.exists() and not beside.exists():
        places = {str(here), str(beside)}
        raise FileNotFoundError(f"{path}: there is no {' and no '.join(sorted(places))}")
    return here if here.exists() else beside


# ---------------------------------------------------------------------- dtype


def _converted(source: Source, dtype: object, path: Path) -> Source:
    try:
        wanted = check_native(np.dtype(dtype))  # type: ignore[call-overload]
    except TypeError as error:
        raise TypeError(f"{path}: dtype {shown(dtype)}: {error}") from None
    if wanted == source.dtype:
        return source
    if wanted.kind not in "iu" or source.dtype.kind not in "iu":
        raise TypeError(
            f"{path}: frames of {source.dtype} can have another dtype of integers only, "
            f"got {wanted}"
        )
    return ConvertedSource(source, wanted)


class ConvertedSource(CutSource):
    """Integers in another dtype, which must hold every value."""

    def __init__(self, source: Source, dtype: np.dtype) -> None:
        super().__init__(source)
        self.buffers = source.dtype.itemsize / dtype.itemsize * (1 + source.buffers)
        self.dtype, self.in_memory = dtype, False

    def read(self, start: int, stop: int, first: int, last: int) -> list[np.ndarray]:
        pieces = self.source.pieces(start, stop, first, last, stop)
        return [self._convert(block) for piece in pieces for block in piece]

    def _convert(self, block: np.ndarray) -> np.ndarray:
        limits = np.iinfo(self.dtype)
        least, most = int(block.min()), int(block.max())
        if least < limits.min or most > limits.max:
            value = most if most > limits.max else least
            raise ValueError(f"a frame has the value {value}, which {self.dtype} cannot hold")
        return block.astype(self.dtype)

    def __dask_tokenize__(self) -> object:
        return "converted", self.source.__dask_tokenize__(), self.dtype.str
