"""DataArrays of xarray: images and labels are those of xarray's own reductions."""

import dask.array as da
import numpy as np
import pytest
from helpers import check_series

import daskstats as stats
from daskstats import eager
from daskstats.formats.xarray_variable import VariableSource, stays_in_file
from daskstats.graph.arrays import EXPRESSIONS
from daskstats.series.flips import FLIPS

xarray = pytest.importorskip("xarray")

FRAMES = np.random.default_rng(0).poisson(100, (12, 5, 7)).astype("u2")


@pytest.fixture
def series():
    """Return a DataArray with coordinates of every kind."""
    coords = {
        "time": np.arange(12) * 0.5,
        "row": ("y", list("abcde")),
        "x": np.arange(7) * 0.1,
        "pixel": (("y", "x"), np.arange(35).reshape(5, 7)),
        "gain": (("time", "x"), np.ones((12, 7))),
        "energy": 8.04,
    }
    return xarray.DataArray(
        FRAMES, coords, ("time", "y", "x"), name="counts", attrs={"units": "ADU"}
    )


def test_an_image_is_that_of_xarray(series):
    expected = series.max("time", keep_attrs=True)
    turned = series.transpose("y", "x", "time")
    for ims, dim in (
        *((series, None), (series, "time"), (series, ["time"]), (turned, "time")),
        *((series.chunk(time=5, y=2), None), (turned.chunk(time=5), "time")),
    ):
        image = stats.max(ims, dim=dim)
        assert isinstance(image.data, da.Array)
        xarray.testing.assert_identical(image.compute(), expected)
        xarray.testing.assert_identical(eager.max(ims, dim=dim), expected)
    assert set(image.coords) == {"row", "x", "pixel", "energy"}
    plain = stats.average(xarray.DataArray(FRAMES), dim="dim_0")
    assert (plain.dims, plain.name, dict(plain.coords)) == (("dim_1", "dim_2"), None, {})
    np.testing.assert_array_equal(plain.compute(), FRAMES.mean(axis=0, dtype="f8").astype("f4"))


def test_results_of_several_images(series):
    levels = stats.percentile(series, [5, 95])
    assert levels.dims == ("percentile", "y", "x")
    assert levels.percentile.values.tolist() == [5, 95]
    assert "percentile" not in stats.percentile(series, 5).coords
    steps = stats.partials(series, "max", 3)
    assert steps.dims == ("step", "y", "x")
    xarray.testing.assert_identical(steps[-1].compute(), eager.max(series))
    both = stats.partials(series, ("percentile", [5, 95]), 2)
    assert both.dims == ("step", "percentile", "y", "x")

    images = stats.aggregate(series, ["max", ("percentile", [5, 95])])
    assert list(images.data_vars) == ["max", "percentile_5_95"]
    computed = images.compute()
    xarray.testing.assert_identical(computed["max"], eager.max(series).rename("max"))
    np.testing.assert_array_equal(computed["percentile_5_95"], levels.compute())
    two = [("percentile", [5, 95]), "max", ("percentile", [50])]
    with pytest.raises(ValueError, match=r"\(5.0, 95.0\) and \(50.0,\) would share.*in one list"):
        stats.aggregate(series, two)
    assert len(next(stats.aggregate_iter(series, two, 5))) == 3


def test_names_of_results_that_the_frames_have_too(series):
    """A coordinate of the name leaves; a dimension is refused: it would be there twice."""
    named = series.assign_coords(max=3, min=("y", np.arange(5)))
    images = stats.aggregate(named, ["max", "min", "sum"])
    assert list(images.data_vars) == ["max", "min", "sum"]
    assert set(images.coords) == set(eager.max(series).coords)
    for name, call in (
        ("max", lambda ims: stats.aggregate(ims, ["max", "min"])),
        ("percentile", lambda ims: stats.percentile(ims, [5, 95])),
        ("step", lambda ims: stats.partials(ims, "max", 3)),
        ("frame", lambda ims: stats.wrap(ims.expand_dims("run"))),
    ):
        with pytest.raises(ValueError, match=f'have a dimension "{name}".*rename it'):
            call(series.rename(y=name))


def test_iterators_and_plans_are_those_of_arrays(series):
    turned = series.transpose("x", "y", "time").transpose("y", "x", "time")
    for image in stats.max_iter(turned, 3, dim="time"):
        assert type(image) is np.ndarray
    np.testing.assert_array_equal(image, FRAMES.max(axis=0))
    np.testing.assert_array_equal(stats.watch(turned, "max", dim="time"), image)
    *_, shot = stats.snapshots(series, ["max", "average"], 3)
    np.testing.assert_array_equal(shot.image["max"], FRAMES.max(axis=0))
    plans = [stats.plan(ims, "median", memory_limit="1 GiB") for ims in (series, FRAMES)]
    assert plans[0] == plans[1]


