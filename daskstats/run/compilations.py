"""Compilations on the workers of a cluster, which their tasks announce to the client."""

import weakref
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from threading import RLock
from typing import Any

from ..graph.tasks import COMPILATIONS


class WorkerCompilations:
    """Counts the compilations that the workers have begun and not ended.

    >>> found = WorkerCompilations()
    >>> found.note((0.0, ["tcp://127.0.0.1:1", 1])), found.running()
    (None, True)
    >>> found.keep(["tcp://127.0.0.1:2"]), found.running()
    (None, False)
    """

    def __init__(self) -> None:
        self.runs: set[object] = set()
        """that want to know"""
        self._counts: Counter[str] = Counter()

    def note(self, event: tuple[float, Any]) -> None:
        """Count an announcement: the address of a worker, and 1 or -1."""
        worker, change = event[1]
        # The end of a compilation may be heard of one that had begun before.
        self._counts[worker] = max(0, self._counts[worker] + change)

    def keep(self, workers: Iterable[str]) -> None:
        """Forget all other workers, which have died."""
        for worker in set(self._counts).difference(workers):
            self._counts.pop(worker)

    def running(self) -> bool:
        """Whether a worker is compiling now."""
        return any(list(self._counts.values()))


# A client has one handler for a topic, so its runs share it. The garbage collector may end a run
# while another begins in the same thread.
_shared: "weakref.WeakKeyDictionary[Any, WorkerCompilations]" = weakref.WeakKeyDictionary()
_lock = RLock()


def subscribe(client: Any, run: object) -> WorkerCompilations:
    """Return the compilations on the workers of a client, for one run more."""
    with _lock:
        found = _shared.setdefault(client, WorkerCompilations())
        if not found.runs:
            client.subscribe_topic(COMPILATIONS, found.note)
        found.runs.add(run)
        return found


def unsubscribe(client: Any, run: object) -> None:
    """Leave with a run, if it has subscribed; the last one ends the subscription."""
    with _lock:
        found = _shared.get(client)
        if found is None or run not in found.runs:
            return
        found.runs.remove(run)
        if not found.runs:
            del _shared[client]
            with suppress(Exception):  # the client may have been closed, and its loop with it
                client.unsubscribe_topic(COMPILATIONS)
