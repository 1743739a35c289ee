"""Packages that are imported at first use: optional ones, and those that take long to import.

A first use may come in several threads in parallel. Every late import of the package goes through
this module, so that no two of them run at the same time, and no thread uses a module that another
thread is still importing.
"""

import os
import sys
from importlib import import_module
from threading import RLock
from typing import Any

# Modules import each other in circles. Two threads that enter a circle at different places can
# wait for each other, and Python then returns a partly initialised module.
_lock = RLock()


def load(name: str) -> Any:
    """Import a module, or a module of a package, and return it.

    Parameters
    ----------
    name : str
        Absolute: ``"zarr"``, ``"PIL.Image"``.

    Raises
    ------
    ImportError
        If it is not installed, or is broken.

    Examples
    --------
    >>> load("zarr.codecs").__name__
    'zarr.codecs'
    """
    with _lock:
        return import_module(name)


def require(name: str | None, path: str | os.PathLike) -> Any:
    """Return the optional package that a file needs, None if it needs none.

    Examples
    --------
    >>> require("no_such_package", "scan.xyz")
    Traceback (most recent call last):
        ...
    ImportError: scan.xyz needs no_such_package: pip install 'daskstats[io]'
    """
    try:
        return None if name is None else load(name)
    except ImportError as error:
        raise ImportError(f"{os.fspath(path)} needs {name}: pip install 'daskstats[io]'") from error


def loaded(name: str, attribute: str) -> Any:
    """Return an attribute of a module, None where the module has not been imported completely.

    An object of a package exists only where that package has been imported: there is no need to
    import it in order to find that an object is not of that package.

    Examples
    --------
    >>> loaded("no_such_package", "Array") is None
    True
    """
    return getattr(sys.modules.get(name), attribute, None)
