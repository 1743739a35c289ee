"""How the program ends on a signal: its processes end, and no partial output stays on disk.

A dedicated thread waits for signals and ends the program: an exception raised in the main thread
may be lost in a callback, or delayed where that thread runs compiled code. Only the command line
does so; other programs handle their own signals, and `at_end` and `writing` have no effect.
"""

import atexit
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# Signals that end the program: from the terminal, and from schedulers at the end of the wall time.
CAUGHT = ("SIGINT", "SIGHUP", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGXCPU")

# Signals that a terminal sends to every process of a group: children leave them to the program.
FROM_TERMINAL = ("SIGINT", "SIGHUP")

# Longest waits, in seconds: for a write or for processes to finish, and for everything together.
FINISHING, LIMIT = 1.0, 10.0

# Seconds in which a signal reaches all processes of a group.
GROUP = 0.5

writing = threading.RLock()
"""held briefly while a temporary file is written; no write begins once the program is ending"""

_cleaners: list[Callable[[], object]] = []
_closers: list[Callable[[], object]] = []
_ended = threading.Event()
_watching = _shielding = False
_in_order = 0
"""calls of `exit_in_order` that have not ended"""


def is_program() -> bool:
    """Return whether the package is being imported by its own command line."""
    flags = getattr(sys, "orig_argv", [])
    if "-m" in flags and flags[flags.index("-m") + 1 :][:1] == ["daskstats"]:
        return True
    # A process that multiprocessing starts has no file yet when it imports the package.
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    return main is not None and Path(main).stem == "daskstats"


def at_end(function: Callable[[], object]) -> Callable[[], object]:
    """Have a function called when a signal ends the program, in another thread."""
    _cleaners.append(function)
    return function


def before_exit(function: Callable[[], object]) -> Callable[[], object]:
    """Have a function called when the interpreter ends, while threads may still be started.

    Functions of `atexit` are called after the executors of Python have ended, which zarr needs.
    """
    # The last function registered is called first: the one that ends executors has to be there.
    importlib.import_module("concurrent.futures.thread")
    register = getattr(threading, "_register_atexit", atexit.register)
    register(function)
    return function


@contextmanager
def closing(function: Callable[[], object]) -> Iterator[None]:
    """Have a function called if a signal ends the program inside, before processes are ended."""
    _closers.append(function)
    try:
        yield
    finally:
        _closers.remove(function)


def watch() -> None:
    """End the program on a signal from now on; ignored signals stay ignored (``nohup``)."""
    global _watching
    # Elsewhere Ctrl-C raises KeyboardInterrupt.
    if _watching or not hasattr(signal, "pthread_sigmask"):
        return
    _watching = True
    caught = {n for n in _numbers() if signal.getsignal(n) is not signal.SIG_IGN}
    reading, told = os.pipe()
    os.set_blocking(told, False)
    for number in caught:
        signal.signal(number, _leave_to_the_thread)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    arguments = reading, caught
    threading.Thread(target=_wait, args=arguments, name="daskstats-ending", daemon=True).start()
    _block()


def _numbers() -> list[int]:
    """Return the signals of `CAUGHT` that this system has."""
    return [getattr(signal, name) for name in CAUGHT if hasattr(signal, name)]


def _block() -> None:
    """Leave the terminal's signals to the other thread, in this thread and in those it starts."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {getattr(signal, name) for name in FROM_TERMINAL})


@contextmanager
def exit_in_order() -> Iterator[None]:
    """Let signals that would kill a program of others raise `SystemExit` in its main thread.

    Signals that the program handles or ignores are left to it, and so is Ctrl-C.
    """
    global _in_order
    elsewhere = _watching or threading.current_thread() is not threading.main_thread()
    for number in () if elsewhere else _numbers():
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _raise_exit)
    _in_order += 1
    try:
        yield
    finally:
        _in_order -= 1
        _leave_order()


def _leave_order() -> None:
    """Give the signals back, if nothing else needs them."""
    if _in_order or threading.current_thread() is not threading.main_thread():
        return
    for number in _numbers():
        if signal.getsignal(number) is _raise_exit:
            signal.signal(number, signal.SIG_DFL)


def _raise_exit(number: int, frame: object) -> None:
    if _in_order:
        raise SystemExit(exit_code(number))
    # The last call has ended in another thread, which could not give the signals back.
    _leave_order()
    os.kill(os.getpid(), number)


def shield_children() -> None:
    """Keep the terminal's signals from processes that are started from now on."""
    global _shielding
    if not _watching:
        return
    _shielding = True
    tracker = importlib.import_module("multiprocessing.resource_tracker")
    with writing:
        # It removes the semaphores of processes that are ended here, and would print warnings.
        stderr = _silence()
        try:
            tracker.ensure_running()
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    # Starting it has let the signals through in this thread.
    _block()


def hold(seconds: float = 0) -> None:
    """Wait forever if a signal is ending the program, or comes within some seconds."""
    if _ended.wait(seconds):
        threading.Event().wait()


def hold_failure() -> None:
    """Do as `hold`, before an error is reported that the end of other processes may have caused.

    A signal to all processes of a group may reach others first.
    """
    hold(GROUP if _shielding else 0)


def exit_code(number: int) -> int:
    """Return the exit code of a program that a signal has ended, as in a shell.

    >>> exit_code(15)
    143
    """
    return 128 + number


def _leave_to_the_thread(number: int, frame: Any) -> None:
    """Do nothing: the number has been written into the pipe."""


def _wait(reading: int, caught: set[int]) -> None:
    number = 0
    while number not in caught:
        number = os.read(reading, 1)[0]
    _end(number)


def _end(number: int) -> None:
    """Clean up, say one line, and end the process."""
    _ended.set()
    writing.acquire(timeout=FINISHING)
    # Threads stop in the middle of their work, and would report errors.
    stderr = _silence()
    try:
        late = threading.Timer(LIMIT, _exit, (number, stderr))
        late.daemon = True
        late.start()
        _call([*_cleaners, _end_children, *_closers])
    finally:
        _exit(number, stderr)


def _call(functions: list[Callable[[], object]]) -> None:
    """Call functions, the last one first, even if some of them fail."""
    for function in reversed(functions):
        with suppress(Exception):
            function()


def _silence() -> int:
    """Discard everything written to stderr from now on; return a copy of its descriptor."""
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        stderr = os.dup(2)
    except OSError:  # it is closed
        stderr = os.dup(null)
    os.dup2(null, 2)
    os.close(null)
    return stderr


def _end_children() -> None:
    """End all processes that this one has started, and their descendants."""
    if "psutil" not in sys.modules:
        return  # every module that starts processes imports it
    import psutil

    children = [
        child for child in psutil.Process().children(recursive=True) if not _is_tracker(child)
    ]
    for child in children:
        with suppress(psutil.Error):
            child.terminate()
    _, alive = psutil.wait_procs(children, timeout=FINISHING)
    for child in alive:
        with suppress(psutil.Error):
            child.kill()
    psutil.wait_procs(alive, timeout=FINISHING)


def _is_tracker(child: Any) -> bool:
    """Whether a process is the resource tracker of multiprocessing, which ends by itself."""
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    return tracker is not None and child.pid == getattr(tracker._resource_tracker, "_pid", None)


def _exit(number: int, stderr: int) -> None:
    name = signal.Signals(number).name
    line = "interrupted" if name == "SIGINT" else f"terminated by {name}"
    with suppress(OSError):
        # A progress bar hides the cursor, and does not end in a line feed.
        start = "\n\033[?25h" if os.isatty(stderr) else ""
        os.write(stderr, f"{start}daskstats: {line}\n".encode())
    os._exit(exit_code(number))


if is_program():
    # The imports that follow take long enough for a signal to come.
    watch()
