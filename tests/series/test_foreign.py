"""Arrays that are not plain memory: refused by type, with a sentence that says what to give."""

import sys

import dask
import dask.array as da
import numpy as np
import pytest
from fakes import FakeSeries
from helpers import check_series, make_frames

import daskstats as stats
from daskstats.series.flat import flattened
from daskstats.series.foreign import called, is_plain
from daskstats.series.opening import as_series

FRAMES = make_frames("u2", 8)


def masked(block):
    return np.ma.masked_equal(block, FRAMES[3, 2, 2])


def without_a_mask(block):
    return np.ma.MaskedArray(block)


def in_units(block):
    from astropy import units

    return block * units.m if block[0, 0, 0] % 2 else block * units.mm


class Sparse:
    """As of another package: a shape and a dtype, but no memory of its own."""

    def __init__(self, dense):
        self.shape, self.dtype, self.ndim = dense.shape, dense.dtype, dense.ndim

    def __getitem__(self, index):
        return self


Sparse.__module__ = "sparse.numba_backend._coo"
SparseArray = type("SparseArray", (Sparse,), {"__module__": "sparse.numba_backend._sparse_array"})


class Old(np.ndarray):
    """As quantities of packages that are older than numpy's protocols."""

    units = property(lambda self: "mm")


def arrays_of(kind, sizes=(2, 5, 6), meta=None):
    """Return a dask array of which dask does not know what its blocks are."""
    array = da.from_array(FRAMES, chunks=sizes)
    return array.map_blocks(kind, dtype="u2", meta=np.empty((0, 0, 0), "u2"))


BLOCKS = {
    "masked": (masked, "a MaskedArray"),
    "masked, nothing left out": (without_a_mask, "a MaskedArray"),
    "sparse": (SparseArray, "a sparse.SparseArray"),
    "old units": (lambda block: block.view(Old), "a test_foreign.Old"),
    "lists": (lambda block: block.tolist(), "a list"),
}


@pytest.mark.parametrize("sizes", [(2, 5, 6), (4, 2, 6), (8, 5, 3), (3, 3, 3)])
@pytest.mark.parametrize(
    "call",
    [
        lambda array: stats.average(array).compute(),
        lambda array: stats.median(array).compute(),
        lambda array: list(stats.max_iter(array, 3)),
        lambda array: list(stats.median_iter(array, 2)),
        lambda array: stats.sum(array, frames=[5, 1], region=((1, 4), (2, 4))).compute(),
        lambda array: list(as_series(array).pieces(0, 8, 1, 3, 4)),
        lambda array: stats.average(array, lock=True).compute(),
        lambda array: stats.max(array, dark=np.zeros((5, 6), "u2"), flip="v").compute(),
        lambda array: list(stats.median_iter(array, 2, dark=np.zeros((5, 6)), invalid=3)),
    ],
)
def test_masked_blocks_are_refused_when_the_first_is_there(call, sizes):
    for scheduler in ("threads", "synchronous"):
        with (
            dask.config.set(scheduler=scheduler),
            pytest.raises(ValueError, match=r"a MaskedArray, expected.*uint16.*filled\(value\)"),
        ):
            call(arrays_of(masked, sizes))


@pytest.mark.parametrize(("kind", "name"), BLOCKS.values(), ids=BLOCKS.keys())
@pytest.mark.parametrize("sizes", [(2, 5, 6), (8, 2, 3)])
def test_blocks_that_nobody_can_handle_are_named(kind, name, sizes):
    with pytest.raises(Exception, match=f"is {name}, expected a plain numpy array of uint16"):
        stats.average(arrays_of(kind, sizes)).compute()


def test_blocks_that_are_joined_are_refused_before():
    """Joined to plain blocks, quantities of older packages are plain."""
    parts = [da.from_array(FRAMES[:4]), arrays_of(lambda block: block.view(Old), (4, 5, 6))[4:]]
    array = da.concatenate(parts).rechunk((4, 5, 3))
    for lazy in (
        stats.average(array, frames=[5, 1, 4, 0]),
        flattened(as_series(array)).array,
    ):
        with pytest.raises(ValueError, match=r"a test_foreign\.Old, expected a plain numpy array"):
            lazy.compute(scheduler="synchronous")


def test_blocks_in_different_units_are_refused():
    pytest.importorskip("astropy")
    for sizes in ((2, 5, 6), (8, 2, 3)):
        with pytest.raises(ValueError, match=r"an astropy.Quantity.*to_value\(unit\)"):
            stats.average(arrays_of(in_units, sizes)).compute()


@pytest.mark.parametrize("along", ["frames", "rows"])
def test_wrapped_blocks_keep_their_mask_or_are_refused(along):
    for sizes in ((2, 2, 3), (8, 5, 3), (3, 3, 6)):
        with pytest.raises(ValueError, match="MaskedArray"):
            stats.wrap(arrays_of(masked, sizes), along).compute()
    array = arrays_of(masked, (8, 5, 6))
    assert np.ma.isMaskedArray(stats.wrap(array, along).compute())


