"""Plans are arithmetic: every frame once, within the limit, at the cost they say."""

import dataclasses
from fractions import Fraction

import pytest
from helpers import make_frames
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from daskstats.planning import cuts, frame_wise, margins, strategies, values
from daskstats.planning.cuts import cut, split
from daskstats.planning.frame_wise import plan_frame_wise
from daskstats.planning.request import Request
from daskstats.planning.row_wise import plan_row_wise
from daskstats.planning.values import Cost, Layout, MemoryLimitError
from daskstats.series.base import Source

GIBI = 1 << 30
PLENTY = 1 << 60

many = settings(derandomize=True, deadline=None, max_examples=200)


def fold(*request, chained=True, **options):
    return plan_frame_wise(Request(*request, **options), chained)


def bands(layout, cost, steps, workers, limit, use_buffer=True, disk=None, **options):
    request = Request(layout, cost, steps, workers, limit, **options)
    return plan_row_wise(request, use_buffer, disk)


# ---------------------------------------------------------------------- cutting


@pytest.mark.parametrize(
    ("total", "parts", "sizes"),
    [
        (10, 1, [10]),
        (10, 10, [1] * 10),
        (10, 4, [3, 3, 2, 2]),  # larger first
        (12, 4, [3, 3, 3, 3]),
        (11, 4, [3, 3, 3, 2]),
        (1, 1, [1]),
    ],
)
def test_split(total, parts, sizes):
    assert split(total, parts) == sizes


@many
@given(st.integers(1, 10**6), st.data())
def test_split_is_nearly_equal_and_larger_first(total, data):
    parts = data.draw(st.integers(1, min(total, 10**4)))
    sizes = split(total, parts)
    assert len(sizes) == parts
    assert sum(sizes) == total
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1


@pytest.mark.parametrize(
    ("start", "stop", "size", "unit", "blocks"),
    [
        (0, 10, 10, 1, ((0, 10),)),
        (0, 10, 100, 1, ((0, 10),)),
        (0, 10, 1, 1, tuple((k, k + 1) for k in range(10))),
        (0, 10, 6, 1, ((0, 5), (5, 10))),  # nearly equal, not 6 + 4
        (5, 10, 2, 1, ((5, 7), (7, 9), (9, 10))),
        (0, 20, 10, 4, ((0, 8), (8, 16), (16, 20))),  # cuts at multiples of 4
        (3, 20, 8, 4, ((3, 8), (8, 16), (16, 20))),  # also where the range does not begin at one
        (5, 7, 8, 4, ((5, 7),)),  # within one unit
        (0, 10, 3, 4, ((0, 3), (3, 6), (6, 8), (8, 10))),  # a unit is too large: cut elsewhere
    ],
)
def test_cut(start, stop, size, unit, blocks):
    assert cut(start, stop, size, unit) == blocks


@many
@given(st.integers(0, 500), st.integers(1, 500), st.integers(1, 600), st.integers(1, 100))
def test_cut_covers_the_range_in_order(start, length, size, unit):
    blocks = cut(start, start + length, size, unit)
    covered = [item for begin, end in blocks for item in range(begin, end)]
    assert covered == list(range(start, start + length))
    assert all(0 < end - begin <= size for begin, end in blocks)
    if unit <= size:
        assert all(begin % unit == 0 for begin, _ in blocks[1:])


# ---------------------------------------------------------------------- plans as a whole

sizes = st.integers(1, 200)

DISK = values.Disk("/scratch", PLENTY)
SMALL_DISK = values.Disk("/scratch", 1000)
RAM_DISK = values.Disk("/dev/shm", PLENTY, in_memory=True)


@st.composite
def layouts(draw):
    nframes, rows = draw(st.integers(1, 3000)), draw(sizes)
    return Layout(
        nframes=nframes,
        rows=rows,
        cols=draw(sizes),
        itemsize=draw(st.sampled_from([1, 2, 4, 8])),
        frame_unit=draw(st.integers(1, nframes + 5)),
        row_unit=draw(st.one_of(st.just(1), st.just(rows), st.integers(1, rows))),
        in_memory=draw(st.booleans()),
        buffers=draw(st.sampled_from([0, 1, 1.5])),
    )


costs = st.builds(Cost, st.sampled_from([0, 8, 16]), st.sampled_from([0, 4, 8]), st.integers(0, 16))


