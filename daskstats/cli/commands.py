"""What can be done from the command line: a command for each statistic, and some for all."""

import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from math import isinf
from pathlib import Path
from typing import Any

import click
import dask
import numpy as np

from .. import config, ending
from ..arguments import count_frames, shown
from ..formats import sinks
from ..packages import load
from ..reduction import Job, named
from ..run import workers
from ..run.scheduler import current_scheduler
from ..scratch import directories, location
from ..series.base import Source, describe_missing
from ..series.opening import open_source
from ..series.selection import select
from ..simulate import DTYPES, check_arguments, simulate
from ..statistics import STATISTICS

# Exit codes: of a failure while computing or writing, of bad usage or input, of Ctrl-C.
FAILURE, BAD_INPUT, INTERRUPTED = 1, 2, 130

# Intermediate images, that is, progress steps, that are tried where none are asked for: as many
# as can be had while the series is read no more than a tenth more often than without any.
STEPS = (50, 40, 30, 25, 20, 15, 10, 5, 2, 1)
MORE_READS = 1.1

# What stands behind the progress bar in each phase of a call.
REMARKS = {"spool": "writing frames to disk", "reduce": ""}

SCHEDULERS = ("threads", "synchronous", "processes")

# Seconds to wait for the scheduler of a cluster to answer, and for our own cluster to end.
CONNECT_TIMEOUT, CLOSE_TIMEOUT = 10, 4

# For each statistic what its image has at a pixel, and an example.
COMMANDS = {
    "max": ("maximum over all frames", "daskstats max scan.h5 -o peaks.tif"),
    "min": ("minimum over all frames", "daskstats min scan.zarr -o floor.npy"),
    "sum": ("sum over all frames", "daskstats sum scan.h5::/entry/data/data -o exposure.h5"),
    "average": ("average over all frames", "daskstats average scan.npz -o average.png"),
    "std": ("standard deviation over all frames", "daskstats std scan.zarr -o noise.h5"),
    "var": ("variance over all frames", "daskstats var scan.zarr -o variance.npy"),
    "percentile": (
        "percentile over all frames",
        "daskstats percentile scan.npz --pctl 5,50,95 -o levels.npy",
    ),
    "median": ("median over all frames", "daskstats median scan.zarr -o dark.npy"),
    "range": ("maximum less the minimum over all frames", "daskstats range scan.zarr -o swing.npy"),
    "argmax": ("frame number of the maximum", "daskstats argmax scan.h5 -o brightest.npy"),
    "argmin": ("frame number of the minimum", "daskstats argmin scan.h5 -o darkest.npy"),
    "count": (
        "number of frames that count",
        "daskstats count scan.h5 --invalid 65535 -o exposures.npy",
    ),
    "count_above": (
        "number of frames above a threshold",
        "daskstats count_above scan.h5 --threshold 1000 -o lit.npy",
    ),
    "clipped_average": (
        "average without outliers (sigma-clipped)",
        "daskstats clipped_average scan.zarr --sigma 3 -o flat.tif",
    ),
}

# The options that are parameters of a statistic, in the order in which it takes them.
PARAMETERS = ("pctl", "threshold", "sigma", "maxiters")

# What says which frames, pixels and values count.
SELECTION = ("frames", "region", "mask", "invalid", "saturation", "skipna", "fill_value")

INPUTS = """INPUT is the path of a series of images: a .npy, .npz (HEXRD frame cache), .zarr or HDF5
file. Where that holds several datasets, name one: scan.h5::/entry/data/data."""

OUTPUTS = """OUTPUT is an image: .npy, .zarr, .h5 or .tif keep every value, .png is a picture for
looking."""

COLLECTIONS = """OUTPUT is a .zarr (a group with one array for each statistic), .npz or .h5 file
or, without a suffix, a directory with one file for each, in the format that --format names."""

