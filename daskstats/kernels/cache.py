"""numba's cache of compiled code on disk, which must never make a call fail.

A damaged file of the cache is removed and its code compiled again. Where no directory can be
written to, or the disk is full, compiled code stays in memory. Each is reported once, in a warning.

Processes that compile at the same time share the cache: each file is written whole, and has the
code of one version of the sources and one signature.
"""

import glob
import hashlib
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from numba import config
from numba.core.caching import FunctionCache, IndexDataCacheFile

_said: set[str] = set()
_lock = threading.Lock()


@cache
def sources_stamp() -> tuple[tuple[str, float, int], ...]:
    """Return name, time and size of every file of compiled code."""
    files = [(path, path.stat()) for path in sorted(Path(__file__).parent.glob("*.py"))]
    return tuple((path.name, found.st_mtime, found.st_size) for path, found in files)


class CodeFiles(IndexDataCacheFile):
    """The files of the code of a function, one for each signature and processor.

    numba numbers them, and an index has the number of each signature, written before the file.
    Then two processes may give one number to two signatures, or one find code of older sources
    behind a new index; compiled code does not see that its arguments are of another dtype. Names
    that follow from the key need no index.
    """

    def __init__(self, cache_path: str, base: str, source_stamp: object) -> None:
        super().__init__(cache_path, base, source_stamp)
        self._base, self._prefix = base, f"{base}.{_digest((self._version, source_stamp))}-"

    def save(self, key: Any, data: Any) -> None:
        """Write the code of a key, and remove that of other versions of the sources."""
        self._save_data(self.name(key), (key, data))
        for path in Path(self._cache_path).glob(f"{glob.escape(self._base)}.*.nbc"):
            if not path.name.startswith(self._prefix):
                with suppress(OSError):
                    path.unlink()

    def load(self, key: Any) -> Any:
        """Return the code of a key, None if there is none."""
        try:
            found, data = self._load_data(self.name(key))
        except OSError:
            # It is not there, another host has just removed it, or it is another user's.
            return None
        if found != key:
            raise ValueError("it has the code of something else")
        return data

    def name(self, key: Any) -> str:
        """Return the name of the file of a key."""
        return f"{self._prefix}{_digest(key)}.nbc"


def _digest(value: object) -> str:
    return hashlib.sha256(str(value).encode()).hexdigest()[:16]


class Cache(FunctionCache):
    """numba's cache of a function, without the files that it cannot read or write.

    The code of a function includes functions of other files, so it is old when any of these has
    changed; numba itself looks at the function's own file only.
    """

    _cache_file: CodeFiles

    def __init__(self, function: Callable) -> None:
        super().__init__(function)
        stamp = self._cache_file._source_stamp, sources_stamp()
        self._cache_file = CodeFiles(self.cache_path, self._impl.filename_base, stamp)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:
            # Damaged pickles raise all kinds of errors.
            self._remove(sig, target_context, error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:
            # Warn once, not for each dtype.
            self.disable()
            _say(
                f"compiled code cannot be kept in {self.cache_path} ({_text(error)}), so every "
                f"process compiles it again: set NUMBA_CACHE_DIR to a directory with room"
            )

    def _remove(self, sig: Any, target_context: Any, error: Exception) -> None:
        """Remove a file that cannot be read."""
        key = self._index_key(sig, target_context.codegen())
        path = Path(self.cache_path, self._cache_file.name(key))
        try:
            path.unlink(missing_ok=True)
            done = "it has been removed"
        except OSError:
            self.disable()
            done = "remove it"
        _say(f"{path} in numba's cache is damaged ({_text(error)}): {done}; compiled again")


def cached(jit: Callable) -> Callable:
    """Return a decorator that compiles, and caches compiled code on disk where possible."""

    def decorate(function: Callable) -> Any:
        dispatcher = jit(function)
        try:
            dispatcher._cache = Cache(function)
        except RuntimeError:
            # numba found no directory for its cache.
            _say(
                "compiled code cannot be kept on disk, so every process compiles it again, a few "
                "seconds for each dtype: neither NUMBA_CACHE_DIR "
                f"({config.CACHE_DIR or 'not set'}), nor {Path(__file__).parent / '__pycache__'}, "
                "nor the user's cache directory can be written to; set NUMBA_CACHE_DIR to one "
                "that can"
            )
        else:
            _check_directory(dispatcher._cache.cache_path)
        return dispatcher

    return decorate


def _check_directory(found: str) -> None:
    """Warn if the cache is not in the directory that NUMBA_CACHE_DIR names."""
    asked = config.CACHE_DIR
    if asked and not Path(found).is_relative_to(asked):
        _say(f"NUMBA_CACHE_DIR {asked} cannot be written to: compiled code is kept in {found}")


def _say(text: str) -> None:
    """Warn once in a process."""
    with _lock:
        if text in _said:
            return
        _said.add(text)
    warnings.warn(text, RuntimeWarning, stacklevel=2)


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
