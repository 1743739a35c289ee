"""The public functions that return numpy arrays, against the lazy ones and against HEXRD's."""

import inspect
import pickle

import dask
import dask.array as da
import numpy as np
import pytest
from fakes import FakeSeries

import daskstats as stats
from daskstats import eager

PUBLIC = [*stats.__all__, "max", "min", "sum", "range"]
ARGUMENTS = {
    "percentile": ([5, 95],),
    "count_above": (3,),
    "clipped_average": (2,),
    "aggregate": (["max", "average", ("percentile", 25)],),
    "partials": ("average", 2),
}
COMPUTED = [name for name in PUBLIC if getattr(eager, name) is not getattr(stats, name)]


@pytest.fixture
def frames(rng):
    return rng.integers(0, 9, (7, 4, 5), "u2")


def test_has_the_names_of_the_package():
    assert eager.__all__ == stats.__all__
    lazy = {"max", "min", "sum", "average", "std", "var", "snr", "percentile", "median", "range"}
    lazy |= {"argmax", "argmin", "count", "count_above", "clipped_average", "aggregate"}
    assert set(COMPUTED) == lazy | {"partials", "maximum", "minimum"}
    assert eager.maximum is eager.max
    assert eager.minimum is eager.min


@pytest.mark.parametrize("name", COMPUTED)
def test_values_of_every_function(frames, name):
    arguments = ARGUMENTS.get(name, ())
    ims = FakeSeries(frames)
    images = getattr(eager, name)(ims, *arguments, nframes=5, region=((1, 4), (0, 3)))
    (lazy,) = dask.compute(
        getattr(stats, name)(ims, *arguments, nframes=5, region=((1, 4), (0, 3)))
    )
    assert type(images) is type(lazy)
    if name != "aggregate":
        images, lazy = {name: images}, {name: lazy}
    assert list(images) == list(lazy)
    for key, image in images.items():
        expected = lazy[key]
        assert type(image) is np.ndarray
        assert image.dtype == expected.dtype
        np.testing.assert_array_equal(image, expected)
        image[...] = 0  # as HEXRD's images, it belongs to the caller


@pytest.mark.parametrize("name", COMPUTED)
def test_signature_and_docstring(name):
    function, lazy = getattr(eager, name), getattr(stats, name)
    assert inspect.signature(function) == inspect.signature(lazy)
    doc = inspect.getdoc(function)
    assert "\nReturns\n-------\n" in doc
    assert "numpy.ndarray" in doc
    for word in ("lazy", "dask", "compute("):
        assert word not in doc
    assert pickle.loads(pickle.dumps(function)) is function


def test_an_image_does_not_change_the_frames(frames):
    before = frames.copy()
    for name in ("max", "min", "average", "median"):
        image = getattr(eager, name)(frames[:1])
        image[...] = 77
    np.testing.assert_array_equal(frames, before)


def test_errors_are_those_of_the_call(frames):
    with pytest.raises(TypeError, match=r"max\(\) has no keyword argument regions"):
        eager.max(frames, regions=None)
    with pytest.raises(ValueError, match="pctl must be a number from 0 to 100, got 101"):
        eager.percentile(frames, 101)


def hexrd_calls(module, ims):
    """Return the results of all that ``hexrd.imageseries.stats`` has, called as there."""
    results = [
        *(module.max(ims), module.min(ims, 3), module.average(ims, nframes=4)),
        *(module.percentile(ims, 50), module.percentile(ims, 25.0, 5), module.median(ims, 0)),
        *module.max_iter(ims, 3),
        *module.min_iter(ims, 2, 5),
        *module.average_iter(ims, 7, nframes=7),
        *module.percentile_iter(ims, 95, 2, use_buffer=False),
        *module.median_iter(ims, 4, 0, True),
    ]
    return [np.array(image) for image in results]


def test_replaces_the_module_of_hexrd(frames):
    """Values by the definitions of numpy; frames are small enough for sums in float32."""
    results = hexrd_calls(eager, FakeSeries(frames))
    low, high = np.percentile(frames[:5], 25, axis=0), np.percentile(frames, 95, axis=0)
    median = np.median(frames, axis=0)
    expected = [
        *(frames.max(0), frames[:3].min(0), frames[:4].mean(0), median, low, median),
        *(frames[:stop].max(0) for stop in (3, 5, 7)),
        *(frames[:stop].min(0) for stop in (3, 5)),
        *(frames[:stop].mean(0) for stop in (1, 2, 3, 4, 5, 6, 7)),
        *(np.concatenate([high[:stop], 0 * high[stop:]]) for stop in (2, 4)),
        *(np.concatenate([median[:stop], 0 * median[stop:]]) for stop in (1, 2, 3, 4)),
    ]
    assert len(results) == len(expected)
    for image, values in zip(results, expected, strict=True):
        np.testing.assert_allclose(image, values, rtol=1e-6)


def test_computes_on_the_scheduler_in_use(frames):
    seen = []

    def get(graph, keys, **kwargs):
        seen.append(keys)
        return dask.get(graph, keys, **kwargs)

    with dask.config.set(scheduler=get):
        eager.aggregate(frames, ["max", "median"])
    assert len(seen) == 1, "several images are computed in one pass"


def test_lazy_functions_stay_lazy(frames):
    assert isinstance(stats.max(frames), da.Array)
    assert isinstance(eager.wrap(frames), da.Array)
