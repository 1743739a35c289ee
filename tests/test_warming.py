"""After `warm`, later processes compile nothing."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

import daskstats as stats
from daskstats import kernels
from daskstats.statistics import EXAMPLES, STATISTICS
from daskstats.warming import warming

CALLS = """\
import dask, numpy as np, numba.core.event as event
import daskstats as stats

class Series:
    def __init__(self, frames):
        self.frames, self.shape, self.dtype = frames, frames.shape[1:], frames.dtype
    def __len__(self):
        return len(self.frames)
    def __getitem__(self, index):
        return self.frames[index].copy()

with event.install_recorder("numba:compile") as recorder:
    for shape in (1, 4, 5), (9, 33, 35), (70_000, 2, 3):
        frames, steps = np.zeros(shape, "u2"), min(3, shape[0], shape[1])
        for name in "max", "average":
            for ims in (frames, Series(frames)) if len(frames) < 100 else (frames,):
                getattr(stats, name)(ims).compute()
                list(getattr(stats, f"{name}_iter")(ims, steps))
                stats.partials(ims, name, steps).compute()
                with dask.config.set(scheduler="synchronous"):
                    list(stats.snapshots(ims, name, steps))
print(len(recorder.buffer))
"""


def test_nothing_is_compiled_afterwards(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    command = "-m", "daskstats", "warm", "--dtypes", "uint16", "--stats", "max,average"

    def printed(*arguments: str) -> list[str]:
        result = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, env=environment
        )
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout.splitlines()

    first, second, place = printed(*command)
    assert re.fullmatch(r"max of uint16: \d+\.\d s", first)
    assert re.fullmatch(r"average of uint16: \d+\.\d s", second)
    assert place.startswith(f"compiled code is kept in {tmp_path}")
    assert printed("-c", CALLS) == ["0"]
    again = ["max of uint16: already compiled", "average of uint16: already compiled", place]
    assert printed(*command) == again


def test_workers_compile_for_their_host(client):
    found = stats.warm(["uint16"], ["max", ["max", "average"]])
    assert found.keys() == {"max of uint16", "max, average of uint16"}


def test_images_of_widened_frames_are_not_written_while_these_are_folded():
    """Values of twice the width would be written beyond the end of an image of float16."""
    # By names, because a cluster of another test may still be dask's: its workers end in any order.
    found = stats.warm("float16", ["max", "min", ["max", "average"]])
    assert found.keys() == {"max of float16", "min of float16", "max, average of float16"}
    frames, image = np.ones((3, 4, 5), "f2"), np.zeros((4, 5), "f2")
    with pytest.raises(TypeError, match="extremes of float16 frames cannot be copied"):
        kernels.Extremes([frames], frames[0].copy(), False, None, [(3, image)])


def test_every_name_and_numbers_only():
    assert {name for name, made in STATISTICS.items() if callable(made)} >= set(EXAMPLES)
    names = [name for name in STATISTICS if name not in EXAMPLES]
    assert len({*names, *EXAMPLES}) == len(STATISTICS)
    assert list(stats.warm("uint16", "max")) == ["max of uint16"]
    with pytest.raises(TypeError, match=r"dtype 'complex64': .* at most 64 bits"):
        warming(["complex64"], ["max"])
    with pytest.raises(TypeError, match="dtype 'no'"):
        warming(["no"], ["max"])
    with pytest.raises(ValueError, match="no statistic 'mode'"):
        warming(["uint16"], ["mode"])
