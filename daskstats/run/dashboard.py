"""Progress bars of dask's dashboard for a run of which the scheduler has a few tasks at a time.

A run submits a window of its tasks and releases those that are done, and the scheduler forgets
them: its bars would show the window, "6 / 6" all the time. To submit all tasks at the start would
take 7 KB for each of them, and none could be held back. So the counts that the bars are drawn from
get the numbers of the other tasks as well::

    average-partial    forgotten    on the scheduler    not yet submitted
                       406          6                   612                   412 / 1024

This module is imported where the scheduler is, and by runs on a cluster.
"""

import logging
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import uuid4

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.utils import key_split_group

if TYPE_CHECKING:
    from distributed import Client, Scheduler
    from distributed.scheduler import TaskGroup, TaskPrefix

logger = logging.getLogger(__name__)


class ProgressBars(SchedulerPlugin):
    """Counts the tasks of a run that the scheduler has forgotten, or does not know yet.

    It leaves the scheduler when the scheduler has forgotten all tasks of the run.

    Parameters
    ----------
    keys : iterable
        Of all tasks of the run.

    Examples
    --------
    >>> ProgressBars([("max-partial-0f", 0), ("max-partial-0f", 1), ("max-step-0f", 0)]).total
    Counter({'max-partial-0f': 2, 'max-step-0f': 1})
    """

    def __init__(self, keys: Iterable) -> None:
        self.name = f"daskstats-{uuid4().hex}"
        self.total = Counter(map(key_split_group, keys))
        """of each group of tasks: those that have the first part of their keys in common"""
        self._forgotten: Counter[str] = Counter()
        self._added: dict[str, tuple[TaskPrefix, int, int]] = {}

    def start(self, scheduler: "Scheduler") -> None:
        """Note the scheduler, before it gets the first task."""
        self._scheduler = scheduler

    def transition(
        self, key: object, start: str, finish: str, *args: object, **kwargs: object
    ) -> None:
        """Count a task that has been submitted or forgotten."""
        group = self._scheduler.tasks[key].group
        if group.name not in self.total:
            return
        gone = finish == "forgotten"
        if gone or start == "released":
            self._forgotten[group.name] += gone
            self._show(group)
        if gone and not self._is_running():
            self._leave()

    def remove_client(self, scheduler: "Scheduler", client: str) -> None:
        """Leave, if the run ended before it had submitted a task."""
        if not self._is_running():
            self._leave()

    def restart(self, scheduler: "Scheduler") -> None:
        """Leave a scheduler that forgets everything."""
        self._leave()

    def _show(self, group: "TaskGroup") -> None:
        known = sum(count for state, count in group.states.items() if state != "forgotten")
        others = max(0, self.total[group.name] - known)
        # A task that failed with its worker is submitted again.
        gone = min(self._forgotten[group.name], others)
        self._add(group.name, group.prefix, gone, others - gone)

    def _add(self, name: str, prefix: "TaskPrefix", released: int, waiting: int) -> None:
        """Have the bar of a prefix count some tasks of a group that are over, and some to come."""
        _, before, after = self._added.get(name, (prefix, 0, 0))
        prefix.states["released"] += released - before
        prefix.states["waiting"] += waiting - after
        self._added[name] = prefix, released, waiting

    def _is_running(self) -> bool:
        groups = (self._scheduler.task_groups.get(name) for name in self.total)
        return any(
            count and state != "forgotten"
            for group in groups
            if group is not None
            for state, count in group.states.items()
        )

    def _leave(self) -> None:
        for name, (prefix, *_) in self._added.items():
            self._add(name, prefix, 0, 0)
        with suppress(ValueError):  # it has left
            self._scheduler.remove_plugin(self.name)


def show_progress(client: "Client", keys: Iterable) -> None:
    """Have the bars of a cluster's dashboard count all tasks of a run, if its scheduler can."""
    try:
        client.register_plugin(ProgressBars(keys))
    except Exception as error:
        # It may take no pickles, or run where daskstats is not installed.
        logger.debug("the dashboard shows the tasks in flight only: %s", error)
