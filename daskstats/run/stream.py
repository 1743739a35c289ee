"""Intermediate images in order: an iterator over the progress of a running reduction."""

import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TypeVar

from ..ending import LIMIT
from ..memory.reservation import MemoryReservation
from ..planning.values import MemoryLimitError
from ..reprs import table
from .checkpoint import Checkpoint
from .progress import Progress
from .runner import Runner, Stopped
from .scheduler import Execution

T = TypeVar("T")

logger = logging.getLogger("daskstats")


class Stream(Iterator[T]):
    """Sized iterator over intermediate images; also a context manager.

    ``len(stream)`` is the number of all images, so that progress bars know the total. The tasks
    start at the first `next`. They end with the last image, with `close`, with the ``with`` block,
    when the iterator is deleted, or when a task fails. Several threads may call `next`: each image
    goes to one of them.
    """

    def __init__(
        self,
        execution: Execution,
        progress: Progress,
        view: Callable[[Progress], T],
        length: int,
        reservation: MemoryReservation,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self._execution, self._reservation = execution, reservation
        self._checkpoint = checkpoint
        self.progress = progress
        """the state so far"""
        self.on_wait: Callable[[], object] | None = None
        """called several times a second, by `next`, while it waits"""
        self._view, self._length = view, length
        self._runner: Runner | None = None
        self._closed = False
        self._lock = threading.Lock()
        # The runner is put in before it starts: an interrupt may come at any moment.
        self._runners: list[Runner] = []
        ended = self._runners, execution, reservation, checkpoint
        self._finalizer = weakref.finalize(self, _leave, *ended)

    def __len__(self) -> int:
        return self._length

    @property
    def bar(self) -> tuple[int, int]:
        """How far the run is, of how much, for progress bars: images, those of reading included."""
        return self.progress.step + 1, self._length

    def __repr__(self) -> str:
        name, *facts = self._facts().values()
        return f"<Stream of {name} of {', '.join(facts)}>"

    def _repr_html_(self) -> str:
        """Return a table for notebooks."""
        return table("Stream", self._facts().items())

    def _facts(self) -> dict[str, str]:
        progress = self.progress
        return {
            "statistic": progress.statistic,
            "series": progress.series,
            "images": f"{progress.step + 1} of {self._length} images",
            "done": f"{progress.done} of {progress.total} {progress.unit}",
            "phase": self.phase,
        }

    def __next__(self) -> T:
        with self._lock:
            if self._closed or self.progress.step + 1 == self._length:
                self.close()
                raise StopIteration
            try:
                with self._reservation.consuming():
                    item = self._next()
            except BaseException as error:
                # Another thread that closes the iterator ends the wait for an image.
                over = self._closed and isinstance(error, Exception)
                self._close_after(error)
                if over:
                    raise StopIteration from None
                if isinstance(error, StopIteration):  # the images would seem to be all
                    raise RuntimeError("a task raised StopIteration") from error
                raise
            if self.progress.step + 1 == self._length:
                self.close()
            return item

    def _next(self) -> T:
        runner = self._runner
        if runner is None:
            runner = self._start()
        runner.on_wait, phase = self.on_wait, self.progress.next_phase
        try:
            self.progress.advance(runner.next())
        finally:
            runner.on_wait = None  # it may refer to this stream
        if self._checkpoint is not None:
            self._checkpoint.note(self.progress)
        if self.progress.next_phase != phase:
            self._log_phase()
        return self._view(self.progress)

    def _start(self) -> Runner:
        try:
            self._reservation.begin(self.on_wait)
        except MemoryError as error:
            raise MemoryLimitError(str(error)) from None
        self._log_phase()
        runner = self._execution.make_runner()
        self._runners.append(runner)
        if self._closed:  # by another thread, while this one waited for memory
            raise Stopped
        runner.start()
        self._runner = runner
        return runner

    def _log_phase(self) -> None:
        activity = {"read": "reading all frames", "compute": "computing"}
        logger.info("%s: %s", self.progress.statistic, activity[self.progress.next_phase])

    @property
    def phase(self) -> str:
        """The activity of the run now, which any thread may ask for.

        "wait" (for its start, or for memory of other calls), "compile", "read" (all frames are
        read before the first row is reduced), "compute", or "end".
        """
        runner = self._runner
        if self._closed:
            return "end"
        if runner is None:
            return "wait"
        return "compile" if runner.compiling() else self.progress.next_phase

    def close(self) -> None:
        """Stop the tasks, and release their memory and scratch data. Further calls do nothing."""
        self._closed = True
        left = self._finalizer.detach()
        if left is not None:
            _, _, ended, _ = left
            _end(*ended)
        self._runner = None

    def leave(self) -> None:
        """Close it as if it were deleted: this thread may hold a lock that a task waits for."""
        self._closed = True
        self._finalizer()
        self._runner = None

    def _close_after(self, error: BaseException) -> None:
        """Close after an error, which another one of closing must not replace."""
        try:
            self.close()
        except Exception as fault:
            error.add_note(f"then the run was not closed: {fault}")

    def __enter__(self) -> "Stream[T]":
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            self.close()
        else:
            self._close_after(error)


def _leave(
    runners: list[Runner],
    execution: Execution,
    reservation: MemoryReservation,
    checkpoint: Checkpoint | None,
) -> None:
    """End a run when its stream is deleted, in a thread of its own, for which this one may wait.

    The garbage collector may delete it in any thread, between any two steps of a program: also
    where the thread holds a lock, such as that of h5py, that a running task needs.
    """
    reservation.leave()

    def end() -> None:
        try:
            _end(runners, execution, reservation, checkpoint)
        except Exception as error:
            logger.warning("the run of a deleted iterator was not closed: %s", error)

    thread = threading.Thread(target=end, name="daskstats-leaving", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # at exit
        end()
    else:
        thread.join(LIMIT / 2)


def _end(
    runners: list[Runner],
    execution: Execution,
    reservation: MemoryReservation,
    checkpoint: Checkpoint | None,
) -> None:
    """Stop the tasks, if they have started, store the state, and release all resources."""
    with ExitStack() as stack:  # in the reverse order, each of them also after an error
        stack.callback(reservation.release)
        stack.callback(execution.tasks.release)
        if checkpoint is not None:
            stack.callback(checkpoint.end)
        stack.callback(runners.clear)
        for runner in runners:
            stack.callback(runner.stop)
