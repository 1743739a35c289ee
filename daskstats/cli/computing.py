"""One computation of the program: its plan, its progress bar, its output, its closing line."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from ..formats import inputs, outputs
from ..formats.files import open_files
from ..formats.notes import Notes
from ..reduction import STEPS, Reduction, reduce, with_most_steps
from ..run.progress import Progress
from ..series.base import Source
from .clusters import chosen_scheduler
from .options import SELECTION, Given
from .program import reported_errors
from .recording import notes_on

# The options that name the file of an image, and the functions that read it.
IMAGES: dict[str, Callable[[str], np.ndarray]] = {
    "mask": inputs.read_mask,
    "dark": partial(inputs.read_image, role="dark"),
}

# The remark behind the progress bar in each phase of a call.
REMARKS = {"read": "reading frames", "compute": ""}


class Output(NamedTuple):
    """An output of a command."""

    path: str
    check: Callable[[list[str]], object]
    """refuses the path, also if it is one of these inputs"""
    save: Callable
    """writes an image, or a dict of images, with notes on them"""


def write_result(
    name: str, statistic: object, names: tuple[str, ...], output: Output, options: Given
) -> None:
    """Check the output, compute, and write the result."""
    with reported_errors(options["traceback"]) as stage:
        began = time.perf_counter()
        noted = dict(options)  # with the names of images, which are read below
        # Of several inputs, and of a folder, one that is the output is left out.
        single = names[0] if len(names) == 1 and not Path(names[0]).is_dir() else None
        given = single, *(options[name] for name in IMAGES)
        output.check([file.partition("::")[0] for file in given if file])
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
            save(output, last_image(reduction, name, options["quiet"]), notes)
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
    for option, read in IMAGES.items():
        name = options[option]
        if name is not None:
            options[option] = read(name)
            files += inputs.image_files(name)
    return files


def plan_reduction(source: Source, statistic: object, options: Given) -> Reduction:
    """Plan with the given number of intermediate images, or with the most that cost little."""
    make = partial(reduction_of, source, statistic, options)
    if options.get("chunks") is not None:
        return make(options["chunks"], "--chunks")
    return with_most_steps(make, STEPS[0])


def reduction_of(
    source: Source, statistic: object, options: Given, nchunk: int = 1, name: str = "nchunk"
) -> Reduction:
    return reduce(
        source,
        statistic,
        options["nframes"],
        nchunk,
        chunk_name=name,
        dtype=options.get("dtype"),
        memory_limit=options["memory_limit"],
        running=True,
        **{key: options[key] for key in SELECTION if key in options},
    )


def last_image(reduction: Reduction, name: str, quiet: bool) -> np.ndarray | dict[str, np.ndarray]:
    """Return the last image, or dict of images; the earlier ones only move the progress bar."""
    image = None
    stream = reduction.stream(Progress.snapshot, reading=True)
    with stream as snapshots, progress_bar(len(snapshots), name, quiet) as move:
        for snapshot in snapshots:
            image = snapshot.image
            move(1, REMARKS[snapshot.phase])
    assert image is not None
    return image


@contextmanager
def progress_bar(length: int, label: str, quiet: bool) -> Iterator[Callable]:
    """Yield a function of a number of steps, and a remark, that moves a progress bar on stderr."""
    if quiet:
        yield lambda steps, remark="": None
        return
    with click.progressbar(
        length=length, label=label, show_pos=True, item_show_func=_remark, file=sys.stderr
    ) as bar:
        yield bar.update


def _remark(remark: str | None) -> str | None:
    """Return the text behind a progress bar; there is none before the first step."""
    return remark


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
