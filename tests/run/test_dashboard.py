"""The bars of dask's dashboard, as its own code draws them, and the names of tasks."""

import re
import time
from pathlib import Path
from types import SimpleNamespace

import dask
import numpy as np
import pytest
from clusters import logged_series, settle
from dask.utils import key_split
from fakes import Fail, FakeSeries, Ramp

import daskstats as stats
from daskstats import reduction
from daskstats.run import dashboard

GUIDE = Path(__file__).parents[2] / "docs" / "clusters.md"
SMALL = {"distributed.p2p.comm.buffer": "16MiB", "distributed.p2p.storage.buffer": "16MiB"}


def drawn(dask_scheduler):
    from distributed.dashboard.components.scheduler import TaskProgress

    bars = TaskProgress(dask_scheduler)
    bars.update()
    return dict(zip(bars.source.data["name"], bars.source.data["done"], strict=True))


def bars(client):
    """Return the done and all tasks that each bar shows, "6 / 6"."""
    pytest.importorskip("bokeh")
    found = client.run_on_scheduler(drawn)
    return {name: tuple(map(int, text.split(" / "))) for name, text in found.items()}


def own_plugins(client):
    return [name for name in client.cluster.scheduler.plugins if name.startswith("daskstats")]


def test_bars_of_an_iterator_count_all_tasks(client, tmp_path):
    scan = logged_series(tmp_path / "log", 60)
    images = stats.average_iter(scan, 20)
    seen = []
    for count, _ in enumerate(images, start=1):
        if count < 20:
            done, total = bars(client)["average-partial"]
            seen.append(total)
            # Those that are gathered, and some of those in flight.
            assert count <= done <= total
    blocks = len(stats.plan(scan, "average", 20).blocks)
    assert set(seen) == {blocks}
    assert blocks >= 20
    assert settle(client) == (0, 0, 0)
    assert bars(client) == {}
    assert own_plugins(client) == []


def test_bars_of_two_runs_add_up_and_are_gone_when_they_are_left(client, tmp_path):
    scan = logged_series(tmp_path / "log", 60)
    first, second = stats.max_iter(scan, 30), stats.max_iter(scan, 20)
    next(first), next(second)
    total = sum(len(stats.plan(scan, "max", n).blocks) for n in (30, 20))
    assert bars(client)["max-partial"][1] == total
    first.close()
    for _ in second:
        pass
    failing = FakeSeries(Ramp(), 9, on_read=Fail({7: 99}, OSError("no frame 7")))
    with pytest.raises(OSError, match="no frame 7"):
        list(stats.max_iter(failing, 9))
    assert settle(client) == (0, 0, 0)
    assert bars(client) == {}
    assert own_plugins(client) == []
    prefix = client.cluster.scheduler.task_prefixes["max-partial"]
    assert {state: n for state, n in prefix.states.items() if n and state != "forgotten"} == {}


def test_a_scheduler_that_takes_no_plugin(client, tmp_path, monkeypatch):
    def refuse(plugin):
        raise ValueError("pickles are forbidden")

    scan = logged_series(tmp_path / "log", 30)
    monkeypatch.setattr(client, "register_plugin", refuse)
    *_, image = stats.max_iter(scan, 10)
    np.testing.assert_array_equal(image, scan.stack().max(axis=0))


CALLS = [
    ("average", {}, "fold"),
    (["max", "average"], {}, "fold"),
    ("median", {}, "p2p"),
    ("median", {"use_buffer": False}, "reread"),
    ("median", {"memory_limit": "40 MiB"}, "scratch"),
]


def test_names_of_tasks_are_those_of_the_guide(inside, tmp_path):
    guide = set(re.findall(r"`([a-z-]+)`", GUIDE.read_text())) | {"max-average-step"}
    scan = logged_series(tmp_path / "log", 64, shape=(64, 512))
    for names, options, strategy in CALLS:
        place = str(tmp_path) if strategy == "scratch" else None
        with dask.config.set(SMALL | {"daskstats.scratch-directory": place}):
            call = reduction.reduce(scan, names, 0, 3, running=True, **options)
            assert call.plan.strategy == strategy
            _, graph, *_ = call.scheduler.execution(call._work, True).make_runner.args
            images = reduction.reduce(scan, names, **options).lazy_images()
        for keys in (graph, *(dict(image.dask) for image in images.values())):
            assert {key_split(key) for key in keys} <= guide
    assert {key_split(key) for key in stats.wrap(scan).dask} <= guide


def test_a_run_without_tasks_is_gone_with_its_client(inside):
    from distributed import Client

    with Client(inside.scheduler.address, set_as_default=False) as other:
        dashboard.show_progress(other, ["max-partial-0f"])
        assert len(own_plugins(inside)) == 1
    deadline = time.monotonic() + 5
    while own_plugins(inside) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert own_plugins(inside) == []


def test_counts_follow_tasks_that_are_tried_again():
    """The numbers of a bar stay within the number of tasks."""
    states = ("released", "waiting", "processing", "forgotten")
    prefix = SimpleNamespace(states=dict.fromkeys(states, 0))
    group = SimpleNamespace(name="max-0f", prefix=prefix, states=dict.fromkeys(states, 0))
    tasks = {("max-0f", index): SimpleNamespace(group=group) for index in range(4)}
    left = []
    plugin = dashboard.ProgressBars(tasks)
    plugin.start(
        SimpleNamespace(tasks=tasks, task_groups={"max-0f": group}, remove_plugin=left.append)
    )

    def see(start, finish, processing):
        """Return the numbers that the plugin adds after a transition of the only task."""
        group.states["processing"] = processing
        plugin.transition(("max-0f", 0), start, finish)
        return prefix.states["released"], prefix.states["waiting"]

    assert see("released", "processing", 1) == (0, 3)
    assert [see("processing", "forgotten", 1) for _ in range(5)] == [
        (1, 2), (2, 1), (3, 0), (3, 0), (3, 0)
    ]  # fmt: skip
    assert see("processing", "forgotten", 0) == (0, 0)
    assert left == [plugin.name]
