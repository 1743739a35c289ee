"""Options of the commands: from text to values, without any package that takes long to import."""

import logging
from collections.abc import Callable
from math import isinf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..formats.addresses import as_path
from ..names import IMAGES
from ..packages import load
from ..series.flips import FLIPS, check_flip
from ..texts import frame_slice, shown
from .logs import logged

if TYPE_CHECKING:
    from ..formats.files import Opener

Given = dict[str, Any]
"""the values of options, under their names"""

SCHEDULERS = ("threads", "synchronous", "processes")


def parsed(parse: Callable[[str], object], expected: str) -> Callable:
    """Return a callback of click that converts the text of an option, or refuses it."""

    def callback(ctx: click.Context, param: click.Parameter, value: str | None) -> object:
        try:
            return None if value is None else parse(value)
        except (ValueError, TypeError):
            raise click.BadParameter(f"{shown(value)} is not {expected}") from None

    return callback


def number(text: str) -> float:
    """Return an int if the text is one: a float cannot hold every integer of 64 bits.

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
    """Return the numbers between commas."""
    return [number(part) for part in text.split(",")]


def percentiles(text: str) -> float | tuple[float, ...]:
    """Return a number, or a tuple if there are commas.

    >>> percentiles("50"), percentiles("5,50")
    (50, (5, 50))
    """
    return tuple(numbers(text)) if "," in text else number(text)


def rounds(text: str) -> int | None:
    """Return a number of rounds; "none" means no limit."""
    return None if text.lower() == "none" else int(text)


def box(text: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the region for R0:R1,C0:C1.

    >>> box("0:512,1024:2048")
    ((0, 512), (1024, 2048))
    """
    (r0, r1), (c0, c1) = ((int(part) for part in span.split(":")) for span in text.split(","))
    return (r0, r1), (c0, c1)


def flip_name(text: str) -> str:
    """Return the name of a flip."""
    check_flip(text)
    return text


def frame_shape(text: str) -> tuple[int, int]:
    """Return (rows, cols) for ROWSxCOLS.

    >>> frame_shape("1024x2048")
    (1024, 2048)
    """
    rows, cols = (int(part) for part in text.lower().split("x"))
    return rows, cols


def raw(text: str) -> "Opener":
    """Return the opener of flat files for ROWSxCOLS,DTYPE[,SKIP[,GAP]]."""
    shape, dtype, *places = text.split(",")
    if len(places) > 2:
        raise ValueError(text)
    size, edges = frame_shape(shape), map(int, places)
    pixels = load("numpy").dtype(dtype.strip())
    opener: Opener = load("daskstats.formats.files").raw_opener(size, pixels, *edges)
    return opener._replace(description=text)


def scheduler(text: str) -> str:
    """Return the name of a scheduler, or an address."""
    if text not in SCHEDULERS and "://" not in text:
        raise ValueError(text)
    return text


def statistics_list(text: str) -> list[str | tuple]:
    """Return the statistics of a list such as "max,percentile:5:50".

    >>> statistics_list("max,percentile:95,percentile:5:50,clipped_average:3:none")
    ['max', ('percentile', 95), ('percentile', (5, 50)), ('clipped_average', 3, None)]
    """
    return [_statistic(part.strip()) for part in text.split(",")]


def _statistic(text: str) -> str | tuple:
    name, *given = text.split(":")
    if not given:
        return name
    parameters = tuple(None if part.lower() == "none" else number(part) for part in given)
    if name == "percentile":
        return name, parameters if len(parameters) > 1 else parameters[0]
    return name, *parameters


NUMBER = parsed(number, "a number")
NUMBERS = "a number, nor numbers and commas"

parse_percentiles = parsed(percentiles, NUMBERS)


def input_argument() -> click.Argument:
    return click.Argument(["input"], type=click.Path(), nargs=-1, required=True)


def option(
    names: str, metavar: str | None, text: str, callback: Callable | None = None, **settings: Any
) -> click.Option:
    return click.Option(names.split(), metavar=metavar, help=text, callback=callback, **settings)


def flag(name: str, text: str) -> click.Option:
    return click.Option([name], is_flag=True, help=text)


SEVERAL_PLANES = "Percentile in [0, 100]; several give an image of several planes."
SIGMA = "Leave out values that are more standard deviations from the median [3]."
MAXITERS = "Maximum number of rounds, or none for no limit [5]."
ROUNDS = parsed(rounds, "a number of rounds, nor none")

# The options that are parameters of a statistic, in the order of the parameters.
PARAMETERS: dict[str, list[click.Option]] = {
    "percentile": [option("--pctl", "Q[,Q...]", SEVERAL_PLANES, parse_percentiles, required=True)],
    "count_above": [
        option("--threshold", "N", "Count the frames with a larger value.", NUMBER, required=True)
    ],
    "clipped_average": [
        option("--sigma", "N", SIGMA, NUMBER, default="3"),
        option("--maxiters", "N", MAXITERS, ROUNDS, default="5"),
    ],
}

