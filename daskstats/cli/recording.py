"""Notes on the images of a command: from its arguments, and the series that it has opened."""

from inspect import signature

from ..arguments import count_frames, frames_text
from ..formats.notes import Facts, Notes, Text
from ..names import IMAGES
from ..run.progress import Snapshot
from ..series.base import Source
from ..statistics import STATISTICS
from ..statistics.naming import named
from ..texts import shown
from .options import Given

# Options that are noted as they were given, if they were.
NOTED = ("invalid", "saturation", "skipna", "fill_value", "flip")


def notes_on(
    series: Source, statistic: object, options: Given, shape: tuple[int, int]
) -> Notes | None:
    """Return the notes on the images of a statistic, or of a list of them; None if not wanted.

    Parameters
    ----------
    series : Source
        The whole series.
    statistic
        As of `reduction.reduce`.
    options : dict
        As they were given, images as their origins.
    shape : tuple of int
        Rows and columns of an image, which are those of the region.
    """
    if options.get("no_notes"):
        return None
    given = statistic if isinstance(statistic, list) else [statistic]
    names, _ = named(statistic)
    return Notes(
        images=dict(zip(names, map(_statistic, given), strict=True)),
        common=_common(series, options, shape),
    )


def notes_on_progress(shot: Snapshot) -> Notes:
    """Return the notes on the images of a run that may not be at its end."""
    return Notes(
        images={name: {"statistic": name} for name in shot.images},
        common={"progress": f"{shot.done} of {shot.total} {shot.unit}"},
    )


def _statistic(given: str | tuple) -> Facts:
    """Return the name and the parameters of a statistic.

    >>> _statistic(("clipped_average", 3, None))
    {'statistic': 'clipped_average', 'parameters': 'sigma=3 maxiters=none'}
    >>> _statistic("clipped_average")
    {'statistic': 'clipped_average', 'parameters': 'sigma=3 maxiters=5'}
    """
    name, *values = [given] if isinstance(given, str) else given
    makes = STATISTICS[name]
    if not callable(makes):
        return {"statistic": name}
    bound = signature(makes).bind(*values)
    bound.apply_defaults()
    pairs = zip(bound.arguments, bound.args, strict=False)  # no keywords, which are names
    return {"statistic": name, "parameters": " ".join(f"{key}={_text(v)}" for key, v in pairs)}


def _common(series: Source, options: Given, shape: tuple[int, int]) -> Facts:
    """Return the notes that all images of a call share."""
    used = range(len(series))[options["frames"] or slice(None)]
    used = used[: count_frames(options["nframes"], len(used))]
    rows, cols = options["region"] or [(0, length) for length in shape]
    facts: dict[str, Text] = {
        "frames": frames_text(used),
        "region": ",".join(f"{first}:{end}" for first, end in (rows, cols)),
    }
    facts |= {key: options[key] for key in IMAGES if options.get(key) is not None}
    facts |= {key: _text(options[key]) for key in NOTED if _is_given(options.get(key))}
    if options["raw"] is not None:
        facts["raw"] = options["raw"].description
    origins = series.origins()
    facts["sources"] = tuple(f"{place}, frames {frames_text(f)}" for place, f in origins)
    return facts


def _is_given(value: object) -> bool:
    """Whether an option has a value: 0 is one."""
    return value is not None and value is not False


def _text(value: object) -> str:
    """Return the value of an option as it is typed.

    >>> _text([65535, 1e6]), _text(True), _text(None)
    ('65535,1000000.0', 'yes', 'none')
    """
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return value if isinstance(value, str) else shown(value)
