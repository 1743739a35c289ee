"""Packages that are imported at first use: optional ones, and those that take long to import.

A first use may come in several threads at once. Every late import of the package goes through
this module, so that no two of ours run at the same time, and nobody looks into a module that
another thread is still importing.
"""

import sys
from importlib import import_module
from threading import RLock
from typing import Any

# Modules import each other in circles. Two threads that enter a circle at different places can
# wait for each other, and Python then hands out half a module.
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


def loaded(name: str, attribute: str) -> Any:
    """Return an attribute of a module, None where the module has not been imported completely.

    An object of a package exists only where that package has been imported: there is no need to
    import it in order to find out that an object is none of its own.

    Examples
    --------
    >>> loaded("no_such_package", "Array") is None
    True
    """
    return getattr(sys.modules.get(name), attribute, None)
