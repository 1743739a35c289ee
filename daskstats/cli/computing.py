"""One computation of the program: its plan, its progress bar, its output, its closing line."""

import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from ..arguments import RunOptions
from ..following import Follower
from ..formats import inputs, outputs
from ..formats.files import open_files
from ..formats.growing import GrowingFiles
from ..formats.notes import Notes
from ..names import SELECTION
from ..notebook import Look, Watched
from ..planning.steps import STEPS, AtMost
from ..reduction import Reduction, reduce
from ..run.progress import Progress
from ..series.base import Source
from ..statistics.naming import named
from ..status import Status
from ..views import LogView, TerminalView, View, in_terminal
from .clusters import chosen_scheduler
from .options import Given, files_of
from .program import Stage, reported_errors
from .recording import notes_on

# The functions that read the images that options name.
READERS: dict[str, Callable[[str], np.ndarray]] = {
    "mask": inputs.read_mask,
    "dark": partial(inputs.read_image, role="dark"),
}


# The options that are keywords of a call.
KEYWORDS = ("dtype", "memory_limit", "checkpoint", "restart", *SELECTION)


class Output(NamedTuple):
    """An output of a command."""

    path: str
    check: Callable[[list[str]], object]
    """refuses the path, also if it is one of these inputs"""
    save: Callable
    """writes an image, or a dict of images, with notes on them, and whether again"""


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
        save=lambda image, notes, again: outputs.save(image, output, force or again, notes),
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

    def save(images: dict, notes: Notes | None, again: bool) -> None:
        outputs.save_all(images, output, force or again, form, notes)

    write_result("aggregate", statistics, inputs, Output(output, check, save), options)


def write_result(
    name: str, statistic: object, names: tuple[str, ...], output: Output, options: Given
) -> None:
    """Check the output, compute, and write the result."""
    with reported_errors(options["traceback"]) as stage:
        began = time.perf_counter()
        noted = dict(options)  # images are read below
        output.check(files_of(names, options))
        images = load_images(options)
        noted |= {option: image.origin for option, image in images.items()}
        image_files = [file for image in images.values() for file in image.files]
        call = Call(names, statistic, output, options, noted, image_files)
        with chosen_scheduler(options):
            layout = (follow_series if options["follow"] else reduce_series)(call, stage)
        if not options["quiet"]:
            print_closing_line(name, *layout, began, output.path)


class Call(NamedTuple):
    """The arguments of a command."""

    names: tuple[str, ...]
    """of the input"""
    statistic: object
    output: Output
    options: Given
    noted: Given
    """the options as they were given, with the origins of images"""
    image_files: list[Path]
    """that options name"""

    def without(self) -> Path:
        """Return the file that is no input: the output."""
        return Path(outputs.split_dataset(self.output.path)[0])

    def check_inputs(self, series: Source) -> None:
        """Refuse an output that is one of the files that the input refers to."""
        self.output.check([str(file) for file in (*series.files(), *self.image_files)])

    def notes(self, series: Source, shape: tuple[int, ...]) -> Notes | None:
        return notes_on(series, self.statistic, self.noted, (shape[-2], shape[-1]))


Shape = tuple[int, int, int]
"""number of frames, and rows and columns of an image"""


def reduce_series(call: Call, stage: Stage) -> tuple[Shape, np.dtype]:
    """Compute, and write the result; return the shape and the dtype of the frames."""
    series = open_files(call.names, without=call.without(), opener=call.options["raw"])
    call.check_inputs(series)
    reduction = plan_reduction(series, call.statistic, call.options)
    shape = reduction.images[0].rows, reduction.images[0].cols
    notes = call.notes(series, shape)
    stage.compute()
    save(call.output, last_image(reduction, call.options), notes)
    return (reduction.plan.layout.nframes, *shape), reduction.series.dtype


def follow_series(call: Call, stage: Stage) -> tuple[Shape, np.dtype]:
    """Write the image of a series that grows whenever there are new frames."""
    (name,), options = call.names, call.options
    files = GrowingFiles(name, call.without(), options["raw"])
    settings = run_options(options)
    follower = Follower(files, call.statistic, options["nframes"], options["timeout"], settings)
    stage.compute()
    newest: tuple[Shape, np.dtype] | None = None
    counting = in_terminal() and not (options["quiet"] or options["verbose"])
    try:
        for series, snapshot in follower.images():
            shape = next(iter(snapshot.images.values())).shape
            if newest is None:
                call.check_inputs(series)
            save(call.output, snapshot.image, call.notes(series, shape), again=newest is not None)
            newest = (snapshot.done, shape[-2], shape[-1]), series.dtype
            if counting:
                click.echo(f"\r{snapshot.statistic}: {snapshot.done} frames ", nl=False, err=True)
    finally:
        if counting and newest is not None:
            click.echo(err=True)
    assert newest is not None, "there is an image, or an error"
    return newest


def save(
    output: Output,
    result: np.ndarray | dict[str, np.ndarray],
    notes: Notes | None,
    again: bool = False,
) -> None:
    """Write a result, or keep it under a new name.

    The format may not hold its values, and another program may have written the output meanwhile.
    """
    try:
        output.save(result, notes, again)
    except (ValueError, FileExistsError, IsADirectoryError) as error:
        place, _ = outputs.split_dataset(output.path)
        if isinstance(result, dict):
            outputs.save_all(result, kept := new_name(place, ".npz"))
        else:
            outputs.save(result, kept := new_name(place, ".npy"))
        error.add_note(f"the result is kept in {kept}")
        raise


def new_name(path: Path, suffix: str) -> Path:
    """Return the name of a file beside another one that does not exist yet."""
    names = (path.with_name(f"{path.stem}{n or ''}{suffix}") for n in count())
    return next(name for name in names if not name.exists())


def load_images(options: Given) -> dict[str, inputs.ImageSource]:
    """Read the images that the options name; return the source of each."""
    found = {}
    for option, read in READERS.items():
        name = options[option]
        if name is not None:
            options[option] = read(name)
            found[option] = inputs.image_source(name)
    return found


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
        running=True,
        **run_options(options),
    )


def run_options(options: Given) -> RunOptions:
    """Return the keywords of a call."""
    found: Given = {key: options[key] for key in KEYWORDS if key in options}
    return RunOptions(**found)  # type: ignore[typeddict-item]


def view_of(options: Given) -> Callable[[Status], View]:
    """Return where a command shows its progress: bars would tear the lines of a log."""
    if options["quiet"]:
        return View
    if in_terminal() and not options["verbose"]:
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
