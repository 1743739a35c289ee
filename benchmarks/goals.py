"""Goals of the comparison: how many times as fast as its peers daskstats is to be."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from peers.base import STEPS

Key = tuple[str, str, str]
"""Series, statistic and peer."""


class Measured(Protocol):
    """A row of the comparison."""

    peak: int | None

    @property
    def speed(self) -> float | None: ...


@dataclass(frozen=True)
class Goal:
    """A ratio of two speeds that is to be reached."""

    text: str
    target: float
    ours: Key
    theirs: Key

    def line(self, speeds: Mapping[Key, float | None]) -> list[Any]:
        ours, theirs = speeds.get(self.ours), speeds.get(self.theirs)
        if not ours or not theirs:
            return [self.text, "not measured", f"at least {self.target:g}", "-"]
        verdict = "met" if ours / theirs >= self.target else "missed"
        return [self.text, ours / theirs, f"at least {self.target:g}", verdict]


def goals() -> Iterator[Goal]:
    """Yield the goals that are ratios of speeds, on uint16 in memory unless they say otherwise."""

    def goal(
        target: float, statistic: str, peer: str, theirs: str = "", series: str = "uint16"
    ) -> Goal:
        other = theirs or statistic
        where = "" if series == "uint16" else f" ({series})"
        text = f"{statistic}{where} / {peer}" + (f" {other}" if other != statistic else "")
        ours = (series, statistic, "daskstats")
        return Goal(text, target, ours, (series, other, peer))

    for statistic in ("median", "percentile"):
        yield goal(50, statistic, "numpy", "percentile")
        yield goal(15, statistic, "dask.array", "median")
        yield goal(60, statistic, "HEXRD loops", "median")
    for series in ("uint32", "int32", "float32", "uint32 spread"):
        yield goal(15, "median", "numpy", "percentile", series)
        yield goal(15, "percentile", "numpy", "percentile", series)
    for statistic in ("average", "sum"):
        yield goal(2.5, statistic, "HEXRD loops", "average")
        yield goal(6, statistic, "dask.array", "average")
    yield goal(12, "std", "dask.array")
    yield goal(12, "std", "numpy")
    yield goal(15, "std", "LiberTEM")
    for statistic in ("max", "min"):
        yield goal(1.5, statistic, "HEXRD loops")
        yield goal(2, statistic, "dask.array")
        yield goal(0.5, statistic, "read limit")


def reached(found: Mapping[Key, Measured], shape: Sequence[int]) -> Iterator[list[Any]]:
    """Yield the lines of the table of goals."""
    speeds = {key: row.speed for key, row in found.items()}
    for goal in goals():
        yield goal.line(speeds)
    steps = (
        ("uint16", "median_iter", "daskstats"),
        ("uint16", "median_iter", "daskstats, plain call"),
    )
    yield at_most(f"median_iter in {STEPS} steps / median, time", 1.1, speeds, *steps)
    for series in ("zarr zstd", "HDF5 gzip"):
        pair = (series, "average", "daskstats"), (series, "average", "decode only")
        yield at_most(f"average of {series} / decode only, time", 1.15, speeds, *pair)
    row = found.get(("uint16", "median", "daskstats"))
    allowed = shape[1] * shape[2] * 4 + (64 << 20)
    value = row.peak / allowed if row and row.peak is not None else None
    yield judged("peak memory of median, without its input, / (output + 64 MB)", value, 1.0)


def at_most(
    text: str, target: float, speeds: Mapping[Key, float | None], ours: Key, theirs: Key
) -> list[Any]:
    fast, slow = speeds.get(theirs), speeds.get(ours)
    return judged(text, fast / slow if fast and slow else None, target)


def judged(text: str, value: float | None, target: float) -> list[Any]:
    verdict = "-" if value is None else "met" if value <= target else "missed"
    return [text, "not measured" if value is None else value, f"at most {target:g}", verdict]
