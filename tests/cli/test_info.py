"""The command ``info``: files, dataset, storage, and values that stand for no count."""

import json

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from programs import check_error, run

from daskstats.cli.first_frame import suspects
from daskstats.series.arrays import ArraySource

FRAMES = np.random.default_rng(0).integers(0, 1000, (6, 30, 40)).astype("u2")


def info(*args):
    """Return the lines, by their names, and the JSON object."""
    result = run("info", *args)
    assert result.exit_code == 0, result.stderr
    lines = dict(line.split(None, 1) for line in result.stdout.splitlines())
    return lines, json.loads(run("info", *args, "--json").stdout)


def test_files_in_order(tmp_path):
    for number in (10, 2, 1):
        np.save(tmp_path / f"scan_{number}.npy", FRAMES[: number + 1][:6])
    lines, facts = info(tmp_path / "scan_*.npy")
    first, last = f"{tmp_path}/scan_1.npy", f"{tmp_path}/scan_10.npy"
    assert lines["files"] == f"3: {first} to {last}"
    assert (facts["files"], facts["first_file"], facts["last_file"]) == (3, first, last)
    assert facts["bytes_on_disk"] == sum(f.stat().st_size for f in tmp_path.iterdir())
    assert (facts["frames"], facts["shape"], facts["dtype"]) == (11, [30, 40], "uint16")
    assert facts["bytes"] == 11 * 30 * 40 * 2


def test_a_store_at_an_address_is_on_no_disk():
    url = "memory://info/x.zarr"
    zarr.create_array(url, data=FRAMES, chunks=(1, 30, 40))
    lines, facts = info(url)
    assert lines["size"] == "1.44e-05 GB"
    assert lines["files"] == url
    assert facts["bytes_on_disk"] is None
    assert (facts["files"], facts["first_file"], facts["last_file"]) == (1, url, url)


def test_an_address_among_files(tmp_path):
    url, path = "memory://info/y.zarr", tmp_path / "scan.npy"
    zarr.create_array(url, data=FRAMES, chunks=(1, 30, 40), overwrite=True)
    np.save(path, FRAMES)
    for names in ([path, url], [url, path]):
        lines, facts = info(*names)
        assert lines["files"] == f"2: {names[0]} to {names[1]}"
        assert (facts["files"], facts["frames"]) == (2, 12)
        assert (facts["first_file"], facts["last_file"]) == tuple(map(str, names))
        assert facts["bytes_on_disk"] is None


def test_selected_frames_and_region(tmp_path):
    np.save(tmp_path / "scan.npy", FRAMES)
    _, facts = info(tmp_path / "scan.npy", "--frames", "1:", "--nframes", 2, "--region=0:9,1:40")
    assert (facts["frames"], facts["frames_of_all"]) == (2, 6)
    assert (facts["shape"], facts["shape_of_all"]) == ([9, 39], [30, 40])
    assert facts["bytes"] == 2 * 9 * 39 * 2


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"chunks": (1, 30, 40), "compression": "gzip", "shuffle": True}, "shuffle, gzip"),
        ({"chunks": (1, 30, 40), "compression": "lzf", "fletcher32": True}, "lzf, fletcher32"),
        ({"chunks": (1, 30, 40)}, "not compressed"),
        ({}, None),
    ],
)
def test_dataset_and_storage_of_hdf5(tmp_path, options, text):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_dataset("/entry/data/data", data=FRAMES, **options)
        file["/entry/mask"] = np.zeros((30, 40), "u1")
    lines, facts = info(tmp_path / "scan.h5")
    assert facts["dataset"] == "/entry/data/data"
    assert lines["dataset"] == f"/entry/data/data ({facts['why']})"
    assert "only" in facts["why"]
    assert facts["storage"] == (f"chunks of 1 x 30 x 40, {text}" if text else "contiguous")
    assert lines["storage"] == facts["storage"]
    assert "named" in info(f"{tmp_path / 'scan.h5'}::/entry/data/data")[1]["why"]


def test_bitshuffle_is_named(tmp_path):
    plugin = pytest.importorskip("hdf5plugin")
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_dataset("data", data=FRAMES, chunks=(1, 30, 40), **plugin.Bitshuffle())
    assert info(tmp_path / "scan.h5")[1]["storage"] == "chunks of 1 x 30 x 40, bitshuffle"


