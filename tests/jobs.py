"""A job that stores its state, in a process of its own that may be killed."""

import multiprocessing
import os
from collections import Counter
from pathlib import Path
from typing import Any

import dask
import numpy as np
from fakes import FakeSeries, Ramp
from forking import start_method

import daskstats as stats

# Frames of a job, and its steps.
NFRAMES, STEPS = 120, 12


def series(log: Path | None = None, delay: float = 0) -> FakeSeries:
    return FakeSeries(Ramp((16, 24)), NFRAMES, log=log, delay=delay)


def expected(name: str) -> np.ndarray:
    """Return the image of a job that was not killed."""
    image: np.ndarray = getattr(stats, name)(series()).compute()
    return image


def work(place: Path, name: str, delay: float, interval: float, tell: Any) -> None:
    """Compute the image of a statistic, step by step, and save it."""
    iterate = getattr(stats, f"{name}_iter")
    frames = series(place / "reads.log", delay)
    with dask.config.set({"daskstats.checkpoint-interval": interval, "num_workers": 2}):
        image = np.zeros(0)
        for image in iterate(frames, STEPS, checkpoint=place / "checkpoint"):
            tell(image.shape)
        np.save(place / "image.npy", image)


def _target(connection: Any, *arguments: Any) -> None:
    work(*arguments, connection.send)


class Job:
    """A job in a process: ``with`` kills it if it has not ended."""

    def __init__(self, place: Path, name: str, delay: float = 0.002, interval: float = 0) -> None:
        place.mkdir(exist_ok=True)
        self.place = place
        self._steps, told = multiprocessing.Pipe(duplex=False)
        context: Any = multiprocessing.get_context(start_method())
        self.process = context.Process(target=_target, args=(told, place, name, delay, interval))
        self.process.start()
        told.close()

    def wait_for_step(self) -> bool:
        """Wait for the next step; return whether there was one."""
        try:
            self._steps.recv()
        except EOFError:
            return False
        return True

    def send(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def finish(self) -> tuple[int, np.ndarray]:
        """Wait for its end; return the number of its steps, and its image."""
        count = 0
        while self.wait_for_step():
            count += 1
        self.process.join()
        assert self.process.exitcode == 0
        return count, np.load(self.place / "image.npy")

    def reads(self) -> Counter[int]:
        """Return how often each frame has been read, by all jobs in the directory."""
        return Counter(map(int, (self.place / "reads.log").read_text().split()))

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.join()
        self._steps.close()
        self.process.close()
