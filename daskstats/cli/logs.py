"""The log of the package on stderr, for --verbose."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def logged(level: int) -> Iterator[None]:
    """Write the log of the package to stderr, from a level of `logging` on."""
    logger, handler = logging.getLogger("daskstats"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("daskstats: %(message)s"))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