def test_wrap_keeps_the_labels_of_frames(series):
    frames = stats.wrap(series.transpose("y", "x", "time"), nframes=9, dim="time")
    assert isinstance(frames.data, da.Array)
    xarray.testing.assert_identical(frames.compute(), series[:9])
    scan = xarray.DataArray(FRAMES.reshape(3, 4, 5, 7), dims=list("abyx"), coords={"x": range(7)})
    frames = stats.wrap(scan)
    assert (frames.dims, list(frames.coords)) == (("frame", "y", "x"), ["x"])
    np.testing.assert_array_equal(frames.compute(), FRAMES)


def test_all_leading_dimensions_are_frames():
    dims, values = ["a", "b", "y", "x"], FRAMES.reshape(3, 4, 5, 7)
    scan = xarray.DataArray(values, dims=dims, coords={"a": range(3), "y": range(5)})
    expected = stats.argmax(FRAMES).compute()
    turned = scan.transpose("y", "b", "x", "a")
    every = [(scan, None), (turned, ("a", "b"))]
    every += [] if EXPRESSIONS else [(scan.chunk(b=2), None)]  # which dask cannot reshape
    for ims, dim in every:
        image = stats.argmax(ims, dim=dim)
        assert (image.dims, list(image.coords)) == (("y", "x"), ["y"])
        np.testing.assert_array_equal(image.compute(), expected)


def test_coordinates_are_flipped_and_cut_as_pixels_are(series):
    numbers = series.copy(data=np.broadcast_to(series.pixel, series.shape).astype("u2"))
    for flip in FLIPS:
        for region in (None, ((1, 4), (0, 2))):
            image = eager.max(numbers, flip=flip, region=region)
            assert (image == image.pixel).all()
            assert image.dims == image.pixel.dims
            assert (image.copy(data=series.x.values[image.pixel % 7]) == image.x).all()


def test_images_among_the_arguments_may_be_data_arrays(series):
    mask = (series[0] > 100).transpose("x", "y")
    dark = stats.min(series).transpose("x", "y")
    image = eager.average(series, mask=mask, dark=dark, frames=series.time > 2, fill_value=-1)
    expected = (FRAMES[5:] - FRAMES.min(axis=0).astype("f8")).mean(axis=0).astype("f4")
    np.testing.assert_array_equal(image, np.where(FRAMES[0] > 100, -1, expected))
    turned = eager.max(series, mask=mask, flip="t", fill_value=0)
    np.testing.assert_array_equal(turned, np.where(FRAMES[0] > 100, 0, FRAMES.max(axis=0)).T)
    arguments = {"mask": series[0] > 100, "frames": series.time > 2, "fill_value": 0}
    image = stats.max(FRAMES, **arguments).compute()
    assert type(image) is np.ndarray
    np.testing.assert_array_equal(image, eager.max(series, **arguments))


class Quantity:
    """A duck array in units, as of pint."""

    __module__ = "pint.registry"
    shape, ndim, dtype = FRAMES.shape, 3, FRAMES.dtype

    def __array_function__(self, function, types, args, kwargs):
        return self

    def __array_ufunc__(self, *args, **kwargs):
        return self

    def __getitem__(self, index):
        return self

    def transpose(self, axes):
        return self


def test_refusals(series):
    # xarray itself makes NaN of masked values, unless dask does not know that there are some.
    masked = da.from_array(FRAMES).map_blocks(np.ma.masked_equal, 3, meta=np.empty((0, 0, 0), "u2"))
    for ims, options, error in (
        (series, {"dim": "frame"}, r"dim is 'frame', but the DataArray has .* time, y, x"),
        (series, {"dim": 0}, r"dim is 0, but the DataArray has the dimensions"),
        (series, {"dim": ["time", "x"]}, r"leaves 1 of the dimensions time, y, x for a frame"),
        (series.expand_dims("a"), {"dim": "time"}, r"leaves 3 of the dimensions a, time, y, x"),
        (series[0], {}, r"three-dimensional .*, got a DataArray of 2 dimensions: y, x"),
        (series[:0], {}, "the image series has no frames"),
        (FRAMES, {"dim": "time"}, r"dim names the frames of an xarray.DataArray.*type ndarray"),
        ("scan.npy", {"dim": "time"}, r"dim names the frames of an xarray.DataArray.*type str"),
        (series.astype("M8[ns]"), {}, r"frames must be bool, integers or floats.*datetime64"),
        (series.copy(data=masked), {}, r"is a MaskedArray, expected a plain.*its \.filled"),
        (series.copy(data=Quantity()), {}, r"the data of the DataArray is a pint.Quantity.*m_as"),
        (series.to_dataset(), {}, r"xarray.Dataset.*take its \[name\].*variables: \['counts'\]"),
    ):
        with pytest.raises((TypeError, ValueError), match=error):
            eager.max(ims, **options)


