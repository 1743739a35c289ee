"""The command ``info``: a series and its plans, without reading frames."""

import warnings
from pathlib import Path

import click

from .. import config
from ..arguments import count_frames
from ..formats.files import open_files
from ..run.scheduler import current_scheduler
from ..scratch import location
from ..series.base import Source, describe_missing
from ..series.corrected import correct
from ..series.selection import select
from .clusters import chosen_scheduler
from .computing import load_images, plan_reduction
from .options import Given
from .program import reported_errors


def print_info(*, input: tuple[str, ...], **options: object) -> None:  # noqa: A002
    """Print the properties of a series, and its plans."""
    with reported_errors(bool(options["traceback"])), chosen_scheduler(options):
        facts = _facts(input, options)
    for name, value in facts.items():
        click.echo(f"{name:10}  {value}")


def _facts(names: tuple[str, ...], options: Given) -> dict[str, object]:
    load_images(options)
    whole = open_files(names)
    shown = correct(whole, options["dark"], options["flip"])
    source = select(shown, options["frames"], options["region"])
    rows, cols = source.shape
    nframes = count_frames(options["nframes"], len(source))
    nbytes = nframes * rows * cols * source.dtype.itemsize
    missing = describe_missing(source, nframes)
    warnings.filterwarnings("ignore", ".* have no data")  # a line of its own says it
    shape = f"{rows} x {cols}"
    if source.shape != shown.shape:
        shape += f" of {shown.shape[0]} x {shown.shape[1]}"
    return {
        "frames": f"{nframes} of {len(whole)}" if nframes < len(whole) else nframes,
        "shape": shape,
        "dtype": source.dtype,
        "size": f"{nbytes / 1e9:.3g} GB, {_disk_usage(whole.files()) / 1e9:.3g} GB on disk",
        **({"no data": missing} if missing else {}),
        "scratch": _describe_scratch(),
        "frame-wise": _describe_plan(whole, "average", options),
        "row-wise": _describe_plan(whole, "median", options),
    }


def _describe_plan(source: Source, statistic: str, options: Given) -> str:
    """Return the plan of a statistic, or the refusal."""
    try:
        reduction = plan_reduction(source, statistic, options)
        return f"{reduction.plan} ({len(reduction.plan.steps)} intermediate images)"
    except MemoryError as error:
        return f"refused: {error}"


def _describe_scratch() -> str:
    """Return the directory for frames that do not fit into memory, and its free space."""
    if current_scheduler().needs_shared_directory and config.scratch_directory() is None:
        return "on the disks of the workers"
    try:
        place = location.find_location()
    except NotADirectoryError as error:
        return str(error)
    remark = ", a RAM disk, which is not used" if place.in_memory else ""
    return f"{place.nbytes / 1e9:.3g} GB free in {place.directory}{remark}"


def _disk_usage(paths: tuple[Path, ...]) -> int:
    """Return the bytes of files, and of all files of directories."""
    found = [path.rglob("*") if path.is_dir() else [path] for path in paths]
    return sum(file.stat().st_size for files in found for file in files if file.is_file())
