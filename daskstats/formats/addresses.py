"""Addresses: which texts are one, which lead to files on this machine, and which parts are secret.

Programs look at them before they import anything that takes long.
"""

import os
import re
from pathlib import Path
from urllib.parse import unquote

# An address, and the ways of fsspec to read it, such as "zip::s3://".
ADDRESS = re.compile(r"([\w+.-]+::)*[a-z][\w+.-]+://")

# One in a text, such as that of an error.
IN_TEXT = re.compile(r"[a-z][\w+.-]+://[^\s'\"<>()]+")

# Two names of one file system in fsspec.
LOCAL = re.compile(r"(file|local)://")

# The user and the password before a host, and a query. Some protocols have the name of a container,
# or of a repository, in place of a user.
USER = re.compile(r"\b(?!(?:abfss?|az|adl|wasbs?|github|gitlab):)([a-z][\w+.-]+://)[^/]*@")
QUERY = re.compile(r"(https?://[^?]*)\?.*?(?=::|$)")


def is_url(text: str) -> bool:
    """Whether a text is an address, and no path.

    >>> is_url("s3://bucket/x.zarr"), is_url("x.zarr::/entry"), is_url("https://host/x.zarr::0")
    (True, False, True)
    """
    return ADDRESS.match(text) is not None


def split_url(text: str) -> tuple[str, str]:
    """Return an address, and the name of an array or group that follows it.

    >>> split_url("s3://bucket/x.zarr::/images"), split_url("zip::https://host/x.zarr.zip")
    (('s3://bucket/x.zarr', '/images'), ('zip::https://host/x.zarr.zip', ''))
    """
    begin = text.index("://")
    address, _, name = text[begin:].partition("::")
    return text[:begin] + address.rstrip("/"), name


def as_path(text: str) -> str:
    """Return the path that an address of this machine means, and any other text as it is.

    An address is taken literally if there is such a file, as fsspec does; otherwise as the standard
    says, with codes such as ``%20`` for letters.

    >>> as_path("file:///no/such%20place/x.zarr::/images"), as_path("s3://bucket/x.zarr")
    ('/no/such place/x.zarr::/images', 's3://bucket/x.zarr')
    """
    found = LOCAL.match(text)
    if found is None:
        return text
    file, *rest = re.split(r"(::|\?)", text[found.end() :], maxsplit=1)
    path = Path(file).expanduser() if file.startswith("~/") else Path(file)
    if not path.exists():
        path = Path(unquote(re.sub("^localhost/", "/", file)))
    return "".join((str(path), *rest))


def without_secrets(url: str) -> str:
    """Return an address without user, password, and a query, which may hold a signature.

    >>> without_secrets("https://me:secret@host:80/x.zarr?sig=12"), without_secrets("s3://b/x.zarr")
    ('https://host:80/x.zarr', 's3://b/x.zarr')
    """
    return QUERY.sub(r"\1", USER.sub(r"\1", url))


def hide_secrets(text: str) -> str:
    """Return a text for people, in which every address is `without_secrets`.

    >>> hide_secrets("no store at 'http://me:secret@host/x.zarr?sig=12' (404)")
    "no store at 'http://host/x.zarr' (404)"
    """
    return IN_TEXT.sub(lambda found: without_secrets(found[0]), text)


def check_is_path(path: str | os.PathLike, role: str) -> None:
    """Refuse an address in place of a file or directory that is written.

    >>> check_is_path("s3://bucket/dark.npy", "the output")
    Traceback (most recent call last):
        ...
    ValueError: the output s3://bucket/dark.npy is an address: give a path on this machine
    """
    if is_url(text := os.fspath(path)):
        raise ValueError(
            f"{role} {without_secrets(text)} is an address: give a path on this machine"
        )


def local_path(url: str) -> Path | None:
    """Return the file or directory on this machine that an address reads, None for any other.

    >>> local_path("zip::file:///data/x.zarr.zip"), local_path("s3://bucket/x.zarr")
    (PosixPath('/data/x.zarr.zip'), None)
    """
    address = url.rpartition("::")[2]
    return Path(as_path(address)).absolute() if LOCAL.match(address) else None
