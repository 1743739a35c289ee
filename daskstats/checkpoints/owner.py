"""One writer of a checkpoint: a process owns it, and others refuse to write.

Nothing is locked, so that it works on network file systems: everything relies on files that only
one process can make. The owner is the file with the highest number::

    owner-3     released
    owner-4     {"host": "node1", "pid": 4711, "began": 1763942917.25, "job": "8812"}

A process that finds the last owner gone makes the file with the next number. Of two that try, one
makes it, and the other one finds the owner alive. Old files are removed by the new owner.
"""

import json
import os
import re
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from .. import processes

NAME = re.compile(r"owner-([0-9]{1,18})")

# Seconds between two signs of life of an owner, and without any after which one of another machine
# counts as dead: clocks and caches of file servers differ by some seconds.
SIGN_OF_LIFE, SILENCE = 15.0, 120.0

# The variables in which schedulers of clusters tell a job its number.
JOBS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")


class CheckpointInUseError(RuntimeError):
    """Another process writes the checkpoint."""


class Owner(NamedTuple):
    """A process that owns a checkpoint."""

    process: processes.Process
    job: str
    """number of its job on a cluster; empty: none"""
    age: float
    """seconds since its last sign of life"""

    @property
    def alive(self) -> bool:
        """Whether it may live: that is known of this machine's processes only."""
        if processes.is_here(self.process.host):
            return not processes.has_ended(*self.process)
        return self.age < SILENCE

    def __str__(self) -> str:
        host, pid, _ = self.process
        job = f"job {self.job}, " if self.job else ""
        return f"{job}process {pid} on {host}, last sign of life {self.age:.0f} s ago"


class Ownership:
    """The right to write a checkpoint, from now until `release`.

    Parameters
    ----------
    directory : Path
        Of the checkpoint; made if it does not exist.

    Raises
    ------
    CheckpointInUseError
        If a process that may be alive has it; the message says which.
    FileExistsError
        If the directory is no checkpoint, and not empty.
    """

    def __init__(self, directory: Path) -> None:
        self._directory, self._pid = directory, os.getpid()
        directory.mkdir(parents=True, exist_ok=True)
        _check_no_others(directory)
        self._number = self._claim()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="daskstats-owner", daemon=True)
        try:
            self._thread.start()
        except BaseException:  # there are no more threads, or an interrupt
            self.release()
            raise

    def _claim(self) -> int:
        while True:
            number = last_number(self._directory)
            owner = owner_of(self._directory, number)
            if owner is not None and owner.alive:
                raise CheckpointInUseError(
                    f"{self._directory} is the checkpoint of another run ({owner}): wait until it "
                    f"has ended, or give another checkpoint"
                )
            if self._make(number + 1) and self._is_last(number + 1):
                for old in _numbers(self._directory):
                    if old <= number:
                        _path(self._directory, old).unlink(missing_ok=True)
                return number + 1

    def _make(self, number: int) -> bool:
        """Make the file with a number, whole at once; return whether this process did."""
        path, text = _path(self._directory, number), json.dumps(_this_owner())
        part = _temporary(path)
        try:
            part.write_text(text)
            os.link(part, path)
        except FileExistsError:
            return False
        except OSError:  # there are file systems without links, and full ones, where this fails too
            return _write_new(path, text)
        finally:
            part.unlink(missing_ok=True)
        return True

    def _is_last(self, number: int) -> bool:
        """Whether no process has a higher number; otherwise give the own one up."""
        is_last = last_number(self._directory) == number
        if not is_last:
            _path(self._directory, number).unlink(missing_ok=True)
        return is_last

    def check(self) -> None:
        """Raise an error if another process has taken the checkpoint over.

        Raises
        ------
        CheckpointInUseError
            It took this process for dead, which was stopped for minutes.
        """
        try:
            last = last_number(self._directory)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"the checkpoint {self._directory} was removed while a run was writing it"
            ) from None
        if last != self._number:
            owner = owner_of(self._directory, last)
            raise CheckpointInUseError(
                f"{self._directory} was taken over by another run ({owner}), because this one gave "
                f"no sign of life for {SILENCE:g} s"
            )

    @property
    def is_here(self) -> bool:
        """Whether this process made it, and is not a fork of that one."""
        return self._pid == os.getpid()

    def release(self) -> None:
        """Leave the checkpoint to others. Further calls, and those of a fork, do nothing."""
        if self._released.is_set() or not self.is_here:
            return
        self._released.set()
        path = _path(self._directory, self._number)
        part = _temporary(path)
        with suppress(OSError):  # the directory may be gone
            if last_number(self._directory) == self._number:
                # The file stays, without an owner: its number must not be used again.
                part.touch()
                part.replace(path)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _beat(self) -> None:
        path = _path(self._directory, self._number)
        while not self._released.wait(SIGN_OF_LIFE):
            with suppress(OSError):
                os.utime(path)


def _check_no_others(directory: Path) -> None:
    """Refuse a directory with files that are not of a checkpoint, which might be removed."""
    names = [path.name for path in directory.iterdir() if not path.name.startswith(".")]
    if names and not any(map(NAME.fullmatch, names)):
        raise FileExistsError(
            f"{directory} is no checkpoint, but has {len(names)} files or folders, {min(names)} "
            f"the first: give a new or an empty directory"
        )


def last_number(directory: Path) -> int:
    """Return the highest number of an owner, 0 if there was none."""
    return max(_numbers(directory), default=0)


def owner_of(directory: Path, number: int) -> Owner | None:
    """Return the owner with a number, None if it has released the checkpoint."""
    path = _path(directory, number)
    try:
        text, changed = path.read_text(), path.lstat().st_mtime
    except FileNotFoundError:
        return None
    try:
        fields = json.loads(text)
        process = processes.Process(str(fields["host"]), int(fields["pid"]), float(fields["began"]))
        return Owner(process, str(fields["job"]), max(0.0, _now(directory) - changed))
    except (ValueError, KeyError, TypeError):
        return None


def _numbers(directory: Path) -> list[int]:
    """Return the numbers of all owners with files."""
    found = (NAME.fullmatch(path.name) for path in directory.iterdir())
    return [int(match[1]) for match in found if match]


def _temporary(path: Path) -> Path:
    """Return a new name in the directory of a file."""
    return path.with_name(f".{path.name}-{uuid4().hex}")


def _path(directory: Path, number: int) -> Path:
    return directory / f"owner-{number}"


def _this_owner() -> dict[str, object]:
    job = next((os.environ[name] for name in JOBS if os.environ.get(name)), "")
    return {**processes.this_process()._asdict(), "job": job}


def _write_new(path: Path, text: str) -> bool:
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _now(directory: Path) -> float:
    """Return the time by the clock of the file server, which may differ from this machine's."""
    probe = directory / f".now-{uuid4().hex}"
    try:
        probe.touch()
        return probe.lstat().st_mtime
    except OSError:
        return time.time()
    finally:
        probe.unlink(missing_ok=True)