def virtual(path):
    """Make a virtual dataset of two files; return the second."""
    layout = h5py.VirtualLayout((12, 30, 40), "u2")
    for number in range(2):
        part = path.with_name(f"part_{number}.h5")
        with h5py.File(part, "w") as file:
            file.create_dataset("data", data=FRAMES, chunks=(2, 30, 40), compression="gzip")
        layout[6 * number : 6 * number + 6] = h5py.VirtualSource(part.name, "data", (6, 30, 40))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("scan", layout)
    return part


def test_virtual_dataset(tmp_path):
    part = virtual(tmp_path / "scan.h5")
    _, facts = info(tmp_path / "scan.h5")
    assert facts["storage"] == "virtual, of 2 datasets: chunks of 2 x 30 x 40, gzip"
    assert facts["files"] == 3
    part.unlink()
    check_error(run("info", tmp_path / "scan.h5"), 2, "part_1.h5")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"chunks": (1, 30, 40)}, "chunks of 1 x 30 x 40, zstd"),
        ({"chunks": (1, 30, 40), "compressors": None}, "chunks of 1 x 30 x 40, not compressed"),
        ({"chunks": (1, 30, 40), "shards": (3, 30, 40)}, "in shards of 3 x 30 x 40, zstd"),
        (
            {"chunks": (2, 30, 40), "compressors": zarr.codecs.BloscCodec()},
            "chunks of 2 x 30 x 40, blosc",
        ),
        ({"chunks": (2, 30, 40), "zarr_format": 2}, "chunks of 2 x 30 x 40, zstd"),
    ],
)
def test_storage_of_zarr(tmp_path, options, text):
    zarr.create_array(tmp_path / "scan.zarr", data=FRAMES, **options)
    assert info(tmp_path / "scan.zarr")[1]["storage"].endswith(text)


def test_frames_without_data(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_dataset("data", (10, 30, 40), "u2", chunks=(1, 30, 40))[:4] = 1
    lines, facts = info(tmp_path / "scan.h5")
    assert facts["frames_without_data"] == 6
    assert lines["no"] == f"data     {facts['no_data']}"
    assert info(tmp_path / "scan.h5", "--frames", "2:9", "--nframes=3")[1]["no_data"].startswith(
        "1"
    )
    _, facts = info(tmp_path / "scan.h5", "--nframes", 4)
    assert (facts["frames_without_data"], facts["no_data"]) == (0, None)


# ---------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("dtype", "values", "text"),
    [
        ("u4", {4294967295: 700}, "4294967295 in 700 pixels: --invalid 4294967295"),
        ("u4", {4294967294: 1}, "4294967294 in 1 pixel: --invalid 4294967294"),
        ("u2", {65535: 2, 65534: 3}, "65535 in 2 pixels, 65534 in 3 pixels: --invalid 65535,65534"),
        ("u1", {255: 5, 254: 9}, "255 in 5 pixels: --invalid 255"),
        ("i4", {-1: 1100, -2: 4}, "-1 in 1,100 pixels, -2 in 4 pixels: --invalid -1,-2"),
        ("i2", {32767: 3}, "32767 in 3 pixels: --invalid 32767"),
        ("u8", {2**64 - 1: 3}, f"{2**64 - 1} in 3 pixels: --invalid {2**64 - 1}"),
        ("f4", {np.nan: 7}, "nan in 7 pixels: --skipna"),
        ("i4", {-3: 5}, None),
        ("f8", {-1: 5}, None),
        ("?", {}, None),
    ],
)
def test_values_of_the_first_frame(tmp_path, dtype, values, text):
    frames = np.ones((3, 30, 40), dtype)
    place = 0
    for value, count in values.items():
        frames[0].reshape(-1)[place : place + count] = value
        place += count
    np.save(tmp_path / "scan.npy", frames)
    lines, facts = info(tmp_path / "scan.npy")
    assert lines.get("values") == (f"in the first frame {text}" if text else None)
    found = {each["value"]: each["pixels"] for each in facts["values"]}
    nan = {"nan" if value != value else value: count for value, count in values.items()}
    assert found == ({value: nan[value] for value in found} if text else {})
    assert all(each["option"].startswith("--") for each in facts["values"])
    # The option that is named is one that the command takes, and leaves them out.
    if text and dtype != "f4":
        option = text.partition(": ")[2].split()
        assert info(tmp_path / "scan.npy", *option)[1]["values"] == []