FRAMES = parsed(frame_slice, "START:STOP[:STEP], such as 10:200 or ::2")
FLIPPED = parsed(flip_name, f"one of {', '.join(FLIPS)}")
REGION = parsed(box, "R0:R1,C0:C1, such as 0:512,1024:2048")
RAW = parsed(raw, "ROWSxCOLS,DTYPE[,SKIP[,GAP]], such as 2048x2048,uint16,8192")
SHAPE = parsed(frame_shape, "ROWSxCOLS, such as 1024x1024")
NAMES = parsed(lambda text: [part.strip() for part in text.split(",")], "names")
STATS = parsed(statistics_list, "names, with numbers after colons: max,percentile:5:95")
SCHEDULER = parsed(scheduler, f"one of {', '.join(SCHEDULERS)} nor an address")

MASK = """Leave out the pixels that are not zero in this image of bool or integers: .npy, .tif,
.png, .edf, .cbf, .h5, .zarr and others [none]."""

DARK = "Subtract this image from each frame; --invalid and --saturation are of the values before."
CHECKPOINT = """Store the state of the run in this directory, and continue from the state that is
there: after a signal, after the end of the wall time, or with frames that were appended."""
FOLLOW = """Watch a series that grows: replace the output whenever frames were added, until
--nframes of them are there, or none was added for --timeout seconds."""
TIMEOUT = "Seconds without new frames after which --follow ends [10]."
FLIP = """Flip frames, after --dark: v reverses columns, h rows, hv both; t transposes, r90 turns
counterclockwise, r270 clockwise, as in HEXRD. --region and --mask are of flipped frames."""


def series_options() -> list[click.Option]:
    """Return the options that select frames, memory and scheduler."""
    limit = 'Maximum memory to use, such as "4 GiB" [half of the available memory].'
    flat = "Read flat files: shape and dtype of frames, bytes before them, and between them."
    workers = "Start a cluster of N processes on this machine, with a dashboard."
    return [
        option("--raw", "ROWSxCOLS,DTYPE[,SKIP[,GAP]]", flat, RAW),
        option("--nframes", "N", "Use the first N frames [all].", default=0),
        *selection_options(),
        option("--memory-limit", "SIZE", limit),
        *scheduler_options(),
        option("--workers", "N", workers, type=click.IntRange(1)),
        *diagnostic_options(),
    ]


def scheduler_options() -> list[click.Option]:
    """Return the options that name a scheduler."""
    address = "or the address of a dask scheduler (tcp://host:8786) [threads]."
    file = "Use the cluster whose scheduler wrote this file (dask scheduler --scheduler-file)."
    return [
        option("--scheduler", "NAME", f"{', '.join(SCHEDULERS)}, {address}", SCHEDULER),
        option("--scheduler-file", "FILE", file),
    ]


def selection_options() -> list[click.Option]:
    """Return the options that select frames, pixels and values."""
    frames = "Use these frames, counted from 0; negative ones from the end [all]."
    region = "Use rows R0 to R1 - 1 and columns C0 to C1 - 1 [all]."
    invalid = "Leave out these values, such as 4294967295 or -1,-2."
    fill = "Value of pixels where everything is left out [NaN; images of integers need one]."
    return [
        option("--frames", "START:STOP[:STEP]", frames, FRAMES),
        option("--region", "R0:R1,C0:C1", region, REGION),
        option("--mask", "FILE", MASK),
        option("--invalid", "N[,N...]", invalid, parsed(numbers, NUMBERS)),
        option("--saturation", "N", "Leave out values from N on.", NUMBER),
        flag("--skipna", "Leave out NaN, instead of making its pixel NaN."),
        option("--fill-value", "N", fill, NUMBER),
        option("--dark", "FILE", DARK),
        option("--flip", "NAME", FLIP, FLIPPED),
    ]


def output_options() -> list[click.Option]:
    """Return the options of commands that write images."""
    chunks = "Number of intermediate images, which are progress steps [up to 50]."
    return [
        option("-o --output", "PATH", "File to write.", required=True, type=click.Path()),
        option("--chunks", "N", chunks, type=int),
        option("--dtype", "DTYPE", "Dtype of the image, such as float64."),
        option("--checkpoint", "DIR", CHECKPOINT, type=click.Path()),
        flag("--restart", "Remove the checkpoint, and start over."),
        flag("--follow", FOLLOW),
        option("--timeout", "S", TIMEOUT, type=float, default=10.0),
        flag("--no-notes", "Write no notes on how the image was made."),
        *output_flags("Replace an existing output; never the input."),
    ]


def output_flags(force: str) -> list[click.Option]:
    return [flag("--force", force), flag("--quiet", "Show no progress and no closing line.")]


def diagnostic_options() -> list[click.Option]:
    """Return the options that tell more about a run, or about its error."""
    text = "Log the plan, the run and compilations to stderr; -vv: more. There is no progress bar."
    return [
        option("-v --verbose", None, text, _start_log, count=True),
        flag("--traceback", "Show the traceback of an error."),
    ]


def _start_log(ctx: click.Context, param: click.Parameter, value: int) -> int:
    """Log until the command has ended: from INFO on, or from DEBUG on."""
    if value:
        ctx.with_resource(logged(logging.INFO if value == 1 else logging.DEBUG))
    return value


def files_of(inputs: tuple[str, ...], options: Given) -> list[str]:
    """Return the files that a call reads, as far as its arguments tell.

    Of several inputs, and of a folder, one that is the output is left out.
    """
    first = as_path(inputs[0])
    single = first if len(inputs) == 1 and not Path(first).is_dir() else None
    given = single, *(options[name] and as_path(options[name]) for name in IMAGES)
    return [file.partition("::")[0] for file in given if file]
