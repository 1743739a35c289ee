"""Zarr stores at addresses, through fsspec: ``s3://``, ``gs://``, ``https://``, ``memory://``.

Options are those of fsspec: variables such as ``AWS_ENDPOINT_URL`` and ``FSSPEC_S3_ANON``, and the
files in ``~/.config/fsspec``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..packages import load
from ..series.base import Origins
from .addresses import local_path, split_url, without_secrets
from .zarr_array import ZarrSource, array_of
from .zarr_remote import is_http, reaching
from .zarr_search import reading_metadata, says_its_arrays

if TYPE_CHECKING:
    import zarr

# The packages of fsspec, in the words of its errors.
PACKAGES = re.compile(r"\b(s3fs|gcsfs|aiohttp|requests|adlfs|\w+fs)\b")

# Prefixes of fsspec's caches. They are refused: zarr calls such a file system outside of the thread
# of its event loop, where the clients of web servers and of S3 fail.
CACHES = {"simplecache", "filecache", "blockcache", "cached"}


class ZarrUrlSource(ZarrSource):
    """The zarr array at an address, or the array of that name in the group at an address."""

    def __init__(self, url: str, dataset: str = "") -> None:
        self.url = url
        for name in CACHES.intersection(url.partition("://")[0].split("::")):
            raise ValueError(
                f"{self.address}: zarr cannot read through a cache of fsspec: leave out {name}::"
            )
        with reading_metadata(self.address):
            node = open_store(url)
        group = isinstance(node, load("zarr").Group) and not dataset
        if group and is_http(node.store_path.store) and not says_its_arrays(node):
            raise ValueError(
                f"{self.address} is a group, and a plain HTTP server does not say which arrays are "
                f"in it: name one as {self.address}::name"
            )
        self._set_chosen(*array_of(node, self.address, dataset))

    @property
    def address(self) -> str:
        """The address for people and for notes, without passwords."""
        return without_secrets(self.url)

    def files(self) -> tuple[Path, ...]:
        path = local_path(self.url)
        return () if path is None else (path,)

    def origins(self) -> Origins:
        return [(self.choice.within(self.address), range(len(self)))]

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]} at {self.address}>"


def open_url(text: str) -> ZarrUrlSource:
    """Open the series at an address, which the name of an array may follow.

    Examples
    --------
    >>> open_url("memory://no/such.zarr::/images")
    Traceback (most recent call last):
        ...
    ValueError: memory://no/such.zarr is no zarr array or group...
    """
    return ZarrUrlSource(*split_url(text))


def open_store(url: str) -> zarr.Array | zarr.Group:
    """Open the array or group at an address.

    Raises
    ------
    ImportError
        If the package for such addresses is not installed.
    OSError
        If the server cannot be reached, or refuses.
    ValueError
        If there is no array or group.
    """
    zarr, storage = load("zarr"), load("zarr.storage")
    with reaching(url):
        try:
            store = storage.FsspecStore.from_url(url, read_only=True)
        except ImportError as error:
            found = PACKAGES.search(str(error))
            package = found[1] if found else "fsspec"
            where = without_secrets(url)
            raise ImportError(
                f"{where} needs {package}: pip install 'daskstats[remote]'"
            ) from error
        return zarr.open(store, mode="r")
