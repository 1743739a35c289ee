"""Where the frames of an HDF5 dataset really are: behind links, in the sources of virtual datasets.

A virtual dataset is a list of mappings, each from a selection of a source to one of its own::

    scan.h5::/data (30, rows, cols)      frames  0 ..  9   part_0.h5::/data
                                         frames 10 .. 19   part_1.h5::/data
                                         frames 20 .. 29   part_2.h5::/data

The library reads a source that it cannot open as fill values, whatever the reason: no such file,
no permission, too many open files. So every source is opened here, where errors are errors, and
kept open; and after each read `Storage.check` looks whether the library could open them, too.
"""

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..packages import load
from .hdf5_files import absolute, check_filters, import_h5py, open_file

# Links that may be followed one after the other, as a guard against circles.
DEEPEST = 32


@dataclass(eq=False)
class Source:
    """A file whose frames are read by way of another one."""

    path: Path
    first: int
    """first frame of the virtual dataset that it may hold"""
    last: int
    """the last one"""
    state: tuple[int, int]
    """device and inode at the time it was opened"""
    nbytes: int
    """bytes that it must have at least"""


@dataclass(eq=False)
class Mapping:
    """Some frames of a virtual dataset, and those of a source that they are."""

    storage: "Storage"
    """of the source"""
    frames: np.ndarray
    own: np.ndarray
    """as many frames of the source; none where the selections are no plain frames"""


@dataclass(eq=False)
class Storage:
    """How the frames of a dataset are stored; kept as long as they are read."""

    dataset: Any
    nframes: int
    shape: tuple[int, ...] = ()
    """of the dataset: h5py asks the library each time"""
    chunks: tuple[int, ...] | None = None
    """of the dataset"""
    itemsize: int = 1
    """bytes of a pixel"""
    files: list[Path] = field(default_factory=list)
    """every file that frames come from, this dataset's own first"""
    sources: list[Source] = field(default_factory=list)
    """files that are checked after each read"""
    frame_unit: int = 1
    """frames that are decoded together"""
    row_unit: int | None = None
    """rows that are decoded together, None: all"""
    buffers: float = 0
    """bytes beside those of a frame that exist while it is read, for each of its bytes"""
    mappings: list[Mapping] = field(default_factory=list)
    """of a virtual dataset"""
    opened: tuple[int, int] | None = None
    """handle of the file and its size, where the system has both"""

    def check(self, start: int, stop: int) -> None:
        """Raise an error if a file that frames ``start:stop`` were read from was not all there.

        It is called after the read: a file that is still the same was the same before.
        """
        if self.opened is not None:
            handle, nbytes = self.opened
            check_size(self.files[0], os.fstat(handle).st_size, nbytes)
        for source in self.sources:
            if source.first < stop and source.last >= start:
                check_source(source)

    def close(self) -> None:
        """Forget all objects of h5py, whoever may still have this one."""
        self.dataset = self.opened = None
        for mapping in self.mappings:
            mapping.storage.close()
        self.mappings = []

    def written(self) -> np.ndarray:
        """Return for each frame whether anything of it was written."""
        if not self.mappings:
            return written_chunks(self.dataset, self.nframes)
        found = np.zeros(self.nframes, bool)
        cache: dict[int, np.ndarray] = {}
        for mapping in self.mappings:
            key = id(mapping.storage)
            if key not in cache:
                cache[key] = mapping.storage.written()
            found[mapping.frames] |= cache[key][mapping.own] if mapping.own.size else True
        return found


def watched(path: Path, first: int, last: int, nbytes: int | None = None) -> Source:
    """Return a file as it is now, to be checked after reads of some frames."""
    stat = path.stat()
    least = stat.st_size if nbytes is None else nbytes
    return Source(path, first, last, (stat.st_dev, stat.st_ino), least)


def check_source(source: Source) -> None:
    """Raise an error if a file is gone, another one, shorter, or cannot be opened any more."""
    handle = os.open(source.path, os.O_RDONLY)  # as the library has just done
    try:
        stat = os.fstat(handle)
    finally:
        os.close(handle)
    if (stat.st_dev, stat.st_ino) != source.state:
        raise ValueError(f"{source.path} was replaced while it was being read")
    check_size(source.path, stat.st_size, source.nbytes)


