"""Which array of a zarr group is the image series, and where a store begins in a path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..packages import load
from ..series.base import Choice
from .addresses import hide_secrets
from .choosing import (
    Candidate,
    best,
    chosen_image,
    chosen_series,
    joined,
    like_detector,
    listed,
)
from .natural import natural
from .zarr_files import is_store

if TYPE_CHECKING:
    import zarr


@contextmanager
def reading_metadata(path: Path | str) -> Iterator[None]:
    """Turn every error that metadata can lead to into one kind of error."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(hide_secrets(f"{path} is no zarr array or group: {error}")) from error
    except (OSError, ImportError):
        raise
    except Exception as error:
        text = f"{path} is no zarr array or group that can be read: {type(error).__name__}: {error}"
        raise ValueError(hide_secrets(text)) from error


def find_store(path: Path) -> tuple[Path, str] | None:
    """Return the store that a path leads into and the name within, None if there is no store.

    >>> find_store(Path("no/such/file.txt")) is None
    True
    """
    for place in (path, *path.parents):
        zipped = place.name.lower().endswith(".zarr.zip")
        if place.is_dir():
            found = is_store(place) or place.suffix == ".zarr"
        elif place.exists():
            found = zipped
        else:
            found = zipped or (place != path and place.suffix == ".zarr")  # opening it says so
        if found:
            return place, "" if place == path else path.relative_to(place).as_posix()
        if place.is_file():
            return None
    return None


def find_array(group: zarr.Group, where: str, base: str = "") -> tuple[zarr.Array, Choice]:
    """Return the array of a group that is the image series, and why.

    Parameters
    ----------
    group : zarr.Group
    where : str
        Path or address of the store, for errors.
    base : str
        Name of the group, if it was named.

    Raises
    ------
    ValueError
        If there is none, or none without a doubt; at most ten candidates are listed.
    """
    level = _first_level(group, f"{where}::{base}" if base else where)
    if level is not None:
        name = _name_below(level, group, base)
        return level, Choice((name,), "the first level of an OME-Zarr image")
    every = _candidates(group, where, base)
    chosen, why = chosen_series(every)
    if chosen is None:
        chosen, why = chosen_image(every, None, False)
    if chosen is None or len(chosen.datasets) > 1:
        raise _no_series(every, where, base)
    return chosen.datasets[0], Choice(chosen.names, why)


def find_image(group: zarr.Group, where: str) -> tuple[zarr.Array, Choice]:
    """Return the only array of a group that is one image, and why."""
    every = [c for c in _candidates(group, where, "") if len(c.shape) == 2]
    every = [c for c in every if like_detector(c.shape)] or every
    if len(every) == 1:
        return every[0].datasets[0], Choice(every[0].names, "the only image")
    if not every:
        raise ValueError(f"{where} has no two-dimensional array")
    raise _several(every, where, where)


def says_its_arrays(group: zarr.Group) -> bool:
    """Whether the arrays of a group can be found without listing its store."""
    consolidated = group.metadata.consolidated_metadata is not None
    return consolidated or _first_level(group, "", refuse=False) is not None


def _candidates(group: zarr.Group, where: str, base: str) -> list[Candidate]:
    found = [
        Candidate((name,), [array], base)
        for name, array in _arrays(group, base, where)
        if array.ndim > 1 and array.size and array.dtype.kind in "biuf"
    ]
    return joined(found, {})


def _arrays(group: zarr.Group, base: str, where: str) -> Iterator[tuple[str, zarr.Array]]:
    """Yield (name, array) of all below a group; of the levels of an image the first one only."""
    zarr = load("zarr")
    below = []
    with reading_metadata(where):
        members = sorted(group.members(), key=lambda item: natural(item[0]))
    for key, node in members:
        name = f"{base}/{key}"
        if isinstance(node, zarr.Array):
            yield name, node
        else:
            below.append((name, node))
    for name, node in below:
        level = _first_level(node, f"{where}::{name}", refuse=False)
        if level is None:
            yield from _arrays(node, name, where)
        else:
            yield _name_below(level, node, name), level


def _name_below(array: zarr.Array, group: zarr.Group, name: str) -> str:
    """Return the name of an array in a group of that name; their store may begin further up."""
    return f"{name}/{array.path.removeprefix(group.path).strip('/')}"


def _first_level(group: zarr.Group, where: str, refuse: bool = True) -> zarr.Array | None:
    """Return the array of full resolution of an OME-Zarr image, None if the group is none."""
    attributes = group.attrs
    ome = attributes.get("ome")
    images: Any = (ome if isinstance(ome, dict) else attributes).get("multiscales")
    try:
        image = images[0]
        path = image["datasets"][0]["path"]
        array, axes = group.get(path), image.get("axes", ())
    except (TypeError, KeyError, IndexError, AttributeError):
        return None
    if not isinstance(array, load("zarr").Array):
        return None
    if refuse:
        _check_channels(array, axes, f"{where}::{path}")
    return array


def _check_channels(array: zarr.Array, axes: list, where: str) -> None:
    """Refuse an image of several channels, which are no frames of one series."""
    for axis, length in zip(axes, array.shape, strict=False):
        kind = axis.get("type") if isinstance(axis, dict) else None
        name = axis.get("name") if isinstance(axis, dict) else axis
        if length > 1 and (kind == "channel" or (kind is None and name == "c")):
            names = ", ".join(a.get("name", "?") if isinstance(a, dict) else str(a) for a in axes)
            raise ValueError(
                f"{where} has {length} channels, axes ({names}) of shape {array.shape}: give one "
                f"of them, as in dask.array.from_zarr(...)[:, 0], or name the array to count all "
                f"of them as frames"
            )


def _no_series(every: list[Candidate], where: str, base: str) -> ValueError:
    place = f"{where}::{base}" if base else where
    if not every:
        return ValueError(f"{place} has no three-dimensional array, nor one of more dimensions")
    found = best(every)
    if not any(len(candidate.shape) > 2 for candidate in found):
        return ValueError(
            f"{place} has no three-dimensional array, nor a single image: "
            f"name one as {where}::{found[0].name}: {listed(found)}"
        )
    return _several(found, where, place)


def _several(every: list[Candidate], where: str, place: str) -> ValueError:
    count = len(every)
    return ValueError(
        f"{place} has {count} array{'' if count == 1 else 's'}, "
        f"name one as {where}::{every[0].name}: {listed(every)}"
    )