def test_masked_block_among_plain_ones_is_refused_where_blocks_are_joined():
    blocks = [da.from_array(FRAMES[:4]), da.from_array(FRAMES[4:])]
    blocks[1] = blocks[1].map_blocks(masked, dtype="u2", meta=np.empty((0, 0, 0), "u2"))
    array = da.concatenate(blocks).rechunk((8, 5, 3))
    for along in ("frames", "rows"):
        with pytest.raises(ValueError, match="MaskedArray"):
            stats.wrap(array, along=along).compute()
    with pytest.raises(ValueError, match="MaskedArray"):
        stats.median(array).compute()


@pytest.mark.parametrize(
    "array",
    [
        lambda: da.ma.masked_equal(da.from_array(FRAMES), 3),
        lambda: da.from_array(masked(FRAMES)),
        lambda: da.ma.masked_invalid(da.from_array(FRAMES.astype("f4"))),
    ],
)
def test_dask_array_that_is_known_to_be_masked_is_refused_at_the_call(array):
    with pytest.raises(TypeError, match=r"MaskedArray.*filled\(value\)"):
        stats.average(array())


def test_way_out_that_is_named_gives_the_right_average():
    frames = np.ma.masked_greater(np.arange(48, dtype="u2").reshape(8, 3, 2), 40)
    series = {
        "array": frames.filled(65535),
        "list": [image.filled(65535) for image in frames],
        "dask": da.ma.filled(da.from_array(frames, chunks=2), 65535),
    }
    for ims in series.values():
        image = stats.average(ims, invalid=65535).compute()
        np.testing.assert_allclose(image, frames.mean(axis=0).filled(), rtol=1e-6)


def of_sequence(frames):
    series = as_series(FakeSeries(frames))
    return lambda: list(series.pieces(0, 4, 0, 5, 8))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda f: masked(f), r"a MaskedArray, expected .*filled\(value\)"),
        (lambda f: without_a_mask(f), "a MaskedArray"),
        (lambda f: SparseArray(f), r"a sparse.SparseArray, expected .*todense\(\)"),
        (lambda f: f.view(Old), "a test_foreign.Old"),
    ],
)
def test_frames_that_are_no_plain_arrays_are_refused(wrong, text):
    good = list(FRAMES[:4])
    for index in (0, 2):
        frames = [*good[:index], wrong(good[index]), *good[index + 1 :]]
        with pytest.raises((TypeError, ValueError), match=f"frame {index} is {text}"):
            as_series(frames)
        with pytest.raises(ValueError, match=f"frame {index} is {text}"):
            of_sequence(frames)()


@pytest.mark.parametrize("kind", [list, np.stack])
def test_masked_series_says_how_to_fill_it(kind):
    ims = masked(FRAMES) if kind is np.stack else [masked(frame) for frame in FRAMES]
    text = r"image\.filled\(value\) for image" if kind is list else r"its \.filled\(value\)"
    with pytest.raises(TypeError, match=text):
        stats.average(ims)


def test_units_are_refused_wherever_they_are():
    units = pytest.importorskip("astropy.units")
    ones = np.ones((5, 6))
    with pytest.raises(TypeError, match="astropy.Quantity"):
        stats.average([ones * units.m, ones * units.mm])
    with pytest.raises(TypeError, match=r"its \.to_value\(unit\)"):
        stats.average(np.ones((2, 5, 6)) * units.m)
    series = as_series(FakeSeries([ones, ones * units.mm]))
    with pytest.raises(ValueError, match="frame 1 is an astropy.Quantity"):
        list(series.pieces(0, 2, 0, 5, 1))


def test_masked_quantities_of_astropy_are_refused():
    masked_type = pytest.importorskip("astropy.utils.masked").Masked
    frame = masked_type(np.ones((5, 6)), mask=np.eye(5, 6, dtype=bool))
    with pytest.raises(TypeError, match="filled"):
        stats.average([frame, frame])


class Tagged(np.ndarray):
    """Only carries something along."""

    def __array_finalize__(self, obj):
        self.frame_number = getattr(obj, "frame_number", None)


def test_subclasses_that_only_carry_something_along_are_plain():
    assert is_plain(Tagged)
    assert is_plain(np.matrix)
    for kind in (Old, np.ma.MaskedArray, Sparse, list, np.float64, type(None)):
        assert not is_plain(kind)
    array = arrays_of(lambda block: block.view(Tagged))
    np.testing.assert_array_equal(stats.max(array).compute(), FRAMES.max(axis=0))
    tagged = [frame.view(Tagged) for frame in FRAMES]
    np.testing.assert_array_equal(stats.max(tagged).compute(), FRAMES.max(axis=0))


# ---------------------------------------------------------------------- other packages


class _Named:
    """As large objects of other packages: they also have the four names of a series."""

    def __init__(self, values, name="counts"):
        self.values = self.data = values
        self.shape, self.dtype = values.shape, values.dtype

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return type(self)(self.values[index])

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


def named(module, name, base=_Named):
    return type(name, (base,), {"__module__": module})