@pytest.fixture(params=["zarr", "h5netcdf"])
def stored(request, tmp_path):
    """Return a Dataset that stays in its file: scaled integers, and a variable of four axes."""
    pytest.importorskip(request.param)
    counts = np.where(FRAMES[3, 2, 2] == FRAMES, np.nan, FRAMES / 2)
    dataset = xarray.Dataset(
        {
            "counts": (("time", "y", "x"), counts),
            "scan": (("b", "a", "u", "v"), np.moveaxis(FRAMES.reshape(3, 4, 5, 7), (1, 3), (0, 2))),
        }
    )
    chunks = "chunks" if request.param == "zarr" else "chunksizes"
    packed = {"dtype": "u2", "scale_factor": 0.5, "_FillValue": 65535, chunks: (5, 2, 7)}
    path = tmp_path / "scan"
    if request.param == "zarr":
        dataset.to_zarr(path, encoding={"counts": packed}, consolidated=False)
        kwargs = {"consolidated": False, "chunks": None}
    else:
        dataset.to_netcdf(path, engine="h5netcdf", encoding={"counts": packed})
        kwargs = {}
    with xarray.open_dataset(path, engine=request.param, **kwargs) as opened:
        yield opened


def test_variables_in_files_are_read_by_indexing(stored):
    counts, scan = stored.counts, stored.scan
    expected = np.where(FRAMES[3, 2, 2] == FRAMES, np.nan, FRAMES / 2)
    source = VariableSource(counts.variable, counts.dims)
    assert (source.frame_unit, source.row_unit) == (5, 2)
    check_series(source, expected)
    check_series(VariableSource(scan.variable, ("a", "b", "v", "u")), FRAMES)

    image = stats.max(counts, skipna=True, memory_limit="32 MiB")
    np.testing.assert_array_equal(image.compute(), np.nanmax(expected, axis=0))
    image = stats.max(scan, dim=("a", "b"))
    assert image.dims == ("u", "v")
    np.testing.assert_array_equal(image.compute(), FRAMES.max(axis=0).T)
    assert stays_in_file(counts.variable), "it was loaded"
    assert stays_in_file(scan.variable), "it was loaded"
    scan.load()
    assert not stays_in_file(scan.variable)
    np.testing.assert_array_equal(stats.max(scan, dim=("a", "b")).compute(), FRAMES.max(axis=0).T)


@pytest.mark.parametrize("cols", [3, 4])
def test_dimensions_that_are_named_leave_frames_and_no_colours(tmp_path, rng, cols):
    frames = rng.integers(0, 50, (2, 3, 5, cols)).astype("u2")
    scan = xarray.DataArray(frames, dims=("a", "b", "y", "x"), name="scan")
    scan.to_netcdf(tmp_path / "scan.nc", engine="h5netcdf")
    turned = scan.transpose("x", "b", "y", "a")
    for dim in (("a", "b"), ("b", "a")):
        expected = scan.transpose(*dim, "y", "x").to_numpy().reshape(6, 5, cols)
        with xarray.open_dataset(tmp_path / "scan.nc", engine="h5netcdf") as stored:
            every = [scan, scan.astype(">u2"), turned.transpose("a", "y", "b", "x"), stored.scan]
            every += [] if EXPRESSIONS else [scan.chunk(b=2, y=3)]  # which dask cannot reshape
            for ims in every:
                np.testing.assert_array_equal(
                    stats.max(ims, dim=dim).compute(), expected.max(axis=0)
                )
                np.testing.assert_array_equal(
                    stats.argmax(ims, dim=dim).compute(), expected.argmax(axis=0)
                )
                np.testing.assert_array_equal(stats.wrap(ims, "rows", dim=dim).compute(), expected)
                with pytest.raises(ValueError, match="three-dim.* its last axis is one of colours"):
                    stats.max(ims.transpose("a", "b", "y", "x"))


def test_variables_in_files_are_opened_on_workers(stored, client):
    *_, image = stats.max_iter(stored.counts, 2, skipna=True)
    expected = np.where(FRAMES[3, 2, 2] == FRAMES, np.nan, FRAMES / 2)
    np.testing.assert_array_equal(image, np.nanmax(expected, axis=0))
