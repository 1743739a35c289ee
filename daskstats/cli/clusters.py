"""The scheduler that a command runs on: one of dask's own, or a cluster."""

import signal
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import click
import dask

from .. import ending
from ..packages import load
from ..run import workers
from ..scratch import directories
from .options import SCHEDULERS, Given


@contextmanager
def chosen_scheduler(options: Given) -> Iterator[None]:
    """Run everything inside on the scheduler or cluster that the options name."""
    if options.get("workers") or options["scheduler"] == "processes":
        ending.shield_children()
    ignore_interrupts = dask.config.set({"multiprocessing.initializer": _ignore_interrupts})
    with _scheduler(options), ignore_interrupts:
        yield


def _scheduler(options: Given) -> AbstractContextManager:
    quiet = options.get("quiet", False)
    if options.get("workers"):
        return _local_cluster(options["workers"], quiet)
    if options["scheduler_file"]:
        return _client(quiet, scheduler_file=options["scheduler_file"])
    scheduler = options["scheduler"]
    if scheduler is None:
        return nullcontext()
    if scheduler in SCHEDULERS:
        return dask.config.set(scheduler=scheduler)
    return _client(quiet, address=scheduler)


@contextmanager
def _client(quiet: bool, **where: str) -> Iterator[None]:
    """Use a cluster that is running already."""
    with load("distributed").Client(**where) as client:
        if "dashboard" in client.scheduler_info(n_workers=0)["services"]:
            _print_dashboard(client, quiet)
        yield


@contextmanager
def _local_cluster(count: int, quiet: bool) -> Iterator[None]:
    """Start a cluster on this machine, and close it at the end."""
    place = dask.config.get("temporary-directory", None) or tempfile.gettempdir()
    with (
        directories.temporary_directory(place) as directory,
        workers.local_cluster(count, str(directory)) as client,
        # `ending.LIMIT` bounds everything.
        ending.closing(lambda: client.cluster.close(timeout=ending.LIMIT / 2)),
    ):
        _print_dashboard(client, quiet)
        yield


def _print_dashboard(client: Any, quiet: bool) -> None:
    if not quiet:
        click.echo(f"dashboard: {client.dashboard_link}", err=True)


def _ignore_interrupts() -> None:
    """Leave Ctrl-C, which a terminal sends to every process, to the process of the program."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
