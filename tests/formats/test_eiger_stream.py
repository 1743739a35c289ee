"""Streams of Eiger detectors, with frames compressed by the filters of hdf5plugin."""

import io

import numpy as np
import pytest
from helpers import check_series, make_frames

from daskstats.formats.eiger_stream import EigerStreamSource
from daskstats.series.opening import open_source

h5py = pytest.importorskip("h5py")
hdf5plugin = pytest.importorskip("hdf5plugin")
pytest.importorskip("imagecodecs")


def filtered(frame, **options):
    """Return the bytes that an HDF5 filter makes of a frame: those that a detector sends."""
    with h5py.File(io.BytesIO(), "w") as file:
        dataset = file.create_dataset("frame", data=frame, chunks=frame.shape, **options)
        mask, data = dataset.id.read_direct_chunk((0, 0))
    assert mask == 0
    return data


def csr(frame):
    sparse = pytest.importorskip("scipy.sparse")
    file = io.BytesIO()
    sparse.save_npz(file, sparse.csr_matrix(frame))
    return len(file.getvalue()).to_bytes(8, "little") + file.getvalue()


COMPRESSED = {
    "bslz4": lambda frame: filtered(frame, **hdf5plugin.Bitshuffle(cname="lz4")),
    "lz4": lambda frame: filtered(frame, **hdf5plugin.LZ4()),
    "csrnpz": csr,
    "": lambda frame: frame.tobytes(),
}


def write_image(group, frame, compression, opaque):
    data = COMPRESSED[compression](frame)
    group["data"] = np.void(data) if opaque else np.frombuffer(data, "u1")
    group["dtype"] = str(frame.dtype)
    group["shape"] = np.array(frame.shape)
    group["elem_size"] = np.array([frame.itemsize])
    if compression:
        group["compression_type"] = compression


def save(path, frames, compression="bslz4", thresholds=(), opaque=False):
    """Write a stream of version 1; of version 2 if there are thresholds, each of some frames."""
    with h5py.File(path, "w") as file:
        file.create_group("metadata")["pixel_mask"] = np.zeros((9, 9), "u4")
        for index in range(len(frames)):
            group = file.create_group(f"data/{index}")
            if not thresholds:
                write_image(group, frames[index], compression, opaque)
            for name, every in thresholds:
                write_image(group.create_group(name), every[index], compression, opaque)
    return path


@pytest.mark.parametrize("compression", COMPRESSED)
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_version_1(tmp_path, compression, dtype):
    """More than ten frames: 10 comes after 9."""
    frames = make_frames(dtype, nframes=12)
    series = open_source(save(tmp_path / "scan.h5", frames, compression))
    assert type(series) is EigerStreamSource
    check_series(series, frames)


@pytest.mark.parametrize("compression", ["bslz4", "lz4"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (100, 101), (64, 64), (512, 1024), (257, 129)])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_frames_of_every_size(tmp_path, compression, shape, dtype, rng):
    """Whole blocks only, a shorter one, and values that fill no block."""
    frames = rng.poisson(3, (2, *shape)).astype(dtype)
    series = open_source(save(tmp_path / "scan.h5", frames, compression, opaque=True))
    np.testing.assert_array_equal(np.concatenate(series.read(0, 2, 0, shape[0])), frames)


@pytest.mark.parametrize("compression", ["bslz4", ""])
def test_version_2(tmp_path, compression):
    first, second = make_frames("u4"), make_frames("u4", seed=1)
    thresholds = ("threshold_1", first), ("threshold_2", second)
    path = save(tmp_path / "scan.h5", first, compression, thresholds)
    check_series(open_source(path), first)
    assert open_source(path).origins() == [(f"{path}::threshold_1", range(len(first)))]
    check_series(open_source(f"{path}::threshold_2"), second)
    check_series(open_source(f"{path}::man_diff"), first.astype("f8") - second)
    with pytest.raises(ValueError, match="has no threshold_3: it has threshold_1, threshold_2"):
        open_source(f"{path}::threshold_3")
    only = save(tmp_path / "one.h5", first, compression, thresholds[:1])
    with pytest.raises(ValueError, match="has no threshold_2: it has threshold_1"):
        open_source(f"{only}::man_diff")


def test_damaged_frames_are_refused(tmp_path):
    frames = make_frames("u4")
    path = save(tmp_path / "scan.h5", frames)
    with h5py.File(path, "r+") as file:
        data = file["data/3/data"][()]
        for number, wrong in ((3, data[:-9]), (4, data[:5]), (5, np.zeros(0, "u1"))):
            del file[f"data/{number}/data"]
            file[f"data/{number}/data"] = wrong
        del file["data/6/compression_type"]
        file["data/6/compression_type"] = "zip"
    series = open_source(path)
    for index in (3, 4, 5, 6):
        with pytest.raises(ValueError, match="a frame compressed as .* is damaged") as caught:
            list(series.pieces(index, index + 1, 0, 5, 1))
        assert f"frame {index}" in "".join(caught.value.__notes__)
    np.testing.assert_array_equal(series.read(0, 3, 0, 5)[1][0], frames[1])


def test_a_frame_of_another_shape_or_dtype_is_refused(tmp_path):
    frames = make_frames("u4")
    path = save(tmp_path / "scan.h5", frames)
    with h5py.File(path, "r+") as file:
        for index, frame in ((2, frames[2][:4]), (3, frames[3].astype("u2"))):
            del file[f"data/{index}"]
            write_image(file.create_group(f"data/{index}"), frame, "bslz4", False)
    series = open_source(path)
    with pytest.raises(ValueError, match=r"frame 2 has shape \(4, 6\), expected \(5, 6\)"):
        list(series.pieces(2, 3, 0, 5, 1))
    with pytest.raises(ValueError, match="frame 3 has dtype uint16, expected uint32"):
        list(series.pieces(3, 4, 0, 5, 1))


def test_a_missing_frame_is_refused(tmp_path):
    path = save(tmp_path / "scan.h5", make_frames("u2"))
    with h5py.File(path, "r+") as file:
        del file["data/3"]
    with pytest.raises(ValueError, match="has 6 frames in /data, and none is 3"):
        open_source(path)


def test_other_files_with_a_group_of_data_are_none(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data/0"] = np.zeros((3, 4, 5), "u2")
    assert type(open_source(tmp_path / "scan.h5")) is not EigerStreamSource


def test_without_imagecodecs_the_error_names_it(tmp_path, monkeypatch):
    import sys

    frames = make_frames("u2")
    series = [open_source(save(tmp_path / f"{name}.h5", frames, name)) for name in ("lz4", "bslz4")]
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    monkeypatch.setattr("daskstats.formats.hdf5_decoders._imagecodecs", lambda: None)
    with pytest.raises(ImportError, match=r"lz4.h5 needs imagecodecs: pip install"):
        series[0].read(0, 1, 0, 5)
    # hdf5plugin decodes the other one.
    np.testing.assert_array_equal(series[1].read(0, 1, 0, 5)[0], frames[:1])
