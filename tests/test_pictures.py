"""Small pictures: block means, limits, colours and the PNG, compared with naive ones."""

import io
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from daskstats import pictures

RNG = np.random.default_rng(18)


def naive_means(image, step):
    rows, cols = image.shape
    means = np.full((-(-rows // step), -(-cols // step)), np.nan)
    for i, j in np.ndindex(means.shape):
        block = image[i * step : (i + 1) * step, j * step : (j + 1) * step].astype("f8")
        if not np.isnan(block).all():
            means[i, j] = np.nanmean(block)
    return means


def decoded(picture):
    """Return the palette indices of a picture, and its colours."""
    image = Image.open(io.BytesIO(picture.png))
    assert image.mode == "P"
    assert image.info["transparency"] in (0, b"\0")
    return np.asarray(image), np.array(image.getpalette()).reshape(-1, 3)


@pytest.mark.parametrize("dtype", ["?", "u1", "i2", "u8", "f2", "f4", "f8"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (12, 8), (1, 40), (33, 2)])
def test_block_means(dtype, shape):
    image = (RNG.random(shape) * 100).astype(dtype)
    if image.dtype.kind == "f":
        image[RNG.random(shape) < 0.5] = np.nan
    for step in (1, 2, 3, 50):
        found = pictures.block_means(image, step)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, naive_means(image, step), rtol=1e-3)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_means_beyond_float32(dtype):
    image = (RNG.random((25, 13)) * 3e38).astype(dtype)
    if dtype == "f8":
        image[3, 4] = 1e300
    found = pictures.block_means(image, 8)
    np.testing.assert_allclose(found, naive_means(image, 8), rtol=1e-6)
    assert pictures.draw(image, size=2).bars.sum() == 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "values",
    [[2**62], [-(2**63)], [1e20], [9.97e36], [1e31, np.nextafter(1e31, 2e31)], [1.7e308, -1.7e308]],
)
@pytest.mark.parametrize("log", [False, True])
def test_large_values_that_are_close_or_far_apart(values, log):
    image = np.resize(np.array(values), (40, 40))
    picture = pictures.draw(image, log=log, contrast=(0, 100))
    index, _ = decoded(picture)
    assert picture.bars.sum() == image.size
    np.testing.assert_allclose((picture.low, picture.high), (image.min(), image.max()))
    assert index.min() == 1
    assert (len(np.unique(index)) == 2) == (picture.low < picture.high)


@pytest.mark.parametrize("shape", [(1600, 1600), (400, 400), (1200, 1200), (4371, 4150)])
def test_limits_are_of_all_columns(shape):
    """A step that has a factor in common with the width would find the same columns in each row."""
    for first in range(0, shape[1] - 28, shape[1] // 11):
        image = np.zeros(shape, "f4")
        image[:, first : first + 28] = np.linspace(1, 1000, shape[0])[:, None]
        assert pictures.draw(image, contrast=(0, 100)).high > 900
    image[:, 1::2], image[:, ::2] = 900, 100
    image[0, 0] = -1000
    assert pictures.sorted_sample(image).mean() == pytest.approx(500, rel=0.01)


def test_rows_not_seen_and_nan_are_transparent_and_do_not_count():
    image = RNG.integers(100, 200, (40, 30)).astype("f4")
    image[3, 4], image[20:] = np.nan, 0
    picture = pictures.draw(image, seen=20)
    index, _ = decoded(picture)
    known = np.zeros((40, 30), bool)
    known[:20] = True
    known[3, 4] = False
    assert np.array_equal(index > 0, known)
    assert 100 <= picture.low < picture.high <= 199  # no zero of the rows that are not there yet
    assert picture.bars.sum() <= 20 * 30


def test_limits_are_percentiles_of_the_pixels():
    image = RNG.normal(0, 1, (300, 200))
    picture = pictures.draw(image, contrast=(10, 90))
    low, high = np.percentile(image, (10, 90))
    assert picture.low == pytest.approx(low, abs=0.02)
    assert picture.high == pytest.approx(high, abs=0.02)
    index, _ = decoded(picture)
    assert np.array_equal(index == 1, image <= image[index == 1].max())  # colours keep the order
    assert index[np.unravel_index(image.argmax(), image.shape)] == 255


@pytest.mark.parametrize("shape", [(2048, 100), (700, 1500), (513, 512), (10, 3)])
def test_size(shape):
    picture = pictures.draw(np.zeros(shape, "u2"), size=256)
    assert max(picture.size) <= 256
    index, _ = decoded(picture)
    assert index.shape == picture.size
    assert picture.shape == shape


@pytest.mark.parametrize(
    "image",
    [
        np.full((4, 4), np.nan),
        np.full((4, 4), 7),
        np.full((4, 4), np.inf),
        np.array([[np.inf, -np.inf], [np.nan, 1]]),
        np.array([[1e300, -1e300], [0, 1]]),
        np.array([[2**64 - 1, 0]], "u8"),
        np.zeros((3, 3), bool),
    ],
    ids=str,
)
@pytest.mark.parametrize("log", [False, True])
def test_images_without_contrast_or_with_infinities(image, log):
    picture = pictures.draw(image, log=log)
    index, _ = decoded(picture)
    assert np.array_equal(index == 0, np.isnan(image.astype("f8")))
    assert "<img" in picture.html("x")
    if np.isinf(image.astype("f8")).any() and image[0, 0] != image[0, 1]:
        assert index[0, 0] == 255
        assert index[0, 1] == 1
    assert pictures.draw(image, seen=0).html("x").count("no values") == 1


@pytest.mark.parametrize(
    "ends", [(-3.4e38, 3.4e38), (0, 1e-44), (1, np.nextafter(np.float32(1), 2))]
)
def test_limits_that_are_as_far_apart_or_as_close_as_they_can_be(ends):
    image = np.repeat(np.array(ends, "f4"), 6).reshape(4, 3)
    picture = pictures.draw(image, contrast=(0, 100))
    index, _ = decoded(picture)
    np.testing.assert_array_equal(index, [[1] * 3] * 2 + [[255] * 3] * 2)
    assert picture.bars.sum() == image.size


@pytest.mark.parametrize("unit", [2.0**900, 2.0**128, 2.0**-200, 2.0**-900])
@pytest.mark.parametrize("size", [4, 8])
def test_float64_values_that_float32_does_not_hold(unit, size):
    image = unit * RNG.integers(0, 100, (8, 8))
    image[3, 5] = np.nan
    picture = pictures.draw(image, contrast=(0, 100), size=size)
    plain = pictures.draw(image / unit, contrast=(0, 100), size=size)
    assert picture.png == plain.png
    assert (picture.low, picture.high) == pytest.approx((plain.low * unit, plain.high * unit))
    np.testing.assert_array_equal(picture.bars, plain.bars)


def test_logarithmic_colours_spread_small_values():
    image = np.geomspace(1, 1000, 100).reshape(10, 10)
    plain, _ = decoded(pictures.draw(image, contrast=(0, 100)))
    log, _ = decoded(pictures.draw(image, contrast=(0, 100), log=True))
    assert np.median(log) > 2 * np.median(plain)
    assert plain.max() == log.max() == 255


def test_palettes():
    _, gray = decoded(pictures.draw(np.arange(4.0).reshape(2, 2)))
    assert gray[1].tolist() == [0, 0, 0]
    assert gray[255].tolist() == [255, 255, 255]
    _, viridis = decoded(pictures.draw(np.arange(4.0).reshape(2, 2), cmap="viridis"))
    assert viridis[1].tolist() == [68, 1, 84]
    assert viridis[255].tolist() == [253, 231, 37]
    with pytest.raises(ValueError, match="'nothing'"):
        pictures.draw(np.zeros((2, 2)), cmap="nothing")


class Figures(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.images, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data):
        self.text += data


def test_html_names_the_image_and_escapes_its_name():
    picture = pictures.draw(np.arange(12.0).reshape(3, 4), contrast=(0, 100))
    figure = Figures(picture.html("<b>max & min"))
    assert figure.images[0]["alt"] == "<b>max & min"
    assert figure.images[0]["src"].startswith("data:image/png;base64,")
    assert "3 x 4" in figure.text
    assert "0 … 11" in figure.text
