"""Frames that are read in place: whether they follow one another or not, and files cut off."""

import gzip

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from daskstats.formats.placed import PlacedSource

FRAMES = np.random.default_rng(5).integers(0, 1 << 16, (9, 4, 6)).astype(">u2")
NBYTES = FRAMES[0].nbytes
GAPS = {
    "none": [0] * 9,
    "the same before each": [8] * 9,
    "only in the middle": [0] * 5 + [10] + [0] * 3,
    "before some": [0, 4, 0, 0, 2, 6, 0, 0, 8],
}

ORDERS = {
    "as shown": range(9),
    "reversed": range(8, -1, -1),
    "mixed": [3, 1, 4, 0, 5, 2, 6, 8, 7],
    "some in turn": [3, 1, 4, 0, 5, 6, 7, 2, 8],
}


class Placed(PlacedSource):
    def __init__(self, path, offsets):
        super().__init__(path, offsets=offsets)
        self.set_places(FRAMES.shape[1:], FRAMES.dtype, offsets)


def write(path, gaps, order=range(9)):
    """Write the frames with some bytes before each, and return the place of each."""
    data, offsets = b"head", {}
    for gap, index in zip(gaps, order, strict=True):
        data += b"\xff" * gap
        offsets[index] = len(data)
        data += FRAMES[index].tobytes()
    with (gzip.open if path.suffix == ".gz" else open)(path, "wb") as file:
        file.write(data)
    return [offsets[index] for index in range(9)]


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("gaps", GAPS.values(), ids=GAPS)
def test_frames_at_any_places(tmp_path, gaps, order):
    path = tmp_path / "frames.bin"
    series = Placed(path, write(path, gaps, order))
    for start, stop in ((0, 9), (0, 1), (2, 5), (4, 7), (5, 9)):
        for first, last in ((0, 4), (1, 3), (3, 4)):
            (block,) = series.read(start, stop, first, last)
            assert block.dtype.isnative
            assert_array_equal(block, FRAMES[start:stop, first:last])


@pytest.mark.parametrize("gaps", [GAPS["none"], GAPS["before some"]], ids=["none", "some"])
def test_a_compressed_file_that_ends_within_a_frame(tmp_path, gaps):
    """Its length is known once it is read: the error names the first frame that is not whole."""
    path = tmp_path / "frames.bin.gz"
    offsets = write(path, gaps)
    for whole in (0, 3, 8):
        data = b"x" * (offsets[whole] + NBYTES - 1)
        path.write_bytes(gzip.compress(data))
        with pytest.raises(ValueError, match=f"frames.bin.gz is cut off in frame {whole}$"):
            Placed(path, offsets).read(0, 9, 0, 4)
