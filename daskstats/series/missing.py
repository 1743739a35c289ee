"""Frames for which nothing was written: how many, and how to leave them out."""

import numpy as np

from ..arguments import runs, warn
from .base import Source


def warn_about_missing(source: Source, nframes: int | None = None) -> None:
    """Warn that some of the first ``nframes`` frames of a series have no data."""
    text = describe_missing(source, nframes)
    if text:
        warn(text)


def describe_missing(source: Source, nframes: int | None = None) -> str:
    """Return how many of the first ``nframes`` frames have no data, and how to leave them out.

    The text is empty if all frames have data.
    """
    total = len(source) if nframes is None else nframes
    missing = source.frames_without_data()
    missing = missing[missing < total]
    if not missing.size:
        return ""
    files = source.files()
    where = f" in {files[0]}" if files else ""
    return (
        f"{missing.size} of {total} frames have no data{where} and count as the fill value "
        f"({_spans_text(missing)}): {_way_out(missing, total)}"
    )


def _way_out(missing: np.ndarray, total: int) -> str:
    """Return how to leave frames out: as a slice where the others follow one another."""
    kept = np.setdiff1d(np.arange(total), missing)
    if not kept.size:
        return "there is nothing else"
    first, end = int(kept[0]), int(kept[-1]) + 1
    if kept.size < end - first:
        return "leave them out with frames=[...], the indices of the others"
    if first == 0:
        return f"leave them out with nframes={end} (--nframes {end})"
    return f"leave them out with frames=slice({first}, {end}) (--frames {first}:{end})"


def _spans_text(indices: np.ndarray, most: int = 5) -> str:
    """Return indices for people.

    >>> _spans_text(np.array([3, 4, 5, 9]))
    'frames 3 to 5, 9'
    """
    spans = list(runs(indices))
    texts = [f"{a}" if b - a == 1 else f"{a} to {b - 1}" for a, b in spans[:most]]
    return f"frames {', '.join(texts)}" + (", ..." if len(spans) > most else "")
