"""The cost of looking on in a notebook: seconds and CPU of runs with and without pictures.

Everything runs in a Jupyter kernel, whose output a client receives. The ways take turns, A B A B.
Matplotlib draws each image as an inline figure; LiberTEM draws its own live plot, and is compared
with itself without one.
"""

import json
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import common
import dask
import numpy as np
from jupyter_client.manager import start_new_kernel
from report import Report

import daskstats as stats
from daskstats import notebook

IMAGES = 50

# Frames of a run, and of those that are in memory; they come again and again.
FRAMES, DIFFERENT, SHAPE = 800, 40, (2048, 2048)

HEADER = (
    "run",
    "looking on",
    "s",
    "CPU s",
    "pictures",
    "CPU of looking, %",
    "time, %",
    "goal",
    "met",
)

# The CPU that looking takes, and on a cluster the time, in percent of the run.
GOAL = 3


class Scan:
    """Frames that a detector reader might return, from a few in memory."""

    dtype = np.dtype("u2")

    def __init__(self, nframes: int, different: int, shape: tuple[int, int]) -> None:
        self.shape, self._nframes = shape, nframes
        self._frames = common.series("u2", (different, *shape))

    def __len__(self) -> int:
        return self._nframes

    def __getitem__(self, index: int) -> np.ndarray:
        return self._frames[index % len(self._frames)].copy()


# ---------------------------------------------------------------------- ways to look on


def not_at_all(scan: Scan, statistic: Any) -> int:
    for _ in stats.snapshots(scan, statistic, IMAGES):
        pass
    return 0


def watched(scan: Scan, statistic: Any) -> int:
    count, figures = 0, notebook.Look.figures

    def counted(*arguments: Any) -> str:
        nonlocal count
        count += 1
        return figures(*arguments)

    notebook.Look.figures = counted
    try:
        stats.watch(scan, statistic, IMAGES)
    finally:
        notebook.Look.figures = figures
    return count


def with_matplotlib(scan: Scan, statistic: Any) -> int:
    """Draw each image as people do by hand."""
    from IPython.display import clear_output, display
    from matplotlib import pyplot

    pyplot.ioff()  # or each figure would be shown a second time
    count = 0
    for shot in stats.snapshots(scan, statistic, IMAGES):
        images = shot.image if isinstance(shot.image, dict) else {shot.statistic: shot.image}
        figure, axes = pyplot.subplots(1, len(images), squeeze=False)
        for panel, (name, image) in zip(axes[0], images.items(), strict=True):
            panel.imshow(image, vmin=np.percentile(image, 1), vmax=np.percentile(image, 99.5))
            panel.set_title(name)
        clear_output(wait=True)
        display(figure)
        pyplot.close(figure)
        count += 1
    return count


def with_libertem(scan: Scan, plots: bool) -> int:
    from libertem.api import Context
    from libertem.udf.sum import SumUDF

    with Context.make_with("inline") as context:
        data = scan._frames.reshape(1, *scan._frames.shape)
        dataset = context.load("memory", data=data, sig_dims=2)
        context.run_udf(dataset, SumUDF(), plots=plots, progress=plots)
    return int(plots)


def in_turn(
    ways: dict[str, Callable[[], int]], repeats: int
) -> dict[str, tuple[float, float, int]]:
    """Return seconds, CPU seconds and pictures of each way: medians of several turns."""
    found: dict[str, list] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            began, cpu = time.perf_counter(), time.process_time()
            count = way()
            took = time.perf_counter() - began, time.process_time() - cpu, count
            if turn:  # the first one compiles
                found[name].append(took)
    return {name: tuple(map(median, zip(*each, strict=True))) for name, each in found.items()}


def rows(run: str, found: dict[str, tuple[float, float, int]], by_time: bool = False) -> list[list]:
    """Return the rows of one run, of which the first way does not look on."""
    (seconds, cpu, _), *_ = found.values()
    table = []
    for name, (own, own_cpu, count) in found.items():
        more, longer = 100 * (own_cpu - cpu) / cpu, 100 * (own - seconds) / seconds
        first = own_cpu is cpu
        goal = GOAL if name == "watch" else None
        met = None if goal is None else ("yes" if (longer if by_time else more) <= GOAL else "no")
        costs = [None, None] if first else [more, longer]
        table.append([run, name, own, own_cpu, count, *costs, goal, met])
    return table


def measured(tiny: bool) -> list[list]:
    """Return all rows of the table; called in the kernel."""
    sizes = (60, 4, (64, 64)) if tiny else (FRAMES, DIFFERENT, SHAPE)
    scan, repeats, table = Scan(*sizes), 1 if tiny else 3, []
    with dask.config.set(num_workers=common.THREADS):
        for statistic in ("average", ["max", "min", "average", "std"]):
            ways = {
                "none": lambda statistic=statistic: not_at_all(scan, statistic),
                "watch": lambda statistic=statistic: watched(scan, statistic),
            }
            if find_spec("matplotlib"):
                ways["matplotlib"] = lambda statistic=statistic: with_matplotlib(scan, statistic)
            name = statistic if isinstance(statistic, str) else "four statistics"
            table += rows(name, in_turn(ways, repeats))
    if find_spec("libertem"):
        ways = {
            "none (LiberTEM)": lambda: with_libertem(scan, False),
            "LiberTEM": lambda: with_libertem(scan, True),
        }
        table += rows(f"LiberTEM's sum of {sizes[1]} frames", in_turn(ways, repeats))
    from distributed import Client, LocalCluster

    with (
        LocalCluster(2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster),
    ):
        ways = {
            "none": lambda: not_at_all(scan, "average"),
            "watch": lambda: watched(scan, "average"),
        }
        table += rows("average, two workers", in_turn(ways, repeats), by_time=True)
    return table


def in_kernel(tiny: bool) -> list[list]:
    """Measure in a kernel, and receive its output as a browser would."""
    manager, client = start_new_kernel(kernel_name="python3")
    lines: list[str] = []

    def receive(message: dict) -> None:
        content = message["content"]
        if message["msg_type"] == "stream" and content["name"] == "stdout":
            lines.append(content["text"])
        if message["msg_type"] == "error":
            raise RuntimeError("\n".join(content["traceback"]))

    here = str(Path(__file__).parent)
    code = (
        f"import json, sys; sys.path.insert(0, {here!r})\n"
        f"import watch; print(json.dumps(watch.measured({tiny})))"
    )
    try:
        client.execute_interactive(code, timeout=3600, output_hook=receive)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return json.loads("".join(lines))


def main() -> None:
    options = common.parser(__doc__.splitlines()[0]).parse_args()
    shape = "60 x 64 x 64" if options.tiny else f"{FRAMES} x {SHAPE[0]} x {SHAPE[1]}"
    facts = [f"{shape} uint16, frame by frame, {IMAGES} images, {common.THREADS} threads, medians"]
    report = Report(facts, ("numpy", "dask", "ipykernel", "matplotlib", "libertem"))
    report.add(None, HEADER, in_kernel(options.tiny))
    report.save(options.json)


if __name__ == "__main__":
    main()
