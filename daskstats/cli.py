"""What can be done from the command line: one command for each statistic, info and simulate."""

import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import click
import dask
import numpy as np

from . import api, sinks
from .simulate import DTYPES, check_arguments, simulate
from .sources import Source, open_source

# Exit codes: of a failure while computing or writing, of bad usage or input, of Ctrl-C.
FAILURE, BAD_INPUT, INTERRUPTED = 1, 2, 130

# Intermediate images, that is, progress steps, that are tried where none are asked for: as many
# as can be had while the series is read no more than a tenth more often than without any.
STEPS = (50, 40, 30, 25, 20, 15, 10, 5, 2, 1)
MORE_READS = 1.1

SCHEDULERS = ("threads", "synchronous", "processes")

# Seconds to wait for the scheduler of a cluster to answer.
CONNECT_TIMEOUT = 10

# For each statistic what it makes of a pixel, and an example.
COMMANDS = {
    "max": ("maximum", "daskstats max scan.h5 -o peaks.tif"),
    "min": ("minimum", "daskstats min scan.zarr -o floor.npy"),
    "sum": ("sum", "daskstats sum scan.h5::/entry/data/data -o exposure.h5"),
    "average": ("average", "daskstats average scan.npz -o average.png"),
    "std": ("standard deviation", "daskstats std scan.zarr -o noise.h5"),
    "var": ("variance", "daskstats var scan.zarr -o variance.npy"),
    "percentile": ("percentile", "daskstats percentile scan.npz --pctl 5,50,95 -o levels.npy"),
    "median": ("median", "daskstats median scan.zarr -o dark.npy"),
}

INPUTS = """INPUT is the path of a series of images: a .npy, .npz (HEXRD frame cache), .zarr or HDF5
file. Where that holds several datasets, name one: scan.h5::/entry/data/data."""

OUTPUTS = """OUTPUT is an image: .npy, .zarr, .h5 or .tif keep every value, .png is a picture for
looking."""


class Problem(click.ClickException):
    """An error that ends the program, in one line."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]


class Commands(click.Group):
    """A group whose errors are one line on stderr."""

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            # The program ends here, whatever click would make of an error.
            code = super().main(*args, **extra | {"standalone_mode": False})
        except click.ClickException as error:
            code = error.exit_code
            complain(f"error: {error.format_message()}{_hint(error)}")
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except (KeyboardInterrupt, BrokenPipeError):
            _abandon_output()
            complain("interrupted")
            ctx.exit(INTERRUPTED)
        return result


def complain(message: str) -> None:
    """Write one line to stderr, if that is still open."""
    try:
        click.echo(f"daskstats: {' '.join(message.split())}", err=True)
    except BrokenPipeError:
        _abandon_output()


def _hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f" (see {context.command_path} --help)" if context is not None else ""


def _abandon_output() -> None:
    """Let nothing that is still buffered complain about a closed pipe at the very end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


class Stage:
    """How far a command is: what goes wrong before it computes is bad usage or bad input."""

    exit_code = BAD_INPUT

    def compute(self) -> None:
        self.exit_code = FAILURE


@contextmanager
def problems(show_traceback: bool) -> Iterator[Stage]:
    """Turn any error into one line and an exit code, with a traceback only if asked for."""
    stage = Stage()
    try:
        yield stage
    except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
        raise
    except Exception as error:
        if show_traceback:
            traceback.print_exception(error)
        code = BAD_INPUT if _is_about_input(error) else stage.exit_code
        raise Problem(describe(error), code) from error


def describe(error: BaseException) -> str:
    """Return an error with its notes for people.

    >>> describe(ValueError("frame 3 is empty"))
    'frame 3 is empty'
    >>> describe(KeyError("x"))
    "KeyError: 'x'"
    """
    error = _original(error)
    # The text of these says what is wrong; that of others often only together with their name.
    speaking = ValueError, TypeError, OSError, MemoryError, ImportError, RuntimeError
    text = str(error)
    if not text or not isinstance(error, speaking):
        text = f"{type(error).__name__}: {text}"
    return text + "".join(f" ({note})" for note in getattr(error, "__notes__", ()))


def _original(error: BaseException) -> BaseException:
    """Return what was raised in a process of dask's, whose text has a whole traceback."""
    return getattr(error, "exception", error) if hasattr(error, "exception_type") else error


def _is_about_input(error: BaseException) -> bool:
    """Whether a source raised an error: it names the frames in a note, or begins with one."""
    error = _original(error)
    noted = any(note.startswith("while reading frame") for note in getattr(error, "__notes__", ()))
    return noted or (isinstance(error, ValueError) and str(error).startswith("frame "))


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="daskstats", message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Aggregate images of image series, within the memory there is.

    \b
    Try it on a simulated scan:
      daskstats simulate scan.zarr
      daskstats median scan.zarr -o dark.npy
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def input_argument() -> click.Argument:
    return click.Argument(["input"], type=click.Path())


