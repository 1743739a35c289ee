"""The command ``info``: a series and its plans; of its frames only the first is read."""

import json
import warnings
from pathlib import Path
from typing import Any

import click

from .. import config
from ..arguments import count_frames
from ..formats.addresses import is_url
from ..formats.files import open_files
from ..formats.headers import cutoffs
from ..formats.zarr_url import ZarrUrlSource
from ..run.scheduler import current_scheduler
from ..scratch import location
from ..series.base import DerivedSource, Source
from ..series.corrected import correct
from ..series.joined import JoinedSource
from ..series.missing import describe_missing
from ..series.selection import select
from .clusters import chosen_scheduler
from .computing import load_images, plan_reduction
from .first_frame import suspects, suspects_text
from .options import Given
from .program import reported_errors

Facts = dict[str, Any]
"""about a series, as in JSON"""


def print_info(names: tuple[str, ...], *, as_json: bool, **options: object) -> None:
    """Print the properties of a series, and its plans."""
    with reported_errors(bool(options["traceback"])), chosen_scheduler(options):
        facts = _facts(names, options)
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    for name, value in _texts(facts).items():
        click.echo(f"{name:10}  {value}")


def _facts(names: tuple[str, ...], options: Given) -> Facts:
    """Return everything about a series, in numbers where it is one; absent: None, or empty."""
    load_images(options)
    whole = open_files(names, opener=options["raw"])
    corrected = correct(whole, options["dark"], options["flip"])
    source = select(corrected, options["frames"], options["region"])
    # Values that stand for no count do so before a dark image is subtracted.
    raw = select(correct(whole, None, options["flip"]), options["frames"], options["region"])
    nframes = count_frames(options["nframes"], len(source))
    missing = describe_missing(source, nframes)
    without_data = source.frames_without_data()
    warnings.filterwarnings("ignore", ".* have no data")  # a line of its own says it
    rows, cols = source.shape
    limit = current_scheduler().limit(options["memory_limit"])
    return {
        **_describe_files(whole),
        "frames": nframes,
        "frames_of_all": len(whole),
        "shape": source.shape,
        "shape_of_all": corrected.shape,
        "dtype": str(source.dtype),
        "bytes": nframes * rows * cols * source.dtype.itemsize,
        "frames_without_data": int((without_data < nframes).sum()),
        "no_data": missing or None,
        "values": suspects(raw, limit, options["invalid"] or ()),
        "cutoffs": cutoffs(whole.files()[0]) if whole.files() else {},
        "scratch": _describe_scratch(),
        "frame_wise": _describe_plan(whole, "average", options),
        "row_wise": _describe_plan(whole, "median", options),
    }


def _describe_files(whole: Source) -> Facts:
    """Return the files of a series in their order, and how the first holds its frames.

    An address counts as a file.
    """
    parts = _parts(whole)
    files, first = [*dict.fromkeys(place for part in parts for place in _places(part))], parts[0]
    storage, reading = (getattr(first, f"{name}_text", str) for name in ("storage", "reading"))
    return {
        "files": len(files),
        "first_file": files[0],
        "last_file": files[-1],
        "bytes_on_disk": _disk_usage(files),
        "dataset": first.choice.text or None,
        "why": first.choice.why or None,
        "storage": storage() or None,
        "reading": reading() or None,
    }


def _parts(source: Source) -> list[Source]:
    """Return the series in each file, in their order."""
    if isinstance(source, DerivedSource):
        return _parts(source.source)
    if isinstance(source, JoinedSource):
        return [part for each in source.parts for part in _parts(each)]
    return [source]


def _places(part: Source) -> list[str]:
    """Return the files of a series, or its address."""
    return [part.address] if isinstance(part, ZarrUrlSource) else [*map(str, part.files())]


def _texts(facts: Facts) -> dict[str, object]:
    """Return the lines for people."""
    frames, total = facts["frames"], facts["frames_of_all"]
    shape, whole = (f"{rows} x {cols}" for rows, cols in (facts["shape"], facts["shape_of_all"]))
    stored = facts["bytes_on_disk"]
    size = f"{facts['bytes'] / 1e9:.3g} GB" + (f", {stored / 1e9:.3g} GB on disk" if stored else "")
    files = facts["first_file"]
    if facts["files"] > 1:
        files = f"{facts['files']}: {files} to {facts['last_file']}"
    lines = {
        "files": files,
        "dataset": facts["dataset"] and f"{facts['dataset']} ({facts['why']})",
        "storage": facts["storage"],
        "reading": facts["reading"],
        "frames": frames if frames == total else f"{frames} of {total}",
        "shape": shape if shape == whole else f"{shape} of {whole}",
        "dtype": facts["dtype"],
        "size": size,
        "no data": facts["no_data"],
        "values": suspects_text(facts["values"]),
        "cutoff": ", ".join(
            f"{name} {value:,}: --saturation {value}" for name, value in facts["cutoffs"].items()
        ),
    }
    plans = {name: facts[name.replace("-", "_")] for name in ("scratch", "frame-wise", "row-wise")}
    return {name: value for name, value in lines.items() if value} | plans


def _describe_plan(source: Source, statistic: str, options: Given) -> str:
    """Return the plan of a statistic, or the refusal."""
    try:
        reduction = plan_reduction(source, statistic, options)
        return f"{reduction.plan} ({len(reduction.plan.steps)} intermediate images)"
    except MemoryError as error:
        return f"refused: {error}"


def _describe_scratch() -> str:
    """Return the directory for frames that do not fit into memory, and its free space."""
    if current_scheduler().processes and config.scratch_directory() is None:
        return "on the disks of the workers"
    try:
        place = location.find_location()
    except NotADirectoryError as error:
        return str(error)
    remark = ", a RAM disk, which is not used" if place.in_memory else ""
    return f"{place.nbytes / 1e9:.3g} GB free in {place.directory}{remark}"


def _disk_usage(files: list[str]) -> int | None:
    """Return the bytes of files, and of all files of directories; None if one is elsewhere."""
    if any(map(is_url, files)):
        return None
    found = [path.rglob("*") if path.is_dir() else [path] for path in map(Path, files)]
    return sum(file.stat().st_size for files in found for file in files if file.is_file())
