"""How plans, streams, snapshots and lazy images look: in a line of text, and in a notebook."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from fakes import FakeSeries, Ramp
from PIL import Image

import daskstats as stats
from daskstats.pictures import side_by_side
from daskstats.planning.request import Request
from daskstats.planning.row_wise import plan_row_wise
from daskstats.planning.values import Cost, Disk, Layout
from daskstats.run.progress import Snapshot

# A notebook keeps every picture that it has shown in its file.
MOST_BYTES = 400_000


class Page(HTMLParser):
    """The rows of the tables of some HTML, its text, and the PNG files of its pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.text, self.pictures = "", []
        self._open: list[str] = []
        assert len(text) < MOST_BYTES
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            kind, data = dict(attrs)["src"].split(",")
            assert kind == "data:image/png;base64"
            self.pictures.append(Image.open(io.BytesIO(base64.b64decode(data))))
            return
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self._open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def table_of(value):
    return {name: values[0] for name, *values in Page(value._repr_html_()).rows}


def numbers(text):
    return [int(number) for number in re.findall(r"\d+", text)]


def one_line(value, length=250):
    text = repr(value)
    assert "\n" not in text
    assert len(text) <= length
    return text


# ---------------------------------------------------------------------- plans

SHAPE = {"nframes": 100, "rows": 2048, "cols": 2048, "itemsize": 2, "row_unit": 2048}
COST = Cost(state=8, image=4, temporaries=64, tile=1 << 20)
PLACE = Disk("/data/<b>&", 1 << 40)


@pytest.mark.parametrize(
    ("limit", "options", "processes", "strategy", "reasons"),
    [
        pytest.param(1 << 32, {}, 0, "resident", {"direct": "rows"}, id="resident"),
        pytest.param(
            1 << 29, {"disk": PLACE}, 0, "scratch", {"direct": "rows", "resident": "972.1 MiB"},
            id="scratch",
        ),
        pytest.param(
            1 << 29, {"use_buffer": False}, 0, "reread",
            {"direct": "rows", "resident": "use_buffer", "scratch": "use_buffer"}, id="not wanted",
        ),
        pytest.param(
            1 << 29, {"disk": Disk("/tmp", 1 << 20)}, 0, "reread",
            {"direct": "rows", "resident": "972.1 MiB", "scratch": "1 MiB in /tmp"}, id="no room",
        ),
        pytest.param(
            1 << 29, {"shuffle": 1 << 30}, 2, "reread",
            {"direct": "rows", "resident": "cluster", "scratch": "no directory", "p2p": "1289 MiB"},
            id="cluster",
        ),
    ],
)  # fmt: skip
def test_a_plan_says_why(limit, options, processes, strategy, reasons):
    request = Request(Layout(**SHAPE), COST, 3, 2, limit, processes=processes)
    plan = plan_row_wise(request, **options)
    found = table_of(plan)
    assert found["strategy"].startswith(f"{plan.strategy}: ")
    assert plan.strategy == strategy
    assert [name for name in found if name.startswith("not ")] == [f"not {n}" for n in reasons]
    for name, text in reasons.items():
        assert text in found[f"not {name}"]
    blocks, *sizes = numbers(found["tasks"])
    assert blocks == len(plan.blocks)
    heights = {stop - start for start, stop in plan.blocks}
    assert {min(heights), max(heights)} <= set(sizes)
    assert numbers(found["reads"]) == [int(plan.reads)]
    assert numbers(found["memory"])[-1] == limit >> 20
    assert found["images"] == "3"
    if strategy == "scratch":
        assert found["scratch"] == "800 MiB in /data/<b>&"
    assert one_line(plan) == f"<Plan {plan}>"


def test_a_plan_of_parts_of_rows_says_why_rows_are_cut():
    layout = Layout(nframes=100_000, rows=20, cols=20_048, itemsize=2, row_unit=20)
    found = table_of(plan_row_wise(Request(layout, COST, 1, 2, 1 << 32)))
    assert "8430 MiB" in found["not whole rows"]
    assert "pixels" in found["tasks"]
    assert "images" not in found


