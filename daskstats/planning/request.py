"""A request for a plan."""

from dataclasses import dataclass, replace

from .margins import payload, with_losses
from .values import Cost, Layout, MemoryLimitError, rounded_down, rounded_up


@dataclass(frozen=True)
class Request:
    """The facts that a plan depends on."""

    layout: Layout
    """of the series"""
    cost: Cost
    """of the statistic"""
    steps: int
    """number of intermediate images, 1 for the result alone"""
    workers: int
    """tasks that run at once, in each process of a cluster"""
    limit: int
    """bytes that the call may use, in each process of a cluster"""
    running: bool = False
    """whether intermediate images wait for a consumer"""
    stored: bool = False
    """whether states are stored on disk, with their images"""
    processes: int = 0
    """workers of a cluster; 0: this process alone"""

    def within(self, limit: int) -> "Request":
        """Return the request with another memory limit."""
        return replace(self, limit=limit)

    def in_pixels(self) -> "Request":
        """Return the request for bands that are parts of rows."""
        return replace(self, layout=self.layout.in_pixels())

    @property
    def payload(self) -> int:
        """Bytes of arrays that the limit allows."""
        return max(0, payload(self.limit) - self.layout.kept)

    @property
    def everyone(self) -> int:
        """Tasks that run at once, in all processes."""
        return self.workers * max(1, self.processes)

    @property
    def images(self) -> int:
        """Bytes of the finished rows and of images: one being made, one with the consumer."""
        images = 2 + self.running + self.stored
        return (self.cost.state + images * self.cost.image) * self.layout.rows * self.layout.cols

    @property
    def row(self) -> int:
        """Bytes of one row of all frames."""
        return -(-self.layout.nbytes // self.layout.rows)

    @property
    def temporaries(self) -> int:
        """Bytes of temporaries for a row."""
        return self.layout.cols * self.cost.temporaries

    @property
    def tiles(self) -> int:
        """Bytes of the tiles of all workers, and of their views of frames."""
        return self.workers * (self.cost.tile + self.layout.objects)

    def with_losses(self, needed: int) -> int:
        """Return the limit that allows arrays of ``needed`` bytes."""
        return with_losses(needed + self.layout.kept)

    def check_limit(self, needed: int, least: str) -> None:
        """Refuse, with the numbers, a request that does not fit even in the smallest blocks."""
        if self.with_losses(needed) > self.limit:
            raise self.refusal(self.with_losses(needed), least)

    def refusal(self, enough: int, least: str) -> MemoryLimitError:
        """Return the error that names a limit that is enough."""
        layout = self.layout
        return MemoryLimitError(
            f"{layout.nframes} frames of {layout.rows} x {layout.cols} need at least "
            f"{rounded_up(enough)} ({least} for each of {self.workers} workers, with its "
            f"results), but the memory limit is {rounded_down(self.limit)}: raise memory_limit or "
            f"use fewer workers"
        )
