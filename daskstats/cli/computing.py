"""One computation of the program: its plan, its progress bar, its output, its closing line."""

import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from ..formats import inputs, outputs
from ..formats.files import open_files
from ..formats.notes import Notes
from ..notebook import Look, Watched
from ..planning.steps import STEPS, AtMost
from ..reduction import Reduction, reduce
from ..run.progress import Progress
from ..series.base import Source
from ..statistics.naming import named
from ..status import Status
from ..views import HiddenView, LogView, TerminalView, View
from .clusters import chosen_scheduler
from .options import SELECTION, Given, files_of
from .program import reported_errors
from .recording import notes_on

# The functions that read the images that options name.
READERS: dict[str, Callable[[str], np.ndarray]] = {
    "mask": inputs.read_mask,
    "dark": partial(inputs.read_image, role="dark"),
}


class Output(NamedTuple):
    """An output of a command."""

    path: str
    check: Callable[[list[str]], object]
    """refuses the path, also if it is one of these inputs"""
    save: Callable
    """writes an image, or a dict of images, with notes on them"""


def write_image(
    name: str,
    statistic: str | tuple,
    ndim: int,
    inputs: tuple[str, ...],
    output: str,
    options: Given,
) -> None:
    """Compute one statistic and write its image, which has two or three dimensions."""
    force = bool(options["force"])
    target = Output(
        output,
        check=lambda inputs: outputs.check_output(output, inputs, force, ndim=ndim),
        save=lambda image, notes: outputs.save(image, output, force, notes),
    )
    write_result(name, statistic, inputs, target, options)


def write_images(
    statistics: list, inputs: tuple[str, ...], output: str, form: str | None, options: Given
) -> None:
    """Compute several statistics in one pass and write their images."""
    force = bool(options["force"])

    def check(inputs: list[str]) -> None:
        keys, members = named(statistics)
        planes = [member.planes for member in members]
        ndims = {key: 2 if n is None else 3 for key, n in zip(keys, planes, strict=True)}
        outputs.check_outputs(output, ndims, inputs, force, form)

    def save(images: dict, notes: Notes | None) -> None:
        outputs.save_all(images, output, force, form, notes)

    write_result("aggregate", statistics, inputs, Output(output, check, save), options)


def write_result(
    name: str, statistic: object, names: tuple[str, ...], output: Output, options: Given
) -> None:
    """Check the output, compute, and write the result."""
    with reported_errors(options["traceback"]) as stage:
        began = time.perf_counter()
        noted = dict(options)  # with the names of images, which are read below
        output.check(files_of(names, options))
        image_files = load_images(options)
        with chosen_scheduler(options):
            file, _ = outputs.split_dataset(output.path)
            series = open_files(names, without=file, opener=options["raw"])
            # The files that the input refers to are inputs as well.
            output.check([str(file) for file in (*series.files(), *image_files)])
            reduction = plan_reduction(series, statistic, options)
            shape = reduction.images[0].rows, reduction.images[0].cols
            notes = notes_on(series, statistic, noted, shape)
            stage.compute()
            save(output, last_image(reduction, options), notes)
        if not options["quiet"]:
            size = reduction.plan.layout.nframes, *shape
            print_closing_line(name, size, reduction.series.dtype, began, output.path)


def save(output: Output, result: np.ndarray | dict[str, np.ndarray], notes: Notes | None) -> None:
    """Write a result; where the format cannot hold its values, it is kept in one that can."""
    try:
        output.save(result, notes)
    except ValueError as error:
        if isinstance(result, dict):
            outputs.save_all(result, kept := new_name(Path(output.path), ".npz"))
        else:
            outputs.save(result, kept := new_name(Path(output.path), ".npy"))
        error.add_note(f"the result is kept in {kept}")
        raise


def new_name(path: Path, suffix: str) -> Path:
    """Return the name of a file beside another one that does not exist yet."""
    names = (path.with_name(f"{path.stem}{n or ''}{suffix}") for n in count())
    return next(name for name in names if not name.exists())


def load_images(options: Given) -> list[Path]:
    """Read the images that the options name; return the files that they come from."""
    files: list[Path] = []
    for option, read in READERS.items():
        name = options[option]
        if name is not None:
            options[option] = read(name)
            files += inputs.image_files(name)
    return files


def plan_reduction(source: Source, statistic: object, options: Given) -> Reduction:
    """Plan with the given number of intermediate images, or with the most that cost little."""
    chunks = options.get("chunks")
    at_most = AtMost(STEPS[0], of_rows=True)
    nchunk, name = (at_most, "nchunk") if chunks is None else (chunks, "--chunks")
    return reduce(
        source,
        statistic,
        options["nframes"],
        nchunk,
        chunk_name=name,
        dtype=options.get("dtype"),
        memory_limit=options["memory_limit"],
        running=True,
        checkpoint=options.get("checkpoint"),
        restart=options.get("restart", False),
        **{key: options[key] for key in SELECTION if key in options},
    )


def view_of(options: Given) -> Callable[[Status], View]:
    """Return where a command shows its progress: bars would tear the lines of a log."""
    if options["quiet"]:
        return HiddenView
    if sys.stderr.isatty() and not options["verbose"]:
        return TerminalView
    return partial(LogView, closing=False)  # the command has a closing line of its own


def last_image(reduction: Reduction, options: Given) -> np.ndarray | dict[str, np.ndarray]:
    """Return the last image, or dict of images; the earlier ones only move the progress bar."""
    stream = reduction.stream(Progress.itself, reading=True)
    with Watched(stream, Look(), view_of(options)) as steps:
        for _ in steps:
            pass
    return steps.image


def print_closing_line(
    name: str, shape: tuple[int, int, int], dtype: np.dtype | str, began: float, output: str
) -> None:
    """Write size, time and speed of a command to stderr."""
    nframes, rows, cols = shape
    seconds = time.perf_counter() - began
    speed = nframes * rows * cols * np.dtype(dtype).itemsize / seconds / 1e9
    click.echo(
        f"{name}: {nframes} frames of {rows} x {cols} {dtype} "
        f"in {seconds:.2f} s, {speed:.3g} GB/s: {output}",
        err=True,
    )
