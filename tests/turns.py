"""Processes of tests that need the same code at the same time: one compiles it, the others wait."""

import fcntl
import hashlib
import time
from pathlib import Path
from typing import IO, Any

from daskstats.kernels.cache import Cache

# Seconds after which a process compiles all the same: another may have failed to.
PATIENCE = 100


def compile_in_turn(place: Path) -> None:
    """Have this process wait for the code that another of the same place compiles."""
    load, save = Cache.load_overload, Cache.save_overload
    held: dict[str, IO] = {}

    def load_overload(self: Cache, sig: Any, target_context: Any) -> Any:
        found, name = load(self, sig, target_context), _name(self, sig)
        if found is None and name not in held:
            held[name] = _lock(place / name)
            found = load(self, sig, target_context)
            if found is not None:
                held.pop(name).close()
        return found

    def save_overload(self: Cache, sig: Any, data: Any) -> None:
        try:
            save(self, sig, data)
        finally:
            if lock := held.pop(_name(self, sig), None):
                lock.close()

    Cache.load_overload, Cache.save_overload = load_overload, save_overload


def _name(cache: Cache, sig: Any) -> str:
    function = cache._py_func
    text = f"{cache.cache_path} {function.__module__} {function.__qualname__} {sig}"
    return f"compiling-{hashlib.sha256(text.encode()).hexdigest()}"


def _lock(path: Path) -> IO:
    lock, deadline = path.open("w"), time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(0.05)
    return lock