DataArray = named("xarray.core.dataarray", "DataArray")
OTHERS = [
    (DataArray, r"an xarray.DataArray.*its \.values"),
    (named("my.science", "Exposure", DataArray), r"a my.Exposure.*its \.values"),
    (named("xarray.core.dataset", "Dataset"), r"its \[name\], of one of its variables"),
    (named("pandas.core.frame", "DataFrame"), r"a pandas.DataFrame.*to_numpy\(\)"),
    (named("hyperspy._signals", "Signal1D"), r"hyperspy.Signal1D.*its \.as_signal2D\(axes\)"),
    (named("torch", "Tensor"), r"a torch.Tensor"),
]


@pytest.mark.parametrize(("kind", "text"), OTHERS)
@pytest.mark.parametrize("shape", [(40, 6, 4), (6, 4)])
def test_objects_of_other_packages_are_refused_with_the_way_out(kind, text, shape):
    with pytest.raises(TypeError, match=text):
        stats.average(kind(np.zeros(shape, "u2")))


@pytest.mark.parametrize("several", [list, tuple])
def test_lists_of_data_arrays_are_refused_with_the_way_out(several):
    images = several(DataArray(frame) for frame in FRAMES)
    with pytest.raises(TypeError, match=r"xarray.DataArray.*\[image.values for image in images\]"):
        stats.median(images)
    image = stats.median([image.values for image in images]).compute()
    np.testing.assert_array_equal(image, np.median(FRAMES, axis=0).astype("f4"))


def test_list_of_arrays_and_one_data_array_names_it():
    with pytest.raises(ValueError, match=r"frame 2 is an xarray.DataArray.*image.values"):
        stats.average([FRAMES[0], FRAMES[1], DataArray(FRAMES[2])])


def test_list_of_dask_arrays_is_refused_with_the_way_out():
    images = [da.from_array(frame) for frame in FRAMES]
    with pytest.raises(TypeError, match=r"frame 0 is a dask.Array.*dask.array.stack\(images\)"):
        stats.average(images)
    np.testing.assert_array_equal(stats.max(da.stack(images)).compute(), FRAMES.max(axis=0))


def test_class_of_that_name_elsewhere_is_a_series():
    kind = named("xarray_of_mine.core", "DataArray", FakeSeries)
    np.testing.assert_array_equal(stats.max(kind(FRAMES)).compute(), FRAMES.max(axis=0))
    assert called(kind) == "xarray_of_mine.DataArray"


def test_xarray_itself():
    xarray = pytest.importorskip("xarray")
    image = xarray.DataArray(FRAMES, dims=("frame", "row", "col"))
    with pytest.raises(TypeError, match=r"\[image.values for image in images\]"):
        stats.average(list(image))
    with pytest.raises(
        TypeError, match=r"its \[name\], of one of its variables: \['counts', 'b'\]"
    ):
        stats.average(xarray.Dataset({"counts": image, "b": image[0]}))
    with pytest.raises(TypeError, match=r"an xarray.Variable.*its \.values"):
        stats.average(image.variable)


def test_no_other_package_is_imported_for_it():
    before = set(sys.modules)
    with pytest.raises(TypeError):
        stats.average(DataArray(FRAMES))
    new = {name.partition(".")[0] for name in set(sys.modules) - before}
    assert not new & {"xarray", "pandas", "torch", "sparse"}


def test_masked_blocks_are_refused_before_workers_exchange_them(client):
    array = arrays_of(masked, (1, 5, 6))
    assert stats.plan(array, "median").strategy == "p2p"
    with pytest.raises(Exception, match="MaskedArray"):
        stats.median(array).compute()
    with pytest.raises(ValueError, match="MaskedArray"):
        stats.average(array).compute()


def test_signals_of_hyperspy_are_their_data():
    """That package is not installed here, and not imported anywhere."""
    base = type("BaseSignal", (), {"__module__": "hyperspy.signal"})
    kind = type("Signal2D", (base,), {"__module__": "hyperspy._signals.signal2d"})
    scan = FRAMES.reshape(2, 4, *FRAMES.shape[1:])
    for data in (FRAMES, scan, da.from_array(scan)):
        signal = kind()
        signal.data = data
        check_series(as_series(signal), FRAMES)
    spectra = type("Signal1D", (base,), {"__module__": "hyperspy._signals.signal1d"})
    for name in ("EELSSpectrum", "LazySignal1D"):
        with pytest.raises(TypeError, match=rf"hyperspy\.{name}.*as_signal2D"):
            as_series(type(name, (spectra,), {"__module__": "hyperspy._signals.x"})())


def test_stores_for_zarr_2_are_refused():
    store = type("ZarrStore", (), {"__module__": "tifffile.tifffile"})
    tiff = type("ZarrTiffStore", (store,), {"__module__": "tifffile.tifffile"})
    with pytest.raises(TypeError, match=r"tifffile\.ZarrTiffStore is a store for zarr 2.*2025\.5"):
        as_series(tiff())
