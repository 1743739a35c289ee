"""Faults of a call that are found before anything is imported that takes long."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import click

from ..names import IMAGES, check_statistic
from .options import Given

# Addresses, patterns, and names as silx writes them; `formats.paths` reads these.
NOT_PLAIN = re.compile(r"://|[?*\[]|^\w\w+:(?!:)")


def check_arguments(inputs: Iterable[str], options: Given) -> None:
    """Refuse options that exclude or need each other, and files that are missing."""
    given = [name for name in ("scheduler", "scheduler_file", "workers") if options.get(name)]
    if len(given) > 1:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise click.UsageError(f"{names} exclude each other", click.get_current_context())
    if options.get("restart") and not options.get("checkpoint"):
        raise click.UsageError("--restart needs --checkpoint", click.get_current_context())
    # distributed would wait for the file.
    file = options["scheduler_file"]
    if file and not Path(file).is_file():
        raise FileNotFoundError(f"there is no scheduler file {file}")
    if file and not _has_address(file):
        raise ValueError(f"{file} was not written by a scheduler of dask: it has no address")
    for name in IMAGES:
        if options.get(name) is not None:
            check_file(options[name], name)
    inputs = [*inputs]
    if options.get("follow"):
        check_followed(inputs, options)
        return
    for text in inputs:
        check_file(text, "file")


def _has_address(file: str) -> bool:
    """Whether a file tells the address of a scheduler."""
    try:
        content = json.loads(Path(file).read_bytes())
    except ValueError:
        return False
    return isinstance(content, dict) and isinstance(content.get("address"), str)


def check_followed(inputs: list[str], options: Given) -> None:
    """Refuse several inputs, which may not be there yet, and a number of images."""
    if len(inputs) > 1:
        raise click.UsageError(
            f"--follow takes one file, folder or pattern in quotes, got {len(inputs)} inputs",
            click.get_current_context(),
        )
    if options.get("chunks") is not None:
        context = click.get_current_context()
        raise click.UsageError("--chunks and --follow exclude each other", context)


def check_file(text: str, role: str) -> None:
    """Refuse the name of a file that is not there; any other fault is found when it is opened.

    >>> check_file("no_such.h5::/entry", "file")
    Traceback (most recent call last):
        ...
    FileNotFoundError: there is no file no_such.h5::/entry
    >>> check_file("no_such_*.h5", "file")
    >>> check_file("", "mask")
    Traceback (most recent call last):
        ...
    FileNotFoundError: the name of the mask is empty
    """
    if not text:
        raise FileNotFoundError(f"the name of the {role} is empty")
    path = Path(text.partition("::")[0])
    # An array in a zip file has a path that goes on behind that of the file.
    inside = any(parent.is_file() for parent in path.parents)
    if not (NOT_PLAIN.search(text) or path.exists() or inside):
        raise FileNotFoundError(f"there is no {role} {text}")


def check_statistics(statistics: Iterable[str | tuple]) -> None:
    """Refuse a name that no statistic has."""
    for statistic in statistics:
        check_statistic(statistic if isinstance(statistic, str) else statistic[0])
