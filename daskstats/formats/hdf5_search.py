"""Which dataset of an HDF5 file is the image series, if none is named.

A file of a beamline has hundreds of datasets: positions, masks, flat fields, tables, and one series
of images, maybe behind links. The series is chosen if a person would have no doubt; otherwise the
error lists every candidate.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from ..series.base import Choice
from .choosing import (
    Candidate,
    alike,
    best,
    chosen_image,
    chosen_series,
    is_one_part,
    is_series,
    joined,
    like_detector,
    listed,
)
from .hdf5_contents import Contents, contents, without_mapped
from .hdf5_nexus import default_signal

if TYPE_CHECKING:
    import h5py

# Names of links that would hold the series if they led anywhere.
IMAGES = re.compile(r"(data|images?|frames?)(_?\d+)?", re.IGNORECASE)


def find_datasets(group: h5py.Group, path: str | os.PathLike, base: str = "") -> Choice:
    """Return the dataset that is the image series, or its parts.

    Parameters
    ----------
    group : h5py.Group
        The file itself, or a group in it that was named.
    path : path
        Of the file, for errors.
    base : str
        Name of the group that was named.

    Raises
    ------
    ValueError
        If there is none, or none without a doubt; all candidates are listed.
    FileNotFoundError
        If a link that holds it leads to a file that is not there.
    """
    found = contents(group, base)
    every = without_mapped(joined(found.candidates, found.dangling))
    lost = [name for name in found.dangling if IMAGES.fullmatch(name.rpartition("/")[2])]
    signal, shown = default_signal(group, base.rstrip("/"))
    chosen, why = _default(every, shown), "the signal of the NeXus default"
    if chosen is not None and is_series(chosen):
        return Choice(chosen.names, why)
    if signal in found.dangling:
        raise no_series(found, True, path)
    picture = chosen
    data = [c for c in every if any(dataset.id in found.measured for dataset in c.datasets)]
    chosen, why = chosen_series(every, data)
    if chosen is None and not found.dangling:
        chosen, why = chosen_image(every, picture, bool(base))
    if chosen is None or (lost and not chosen.datasets[0].is_virtual):
        raise no_series(replace(found, candidates=every), bool(lost), path, base)
    return Choice(chosen.names, why)


def find_image(file: h5py.File, path: str | os.PathLike) -> Choice:
    """Return the only image of a file: a mask or a flat field, say."""
    found = contents(file)
    images = [c for c in found.candidates if like_detector(c.shape)] or found.candidates
    if len(images) > 1:
        picture = _default(images, default_signal(file, "")[1])
        images = images if picture is None else [picture]
    if len(images) != 1:
        raise no_series(replace(found, candidates=images), False, path)
    return Choice(images[0].names, "the only image")


def no_series(found: Contents, lost: bool, path: str | os.PathLike, base: str = "") -> Exception:
    """Return an error that lists the candidates."""
    every = found.candidates
    where = f"{path}::{base}" if base else f"{path}"
    if not every:
        kind = FileNotFoundError if found.dangling else ValueError
        more = f"{found}" if found.dangling else _other_contents(found.others)
        return kind(f"{where} has no numeric dataset of two or more dimensions: {more}")
    if lost and not any(map(is_series, every)):
        return FileNotFoundError(f"{where}: {found}")
    every = best(every)
    count = len(every)
    more = ""
    if alike(every):
        more = f"; they are {count} frames of one series as {path}::{every[0].parent}"
    return ValueError(
        f"{where} has {count} dataset{'' if count == 1 else 's'}, "
        f"name one as {path}::{every[0].name}: {replace(found, candidates=every)}{more}"
    )


def _other_contents(others: list[str]) -> str:
    """Return the datasets of a file without images, for people."""
    return f"it has {listed(others)}" if others else "it is empty"


def _default(every: list[Candidate], shown: h5py.Dataset | None) -> Candidate | None:
    """Return the candidate that a dataset is of, unless it is one part of a series."""
    found = [c for c in every if shown and any(dataset.id == shown.id for dataset in c.datasets)]
    fits = found and like_detector(found[0].shape) and not is_one_part(found[0], every)
    return found[0] if fits else None