@st.composite
def requests(draw):
    """Return a planner, its arguments but the limit, and whatever else it is told."""
    layout, cost, workers = draw(layouts()), draw(costs), draw(st.integers(1, 40))
    planner = draw(st.sampled_from([fold, bands]))
    options = {"running": draw(st.booleans())}
    if planner is bands:
        options["use_buffer"] = draw(st.booleans())
        options["disk"] = draw(st.sampled_from([None, SMALL_DISK, DISK, RAM_DISK]))
    else:
        options["chained"] = draw(st.booleans())
    steps = draw(st.integers(1, layout.nframes if planner is fold else layout.rows))
    return planner, (layout, cost, steps, workers), options


def least(planner, arguments, options):
    """Return the smallest limit that is not refused, which the refusal itself must name."""
    low, high = 0, PLENTY
    while high - low > 1:
        middle = (low + high) // 2
        try:
            planner(*arguments, middle, **options)
            high = middle
        except MemoryLimitError:
            low = middle
    return high


def check_refusal(text, layout, workers, limit):
    assert f"{layout.nframes} frames of {layout.rows} x {layout.cols} need at least" in text
    assert values.rounded_down(limit) in text
    assert f"{workers} workers" in text


@many
@given(requests(), st.integers(0, 60))
def test_every_plan(request, power):
    planner, arguments, options = request
    layout, _, steps, workers = arguments
    limit = 1 << power
    try:
        made = planner(*arguments, limit, **options)
    except MemoryLimitError as error:
        check_refusal(str(error), layout, workers, limit)
        return
    items = layout.nframes if planner is fold else layout.rows
    assert made.along == ("frames" if planner is fold else "rows")
    assert (made.layout, made.workers, made.limit) == (layout, workers, limit)
    covered = [item for start, stop in made.blocks for item in range(start, stop)]
    assert covered == list(range(items))
    assert [parts[-1][1] - parts[0][0] for parts in made.steps] == split(items, steps)
    parts = [part for step in made.steps for part in step]
    assert [item for start, stop in parts for item in range(start, stop)] == list(range(items))
    edges = {start for start, _ in made.blocks}
    assert all(not edges & set(range(start + 1, stop)) for start, stop in parts)
    assert 0 <= made.nbytes <= limit
    check_scratch(made, options)
    assert 1 <= made.piece <= max(layout.nframes, layout.frame_unit)
    assert made.reads >= 1
    count = len(made.blocks)
    assert str(made).startswith(f"{made.strategy}: {count} block{'s' if count > 1 else ''} of ")


def check_scratch(made, options):
    layout, spooled = made.layout, made.strategy == "scratch"
    assert spooled == bool(made.groups) == (made.disk is not None) == bool(made.disk_nbytes)
    if not spooled:
        return
    assert options["use_buffer"]
    assert made.disk == DISK
    assert made.reads == 1
    assert made.disk_nbytes == layout.nbytes
    frames = [frame for start, stop in made.groups for frame in range(start, stop)]
    assert frames == list(range(layout.nframes))
    # Chunks are of one size, and no frame is decoded for two groups.
    group, height = made.groups[0][1], made.blocks[0][1]
    assert all(start % group == 0 for start, _ in made.groups)
    assert all(first % height == 0 for first, _ in made.blocks)
    assert group % min(layout.frame_unit, layout.nframes) == 0 or len(made.groups) == 1


@settings(many, max_examples=50)
@given(requests())
def test_least_limit_is_exact_and_more_memory_is_never_worse(request):
    planner, arguments, options = request
    limit = least(planner, arguments, options)
    small = planner(*arguments, limit, **options)
    assume(small.nbytes > margins.FIXED_OVERHEAD)  # views, and a statistic that keeps nothing
    assert small.nbytes <= limit
    large = planner(*arguments, PLENTY, **options)
    assert large.reads <= small.reads
    if large.strategy == small.strategy != "scratch":
        assert len(large.blocks) <= len(small.blocks)
    with pytest.raises(MemoryLimitError):
        planner(*arguments, limit - 1, **options)


def test_more_memory_cuts_no_step_in_two():
    """A unit of frames may end within a short step, which then still is one block."""
    layout = Layout(1026, 7, 148, 8, frame_unit=1025, row_unit=7, buffers=1.5)
    arguments = layout, Cost(16, 0, 0), 111, 2
    assert len(fold(*arguments, PLENTY, chained=False).blocks) == 111