def option(*names: str, **settings: Any) -> click.Option:
    return click.Option(list(names), **settings)


def flag(name: str, text: str) -> click.Option:
    return click.Option([name], is_flag=True, help=text)


def series_options() -> list[click.Parameter]:
    return [
        option("--nframes", default=0, metavar="N", help="Use the first N frames [all]."),
        option(
            "--memory-limit",
            metavar="SIZE",
            help='Memory to use at most, such as "4 GiB" [half of what is available].',
        ),
        option(
            "--scheduler",
            metavar="WHAT",
            callback=check_scheduler,
            help="threads, synchronous, processes, or the address of a dask scheduler "
            "(tcp://host:8786) [threads].",
        ),
        flag("--traceback", "Show where an error comes from."),
    ]


def output_flags() -> list[click.Parameter]:
    return [
        flag("--force", "Replace an existing output; never the input."),
        flag("--quiet", "Show no progress and no closing line."),
    ]


def check_scheduler(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is None or value in SCHEDULERS or "://" in value:
        return value
    raise click.BadParameter(f"{value!r} is not one of {', '.join(SCHEDULERS)} nor an address")


def parse_percentiles(ctx: click.Context, param: click.Parameter, value: str) -> Any:
    """Return a number for "50", a tuple of numbers for "5,50"."""
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a number, nor numbers and commas") from None
    return numbers if "," in value else numbers[0]


def statistic_command(name: str, what: str, example: str) -> click.Command:
    """Return the command for one statistic."""
    images = option("-o", "--output", required=True, type=click.Path(), help="Where to write it.")
    chunks = option(
        "--chunks", type=int, metavar="N", help="Intermediate images: progress steps [up to 50]."
    )
    dtype = option("--dtype", metavar="DTYPE", help="Of the image, such as float64.")
    params = [input_argument(), images, chunks, dtype, *output_flags(), *series_options()]
    if name == "percentile":
        pctl = option(
            "--pctl",
            required=True,
            metavar="Q[,Q...]",
            callback=parse_percentiles,
            help="Percentile in [0, 100]; several give an image of several planes.",
        )
        params.insert(2, pctl)
    return click.Command(
        name,
        params=params,
        callback=partial(aggregate, name),
        short_help=f"The {what} of each pixel over all frames.",
        help=f"Write the {what} of each pixel over all frames as an image.\n\n"
        f"{INPUTS}\n\n{OUTPUTS}\n\n\b\nExample:\n  {example}",
    )


def aggregate(name: str, *, input: str, output: str, **options: Any) -> None:  # noqa: A002
    """Compute one statistic and write its image."""
    pctl = options.pop("pctl", None)
    statistic: Any = name if pctl is None else (name, pctl)
    with problems(options["traceback"]) as stage:
        began = time.perf_counter()
        sinks.check_output(
            output, [_file_of(input)], options["force"], ndim=3 if isinstance(pctl, tuple) else 2
        )
        with running_on(options["scheduler"]):
            job = plan_job(open_source(input), statistic, options)
            stage.compute()
            image = compute(job, name, options["quiet"])
            sinks.save(image, output, options["force"])
        if not options["quiet"]:
            shape = job.layout.nframes, *job.series.shape
            _close(name, shape, job.series.dtype, time.perf_counter() - began, output)


def _file_of(name: str) -> str:
    return name.partition("::")[0]


def plan_job(source: Source, statistic: Any, options: dict[str, Any]) -> api.Job:
    """Plan with the number of intermediate images asked for, or else a sensible one."""
    make = partial(job_of, source, statistic, options)
    if options.get("chunks") is not None:
        return make(options["chunks"], "--chunks")
    once = make(1)
    # A source that decodes several frames together, or is read again for each band of rows, is
    # read more often when it is cut where it does not like to be.
    most = min(STEPS[0], once.total)
    for steps in sorted({*STEPS, most, len(once.plan.blocks)}, reverse=True):
        job = make(steps) if steps <= most else None
        if job is not None and job.plan.reads <= MORE_READS * once.plan.reads:
            return job
    return once


def job_of(
    source: Source, statistic: Any, options: dict[str, Any], nchunk: int = 1, name: str = "nchunk"
) -> api.Job:
    return api.Job(
        source,
        statistic,
        options["nframes"],
        nchunk,
        chunk_name=name,
        dtype=options.get("dtype"),
        memory_limit=options["memory_limit"],
    )


@contextmanager
def running_on(scheduler: str | None) -> Iterator[None]:
    """Run what is computed inside on a scheduler of dask's, or on a cluster by its address."""
    chosen: AbstractContextManager
    if scheduler is None:
        chosen = nullcontext()
    elif scheduler in SCHEDULERS:
        chosen = dask.config.set(scheduler=scheduler)
    else:
        distributed = importlib.import_module("distributed")
        chosen = distributed.Client(scheduler, timeout=CONNECT_TIMEOUT)
    with chosen, dask.config.set({"multiprocessing.initializer": ignore_interrupts}):
        yield


def ignore_interrupts() -> None:
    """Leave Ctrl-C, which a terminal sends to every process, to the one that started the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def compute(job: api.Job, name: str, quiet: bool) -> np.ndarray:
    """Return the last image; those before it only move the progress bar."""
    image = None
    with job.snapshots() as stream, _bar(len(stream), name, quiet) as move:
        for snapshot in stream:
            image = snapshot.image
            move(1)
    assert image is not None
    return image


@contextmanager
def _bar(length: int, label: str, quiet: bool) -> Iterator[Callable[[int], Any]]:
    """Give a function that moves a progress bar on stderr by so many steps."""
    if quiet:
        yield lambda steps: None
        return
    with click.progressbar(length=length, label=label, show_pos=True, file=sys.stderr) as bar:
        yield bar.update


def _close(name: str, shape: tuple[int, int, int], dtype: Any, seconds: float, output: str) -> None:
    """Write the closing line."""
    nframes, rows, cols = shape
    speed = nframes * rows * cols * np.dtype(dtype).itemsize / seconds / 1e9
    click.echo(
        f"{name}: {nframes} frames of {rows} x {cols} {dtype} "
        f"in {seconds:.2f} s, {speed:.3g} GB/s: {output}",
        err=True,
    )


for _name, (_what, _example) in COMMANDS.items():
    main.add_command(statistic_command(_name, _what, _example))


def info(*, input: str, **options: Any) -> None:  # noqa: A002
    """Print what a series is, and its plans."""
    with problems(options["traceback"]), running_on(options["scheduler"]):
        source = open_source(input)
        rows, cols = source.shape
        nframes = api.count_frames(options["nframes"], source)
        nbytes = nframes * rows * cols * source.dtype.itemsize
        facts = {
            "frames": f"{nframes} of {len(source)}" if nframes < len(source) else nframes,
            "shape": f"{rows} x {cols}",
            "dtype": source.dtype,
            "size": f"{nbytes / 1e9:.3g} GB, {disk_usage(input) / 1e9:.3g} GB on disk",
            "frame-wise": describe_plan(source, "average", options),
            "row-wise": describe_plan(source, "median", options),
        }
    for name, value in facts.items():
        click.echo(f"{name:10}  {value}")


def describe_plan(source: Source, statistic: str, options: dict[str, Any]) -> str:
    """Return the plan of a statistic, or why there is none."""
    try:
        job = plan_job(source, statistic, options)
        return f"{job.plan} ({job.steps} intermediate images)"
    except MemoryError as error:
        return f"refused: {error}"


def disk_usage(name: str) -> int:
    """Return the bytes of a file, or of all files of a directory."""
    path = Path(_file_of(name))
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


main.add_command(
    click.Command(
        "info",
        params=[input_argument(), *series_options()],
        callback=info,
        short_help="What a series is, and how it would be read.",
        help="Show what a series is, and how it would be read: the plan of a frame-wise statistic "
        "(max, min, sum, average) and of a row-wise one (percentile, median).\n\n"
        f"{INPUTS}\n\n\b\nExample:\n  daskstats info scan.h5 --memory-limit '2 GiB'",
    )
)


def check_shape(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, int]:
    """Return (rows, cols) for "1024x1024"."""
    try:
        rows, cols = (int(part) for part in value.lower().split("x"))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not ROWSxCOLS, such as 1024x1024") from None
    return rows, cols


@main.command(
    "simulate",
    short_help="Write a simulated scan, to try things on.",
    help="Write a simulated scan: background, rings and spots, dead and hot pixels.\n\n"
    "OUTPUT is a .zarr, .npy, .h5 or .npz (HEXRD frame cache) file.\n\n"
    "\b\nExample:\n  daskstats simulate scan.zarr --nframes 200 --shape 2048x2048",
)
@click.argument("output", type=click.Path())
@click.option("--nframes", "--frames", default=100, show_default=True, help="Number of frames.")
@click.option(
    "--shape",
    default="1024x1024",
    show_default=True,
    metavar="ROWSxCOLS",
    callback=check_shape,
    help="Of a frame.",
)
@click.option(
    "--dtype", default="uint16", show_default=True, type=click.Choice(DTYPES), help="Of the pixels."
)
@click.option("--seed", default=0, show_default=True, help="Same seed, same frames.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--quiet", is_flag=True, help="Show no progress and no closing line.")
@click.option("--traceback", is_flag=True, help="Show where an error comes from.")
def simulate_command(output: str, quiet: bool, traceback: bool, **options: Any) -> None:
    with problems(traceback) as stage:
        began = time.perf_counter()
        check_arguments(output, **options)
        stage.compute()
        with _bar(options["nframes"], "simulate", quiet) as move:
            simulate(output, **options, progress=move)
        if not quiet:
            shape = options["nframes"], *options["shape"]
            _close("simulate", shape, options["dtype"], time.perf_counter() - began, output)
