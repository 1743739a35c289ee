"""The command ``warm``: it compiles the code that later calls need."""

import click

from ..warming import COMMON, DTYPES, cache_directories, warming
from .clusters import chosen_scheduler
from .options import Given
from .program import reported_errors


def print_warming(options: Given) -> None:
    """Compile, and print a line for each statistic and dtype, and the directory of the code."""
    with reported_errors(options["traceback"]) as stage:
        statistics: list = options["stats"] or list(COMMON)
        if options["aggregate"]:
            statistics = [*statistics, list(statistics)]
        with chosen_scheduler(options):
            called = warming(options["dtypes"] or DTYPES, statistics, invalid=options["invalid"])
            stage.compute()
            for name, seconds in called:
                click.echo(f"{name}: {f'{seconds:.1f} s' if seconds else 'already compiled'}")
            for directory in cache_directories():
                click.echo(f"compiled code is kept in {directory}")
