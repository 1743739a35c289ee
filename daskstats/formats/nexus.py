"""HDF5 files of images, in the layout of NeXus, so that viewers show the picture at once.

Each image is the signal of a group NXdata, and a link of its name at the root leads to it::

    /entry                 NXentry     @default = image
    /entry/image           NXdata      @signal = data
    /entry/image/data      the pixels
    /entry/process         NXprocess   how the image was made
    /image                 a link to /entry/image/data
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..packages import load
from .hdf5_files import open_file
from .hdf5_lock import hdf5_lock
from .notes import NONE, Facts
from .places import split_name
from .writing import OutputFile

if TYPE_CHECKING:
    import h5py

# The name of the dataset that HEXRD reads, which has an axis of frames: a series of one frame.
HEXRD_IMAGES = "images"


def write_image(image: np.ndarray, path: Path, notes: Facts = NONE) -> None:
    write_images({"image": image}, path, notes)


def write_images(images: Mapping[str, np.ndarray], path: Path, notes: Facts = NONE) -> None:
    with new_file(path) as (file, check):
        entry = _new_entry(file, _free_name("entry", images))
        for name, image in images.items():
            data = _new_data(entry, name, "data")
            write_pixels(data, "data", image, check)
            file[name] = load("h5py").SoftLink(f"{data.name}/data")
        entry.attrs["default"] = next(iter(images))
        _add_process(entry, _free_name("process", images), notes)


def write_dataset(image: np.ndarray, path: Path, notes: Facts, name: str) -> None:
    """Write an image as the dataset of a name, such as ``/entry/data/dark``.

    A dataset ``images`` has shape (1, rows, cols), which HEXRD reads as a series of one frame.
    """
    *groups, last = split_name(name)
    if last == HEXRD_IMAGES and image.ndim == 2:
        image = image[None]
    with new_file(path) as (file, check):
        entry = _new_entry(file, groups[0] if groups else _free_name("entry", {last}))
        parent = _new_groups(entry, groups[1:]) if groups else file
        write_pixels(parent, last, image, check)
        inside = groups[1:2] or [last]
        if len(groups) < 2:
            data = _new_data(entry, _free_name("plot", inside), last)
            data[last] = load("h5py").SoftLink(f"{parent.name.rstrip('/')}/{last}")
            entry.attrs["default"] = data.name.rpartition("/")[2]
        else:
            parent.attrs.update({"NX_class": "NXdata", "signal": last})
        _add_process(entry, _free_name("process", inside), notes)


def _free_name(name: str, taken: Container[str]) -> str:
    """Return a name that is not taken.

    >>> _free_name("entry", {"entry"})
    'entry_1'
    """
    names = chain([name], (f"{name}_{number}" for number in count(1)))
    return next(each for each in names if each not in taken)


def _new_group(parent: h5py.Group, name: str, kind: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = kind
    return group


def _new_entry(file: h5py.File, name: str) -> h5py.Group:
    """Return the entry of a file, which the root names as the default."""
    file.attrs.update({"NX_class": "NXroot", "default": name})
    return _new_group(file, name, "NXentry")


def _new_groups(parent: h5py.Group, names: list[str]) -> h5py.Group:
    """Return the last of nested groups; each names the next as its default."""
    for name in names:
        parent.attrs["default"] = name
        parent = _new_group(parent, name, "NXcollection")
    return parent


def _new_data(entry: h5py.Group, name: str, signal: str) -> h5py.Group:
    group = _new_group(entry, name, "NXdata")
    group.attrs["signal"] = signal
    return group


def _add_process(entry: h5py.Group, name: str, notes: Facts) -> None:
    """Write notes as the fields of a group, if there are any."""
    if notes:
        group = _new_group(entry, name, "NXprocess")
        for key, value in notes.items():
            group[key] = _utf8(value) if isinstance(value, str) else [*map(_utf8, value)]


def _utf8(text: str) -> str:
    """Return a text with the bytes escaped that are not UTF-8, as names of files may have."""
    return text.encode("utf-8", "backslashreplace").decode()


def write_pixels(
    group: h5py.Group, name: str, image: np.ndarray, check: Callable[[], None]
) -> None:
    dataset = group.create_dataset(
        name, image.shape, image.dtype, chunks=True, compression="gzip", shuffle=True
    )
    dataset.attrs["interpretation"] = "image"
    # A row of chunks at a time, because nothing else can run while HDF5 compresses.
    height = dataset.chunks[-2]
    for start in range(0, image.shape[-2], height):
        rows = ..., slice(start, start + height), slice(None)
        dataset[rows] = image[rows]
        check()


@contextmanager
def new_file(path: Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """Give a new HDF5 file, and a function that raises the first error of the disk."""
    # HDF5 would crash if it could not write the last part of a file that it closes.
    with OutputFile(path, deferred=True) as output:
        with load("h5py").File(output, "w") as file:
            yield file, output.check
        output.check()


# ---------------------------------------------------------------------- files that exist


def foreign_object(path: Path, name: str) -> str:
    """Return an object of a file that `write_dataset` would not write again, or an empty text."""
    with hdf5_lock(), open_file(path, swmr=False) as file:
        return _foreign_object(file, "/" + "/".join(split_name(name)))


def _foreign_object(group: h5py.Group, expected: str) -> str:
    h5py = load("h5py")
    for key in group:
        name = f"{group.name.rstrip('/')}/{key}"
        link = group.get(key, getlink=True)
        if isinstance(link, h5py.SoftLink) and link.path == expected:
            continue
        child = group[key] if isinstance(link, h5py.HardLink) else None
        if isinstance(child, h5py.Group):
            found = "" if _is_notes(child) else _foreign_object(child, expected)
            if found:
                return found
        elif name != expected:
            return name
    return ""


def _is_notes(group: h5py.Group) -> bool:
    """Whether a group holds notes of this program."""
    program = group.get("program")
    return group.attrs.get("NX_class") == "NXprocess" and (
        program is not None and program[()] in (b"daskstats", "daskstats")
    )
