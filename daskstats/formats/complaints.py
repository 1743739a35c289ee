"""Messages that libraries log where they should raise an error."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Collector(logging.Handler):
    """Keeps the texts of the errors that are logged in the thread that made it."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread and record.levelno >= logging.ERROR:
            self.errors.append(record.getMessage())


@contextmanager
def collected(name: str) -> Iterator[list[str]]:
    """Give the list of errors that a library logs in this thread.

    Its messages are not printed meanwhile, unless the program has set up logging.

    Parameters
    ----------
    name : str
        Of the logger of the library.

    Examples
    --------
    >>> with collected("fabio") as errors:
    ...     logging.getLogger("fabio.edfimage").error("Data stream is incomplete")
    >>> errors
    ['Data stream is incomplete']
    """
    logger, collector = logging.getLogger(name), Collector()
    logger.addHandler(collector)
    try:
        yield collector.errors
    finally:
        logger.removeHandler(collector)