@settings(many, max_examples=100)
@given(requests(), st.integers(10, 50))
def test_plans_are_pure(request, power):
    planner, arguments, options = request
    made = []
    for _ in range(2):
        try:
            made.append(planner(*arguments, 1 << power, **options))
        except MemoryLimitError as error:
            made.append(str(error))
    assert made[0] == made[1]


class Decoding(Source):
    """A source that counts how often each unit of frames is decoded."""

    def __init__(self, layout):
        self.frames = make_frames("u1", layout.nframes, 1, 1)
        self.nframes, self.shape, self.dtype = layout.nframes, (1, 1), self.frames.dtype
        self.frame_unit, self.decoded = layout.frame_unit, 0

    def read(self, start, stop, first, last):
        self.decoded += -(-stop // self.frame_unit) - start // self.frame_unit
        return [self.frames[start:stop]]


@many
@given(
    st.integers(1, 300),
    st.integers(1, 40),
    st.integers(1, 20),
    st.integers(1, 4),
    st.integers(0, 9),
)
def test_fold_says_how_often_frames_are_decoded(nframes, unit, steps, workers, spare):
    layout = Layout(nframes, 101, 103, 2, frame_unit=min(unit, nframes))
    arguments = layout, Cost(8, 4), min(steps, nframes), workers
    limit = least(fold, arguments, {}) + spare * workers * layout.frame_nbytes
    made = fold(*arguments, limit)
    source = Decoding(layout)
    for start, stop in made.blocks:
        for _ in source.pieces(start, stop, 0, 1, made.piece):
            pass
    units = -(-nframes // layout.frame_unit)
    assert made.reads == pytest.approx(source.decoded / units)


@many
@given(st.integers(1, 300), st.integers(1, 40), st.booleans())
def test_bands_read_no_unit_of_frames_twice_in_one_band(nframes, unit, whole):
    layout = Layout(nframes, 11, 13, 2, frame_unit=min(unit, nframes), row_unit=11 if whole else 1)
    for use_buffer in (True, False):
        made = bands(layout, Cost(8, 4, 4), 1, 2, PLENTY, use_buffer)
        source = Decoding(layout)
        for _ in source.pieces(0, nframes, 0, 1, made.piece):
            pass
        assert source.decoded == -(-nframes // layout.frame_unit)


# ---------------------------------------------------------------------- what they cost

# Primes, so that each term shows in the sum.
P = Layout(nframes=101, rows=311, cols=113, itemsize=2)
PIXELS, FRAME, ROW = 311 * 113, 311 * 113 * 2, 101 * 113 * 2
COST = Cost(state=7, image=5, temporaries=3, tile=41)


@pytest.mark.parametrize(
    ("changes", "options", "states", "images", "terms"),
    [
        # 11 workers, each with a state and its copy, one image; a piece of 8, one being fetched
        ({}, {}, 22, 1, 11 * (1 + 8) * FRAME),
        # 13 frames are decoded together, and copied as a piece of 13
        ({"frame_unit": 13}, {}, 22, 1, 11 * (13 + 13) * FRAME),
        # 3 together: pieces are two units
        ({"frame_unit": 3}, {}, 22, 1, 11 * (3 + 6) * FRAME),
        # what a library holds while it reads
        ({"buffers": 1.5}, {}, 22, 1, 11 * (1 + 8 + 12) * FRAME),
        # views cost nothing
        ({"in_memory": True}, {}, 22, 1, 0),
        # steps that wait for a consumer, and the running state before and after
        ({}, {"running": True}, 22 + values.WAITING + 3, 2, 11 * (1 + 8) * FRAME),
        # lanes have one state and its copy, and images that wait
        ({"in_memory": True}, {"running": True}, 2, 11 + values.WAITING + 2, 0),
        # partial states that are combined as a tree
        ({}, {"chained": False}, 11 + values.WAITING + 4, 3, 11 * (1 + 8) * FRAME),
    ],
)
def test_terms_of_a_fold(changes, options, states, images, terms):
    made = fold(dataclasses.replace(P, **changes), COST, 1, 11, PLENTY, **options)
    assert made.nbytes == margins.with_losses((states * 7 + images * 5 + 11 * 3) * PIXELS + terms)


@pytest.mark.parametrize(("unit", "first"), [(1, 4), (2, 4), (7, 1)])
def test_a_whole_cluster_works_on_the_first_step(unit, first):
    """Its image comes as early as it can, but nothing is decoded twice for that."""
    layout = dataclasses.replace(P, nframes=70, frame_unit=unit)
    made = fold(layout, COST, 10, 2, PLENTY, running=True, chained=False, processes=3)
    assert [len(step) for step in made.steps] == [first] + [1] * 9
    assert made.steps[0][0][0] == 0
    assert made.steps[0][-1][1] == 7
    assert made.reads == fold(layout, COST, 10, 2, PLENTY, running=True, chained=False).reads


@pytest.mark.parametrize(
    ("nframes", "steps", "limit", "burst"),
    [
        (101, 101, PLENTY, frame_wise.LARGEST_BURST),  # small steps are passed several at once
        (101, 3, PLENTY, 3),  # but no more than there are
        (10**7, 60, PLENTY, 1),  # and large ones alone
        (
            101,
            101,
            margins.with_losses((2 * 7 + 15 * 5 + 11 * 3) * PIXELS),
            1,
        ),  # or where memory is short
    ],
)
def test_bursts_of_steps(nframes, steps, limit, burst):
    layout = dataclasses.replace(P, nframes=nframes, in_memory=True)
    made = fold(layout, COST, steps, 11, limit, running=True)
    images = 11 + values.WAITING + 2 + 2 * (burst - 1)
    assert made.burst == burst
    assert made.nbytes == margins.with_losses((2 * 7 + images * 5 + 11 * 3) * PIXELS) <= limit


CHUNK = strategies.LARGEST_CHUNK


@pytest.mark.parametrize(
    ("changes", "use_buffer", "limit", "strategy", "fixed", "row"),
    [
        # the band itself, the frame being fetched with its pieces, and the statistic's temporaries
        ({"row_unit": 1}, True, PLENTY, "direct", 0, ROW + FRAME // 311 + 3 * 113),
        ({"row_unit": 1, "in_memory": True}, True, PLENTY, "direct", 0, 3 * 113),
        ({"row_unit": 311}, False, PLENTY, "reread", 11 * FRAME, ROW + 3 * 113),
        (
            {"row_unit": 311},
            True,
            PLENTY,
            "resident",
            101 * FRAME + 12 * values.TASK_OBJECTS,
            3 * 113,
        ),
        # less than all frames: chunks in flight
        (
            {"nframes": 100_003, "row_unit": 311},
            True,
            700 << 20,
            "scratch",
            None,
            100_003 * 113 * 2 + 3 * 113,
        ),
    ],
)
def test_terms_of_bands(changes, use_buffer, limit, strategy, fixed, row):
    layout = dataclasses.replace(P, **changes)
    made = bands(layout, COST, 1, 11, limit, use_buffer, DISK)
    assert made.strategy == strategy
    if fixed is None:
        fixed = (
            11
            * strategies.CHUNKS_IN_FLIGHT
            * (margins.payload(limit) // (11 * strategies.CHUNKS_OF_LIMIT))
        )
    tallest = max(stop - start for start, stop in made.blocks)
    kept = (7 + 2 * 5) * PIXELS + 11 * 41
    if strategy == "scratch":
        # Frames are fetched before there are images.
        kept = max(kept, 11 * 2 * FRAME)
    expected = kept + fixed + 11 * tallest * row
    assert made.nbytes == margins.with_losses(expected)


def test_spooling_may_take_more_than_the_bands():
    """Frames large beside bands: a group of one, a frame being fetched, chunks in flight."""
    layout = Layout(nframes=3, rows=4096, cols=4096, itemsize=2, row_unit=4096)
    limit = 160 << 20
    made = bands(layout, Cost(1, 1), 1, 1, limit, disk=DISK)
    assert made.strategy == "scratch"
    chunks = strategies.CHUNKS_IN_FLIGHT * (margins.payload(limit) // strategies.CHUNKS_OF_LIMIT)
    assert made.nbytes >= margins.with_losses(2 * layout.frame_nbytes + chunks)


@pytest.mark.parametrize("planner", [fold, bands])
@pytest.mark.parametrize("field", ["state", "image", "temporaries", "tile"])
def test_each_cost_counts(planner, field):
    larger = dataclasses.replace(COST, **{field: 1000})
    difference = planner(P, larger, 1, 11, PLENTY).nbytes - planner(P, COST, 1, 11, PLENTY).nbytes
    assert difference > 0 or (planner is fold and field == "tile")


# ---------------------------------------------------------------------- which plan

DEXELA = Layout(nframes=1440, rows=3888, cols=3072, itemsize=2, row_unit=3888)
MEDIAN = Cost(state=8, image=4, temporaries=4)


@pytest.mark.parametrize(
    ("layout", "limit", "use_buffer", "strategy"),
    [
        (DEXELA, 100 * GIBI, True, "resident"),  # the series fits: each frame is read once
        (DEXELA, 100 * GIBI, False, "reread"),  # it may not be kept
        (DEXELA, 10 * GIBI, True, "scratch"),  # it does not fit
        (dataclasses.replace(DEXELA, row_unit=1), 10 * GIBI, True, "direct"),
        (dataclasses.replace(DEXELA, row_unit=1, in_memory=True), GIBI, True, "direct"),
        (dataclasses.replace(DEXELA, row_unit=122), 100 * GIBI, True, "direct"),
        (Layout(nframes=10, rows=1, cols=50, itemsize=2), GIBI, True, "direct"),  # a line detector
        # chunks of rows so high that a band of them does not fit
        (dataclasses.replace(DEXELA, row_unit=972), 10 * GIBI, True, "scratch"),
    ],
)
def test_strategy(layout, limit, use_buffer, strategy):
    made = bands(layout, MEDIAN, 1, 2, limit, use_buffer, DISK)
    assert made.strategy == strategy
    assert made.nbytes <= limit


@pytest.mark.parametrize(
    ("disk", "note"),
    [
        (None, ""),
        (SMALL_DISK, "scratch data need 32.04 GiB, there are 0.0009536 MiB in /scratch"),
        (RAM_DISK, "/dev/shm is a RAM disk: scratch data there would count as memory"),
    ],
)
def test_a_plan_says_why_frames_are_read_again(disk, note):
    made = bands(DEXELA, MEDIAN, 1, 2, 10 * GIBI, disk=disk)
    assert (made.strategy, made.note) == ("reread", note)
    assert note in str(made)


def test_what_cannot_be_read_again_needs_room():
    once = dataclasses.replace(DEXELA, again=False)
    assert bands(once, MEDIAN, 1, 2, 10 * GIBI, disk=DISK).strategy == "scratch"
    with pytest.raises(MemoryLimitError):
        bands(once, MEDIAN, 1, 2, 10 * GIBI)


def test_less_memory_makes_smaller_blocks_and_then_refuses():
    last = None
    for limit in (16 * GIBI, 4 * GIBI, GIBI):
        made = bands(DEXELA, MEDIAN, 1, 2, limit)
        assert made.reads == len(made.blocks)
        assert last is None or made.reads >= last.reads
        last = made
    made = bands(DEXELA, MEDIAN, 1, 2, 256 << 20)
    assert made.in_pixels, "not a row of all frames fits"
    with pytest.raises(MemoryLimitError, match=r"need at least .* the memory limit is 128 MiB"):
        bands(DEXELA, MEDIAN, 1, 2, 128 << 20)


def test_refusal_says_what_to_do():
    with pytest.raises(MemoryError) as caught:
        fold(DEXELA, Cost(8, 4), 1, 2, GIBI // 4)
    for text in (
        "1440 frames of 3888 x 3072 need at least",
        "for each of 2 workers",
        "the memory limit is 256 MiB",
        "raise memory_limit or use fewer workers",
    ):
        assert text in str(caught.value)
    needed = Fraction(str(caught.value).split(" need at least ")[1].split(" MiB")[0])
    assert fold(DEXELA, Cost(8, 4), 1, 2, int(needed * 1.001 * (1 << 20)))


@pytest.mark.parametrize(
    ("nframes", "rows", "cols", "workers"),
    [(1440, 3888, 3072, 2), (100, 2048, 2048, 8), (100_000, 64, 64, 4), (10, 16, 16, 64)],
)
def test_tasks_are_neither_tiny_nor_huge(nframes, rows, cols, workers):
    layout = Layout(nframes, rows, cols, 2, in_memory=True)
    for made, item in (
        (fold(layout, COST, 1, workers, PLENTY), layout.frame_nbytes),
        (bands(layout, COST, 1, workers, PLENTY), nframes * cols * 2),
    ):
        items = nframes if made.along == "frames" else rows
        tallest = max(stop - start for start, stop in made.blocks)
        shortest = min(stop - start for start, stop in made.blocks)
        assert tallest * item <= cuts.LARGEST_BLOCK or tallest == 1
        # All of a series at least: one that is smaller than a block makes one task.
        assert shortest * item > cuts.SMALLEST_BLOCK // 2 - item or len(made.blocks) == 1
        assert tallest <= items


def test_a_million_frames():
    layout = Layout(nframes=10**6, rows=512, cols=512, itemsize=2, row_unit=512)
    made = fold(layout, Cost(16, 4), 10**5, 8, 8 * GIBI)
    assert len(made.steps) == 10**5
    assert made.reads == 1
    made = bands(layout, MEDIAN, 512, 1, 64 * GIBI)
    assert len(made.steps) == 512


def test_description():
    text = str(bands(dataclasses.replace(P, row_unit=1), COST, 5, 3, GIBI))
    assert text.startswith("direct: 5 blocks of 62 to 63 rows, 3 at once; each frame read 1 time; ")
    assert text.endswith(" of 1024 MiB")


# ---------------------------------------------------------------------- small frames and chunks


def test_small_frames_are_read_many_at_once():
    """An array and a task take more than a frame of 16 x 16 does."""
    small = Layout(100_000, 16, 16, 2, row_unit=16)
    made = bands(small, MEDIAN, 1, 2, GIBI)
    assert made.strategy == "resident"
    assert made.piece == values.PIECE_NBYTES // 512
    assert fold(small, Cost(8, 4), 1, 2, GIBI).piece == made.piece
    assert bands(dataclasses.replace(P, row_unit=311), MEDIAN, 1, 2, GIBI).piece == values.PIECE


@pytest.mark.parametrize(
    ("rows", "state", "piece"),
    [(512, 2, values.PIECE), (1024, 2, values.FEW), (4096, 2, values.FEW), (4096, 4, values.PIECE)],
    ids=["small frames", "large", "larger", "a wide state"],
)
def test_frames_are_folded_while_they_are_in_a_cache(rows, state, piece):
    """Fewer are read at once, unless a wide state would have to be written more often for that."""
    layout = Layout(200, rows, 1024, 2, row_unit=rows)
    assert fold(layout, Cost(state, 4), 1, 2, GIBI).piece == piece


def test_views_of_a_list_of_frames_count():
    layout = Layout(100_000, 16, 16, 2, in_memory=True)
    for make in (
        lambda one: bands(one, MEDIAN, 1, 2, GIBI),
        lambda one: fold(one, COST, 1, 2, GIBI),
    ):
        objects = 2 * layout.nframes * values.FRAME_OBJECTS
        more = make(dataclasses.replace(layout, apart=True)).nbytes - make(layout).nbytes
        assert objects <= more <= 1.11 * objects


def test_copies_of_float16_count():
    layout = Layout(1000, 256, 256, 2, in_memory=True)
    made = fold(dataclasses.replace(layout, widened=4), COST, 1, 2, GIBI)
    assert made.piece == values.PIECE, "and not all frames of a block"
    piece = 2 * values.PIECE * 256 * 256 * 2
    assert made.nbytes >= fold(layout, COST, 1, 2, GIBI).nbytes + 3 * piece


@pytest.mark.parametrize("limit", [12, 14, 16, 20, 24, 32, 64])
def test_scratch_data_are_not_written_in_tiny_chunks(limit):
    """Near the smallest limit 100 MiB were 51,200 files of 2 KiB, and took 45 s of a core."""
    layout = Layout(50, 1024, 1024, 2, row_unit=1024)
    cost = Cost(8, 4, 64, 1 << 20)
    if limit < 32:
        with pytest.raises(MemoryLimitError, match="raise memory_limit"):
            bands(layout, cost, 1, 2, limit << 20, True, DISK)
        return
    made = bands(layout, cost, 1, 2, limit << 20, True, DISK)
    assert made.strategy == "scratch"
    assert len(made.groups) * len(made.blocks) <= strategies.MOST_SMALL_CHUNKS


@pytest.mark.parametrize(
    ("unit", "limit", "reads"),
    [
        (64, 450, 1),  # whole chunks where they fit, though there are fewer than tasks
        (128, 900, 1),
        (64, 420, 2),  # or as much of one as fits
        (1, 60, 1),
    ],
)
def test_frames_that_are_decoded_together_are_read_together(unit, limit, reads):
    layout = Layout(
        nframes=128, rows=1024, cols=512, itemsize=2, frame_unit=unit, row_unit=1024, buffers=1
    )
    plan = fold(layout, Cost(state=4, image=4), steps=1, workers=2, limit=limit << 20)
    assert plan.reads == reads
    assert plan.nbytes <= limit << 20