# ---------------------------------------------------------------------- streams and snapshots


def test_a_stream_says_how_far_it_is():
    stream = stats.aggregate_iter(FakeSeries(Ramp((30, 20)), 40), ["max", "average"], 8)
    assert table_of(stream) == {
        "statistic": "max, average",
        "series": "40 frames of 30 x 20",
        "images": "0 of 8 images",
        "done": "0 of 40 frames",
        "phase": "wait",
    }
    for _ in range(3):
        next(stream)
    found = table_of(stream)
    assert (found["images"], found["done"]) == ("3 of 8 images", "15 of 40 frames")
    stream.close()
    assert table_of(stream)["phase"] == "end"
    text = one_line(stream)
    assert "max, average of 40 frames of 30 x 20, 3 of 8 images, 15 of 40 frames, end" in text


def naive_means(image, step):
    rows, cols = (-(-length // step) for length in image.shape)
    return np.array(
        [
            [
                image[i * step : (i + 1) * step, j * step : (j + 1) * step].mean()
                for j in range(cols)
            ]
            for i in range(rows)
        ]
    )


def check_picture(picture, image, low, high, seen=None):
    """Compare a decoded picture with the block means of an image."""
    index, rows = np.asarray(picture), image.shape[0] if seen is None else seen
    step = -(-max(image.shape) // max(index.shape))
    means = naive_means(image[:rows].astype("f8"), step)
    expected = 1 + 254 * np.clip((means - low) / (high - low), 0, 1)
    assert np.abs(index[: len(means)] - expected).max() <= 2
    assert not index[len(means) :].any()
    assert picture.info["transparency"] in (0, b"\0")


def limits_of(page):
    found = re.findall(r"([\d.e+-]+) … ([\d.e+-]+)", page.text)
    return [tuple(map(float, each)) for each in found]


def test_a_snapshot_is_a_picture_beside_its_numbers():
    frames = np.random.default_rng(6).integers(0, 60_000, (6, 1030, 700)).astype("u2")
    frames += np.arange(700, dtype="u2")
    for shot in stats.snapshots(frames, "average", 3):
        page = Page(shot._repr_html_())
        assert f"average: {shot.done} of 6 frames, {shot.nbytes / 2**20:.4g} MiB read" in page.text
        (picture,), ((low, high),) = page.pictures, limits_of(page)
        check_picture(picture, shot.image, low, high)
        assert one_line(shot) == (
            f"<Snapshot of average: {shot.done} of 6 frames, image of 1030 x 700 float32>"
        )
    first = next(iter(stats.snapshots(frames, ["median", "max"], 4)))
    page = Page(first._repr_html_())
    assert f"median, max: {first.done} of 1030 rows" in page.text
    assert first.done < 300
    for picture, image, limits in zip(
        page.pictures, first.image.values(), limits_of(page), strict=True
    ):
        check_picture(picture, image, *limits, seen=first.done)
    assert one_line(first).endswith("image of 1030 x 700 float32, 1030 x 700 uint16>")


def test_pictures_stay_small_and_names_are_text():
    noise = np.random.default_rng(7).integers(0, 65_000, (20, 512, 512)).astype("u2")
    assert len(Page(side_by_side({"noise": noise[0]})).pictures) == 1
    assert len(Page(side_by_side(dict(zip("abcd", noise, strict=False)))).pictures) == 4
    planes = Page(side_by_side({"planes": noise}))
    assert len(planes.pictures) == 16
    assert "planes [15]" in planes.text
    assert "and 4 more" in planes.text
    seen = np.ones((512, 512), bool)
    shot = Snapshot(noise[0], 1, 2, seen, statistic="<script>&")
    assert Page(shot._repr_html_()).text.startswith("<script>&: 1 of 2 frames")
    blank = Snapshot(0 * noise[0], 1, 2, ~seen, phase="read")
    page = Page(blank._repr_html_())
    assert "no values" in page.text
    assert not np.asarray(page.pictures[0]).any()
