"""The identity of a call: it tells calls apart, and is the same in every process."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from daskstats.checkpoints.identity import OtherCallError, check_same, identity_of
from daskstats.reduction import reduce
from daskstats.series.opening import as_series

FRAMES = np.arange(5 * 6 * 7, dtype="u2").reshape(5, 6, 7)


def identity(ims=FRAMES, statistic="average", nframes=0, **options):
    found = reduce(ims, statistic, nframes, **options)
    nframes = found.plan.layout.nframes
    return identity_of(found.series, nframes, found.statistic, found.names, found.options)


def refusal(saved, asked, ims=FRAMES, grows=True):
    with pytest.raises(OtherCallError) as caught:
        check_same(saved, asked, as_series(ims), grows)
    return str(caught.value)


def test_the_same_call():
    here = identity(mask=np.eye(6, 7, dtype=bool), invalid=[3, 4], dark=np.ones((6, 7), "u2"))
    again = identity(mask=np.eye(6, 7, dtype=bool), invalid=[3, 4], dark=np.ones((6, 7), "u2"))
    check_same(json.loads(json.dumps(here)), again, as_series(FRAMES), False)
    # NaN is one value.
    nan = {"fill_value": float("nan"), "invalid": 3}
    for options in (nan, {"dark": np.full((6, 7), np.nan, "f4")}):
        check_same(
            json.loads(json.dumps(identity(**options))),
            identity(**options),
            as_series(FRAMES),
            grows=False,
        )
    # These decide no value.
    assert identity(memory_limit="1 GiB", lock=True) == identity()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"statistic": "max"}, "statistic was 'average' there and is 'max' here"),
        ({"statistic": ("percentile", 5)}, "statistic was 'average' there and is 'percentile_5'"),
        ({"nframes": 3}, "number of frames was 5 there and is 3 here"),
        ({"ims": FRAMES[:, :3]}, "shape was [6, 7] there and is [3, 7] here"),
        ({"ims": FRAMES.astype("u4")}, "dtype of the frames was 'uint16' there"),
        ({"ims": FRAMES + np.uint16(1)}, "the frames are others: [0, 2, 4]"),
        ({"dtype": "f8"}, "dtype was None there and is 'float64' here"),
        ({"frames": slice(None, None, -1)}, "frames was None there and is 'slice(None, None, -1)'"),
        ({"region": ((0, 6), (0, 7))}, "region was None there and is [[0, 6], [0, 7]] here"),
        ({"mask": np.eye(6, 7, dtype=bool)}, "mask was None there and is [[True, False"),
        ({"fill_value": 3, "invalid": 1}, "the parameters of the statistic, or the values"),
        ({"dark": np.ones((6, 7), "u2")}, "dtype of the frames was 'uint16' there"),
        ({"flip": "v"}, "flip was None there and is 'v' here"),
    ],
)
def test_other_calls(options, text):
    ims = options.get("ims", FRAMES)
    assert refusal(identity(), identity(**options), ims).startswith(text)


def test_large_arrays_stand_as_digests():
    large, other = np.zeros((6, 7)), np.zeros((6, 7))
    other[5, 6] = 1
    text = refusal(identity(dark=large), identity(dark=other))
    assert text.startswith("dark was 'float64 (6, 7) ")


def test_parameters():
    """Of the statistic: the degrees of freedom are no part of its name."""
    from daskstats.statistics import moments

    text = refusal(identity(statistic=moments("std", 0)), identity(statistic=moments("std", 1)))
    assert text.startswith("the parameters of the statistic")


def test_frames_that_were_appended():
    first, longer = identity(FRAMES[:3]), identity(FRAMES)
    check_same(first, longer, as_series(FRAMES), grows=True)
    text = refusal(first, longer, grows=False)
    assert text == "number of frames was 3 there and is 5 here, and its rows are of all frames"
    changed = FRAMES.copy()
    changed[1] += 1
    assert "[0, 1, 2] have another digest" in refusal(first, identity(changed), changed)


def test_files(tmp_path):
    for number in range(3):
        np.save(tmp_path / f"scan_{number}.npy", FRAMES[number : number + 1])
    pattern = str(tmp_path / "scan_*.npy")
    before = identity(pattern)
    check_same(before, identity(pattern), as_series(pattern), True)
    np.save(tmp_path / "scan_3.npy", FRAMES[3:])
    check_same(before, identity(pattern), as_series(pattern), True)
    np.save(tmp_path / "scan_0.npy", FRAMES[:1])
    assert refusal(before, identity(pattern), pattern) == f"{tmp_path}/scan_0.npy has changed since"
    assert "scan_0.npy, here is" in refusal(before, identity(str(tmp_path / "scan_[123].npy")))


def test_in_every_process():
    """Also where hashes of text differ."""
    code = (
        "import json; from test_identity import identity\n"
        "print(json.dumps(identity(statistic=['max', ('percentile', [5, 95])], invalid=[1])))"
    )
    command, place = [sys.executable, "-c", code], {"PYTHONPATH": __file__.rpartition("/")[0]}
    found = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | place
    )
    here = identity(statistic=["max", ("percentile", [5, 95])], invalid=[1])
    assert json.loads(found.stdout) == json.loads(json.dumps(here))
