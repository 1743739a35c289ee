"""The commands: one for each statistic, and ``aggregate``, ``info`` and ``simulate``.

Help and errors of usage take no package but click: the rest is imported when a command begins.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import click

from ..formats import places
from ..names import DTYPES, SIMULATED, STATISTICS, WRITTEN
from ..packages import load
from . import early
from . import options as opts
from .options import option
from .program import Program, reported_errors

# For each statistic the arguments of an example.
COMMANDS = {
    "max": "scan.h5 -o peaks.tif",
    "min": "scan.zarr -o floor.npy",
    "sum": "scan.h5::/entry/data/data -o exposure.h5",
    "average": "scan.npz -o average.png",
    "std": "scan.zarr -o noise.h5",
    "var": "scan.zarr -o variance.npy",
    "snr": "scan.h5 -o quality.tif",
    "percentile": "scan.npz --pctl 5,50,95 -o levels.npy",
    "median": "scan.zarr -o dark.npy",
    "range": "scan.zarr -o swing.npy",
    "argmax": "scan.h5 -o brightest.npy",
    "argmin": "scan.h5 -o darkest.npy",
    "count": "scan.h5 --invalid 65535 -o exposures.npy",
    "count_above": "scan.h5 --threshold 1000 -o lit.npy",
    "clipped_average": "scan.zarr --sigma 3 -o flat.tif",
}

INPUTS = """INPUT is a file with a series of images, a folder of such files, or a pattern in quotes
("scan_*.tif"); of several, the frames follow one another. If a file holds several datasets, name
one: scan.h5::/entry/data/data."""

OUTPUTS = """OUTPUT is an image: .npy, .zarr, .h5, .nxs (NeXus) or .tif keep every value, .edf,
.cbf, .mrc and .fits if they can, and .png is a picture for looking. An HDF5 file may name its
dataset: HEXRD reads dark.h5::/imageseries/images."""

COLLECTIONS = """OUTPUT is a .zarr (a group with one array for each statistic), .npz, .h5 or .nxs
file or, without a suffix, a directory with one file for each, in the format that --format names."""

STATISTICS_HELP = """Statistics are separated by commas; parameters follow after colons:
percentile:95, percentile:5:50:95 (an image of several planes), count_above:1000,
clipped_average:3:5. Images are named after them: max, percentile_5_50_95."""


@click.group(
    cls=Program,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="daskstats", message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Aggregate images of image series, within the available memory.

    \b
    Try it on a simulated scan:
      daskstats simulate scan.zarr
      daskstats median scan.zarr -o dark.npy
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run_statistic(
    name: str,
    *,
    input: tuple[str, ...],  # noqa: A002
    output: str,
    **options: Any,
) -> None:
    """Compute one statistic and write its image."""
    parameters = [options.pop(str(each.name)) for each in opts.PARAMETERS.get(name, [])]
    ndim = 3 if any(isinstance(each, tuple) for each in parameters) else 2
    with reported_errors(options["traceback"]):
        early.check_arguments(input, options)
        places.check_output(output, opts.files_of(input, options), options["force"], ndim)
        places.check_apart(output, options["checkpoint"])
    statistic = (name, *parameters) if parameters else name
    heavy("computing").write_image(name, statistic, ndim, input, output, options)


def run_statistics(
    *,
    input: tuple[str, ...],  # noqa: A002
    output: str,
    stats: list,
    format: str | None,  # noqa: A002
    **options: Any,
) -> None:
    """Compute several statistics in one pass and write their images."""
    with reported_errors(options["traceback"]):
        early.check_statistics(stats)
        early.check_arguments(input, options)
        places.check_collection(output, format)
        places.check_apart(output, options["checkpoint"])
    heavy("computing").write_images(stats, input, output, format, options)


def run_warm(**options: Any) -> None:
    """Compile the code of statistics beforehand."""
    with reported_errors(options["traceback"]):
        early.check_statistics(options["stats"] or [])
        early.check_arguments([], options)
    heavy("warm").print_warming(options)


def run_show(checkpoint: str, **options: Any) -> None:
    """Print the progress of a run, and write its newest image."""
    with reported_errors(options["traceback"]):
        if options["output"] is not None:
            places.check_apart(options["output"], checkpoint)
    heavy("show").print_checkpoint(checkpoint, **options)


def run_info(*, input: tuple[str, ...], **options: Any) -> None:  # noqa: A002
    """Print the properties of a series, and its plans."""
    with reported_errors(options["traceback"]):
        early.check_arguments(input, options)
    heavy("info").print_info(input, **options)


def run_simulate(output: str, **options: Any) -> None:
    """Write a simulated scan."""
    with reported_errors(options["traceback"]):
        places.check_place(output, SIMULATED, (), options["force"])
    heavy("simulating").write_scan(output, **options)


def heavy(module: str) -> Any:
    """Import a module of this room that imports everything that computes."""
    return load(f"{__package__}.{module}")


def add_command(
    name: str, callback: Callable, params: list, short_help: str, text: str, example: str
) -> None:
    """Add a command to the program; the example has its arguments only."""
    text = f"{text}\n\n\b\nExample:\n  daskstats {name} {example}"
    main.add_command(
        click.Command(name, params=params, callback=callback, short_help=short_help, help=text)
    )


for _name in STATISTICS:
    _value, _example = STATISTICS[_name], COMMANDS[_name]
    _text = f"Write the {_value}, at each pixel, as an image.\n\n{INPUTS}\n\n{OUTPUTS}"
    _params = [opts.input_argument(), *opts.PARAMETERS.get(_name, [])]
    _params += [*opts.output_options(), *opts.series_options()]
    _callback = partial(run_statistic, _name)
    add_command(_name, _callback, _params, f"The {_value}, at each pixel.", _text, _example)

NAMES = f"Statistics: {', '.join(STATISTICS)}."
FORMATS = click.Choice([suffix[1:] for suffix in WRITTEN])
add_command(
    "aggregate",
    run_statistics,
    [
        opts.input_argument(),
        option("--stats", "NAME[:PARAMETER...],...", NAMES, opts.STATS, required=True),
        option("--format", None, "Format of the files in a directory [npy].", type=FORMATS),
        *opts.output_options(),
        *opts.series_options(),
    ],
    "Several statistics in one pass.",
    "Write several statistics of each pixel over all frames: each frame is read once for all of "
    f"them.\n\n{STATISTICS_HELP}\n\n{INPUTS}\n\n{COLLECTIONS}",
    "scan.h5 --stats max,average,percentile:5:95 -o images.zarr",
)

add_command(
    "info",
    run_info,
    [
        opts.input_argument(),
        option("--json as_json", None, "Print a JSON object, for programs.", is_flag=True),
        *opts.series_options(),
    ],
    "Describe a series, and how it would be read.",
    "Describe a series, and how it would be read: its files, the dataset that is taken and why, "
    "values of the first frame that stand for no count, and the plan of a frame-wise statistic "
    f"(max, min, sum, average) and of a row-wise one (percentile, median).\n\n{INPUTS}",
    "scan.h5 --memory-limit '2 GiB'",
)

picture = "File to write: an image or, of several statistics, a file or directory of images."
add_command(
    "show",
    run_show,
    [
        click.Argument(["checkpoint"], type=click.Path()),
        option("-o --output", "PATH", picture, type=click.Path()),
        opts.flag("--force", "Replace an existing output."),
        *opts.diagnostic_options(),
    ],
    "Show how far a run with a checkpoint is.",
    "Print how far a run with --checkpoint is, and write its newest image, also while it runs or "
    f"after it was killed.\n\n{OUTPUTS}",
    "scan.checkpoint -o preview.png",
)

every = "Compile also for one pass of `aggregate` over all these statistics."
left_out = "Compile also for calls with --invalid, --saturation or --skipna; takes much longer."
dtypes = "Dtypes of frames [uint16,uint32,int32,float32]."
add_command(
    "warm",
    run_warm,
    [
        option("--dtypes", "DTYPE,...", dtypes, opts.NAMES),
        option("--stats", "NAME,...", f"{NAMES} [the common ones]", opts.STATS),
        opts.flag("--aggregate", every),
        opts.flag("--invalid", left_out),
        *opts.scheduler_options(),
        *opts.diagnostic_options(),
    ],
    "Compile code beforehand.",
    "Compile the code of statistics, once for each dtype, and keep it on disk: in an image of a "
    "container, in an environment that many people share, or on every host of a cluster.",
    "--dtypes uint16,float32 --stats median,max",
)

shown_option = partial(option, show_default=True)
add_command(
    "simulate",
    run_simulate,
    [
        click.Argument(["output"], type=click.Path()),
        shown_option("--nframes --frames", None, "Number of frames.", default=100),
        shown_option("--shape", "ROWSxCOLS", "Shape of a frame.", opts.SHAPE, default="1024x1024"),
        shown_option(
            "--dtype", None, "Dtype of the pixels.", type=click.Choice(DTYPES), default="uint16"
        ),
        shown_option("--seed", None, "Same seed, same frames.", default=0),
        *opts.output_flags("Replace an existing file."),
        *opts.diagnostic_options(),
    ],
    "Write a simulated scan, to try things on.",
    "Write a simulated scan: background, rings and spots, dead and hot pixels.\n\n"
    "OUTPUT is a .zarr, .npy, .h5 or .npz (HEXRD frame cache) file.",
    "scan.zarr --nframes 200 --shape 2048x2048",
)
