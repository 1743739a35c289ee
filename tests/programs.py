"""The command line in this process and in others, signals to it, and the files that it leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psutil
from click.testing import CliRunner, Result

from daskstats.cli import commands

# A test may run where Ctrl-C is ignored (`nohup pytest &`); the program should not begin so. An
# exception must not go through `fork`, so that this is done by a program that becomes the other.
BEGIN = """
import json, os, signal, sys
for name, action in json.loads(sys.argv[1]).items():
    signal.signal(getattr(signal, name), getattr(signal, action))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""

HANDLED = dict.fromkeys(("SIGINT", "SIGHUP", "SIGTERM", "SIGUSR1"), "SIG_DFL")


def python(*args: Any, ignored: tuple[str, ...] = ()) -> list[str]:
    """Return the command for Python with signals that are handled, or ignored."""
    actions = HANDLED | dict.fromkeys(ignored, "SIG_IGN")
    begin = [sys.executable, "-c", BEGIN, json.dumps(actions)]
    return [*begin, *map(str, args)]


def daskstats(*args: Any, **options: Any) -> list[str]:
    """Return the command for the command line; options as of `python`."""
    return python("-m", "daskstats", *args, **options)


def run(*args: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(commands.main, [str(arg) for arg in args], prog_name="daskstats")


def check_error(result: Result, code: int, *words: str) -> None:
    """Check that there is one line on stderr with these words, and nothing else."""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("daskstats: error: ")
    for word in words:
        assert word in lines[0]
    assert result.exit_code == code
    assert result.stdout == ""


class Program:
    """The command line in a process group of its own, as a terminal runs it."""

    def __init__(self, place: Path, command: list[str], **settings: str) -> None:
        self.place, self.scratch = place, place / "scratch"
        self.scratch.mkdir(exist_ok=True)
        self._before = self._there()
        self.process = subprocess.Popen(
            command,
            cwd=place,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env=os.environ | {"DASK_DASKSTATS__SCRATCH_DIRECTORY": str(self.scratch)} | settings,
        )
        self.first: list[str] = []

    def wait_for(self, due: Callable[[], object], timeout: float = 60) -> None:
        """Wait for a condition, and return earlier if the program has ended."""
        deadline = time.monotonic() + timeout
        while not due() and self.process.poll() is None:
            assert time.monotonic() < deadline, "the condition was not met in time"
            time.sleep(0.005)

    def wait_for_line(self, start: str) -> None:
        """Wait for a line on stderr."""
        assert self.process.stderr is not None
        while not self.first or not self.first[-1].startswith(start):
            line = self.process.stderr.readline()
            assert line, self.first
            self.first.append(line)

    def wait_until_watched(self) -> None:
        """Wait until it handles signals, in a thread of its own."""
        self.wait_for(lambda: psutil.Process(self.process.pid).num_threads() > 1)

    def is_writing(self) -> bool:
        """Whether there is a temporary output with something in it."""
        return any(_size(path) for path in self.place.glob(".daskstats-*"))

    def is_spooling(self) -> bool:
        """Whether there are chunks of scratch data."""
        return any(self.scratch.glob("daskstats-scratch-*/c/*/*/*"))

    def family(self) -> list[psutil.Process]:
        """Return the processes that it has started, directly or not."""
        if self.process.poll() is not None:
            return []
        return psutil.Process(self.process.pid).children(recursive=True)

    def send(self, number: signal.Signals, group: bool = True) -> None:
        (os.killpg if group else os.kill)(self.process.pid, number)

    def ended(self, timeout: float = 30) -> tuple[int, list[str]]:
        """Return the exit code and the lines on stderr; nothing else may be left."""
        family = self.family()
        _, errors = self.process.communicate(timeout=timeout)
        _, alive = psutil.wait_procs(family, timeout=5)
        assert alive == []
        assert sorted(self._there() - self._before) == []
        return self.process.returncode, "".join([*self.first, errors]).splitlines()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _there(self) -> set[str]:
        return {path.name for place in (self.place, self.scratch) for path in place.iterdir()}


def _size(path: Path) -> int:
    try:
        inside = path.rglob("*") if path.is_dir() else [path]
        return sum(file.stat().st_size for file in inside)
    except OSError:
        return 0


@contextmanager
def started(place: Path, command: list[str], **settings: str) -> Iterator[Program]:
    """Give a program, in an environment with settings, and end it in any case."""
    program = Program(place, command, **settings)
    try:
        yield program
    finally:
        for child in program.family():
            child.kill()
        program.kill()


def running(
    place: Path, *args: Any, ignored: tuple[str, ...] = (), **settings: str
) -> AbstractContextManager[Program]:
    """Give the command line with arguments; options as of `python` and `started`."""
    return started(place, daskstats(*args, ignored=ignored), **settings)
