"""The program ``daskstats``: the command line, and how it ends on a signal."""

from .. import ending


def main() -> None:
    """Run the command line with the arguments of the process."""
    ending.watch()
    from .commands import main

    try:
        main(prog_name="daskstats")
    finally:
        # If a signal has come, the exit code is its.
        ending.hold()