def check_size(path: Path, nbytes: int, expected: int) -> None:
    """Refuse a file that has become shorter: the library reads zeros beyond its end."""
    if nbytes < expected:
        raise ValueError(
            f"{path} was cut off while it was being read: it has {nbytes} bytes of {expected}"
        )


# ---------------------------------------------------------------------- axes


def lengths(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return frames, rows and columns of a dataset whose leading axes are frames, in C order.

    >>> lengths((25, 1, 8, 6)), lengths((8, 6))
    ((25, 8, 6), (1, 8, 6))
    """
    return math.prod(shape[:-2]), shape[-2], shape[-1]


def together(shape: tuple[int, ...], chunks: tuple[int, ...]) -> tuple[int, int]:
    """Return how many frames, and how many rows, are decoded together.

    >>> together((100, 64, 48), (10, 16, 48)), together((5, 20, 64, 48), (1, 4, 64, 48))
    ((10, 16), (4, 64))
    """
    frames = 1
    for axis, chunk in enumerate(chunks[:-2]):
        if min(chunk, shape[axis]) > 1:
            frames = min(chunk, shape[axis]) * math.prod(shape[axis + 1 : -2])
            break
    return max(1, frames), min(chunks[-2], shape[-2])


def axis_indices(space: Any, shape: tuple[int, ...], unlimited: int) -> list[np.ndarray] | None:
    """Return the selected indices along each axis; None if the selection is no grid of them."""
    kind = selection_kind(space)
    if kind == "all":
        return [np.arange(length) for length in shape]
    if kind != "grid":
        return None
    found = []
    for start, stride, count, block, length in zip(
        *space.get_regular_hyperslab(), shape, strict=True
    ):
        block = length if block == unlimited else block
        most = -(-max(0, length - start) // stride)
        steps = np.arange(most if count == unlimited else count) * stride
        indices = (start + steps[:, None] + np.arange(block)).ravel()
        found.append(indices[indices < length] if unlimited in (count, block) else indices)
    return found


def selection_kind(space: Any) -> str:
    """Return "all", "grid" for a regular hyperslab, or "other"."""
    h5s = load("h5py.h5s")

    kind = space.get_select_type()
    if kind == h5s.SEL_ALL:
        return "all"
    return "grid" if kind == h5s.SEL_HYPERSLABS and space.is_regular_hyperslab() else "other"


def is_unlimited(space: Any) -> bool:
    """Whether a selection goes on as its dataset grows."""
    h5s = load("h5py.h5s")

    if selection_kind(space) != "grid":
        return False
    _, _, count, block = space.get_regular_hyperslab()
    return h5s.UNLIMITED in count or h5s.UNLIMITED in block


def ravelled(axes: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Return the numbers of the frames at indices along the leading axes."""
    frames = np.zeros(1, np.int64)
    for indices, length in zip(axes[:-2], shape[:-2], strict=True):
        frames = (frames[:, None] * length + indices).ravel()
    return frames


# ---------------------------------------------------------------------- one dataset


def inspect(dataset: Any, depth: int = 0) -> Storage:
    """Return how a dataset is stored; open all that it refers to.

    Raises
    ------
    FileNotFoundError, ValueError, BlockingIOError, OSError
        If a file is missing, damaged, shorter than it is said to be, being written, or outside of
        the directory of a file that keeps its raw data elsewhere.
    ImportError
        If chunks are compressed by a filter that is not installed.
    """
    if depth > DEEPEST:
        raise ValueError(
            f"{dataset.file.filename}: virtual datasets refer to each other in circles"
        )
    nframes = lengths(dataset.shape)[0] if dataset.ndim > 1 else dataset.size
    storage = Storage(dataset, nframes, dataset.shape, dataset.chunks, dataset.dtype.itemsize)
    storage.files, storage.opened = [absolute(dataset.file)], _handle(dataset.file)
    if dataset.is_virtual:
        VirtualReader(storage, depth).read()
        return storage
    check_filters(dataset)
    if dataset.external:
        _add_external(storage)
    if dataset.ndim > 1:
        _set_units(storage)
    return storage


def _handle(file: Any) -> tuple[int, int] | None:
    """Return the system's handle of a file and its size, where it is an ordinary one."""
    if file.driver != "sec2":
        return None
    handle = file.id.get_vfd_handle()
    return handle, os.fstat(handle).st_size


def _set_units(storage: Storage) -> None:
    dataset = storage.dataset
    chunks = dataset.chunks or (1,) * dataset.ndim
    storage.frame_unit, rows = together(dataset.shape, chunks)
    storage.row_unit = rows if rows < dataset.shape[-2] else None
    storage.buffers = 0 if dataset.dtype.isnative else 1
    if dataset.chunks and dataset.id.get_create_plist().get_nfilters():
        # While a chunk is decoded it is there as it is stored, too.
        stored = dataset.id.get_storage_size() / max(1, dataset.id.get_num_chunks())
        full = math.prod(dataset.chunks) * dataset.dtype.itemsize
        storage.buffers += min(1.0, stored / full)


def _add_external(storage: Storage) -> None:
    """Add the files that hold the raw data of a dataset; refuse those of other directories."""
    dataset, own = storage.dataset, storage.files[0]
    home = own.resolve().parent
    for name, offset, size in dataset.external:
        path = external_path(dataset, name)
        if home not in path.resolve().parents:
            raise ValueError(
                f"{own}: dataset {dataset.name!r} keeps its data in {path}, outside of the "
                f"directory of its file, which is refused: move the data next to it and set "
                f"HDF5_EXTFILE_PREFIX='${{ORIGIN}}', or convert the file"
            )
        if not path.is_file():
            raise FileNotFoundError(
                f"{own}: dataset {dataset.name!r} keeps its data in {path}, and there is no such "
                f"file"
            )
        stat = path.stat()
        full = dataset.size * dataset.dtype.itemsize
        needed = offset + (full if size >= 2**63 else min(size, full))
        if stat.st_size < needed:
            raise ValueError(
                f"{own}: dataset {dataset.name!r} keeps its data in {path}, which is cut off: it "
                f"has {stat.st_size} bytes of {needed}"
            )
        storage.files.append(path)
        storage.sources.append(watched(path, 0, storage.nframes, needed))


def external_path(dataset: Any, name: str) -> Path:
    """Return the file that the library opens for raw data of a name."""
    if Path(name).is_absolute():
        return Path(name)
    prefix = os.environ.get("HDF5_EXTFILE_PREFIX")
    if prefix is None:
        prefix = os.fsdecode(dataset.id.get_access_plist().get_efile_prefix() or b"")
    return (Path(_expanded(prefix, absolute(dataset.file).parent)) / name).absolute()


def _expanded(prefix: str, home: Path) -> str:
    return prefix.replace("${ORIGIN}", str(home))


def written_chunks(dataset: Any, nframes: int) -> np.ndarray:
    """Return for each frame whether any of its chunks was allocated."""
    if dataset.chunks is None:
        there = dataset.external or dataset.id.get_storage_size() > 0
        return np.full(nframes, bool(there))
    grid = [
        -(-length // chunk) for length, chunk in zip(dataset.shape, dataset.chunks, strict=True)
    ]
    count = dataset.id.get_num_chunks()
    if count == math.prod(grid):
        return np.ones(nframes, bool)
    lead, chunks = dataset.shape[:-2], dataset.chunks[:-2]
    if not lead:
        return np.full(nframes, count > 0)
    there = np.zeros(grid[:-2], bool)
    dataset.id.chunk_iter(lambda chunk: _note(there, chunk.chunk_offset, chunks))
    for axis, chunk in enumerate(chunks):
        there = np.repeat(there, chunk, axis=axis)
    return there[tuple(slice(length) for length in lead)].ravel()


def _note(there: np.ndarray, offset: tuple[int, ...], chunks: tuple[int, ...]) -> None:
    there[tuple(start // chunk for start, chunk in zip(offset, chunks, strict=False))] = True


# ---------------------------------------------------------------------- virtual datasets


class VirtualReader:
    """Reads the mappings of a virtual dataset into a `Storage`."""

    def __init__(self, storage: Storage, depth: int) -> None:
        self.storage, self.depth = storage, depth
        self.dataset, self.shape = storage.dataset, storage.shape
        self.own = storage.files[0]
        self._maps = list(self.dataset.virtual_sources())
        self._opened: dict[Path, Any] = {}
        self._inspected: dict[tuple[str, str], tuple[Storage, list[Path]]] = {}
        self._sources: dict[Path, Source] = {}
        self._rows: set[tuple[int, int]] = set()
        self._span = 1
        self._whole_rows = False
        self._chunk_nbytes = 0.0

    def read(self) -> None:
        for mapping in self._maps:
            for vspace, name, dataset in self._blocks(mapping):
                self._add(mapping, vspace, name, dataset)
        storage, (_, rows, cols) = self.storage, lengths(self.dataset.shape)
        storage.files += self._sources
        storage.sources += self._sources.values()
        storage.frame_unit = max(1, min(self._span, storage.nframes))
        storage.row_unit = None if self._whole_rows else row_unit(self._rows, rows)
        frame = rows * cols * self.dataset.dtype.itemsize
        # A chunk may be larger than all that is taken from it.
        beyond = self._chunk_nbytes - storage.frame_unit * frame
        storage.buffers += max(0.0, beyond / frame) if frame else 0

    # ------------------------------------------------------------------ which files

    def _blocks(self, mapping: Any) -> Iterator[tuple[list[np.ndarray] | None, str, str]]:
        """Yield (indices along the axes, file, dataset) for each source of a mapping.

        A pattern such as ``scan_%b.h5`` names one for each block of an unlimited selection. The
        library takes the series to end with the last of these files, so that what is missing
        before it was left out by choice.
        """
        h5s = load("h5py.h5s")

        shape = self.shape
        indices = axis_indices(mapping.vspace, shape, h5s.UNLIMITED)
        names = mapping.file_name, mapping.dset_name
        if not any(re.search(r"(?<!%)(?:%%)*%b", name) for name in names):
            yield indices, *(name.replace("%%", "%") for name in names)
            return
        starts, strides, counts, blocks = mapping.vspace.get_regular_hyperslab()
        axis = counts.index(h5s.UNLIMITED)
        assert indices is not None
        for number in range(-(-max(0, shape[axis] - starts[axis]) // strides[axis])):
            first = starts[axis] + number * strides[axis]
            block = np.arange(first, min(first + blocks[axis], shape[axis]))
            file, dataset = (numbered(name, number) for name in names)
            if self._find(file) is not None:
                yield [*indices[:axis], block, *indices[axis + 1 :]], file, dataset

    def _find(self, name: str) -> Path | None:
        prefix = os.environ.get("HDF5_VDS_PREFIX")
        if prefix is None:
            prefix = os.fsdecode(self.dataset.id.get_access_plist().get_virtual_prefix() or b"")
        return self.own if name == "." else find_file(name, self.own, prefix)

    def _file(self, name: str) -> Any:
        path = self._find(name)
        if path is None:
            raise FileNotFoundError(
                f"{self.own}: the virtual dataset {self.dataset.name!r} refers to {name}, and "
                f"there is no file {self.own.parent / name}"
            )
        if name == "." or path == self.own:
            return self.dataset.file
        if path not in self._opened:
            parent = self.dataset.file
            self._opened[path] = open_file(path, parent.swmr_mode, parent.mode, len(self._maps))
        return self._opened[path]

    # ------------------------------------------------------------------ one source

    def _add(
        self, mapping: Any, indices: list[np.ndarray] | None, file_name: str, name: str
    ) -> None:
        where = (
            f"{self.own}: the virtual dataset {self.dataset.name!r} refers to {file_name}::{name}"
        )
        key = file_name, name
        if key not in self._inspected:
            file = self._file(file_name)
            dataset, files = follow(file, name, where)
            found = inspect(dataset, self.depth + 1)
            self._inspected[key] = found, list(dict.fromkeys([*files, *found.files]))
        found, files = self._inspected[key]
        _check_extent(mapping, found.shape, indices, where)
        frames, own = self._match(mapping, indices, found)
        self.storage.mappings.append(Mapping(found, frames, own))
        if frames.size:
            self._add_files(files, int(frames.min()), int(frames.max()))
        self._add_buffers(found)

    def _add_files(self, files: list[Path], first: int, last: int) -> None:
        for path in files:
            known = self._sources.get(path)
            if known is not None:
                known.first, known.last = min(known.first, first), max(known.last, last)
            elif path != self.own:
                self._sources[path] = watched(path, first, last)

    def _add_buffers(self, found: Storage) -> None:
        self.storage.buffers = max(self.storage.buffers, found.buffers)
        if len(found.shape) > 1 and (found.chunks or found.mappings):
            _, rows, cols = lengths(found.shape)
            cols = min(cols, found.chunks[-1]) if found.chunks else cols
            decoded = found.frame_unit * (found.row_unit or rows) * cols
            self._chunk_nbytes = max(self._chunk_nbytes, decoded * found.itemsize)

    def _match(
        self, mapping: Any, indices: list[np.ndarray] | None, found: Storage
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the frames of a mapping and those of its source; note what is decoded together."""
        h5s = load("h5py.h5s")

        nothing = np.empty(0, np.int64)
        if indices is None:
            self._whole_rows, self._span = True, self.storage.nframes
            return np.arange(self.storage.nframes), nothing
        frames = ravelled(indices, self.shape)
        own = (
            axis_indices(mapping.src_space, found.shape, h5s.UNLIMITED)
            if len(found.shape) > 1
            else None
        )
        if own is None or (len(own[-2]), len(own[-1])) != (len(indices[-2]), len(indices[-1])):
            # Other lengths that hold as many pixels: they are not told apart.
            self._whole_rows = True
            self._span = max(self._span, _extent(frames))
            return frames, nothing
        numbers = ravelled(own, found.shape)
        count = min(len(frames), len(numbers))
        if is_unlimited(mapping.src_space):
            frames = frames[:count]  # the source ends here, whatever others have
        numbers = numbers[:count]
        if len(frames) != len(numbers):
            return frames, nothing
        self._span = max(self._span, span(numbers // found.frame_unit, frames))
        self._note_rows(indices[-2], own[-2], found.row_unit or lengths(found.shape)[1])
        return frames, numbers

    def _note_rows(self, rows: np.ndarray, own: np.ndarray, unit: int) -> None:
        """Note the first row and end of each band that is decoded together."""
        if unit == 1:
            self._rows.add((0, 1))
            return
        edges = np.flatnonzero(np.diff(own // unit)) + 1
        for band in np.split(rows, edges):
            if band.size:
                self._rows.add((int(band.min()), int(band.max()) + 1))


def _check_extent(
    mapping: Any, shape: tuple[int, ...], indices: list[np.ndarray] | None, where: str
) -> None:
    """Refuse a source that is smaller than the selection of the virtual dataset."""
    space = mapping.src_space
    problem = f"{where}, which is shorter than it says: shape {shape}"
    if selection_kind(space) == "all":
        claimed = math.prod(map(len, indices)) if indices else mapping.vspace.get_select_npoints()
        if math.prod(shape) < claimed:
            raise ValueError(f"{problem}, {claimed} pixels are expected")
        return
    if space.get_simple_extent_ndims() != len(shape):
        raise ValueError(f"{where}, which has other dimensions than it says: shape {shape}")
    if is_unlimited(space):
        return
    _, ends = space.get_select_bounds()
    if any(end >= length for end, length in zip(ends, shape, strict=True)):
        expected = tuple(end + 1 for end in ends)
        raise ValueError(f"{problem}, at least {expected} is expected")


def span(groups: np.ndarray, frames: np.ndarray) -> int:
    """Return over how many frames the frames of one group extend, at most.

    >>> span(np.array([0, 0, 1, 1]), np.array([0, 4, 8, 12]))  # every fourth, two decoded together
    5
    """
    if not groups.size:
        return 1
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=groups[order[0]] - 1))
    lowest = np.minimum.reduceat(frames[order], starts)
    highest = np.maximum.reduceat(frames[order], starts)
    return int((highest - lowest).max()) + 1


def _extent(frames: np.ndarray) -> int:
    return int(frames.max() - frames.min()) + 1 if frames.size else 1


def row_unit(bands: set[tuple[int, int]], rows: int) -> int | None:
    """Return the height of the bands of rows that are decoded together; None if they overlap.

    Bands that lie across multiples of their height would be decoded twice each.

    >>> row_unit({(0, 16), (16, 32), (32, 40)}, 40), row_unit({(0, 16), (20, 36)}, 36)
    (16, None)
    """
    unit = max((last - first for first, last in bands), default=1)
    crossing = any(first // unit != (last - 1) // unit for first, last in bands)
    return None if crossing or unit >= rows else unit


def numbered(name: str, number: int) -> str:
    """Return a name of a pattern.

    >>> numbered("scan_%b_%%.h5", 3)
    'scan_3_%.h5'
    """
    return re.sub("%[b%]", lambda found: str(number) if found[0] == "%b" else "%", name)


# ---------------------------------------------------------------------- files and links


def find_file(name: str, own: Path, prefixes: str = "") -> Path | None:
    """Return the file that the library opens for a name in another file; None if there is none.

    It looks for the name itself, if that is absolute; and then in the directories that are
    configured, next to the file, in the working directory, and next to the file behind a link.
    """
    relative = Path(name)
    if relative.is_absolute():
        if relative.is_file():
            return relative
        relative = Path(relative.name)
    configured = [_expanded(prefix, own.parent) for prefix in prefixes.split(":") if prefix]
    for home in [*map(Path, configured), own.parent, Path.cwd(), own.resolve().parent]:
        if (home / relative).is_file():
            return Path(os.path.abspath(home / relative))  # noqa: PTH100 (links stay links)
    return None


def target_of(link: Any, own: Path) -> str:
    """Return where a link leads to, and the part that is missing there, for people."""
    filename = getattr(link, "filename", None)
    if filename is None:
        return f"{link.path}, which is not there"
    found = find_file(filename, own, os.environ.get("HDF5_EXT_PREFIX", ""))
    if found is None:
        return f"{filename}::{link.path}, and there is no file {own.parent / filename}"
    return f"{found}::{link.path}, which cannot be opened"


def follow(file: Any, name: str, where: str = "", depth: int = 0) -> tuple[Any, list[Path]]:
    """Return a dataset of a file, and all files that links on the way to it lead through.

    Raises
    ------
    FileNotFoundError, ValueError
        If a link leads nowhere or a name is not there; the message says which.
    """
    h5py = import_h5py(file.filename)
    where = where or f"{absolute(file)} has no dataset {name!r}"
    node, files = walk(file, name, where, depth)
    if not isinstance(node, h5py.Dataset):
        raise ValueError(f"{where}: there is no such dataset")
    return node, [*dict.fromkeys(files)]


def walk(group: Any, name: str, where: str, depth: int = 0) -> tuple[Any, list[Path]]:
    """Return the object of a name, component by component, and the files that links lead to."""
    h5py = import_h5py(group.file.filename)
    if depth > DEEPEST:
        raise ValueError(f"{where}: links lead in circles")
    node, files = (group.file["/"] if name.startswith("/") else group), [absolute(group.file)]
    for part in name.split("/"):
        if part in ("", "."):
            continue
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            raise ValueError(f"{where}: there is no {part!r} in {node.name}")
        if isinstance(link, h5py.HardLink):
            node = node[part]
            continue
        own, start = absolute(node.file), node
        if isinstance(link, h5py.ExternalLink):
            start = _linked_file(link, node, where)
        node, passed = walk(start, link.path, f"{where} ({own}::{node.name})", depth + 1)
        files += passed
    return node, files


def _linked_file(link: Any, node: Any, where: str) -> Any:
    own = absolute(node.file)
    path = find_file(link.filename, own, os.environ.get("HDF5_EXT_PREFIX", ""))
    if path is None:
        raise FileNotFoundError(f"{where}: {own}::{node.name} has a link to {target_of(link, own)}")
    if path == own:
        return node.file
    return open_file(path, node.file.swmr_mode, node.file.mode)["/"]
