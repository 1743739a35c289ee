"""The dict of lazy images that `aggregate` returns is a dask collection."""

import pickle

import dask
import numpy as np
import pytest
from dask.graph_manipulation import clone
from dask.utils import key_split
from fakes import FakeSeries, Ramp
from test_reprs import Page

import daskstats as stats
from daskstats.graph.arrays import EXPRESSIONS

NAMES = ["max", "average"]


@pytest.fixture
def series():
    return FakeSeries(Ramp(), 40)


def check(found, series):
    stack = series.stack()
    assert type(found) is dict
    assert list(found) == NAMES
    np.testing.assert_array_equal(found["max"], stack.max(axis=0), strict=True)
    np.testing.assert_array_equal(found["average"], stack.mean(axis=0).astype("f4"), strict=True)


def test_dask_computes_it_to_a_dict(series):
    images = stats.aggregate(series, NAMES)
    assert isinstance(images, dict)
    before = len(series.reads)
    computed = dask.compute(images, images["max"] + 1, {"several": [images]})
    assert len(series.reads) - before == 40
    check(computed[0], series)
    check(computed[2]["several"][0], series)
    check(images.compute(scheduler="sync"), series)
    check(dask.delayed(dict)(images).compute(), series)
    check(pickle.loads(pickle.dumps(stats.aggregate(series.stack(), NAMES))).compute(), series)


@pytest.mark.graphs("rename, which dask.persist and dask.graph_manipulation give")
def test_other_collections_are_made_of_it(series):
    images = stats.aggregate(series, NAMES)
    for function in (dask.persist, dask.optimize):
        (found,) = function(images)
        assert type(found) is type(images)
        check(found.compute(), series)
    before = len(series.reads)
    persisted = images.persist()
    check(persisted.compute(), series)
    assert len(series.reads) - before == 40
    # An image does not keep the results of others alive.
    assert {key_split(key) for key in persisted["max"].dask} == {"max"}
    twin = clone(images)
    assert twin["max"].name != images["max"].name
    check(twin.compute(), series)


def test_images_may_be_replaced(series):
    images = stats.aggregate(series, NAMES)
    images["range"] = images["max"] - images["average"]
    images["max"] = series.stack().max(axis=0)
    found = images.compute()
    np.testing.assert_array_equal(found["range"], found["max"] - found["average"])
    assert Page(images._repr_html_()).rows[1][-1] == "computed"


def test_it_computes_on_a_cluster(inside, series):
    images = stats.aggregate(series.stack(), NAMES)
    check(inside.compute(images).result(), series)
    check(inside.persist(images).compute(), series)
    check(dask.compute([images])[0][0], series)


def test_it_is_a_table(series):
    images = stats.aggregate(series, [*NAMES, ("percentile", 95), ("percentile", [5, 50])])
    head, *rows = Page(images._repr_html_()).rows
    assert head == ["", "shape", "dtype", "size", "tasks"]
    assert [row[0] for row in rows] == list(images)
    for (_, shape, dtype, size, tasks), image in zip(rows, images.values(), strict=True):
        assert shape == " x ".join(map(str, image.shape))
        assert dtype == str(image.dtype)
        assert size == dask.utils.format_bytes(image.size * image.dtype.itemsize)
        assert tasks == str(len(image.dask))
    assert len(repr(images).splitlines()) == 4
    for name, image in images.items():
        assert EXPRESSIONS or repr(image).startswith(f"dask.array<{name}, ")
        assert key_split(image.name) == name