def test_values_of_the_selected_region(tmp_path):
    frames = np.zeros((3, 30, 40), "u2")
    frames[1, :5] = 65535
    np.save(tmp_path / "scan.npy", frames)
    assert info(tmp_path / "scan.npy")[1]["values"] == []
    _, facts = info(tmp_path / "scan.npy", "--frames", "1:", "--region", "3:30,0:10")
    assert facts["values"] == [{"value": 65535, "pixels": 20, "option": "--invalid 65535"}]


def test_a_frame_beyond_the_memory_limit_is_not_read():
    class Fails(ArraySource):
        def read(self, *args):
            raise AssertionError("it was read")

    source = Fails(np.zeros((2, 30, 40), "u2"))
    assert suspects(source, 4000) == []
    with pytest.raises(AssertionError):
        suspects(source, 1 << 20)


# ---------------------------------------------------------------------- count cutoff


@pytest.mark.parametrize("real", [False, True])
def test_cutoff_of_a_pilatus(tmp_path, real):
    text = "# Tau = 200.4e-09 s\r\n# Count_cutoff 239516 counts\r\n# Threshold_setting 10000 eV\r\n"
    frames = FRAMES[:1].astype("i4")
    tifffile.imwrite(tmp_path / "scan.tif", frames, description=text if real else "Count_cutoff")
    lines, facts = info(tmp_path / "scan.tif")
    assert facts["cutoffs"] == ({"Count_cutoff": 239516} if real else {})
    assert lines.get("cutoff") == ("Count_cutoff 239,516: --saturation 239516" if real else None)


def test_cutoff_of_a_detector_of_dectris(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["/entry/data/data"] = FRAMES
        file["/entry/instrument/detector/saturation_value"] = 46051
        specific = "/entry/instrument/detector/detectorSpecific"
        file[f"{specific}/countrate_correction_count_cutoff"] = np.array([46052], "u4")
        file["/entry/instrument/beam"] = 3
        file["/lost"] = h5py.ExternalLink("nowhere.h5", "/")
    _, facts = info(f"{tmp_path / 'scan.h5'}::/entry/data/data")
    assert facts["cutoffs"] == {
        "saturation_value": 46051,
        "countrate_correction_count_cutoff": 46052,
    }


@pytest.mark.parametrize("value", [np.inf, np.nan, h5py.Empty("u4"), "many", [1, 2]], ids=str)
def test_a_cutoff_that_is_no_count(tmp_path, value):
    """It is left out, and those of other detectors are told."""
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["/entry/data/data"] = FRAMES
        file["/entry/instrument/a/saturation_value"] = value
        file["/entry/instrument/b/saturation_value"] = 46051
    _, facts = info(f"{tmp_path / 'scan.h5'}::/entry/data/data")
    assert facts["cutoffs"] == {"saturation_value": 46051}


def test_how_hdf5_is_read(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_dataset("large", (2, 200, 200), "u2", chunks=(1, 200, 200), compression="gzip")
        file.create_dataset("small", data=FRAMES, chunks=(1, 30, 40))
    lines, facts = info(f"{tmp_path / 'scan.h5'}::large")
    assert lines["reading"] == facts["reading"] == "at the places of the chunks, in parallel"
    lines, _ = info(f"{tmp_path / 'scan.h5'}::small")
    assert lines["reading"] == "by h5py, one chunk at a time: a chunk is small: 2400 bytes"
    with h5py.File(tmp_path / "scan.h5", "a") as file:
        for name in ("large", "small"):
            layout = h5py.VirtualLayout(file[name].shape, "u2")
            layout[:] = h5py.VirtualSource(file[name])
            file.create_virtual_dataset(f"{name} again", layout)
    lines, _ = info(f"{tmp_path / 'scan.h5'}::large again")
    assert lines["reading"] == "at the places of the chunks, in parallel"
    lines, _ = info(f"{tmp_path / 'scan.h5'}::small again")
    assert lines["reading"].endswith(": scan.h5::/small: a chunk is small: 2400 bytes")