STATISTICS_HELP = """Statistics are separated by commas; parameters follow after colons:
percentile:95, percentile:5:50:95 (an image of several planes), count_above:1000,
clipped_average:3:5. Images are named after them: max, percentile_5_50_95."""


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
    ending.hold_failure()
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
    """Turn any error into one line and an exit code, with a traceback only if asked for.

    Warnings are one line as well, without the line of code that they are from.
    """
    stage = Stage()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: complain(f"warning: {message}")
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
    """Whether an error is about frames, which it names in a note or first, or needs an option."""
    error = _original(error)
    noted = any(note.startswith("while reading frame") for note in getattr(error, "__notes__", ()))
    about = str(error).startswith("frame ") or "give a fill_value" in str(error)
    return noted or (isinstance(error, ValueError) and about)


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
        *selection_options(),
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
        option(
            "--scheduler-file",
            metavar="FILE",
            help="Use the cluster whose scheduler wrote this file (dask scheduler "
            "--scheduler-file).",
        ),
        option(
            "--workers",
            type=click.IntRange(1),
            metavar="N",
            help="Start a cluster of N processes on this machine, with a dashboard.",
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


def parsed(parse: Callable[[str], Any], expected: str) -> Callable[..., Any]:
    """Return what makes a value of an option's text, or says what is expected."""

    def callback(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
        try:
            return None if value is None else parse(value)
        except (ValueError, TypeError):
            raise click.BadParameter(f"{shown(value)} is not {expected}") from None

    return callback


def number(text: str) -> float:
    """Return an int where the text is one: a float could not hold all of 64 bits.

    >>> number("4294967295"), number("1e6")
    (4294967295, 1000000.0)
    """
    try:
        return int(text)
    except ValueError:
        value = float(text)
    if isinf(value) and "inf" not in text.lower():
        raise ValueError("beyond float64")
    return value


def numbers(text: str) -> list[float]:
    """Return the numbers that commas separate."""
    return [number(part) for part in text.split(",")]


def rounds(text: str) -> int | None:
    """Return a number of rounds; "none" stands for no limit."""
    return None if text.lower() == "none" else int(text)


def bounds(text: str) -> list[int | None]:
    """Return the numbers that colons separate, None where nothing stands.

    >>> bounds("10:"), bounds("::2")
    ([10, None], [None, None, 2])
    """
    return [int(part) if part.strip() else None for part in text.split(":")]


def frame_slice(text: str) -> slice:
    """Return the slice for START:STOP[:STEP].

    >>> frame_slice("10:200:5"), frame_slice("-20:")
    (slice(10, 200, 5), slice(-20, None, None))
    """
    parts = bounds(text)
    if len(parts) not in (2, 3) or parts[2:] == [0]:
        raise ValueError(text)
    return slice(*parts)


def box(text: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the region for R0:R1,C0:C1.

    >>> box("0:512,1024:2048")
    ((0, 512), (1024, 2048))
    """
    (r0, r1), (c0, c1) = ((int(part) for part in span.split(":")) for span in text.split(","))
    return (r0, r1), (c0, c1)


def statistics_list(text: str) -> list[Any]:
    """Return the statistics of a list such as "max,percentile:5:50".

    >>> statistics_list("max,percentile:95,percentile:5:50,clipped_average:3:none")
    ['max', ('percentile', 95), ('percentile', (5, 50)), ('clipped_average', 3, None)]
    """
    return [_statistic(part.strip()) for part in text.split(",")]


def _statistic(text: str) -> Any:
    name, *given = text.split(":")
    if not given:
        return name
    parameters = tuple(None if part.lower() == "none" else number(part) for part in given)
    if name == "percentile":
        return name, parameters if len(parameters) > 1 else parameters[0]
    return name, *parameters


def selection_options() -> list[click.Parameter]:
    """Return the options that say which frames, pixels and values count."""
    return [
        option(
            "--frames",
            metavar="START:STOP[:STEP]",
            callback=parsed(frame_slice, "START:STOP[:STEP], such as 10:200 or ::2"),
            help="Use these frames, counted from 0; negative ones from the end [all].",
        ),
        option(
            "--region",
            metavar="R0:R1,C0:C1",
            callback=parsed(box, "R0:R1,C0:C1, such as 0:512,1024:2048"),
            help="Use rows R0 to R1 - 1 and columns C0 to C1 - 1 [all].",
        ),
        option(
            "--mask",
            metavar="FILE",
            help="Leave out the pixels that are not zero in this image of bool or integers: "
            f"{', '.join(sorted({*MASKS, *DATASETS}))} [none].",
        ),
        option(
            "--invalid",
            metavar="N[,N...]",
            callback=parsed(numbers, "a number, nor numbers and commas"),
            help="Leave out these values, such as 4294967295 or -1,-2.",
        ),
        option(
            "--saturation",
            metavar="N",
            callback=parsed(number, "a number"),
            help="Leave out values from N on.",
        ),
        flag("--skipna", "Leave out NaN, instead of making its pixel NaN."),
        option(
            "--fill-value",
            metavar="N",
            callback=parsed(number, "a number"),
            help="What stands where everything is left out [NaN; images of integers need one].",
        ),
    ]


def output_options() -> list[click.Parameter]:
    return [
        option("-o", "--output", required=True, type=click.Path(), help="Where to write it."),
        option(
            "--chunks",
            type=int,
            metavar="N",
            help="Intermediate images: progress steps [up to 50].",
        ),
        option("--dtype", metavar="DTYPE", help="Of the image, such as float64."),
        *output_flags(),
    ]


def parameter_options(name: str) -> list[click.Parameter]:
    """Return the options that are parameters of a statistic."""
    if name == "percentile":
        return [
            option(
                "--pctl",
                required=True,
                metavar="Q[,Q...]",
                callback=parse_percentiles,
                help="Percentile in [0, 100]; several give an image of several planes.",
            )
        ]
    if name == "count_above":
        return [
            option(
                "--threshold",
                required=True,
                metavar="N",
                callback=parsed(number, "a number"),
                help="Count the frames with a larger value.",
            )
        ]
    if name == "clipped_average":
        return [
            option(
                "--sigma",
                default="3",
                metavar="N",
                callback=parsed(number, "a number"),
                help="Leave out what is more standard deviations from the median [3].",
            ),
            option(
                "--maxiters",
                default="5",
                metavar="N",
                callback=parsed(rounds, "a number of rounds, nor none"),
                help="Rounds at most, or none for no limit [5].",
            ),
        ]
    return []


def statistic_command(name: str, what: str, example: str) -> click.Command:
    """Return the command for one statistic."""
    params = [input_argument(), *parameter_options(name), *output_options(), *series_options()]
    return click.Command(
        name,
        params=params,
        callback=partial(one, name),
        short_help=f"The {what}, at each pixel.",
        help=f"Write the {what}, at each pixel, as an image.\n\n"
        f"{INPUTS}\n\n{OUTPUTS}\n\n\b\nExample:\n  {example}",
    )


def one(name: str, *, input: str, output: str, **options: Any) -> None:  # noqa: A002
    """Compute one statistic and write its image."""
    given = [options.pop(parameter) for parameter in PARAMETERS if parameter in options]
    statistic: Any = (name, *given) if given else name
    planes = bool(given) and isinstance(given[0], tuple)
    force = options["force"]
    produce(
        name,
        statistic,
        input,
        output,
        options,
        check=lambda inputs: sinks.check_output(output, inputs, force, ndim=3 if planes else 2),
        save=lambda image: sinks.save(image, output, force),
    )


def aggregate(
    *,
    input: str,  # noqa: A002
    output: str,
    stats: list,
    format: str | None,  # noqa: A002
    **options: Any,
) -> None:
    """Compute several statistics in one pass and write their images."""
    force = options["force"]

    def check(inputs: list[str]) -> None:
        keys, members = named(stats)
        planes = [member.planes for member in members]
        ndims = {key: 2 if n is None else 3 for key, n in zip(keys, planes, strict=True)}
        sinks.check_outputs(output, ndims, inputs, force, format)

    produce(
        "aggregate",
        stats,
        input,
        output,
        options,
        check=check,
        save=lambda images: sinks.save_all(images, output, force, format),
    )


def produce(
    name: str,
    statistic: Any,
    source: str,
    output: str,
    options: dict[str, Any],
    check: Callable[[list[str]], None],
    save: Callable[[Any], None],
) -> None:
    """Check the output, compute, and save what comes out."""
    with problems(options["traceback"]) as stage:
        began = time.perf_counter()
        check([_file_of(file) for file in (source, options["mask"]) if file])
        mask_files = referred(options["mask"])
        options["mask"] = read_mask(options["mask"])
        with running_on(options):
            series = open_source(source)
            # What it refers to is the input as well.
            check([str(file) for file in (*series.files(), *mask_files)])
            job = plan_job(series, statistic, options)
            stage.compute()
            images = compute(job, name, options["quiet"])
            save(images)
        if not options["quiet"]:
            shape = job.layout.nframes, job.layout.rows, job.layout.cols
            _close(name, shape, job.series.dtype, time.perf_counter() - began, output)


def read_mask(name: str | None) -> np.ndarray | None:
    """Return the mask (rows, cols) that a file holds: what is not zero is left out."""
    if name is None:
        return None
    path = Path(_file_of(name))
    suffix = path.suffix.lower()
    if suffix not in (*MASKS, *DATASETS):
        known = ", ".join(sorted({*MASKS, *DATASETS}))
        raise ValueError(f"the mask {name} has no known suffix: expected one of {known}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no mask {name}")
    if suffix in DATASETS:
        mask = _read_dataset(name)
    else:
        package, read = MASKS[suffix]
        sinks.check_package(path, package)
        mask = read(path)
    if mask.dtype.kind not in "biu":
        raise TypeError(f"the mask {name} must be of bool or integers, got {mask.dtype}")
    return mask != 0


def referred(mask: str | None) -> tuple[Path, ...]:
    """Return the files that the file of a mask refers to."""
    if mask is None or Path(_file_of(mask)).suffix.lower() not in DATASETS:
        return ()
    return open_mask(mask).files() if Path(_file_of(mask)).is_file() else ()


def open_mask(name: str) -> Source:
    """Open the dataset of a mask; one that is not named is the only image of the file."""
    if "::" in name:
        return open_source(name)
    return load("daskstats.formats.hdf5").Hdf5Source(name, only_image=True)


def _read_dataset(name: str) -> np.ndarray:
    source = open_mask(name)
    if len(source) != 1:
        raise ValueError(f"the mask {name} has {len(source)} images, expected one")
    (block,) = source.read(0, 1, 0, source.shape[0])
    return block[0]


def _read_npy(path: Path) -> np.ndarray:
    return np.load(path, allow_pickle=False)


def _read_tiff(path: Path) -> np.ndarray:
    return load("tifffile").imread(path)


def _read_png(path: Path) -> np.ndarray:
    with load("PIL.Image").open(path) as image:
        return np.asarray(image)


def _read_fabio(path: Path) -> np.ndarray:
    with load("fabio").open(str(path)) as image:
        return np.asarray(image.data)


# For each suffix of a mask the optional package that it needs, and what reads it.
MASKS: dict[str, tuple[str | None, Callable[[Path], np.ndarray]]] = {
    ".npy": (None, _read_npy),
    ".tif": ("tifffile", _read_tiff),
    ".tiff": ("tifffile", _read_tiff),
    ".png": ("PIL", _read_png),
    ".edf": ("fabio", _read_fabio),
    ".msk": ("fabio", _read_fabio),
}

# Masks that are one image in a file of datasets.
DATASETS = (".h5", ".hdf5", ".nxs")


def _file_of(name: str) -> str:
    return name.partition("::")[0]


def plan_job(source: Source, statistic: Any, options: dict[str, Any]) -> Job:
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
) -> Job:
    return Job(
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


@contextmanager
def running_on(options: dict[str, Any]) -> Iterator[None]:
    """Run what is computed inside on a scheduler of dask's, or on a cluster."""
    given = [name for name in ("scheduler", "scheduler_file", "workers") if options[name]]
    if len(given) > 1:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise click.UsageError(f"{names} exclude each other", click.get_current_context())
    scheduler, chosen = options["scheduler"], nullcontext()  # type: Any, AbstractContextManager
    if options["workers"] or scheduler == "processes":
        ending.shield_children()
    if options["workers"]:
        chosen = own_workers(options["workers"], options.get("quiet", False))
    elif options["scheduler_file"]:
        chosen = connected(scheduler_file=existing(options["scheduler_file"]))
    elif scheduler in SCHEDULERS:
        chosen = dask.config.set(scheduler=scheduler)
    elif scheduler is not None:
        chosen = connected(address=scheduler)
    with chosen, dask.config.set({"multiprocessing.initializer": ignore_interrupts}):
        yield


def connected(**where: Any) -> AbstractContextManager:
    """Return the client of a cluster that somebody else has started."""
    return load("distributed").Client(**where, timeout=CONNECT_TIMEOUT)


def existing(name: str) -> str:
    # distributed would wait for it.
    if not Path(name).is_file():
        raise FileNotFoundError(f"there is no scheduler file {name}")
    return name


@contextmanager
def own_workers(count: int, quiet: bool) -> Iterator[None]:
    """Start a cluster on this machine, and end it."""
    place = dask.config.get("temporary-directory", None) or tempfile.gettempdir()
    with (
        directories.temporary_directory(place) as directory,
        workers.start_here(count, str(directory)) as client,
        ending.closing(lambda: client.cluster.close(timeout=CLOSE_TIMEOUT)),
    ):
        if not quiet:
            click.echo(f"dashboard: {client.dashboard_link}", err=True)
        yield


def ignore_interrupts() -> None:
    """Leave Ctrl-C, which a terminal sends to every process, to the one that started the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def compute(job: Job, name: str, quiet: bool) -> Any:
    """Return the last image, or dict of images; those before only move the progress bar."""
    image = None
    with job.snapshots() as snapshots, _bar(len(snapshots), name, quiet) as move:
        for snapshot in snapshots:
            image = snapshot.image
            move(1, REMARKS[snapshot.phase])
    assert image is not None
    return image


@contextmanager
def _bar(length: int, label: str, quiet: bool) -> Iterator[Callable[..., Any]]:
    """Give a function of a number of steps, and a remark, that moves a progress bar on stderr."""
    if quiet:
        yield lambda steps, remark="": None
        return
    with click.progressbar(
        length=length, label=label, show_pos=True, item_show_func=as_it_is, file=sys.stderr
    ) as bar:
        yield bar.update


def as_it_is(remark: str | None) -> str | None:
    """Return what stands behind a progress bar, nothing before the first step."""
    return remark


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

main.add_command(
    click.Command(
        "aggregate",
        params=[
            input_argument(),
            option(
                "--stats",
                required=True,
                metavar="NAME[:PARAMETER...],...",
                callback=parsed(
                    statistics_list, "names, with numbers after colons: max,percentile:5:95"
                ),
                help=f"Of {', '.join(STATISTICS)}.",
            ),
            option(
                "--format",
                type=click.Choice(sorted(suffix[1:] for suffix in sinks.FORMATS)),
                help="Of the files in a directory [npy].",
            ),
            *output_options(),
            *series_options(),
        ],
        callback=aggregate,
        short_help="Several statistics in one pass.",
        help="Write several statistics of each pixel over all frames: each frame is read once for "
        f"all of them.\n\n{STATISTICS_HELP}\n\n{INPUTS}\n\n{COLLECTIONS}\n\n\b\nExample:\n"
        "  daskstats aggregate scan.h5 --stats max,average,percentile:5:95 -o images.zarr",
    )
)


def info(*, input: str, **options: Any) -> None:  # noqa: A002
    """Print what a series is, and its plans."""
    with problems(options["traceback"]), running_on(options):
        options["mask"] = read_mask(options["mask"])
        whole = open_source(input)
        source = select(whole, options["frames"], options["region"])
        rows, cols = source.shape
        nframes = count_frames(options["nframes"], source)
        nbytes = nframes * rows * cols * source.dtype.itemsize
        missing = describe_missing(source, nframes)
        warnings.filterwarnings("ignore", ".* have no data")  # a line of its own says it
        shape = f"{rows} x {cols}"
        if source.shape != whole.shape:
            shape += f" of {whole.shape[0]} x {whole.shape[1]}"
        facts = {
            "frames": f"{nframes} of {len(whole)}" if nframes < len(whole) else nframes,
            "shape": shape,
            "dtype": source.dtype,
            "size": f"{nbytes / 1e9:.3g} GB, {disk_usage(input) / 1e9:.3g} GB on disk",
            **({"no data": missing} if missing else {}),
            "scratch": describe_scratch(),
            "frame-wise": describe_plan(whole, "average", options),
            "row-wise": describe_plan(whole, "median", options),
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


def describe_scratch() -> str:
    """Return where frames would wait that do not fit into memory, and the room there."""
    if current_scheduler().cluster is not None and config.scratch_directory() is None:
        return "on the disks of the workers"
    try:
        place = location.find_location()
    except NotADirectoryError as error:
        return str(error)
    remark = ", a RAM disk, which is not used" if place.in_memory else ""
    return f"{place.nbytes / 1e9:.3g} GB free in {place.directory}{remark}"


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
