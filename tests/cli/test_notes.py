"""Notes on images: how they were made, in every format that has room for them."""

import json
import os
import shutil
import sys
from datetime import datetime, timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from programs import run

import daskstats as stats
from daskstats.arguments import frames_text
from daskstats.formats import notes as notes_module
from daskstats.formats import outputs
from daskstats.formats.notes import Notes, as_json, lines

FRAMES = np.random.default_rng(0).integers(0, 1000, (12, 30, 40)).astype("u2")
OUTPUTS = ["x.h5", "x.nxs", "x.h5::/a/b/c", "x.h5::/imageseries/images", "x.tif", "x.zarr"]
SELECTION = ["--frames", "1:11:2", "--nframes", "4", "--region", "0:20,10:40", "--invalid", "3,7"]
SELECTION += ["--saturation", "990", "--fill-value", "-1", "--skipna"]


@pytest.fixture
def scan(tmp_path):
    """Return a file with a dataset, beside a mask."""
    mask = np.zeros((30, 40), "?")
    mask[3, 12] = True
    np.save(tmp_path / "mask.npy", mask)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["/entry/data/data"] = FRAMES
    return tmp_path / "scan.h5"


def process_of(path):
    """Return the fields of the only NXprocess of a file."""
    found = []

    def add(name, node):
        if node.attrs.get("NX_class") == "NXprocess":
            found.append({key: value.asstr()[()] for key, value in node.items()})

    with h5py.File(path) as file:
        file.visititems(add)
    assert len(found) <= 1
    return {k: v if isinstance(v, str) else list(v) for fields in found for k, v in fields.items()}


def read_notes(path):
    """Return the notes in a file, as another program reads them; empty if there are none."""
    name = str(path).partition("::")[0]
    if name.endswith(".tif"):
        with tifffile.TiffFile(name) as file:
            text = file.pages[0].description
        return json.loads(text) if '"program"' in text else {}
    if name.endswith(".zarr"):
        return dict(zarr.open(name, mode="r").attrs)
    return process_of(name)


def compute(*args):
    result = run(*args, "--quiet")
    assert result.exit_code == 0, result.stderr
    return result


@pytest.mark.parametrize("output", OUTPUTS)
def test_everything_is_noted(tmp_path, scan, output):
    path = f"{tmp_path / output}"
    mask = ["--mask", tmp_path / "mask.npy"]
    compute("percentile", "--pctl", "5,50", scan, "-o", path, *SELECTION, *mask)
    found = read_notes(path)
    date = datetime.fromisoformat(found.pop("date"))
    assert abs(datetime.now().astimezone() - date) < timedelta(minutes=10)
    assert found == {
        "program": "daskstats",
        "version": version("daskstats"),
        "statistic": "percentile",
        "parameters": "pctl=5,50",
        "frames": "1:8:2",
        "region": "0:20,10:40",
        "mask": str(tmp_path / "mask.npy"),
        "invalid": "3,7",
        "saturation": "990",
        "skipna": "yes",
        "fill_value": "-1",
        "sources": [f"{scan}::/entry/data/data, frames 0:12"],
    }


@pytest.mark.parametrize(
    ("output", "several"),
    [("x.h5", False), ("x.tif", False), ("x.zarr", False), ("x.h5", True), ("x.zarr", True)],
)
def test_the_image_of_a_run_says_how_far_it_is(tmp_path, scan, output, several):
    """Rows that are not there yet look like data."""
    names = ["median", "max"] if several else "median"
    images = stats.snapshots(scan, names, 6, checkpoint=tmp_path / "run")
    for shot in images:
        if shot.done > 4:
            break
    images.close()
    result = run("show", tmp_path / "run", "-o", tmp_path / output)
    assert result.exit_code == 0, result.stderr
    found = read_notes(tmp_path / output)
    assert 4 < shot.done < 30
    assert found["progress"] == f"{shot.done} of 30 rows"
    assert found["statistic"] == (["median", "max"] if several else "median")


def test_parameters_that_were_not_given_are_noted(tmp_path, scan):
    path = tmp_path / "x.h5"
    compute("aggregate", scan, "--stats", "clipped_average,max,clipped_average:4", "-o", path)
    found = read_notes(path)
    assert found["parameters"] == ["sigma=3 maxiters=5", "", "sigma=4 maxiters=5"]


def test_dark_and_flip(tmp_path, scan):
    """A region is one of flipped frames, of which rows may be more than those in the file."""
    np.save(tmp_path / "dark.npy", FRAMES[0])
    chosen = "--dark", tmp_path / "dark.npy", "--flip", "t"
    compute("max", scan, "-o", tmp_path / "x.tif", *chosen, "--region", "20:40,0:10")
    found = read_notes(tmp_path / "x.tif")
    assert (found["dark"], found["flip"]) == (str(tmp_path / "dark.npy"), "t")
    assert found["region"] == "20:40,0:10"
    assert "fill_value" not in found
    compute("max", scan, "-o", tmp_path / "y.tif", *chosen, "--fill-value", 0)
    found = read_notes(tmp_path / "y.tif")
    assert (found["region"], found["fill_value"]) == ("0:40,0:30", "0")


def test_images_and_their_datasets(tmp_path, scan, monkeypatch):
    """The one that was chosen, however it was named."""
    zarr.open_group(tmp_path / "dg.zarr", mode="w").create_array("x/dark", data=FRAMES[0])
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["m/mask"], file["m/other"] = FRAMES[:2] % 2
    monkeypatch.chdir(tmp_path)
    chosen = "--dark", "dg.zarr", "--mask", "silx:m.h5?path=/m/mask", "--fill-value", "0"
    compute("max", scan, "-o", tmp_path / "x.tif", *chosen)
    found = read_notes(tmp_path / "x.tif")
    assert found["dark"] == f"{tmp_path}/dg.zarr::/x/dark"
    assert found["mask"] == f"{tmp_path}/m.h5::/m/mask"


@pytest.mark.parametrize("suffix", [".edf", ".fits"])
def test_headers_of_text(tmp_path, scan, suffix):
    path = tmp_path / f"x{suffix}"
    compute("percentile", "--pctl", "5", scan, "-o", path, *SELECTION)
    if suffix == ".edf":
        with pytest.importorskip("fabio").open(str(path)) as file:
            found = dict(file.header)
    else:
        header = pytest.importorskip("astropy.io.fits").getheader(path)
        # A long line goes on in the next one.
        text = "".join(header["HISTORY"])
        assert "sources = " in text
        found = dict(line.split(" = ", 1) for line in header["HISTORY"] if " = " in line)
    assert found["statistic"].strip() == "percentile"
    assert found["parameters"].strip() == "pctl=5"
    assert found["frames"].strip() == "1:8:2"
    assert found["sources"].startswith(str(scan)[:40])


@pytest.mark.parametrize("output", OUTPUTS)
def test_no_notes(tmp_path, scan, output):
    compute("max", scan, "-o", tmp_path / output, "--no-notes")
    assert read_notes(tmp_path / output) == {}
    assert b"daskstats" not in b"".join(
        file.read_bytes() for file in tmp_path.rglob("x*") if file.is_file()
    )


@pytest.mark.parametrize("suffix", ["h5", "zarr", "npz"])
def test_several_images_in_one_file(tmp_path, scan, suffix):
    path = tmp_path / f"x.{suffix}"
    compute("aggregate", scan, "--stats", "max,count_above:1e2,clipped_average:3:none", "-o", path)
    if suffix == "npz":  # there is no room
        assert len(np.load(path)) == 3
        return
    found = read_notes(path)
    assert found["images"] == ["max", "count_above_100", "clipped_average_3_None"]
    assert found["statistic"] == ["max", "count_above", "clipped_average"]
    assert found["parameters"] == ["", "threshold=100.0", "sigma=3 maxiters=none"]
    assert found["frames"] == "0:12"
    assert "mask" not in found


def test_each_file_of_a_directory_has_its_own(tmp_path, scan):
    compute("aggregate", scan, "--stats", "max,percentile:95", "-o", tmp_path / "x", "--format=tif")
    found = {path.stem: read_notes(path) for path in (tmp_path / "x").iterdir()}
    assert found["max"]["statistic"] == "max"
    assert "parameters" not in found["max"]
    assert found["percentile_95"]["parameters"] == "pctl=95"
    assert found["percentile_95"]["sources"] == found["max"]["sources"]


def test_several_sources(tmp_path):
    for number in (2, 10):
        np.save(tmp_path / f"scan_{number}.npy", FRAMES[:number])
    compute("max", tmp_path / "scan_*.npy", "-o", tmp_path / "x.h5", "--frames", "1:")
    assert read_notes(tmp_path / "x.h5")["sources"] == [
        f"{tmp_path}/scan_2.npy, frames 0:2",
        f"{tmp_path}/scan_10.npy, frames 0:10",
    ]
    assert read_notes(tmp_path / "x.h5")["frames"] == "1:12"


def test_a_source_at_an_address(tmp_path):
    """Alone, and among files: none is left out."""
    url, path = "memory://notes/x.zarr", tmp_path / "b.npy"
    zarr.create_array(url, data=FRAMES[:4], overwrite=True)
    np.save(path, FRAMES)
    compute("max", url, "-o", tmp_path / "x.h5")
    assert read_notes(tmp_path / "x.h5")["sources"] == [f"{url}, frames 0:4"]
    compute("max", path, url, "-o", tmp_path / "y.h5", "--frames", "2:14")
    found = read_notes(tmp_path / "y.h5")
    assert found["sources"] == [f"{path}, frames 0:12", f"{url}, frames 0:4"]
    assert found["frames"] == "2:14"


def test_notes_keep_no_password(tmp_path, monkeypatch):
    store = zarr.storage.MemoryStore()
    zarr.create_array(store, data=FRAMES)
    monkeypatch.setattr("daskstats.formats.zarr_url.open_store", lambda url: zarr.open(store))
    compute("max", "ftp://me:secret@host/x.zarr", "-o", tmp_path / "x.tif")
    assert read_notes(tmp_path / "x.tif")["sources"] == ["ftp://host/x.zarr, frames 0:12"]
    assert b"secret" not in (tmp_path / "x.tif").read_bytes()


def store_of_a_group(place):
    """Write a zarr group with one series, and others."""
    group = zarr.open_group(place, mode="w")
    group.create_array("g/0", data=FRAMES)
    group.create_array("g/mask", data=np.zeros((30, 40), "u1"))


def zipped(tmp_path, top):
    """Write such a group into a zip file, maybe with its directory."""
    store_of_a_group(tmp_path / "top" / "scan.zarr")
    root = tmp_path / "top" if top else tmp_path / "top" / "scan.zarr"
    return Path(shutil.make_archive(str(tmp_path / "scan.zarr"), "zip", root))


def zarr_group(tmp_path):
    store_of_a_group(tmp_path / "scan.zarr")
    return tmp_path / "scan.zarr"


def address_of_a_group(tmp_path):
    store_of_a_group("memory://notes/group.zarr")
    return "memory://notes/group.zarr"


def ome_zarr(tmp_path):
    path = zarr_group(tmp_path)
    image = {"axes": [{"name": name} for name in "zyx"], "datasets": [{"path": "0"}]}
    zarr.open_group(path / "g").attrs["ome"] = {"multiscales": [image]}
    return path


def archive(tmp_path):
    np.savez(tmp_path / "scan.npz", mask=FRAMES[0], images=FRAMES)
    return tmp_path / "scan.npz"


def extensions(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    images = [fits.ImageHDU(frame) for frame in FRAMES]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(tmp_path / "scan.fits")
    return tmp_path / "scan.fits"


@pytest.mark.parametrize(
    ("make", "dataset"),
    [
        (zarr_group, "/g/0"),
        (ome_zarr, "/g/0"),
        (partial(zipped, top=False), "/g/0"),
        (partial(zipped, top=True), "/g/0"),
        (address_of_a_group, "/g/0"),
        (archive, "images"),
        (extensions, "1 to 12"),
    ],
)
def test_the_dataset_that_was_chosen(tmp_path, make, dataset):
    """Of a file that holds several; the name is one to be typed."""
    place = make(tmp_path)
    named = [] if " to " in dataset else [f"{place}::{dataset}"]
    for name in (place, *named):
        compute("max", name, "-o", tmp_path / "x.h5", "--force")
        assert read_notes(tmp_path / "x.h5")["sources"] == [f"{place}::{dataset}, frames 0:12"]
    text = run("info", place).stdout
    assert f"\ndataset     {dataset} (" in text


def test_frames_that_a_name_selects(tmp_path, scan):
    name = f"silx:{scan}?path=/entry/data/data&slice=2:9:3"
    compute("max", name, "-o", tmp_path / "x.h5")
    found = read_notes(tmp_path / "x.h5")
    assert found["sources"] == [f"{scan}::/entry/data/data, frames 2:9:3"]
    assert found["frames"] == "0:3"


@pytest.mark.parametrize("output", [*OUTPUTS, "x.png", "x.npy"])
def test_same_arguments_same_file(tmp_path, scan, output, monkeypatch):
    """Apart from the date."""
    monkeypatch.setattr(notes_module, "now", lambda: "2026-11-28T20:55:16+00:00")
    contents = []
    for _ in range(2):
        compute("average", scan, "-o", tmp_path / output, "--force")
        files = sorted(file for file in tmp_path.rglob("x*") if file.is_file())
        files += sorted(file for file in tmp_path.glob("x*/**/*") if file.is_file())
        contents.append([file.read_bytes() for file in files])
    assert contents[0]
    assert contents[0] == contents[1]


def test_text_that_headers_cannot_hold(tmp_path):
    """Names of files may have any letter, and lines of a header may not."""
    odd = "sc\u00e4n;{1}\n\u2028.npy"
    facts = {"program": "daskstats", "sources": (odd, "b.npy")}
    for text in (*lines(facts).values(), as_json(facts)):
        assert text.isascii()
    assert all(text.isprintable() for text in lines(facts).values())
    assert json.loads(as_json(facts))["sources"] == [odd, "b.npy"]
    path = tmp_path / "scan \u00e4.npy"
    np.save(path, FRAMES)
    compute("max", path, "-o", tmp_path / "x.tif")
    assert read_notes(tmp_path / "x.tif")["sources"] == [f"{path}, frames 0:12"]


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux only")
def test_a_source_whose_name_is_no_text(tmp_path):
    path = tmp_path / os.fsdecode(b"scan \xff.npy")
    np.save(path, FRAMES)
    for name in ("x.h5", "x.nxs", "x.tif"):
        compute("max", path, "-o", tmp_path / name)
    with h5py.File(tmp_path / "x.h5") as file:
        (source,) = file["entry/process/sources"].asstr()[()]
    assert r"scan \udcff.npy" in source


def test_a_header_does_not_name_thousands_of_files():
    facts = {"sources": tuple(f"scan_{number}.tif" for number in range(5000))}
    found = json.loads(as_json(facts))["sources"]
    assert len(found) == 21
    assert found[0] == "scan_0.tif"
    assert found[-1] == "scan_4999.tif"
    assert "... (5000 in all)" in found


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (1, 3, 4), (3, 4, 3)])
def test_a_tiff_with_notes_is_read_as_before(tmp_path, shape):
    fabio = pytest.importorskip("fabio")
    image = np.arange(np.prod(shape), dtype="f4").reshape(shape)
    outputs.save(image, tmp_path / "x.tif", notes=Notes({"max": {"statistic": "max"}}, {}))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "x.tif"), image, strict=True)
    if len(shape) == 2:
        with fabio.open(str(tmp_path / "x.tif")) as file:
            np.testing.assert_array_equal(file.data, image)


@pytest.mark.parametrize("kind", ["range", "any", "repeated"])
def test_frames_as_text(rng, kind):
    """The text selects the same frames again."""
    for _ in range(200):
        step = int(rng.choice([-3, -1, 1, 2]))
        frames = {
            "range": range(50)[::step][: int(rng.integers(1, 20))],
            "any": rng.permutation(50)[: rng.integers(1, 20)],
            "repeated": np.repeat(rng.integers(0, 50, 5), 2),
        }[kind]
        found = []
        for part in frames_text(frames).split(","):
            found += range(50)[slice(*(int(edge) if edge else None for edge in part.split(":")))]
        assert found == list(frames)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("command", "kept", "narrow"), [("sum", "f8", "float32"), ("count", "i8", "int32")]
)
def test_a_wide_tiff_names_the_option(tmp_path, scan, command, kept, narrow):
    result = compute(command, scan, "-o", tmp_path / "x.tif")
    assert tifffile.imread(tmp_path / "x.tif").dtype == kept
    (line,) = result.stderr.splitlines()
    assert line.startswith("daskstats: warning: ")
    assert f"--dtype {narrow}" in line
    result = compute(command, scan, "-o", tmp_path / "y.tif", "--dtype", narrow)
    assert result.stderr == ""
    assert tifffile.imread(tmp_path / "y.tif").dtype == narrow


@pytest.mark.parametrize("command", ["max", "aggregate --stats max,min"])
def test_silx_and_nexusformat_show_the_picture_at_once(tmp_path, scan, command):
    """With the notes beside it, which are no picture."""
    silx_io = pytest.importorskip("silx.io")
    from silx.io.nxdata import get_default

    compute(*command.split(), scan, "-o", tmp_path / "peaks.nxs")
    with silx_io.open(str(tmp_path / "peaks.nxs")) as file:
        data = get_default(file, validate=True)
        assert data.is_image
        np.testing.assert_array_equal(data.signal[()], FRAMES.max(axis=0), strict=True)
    nexus = pytest.importorskip("nexusformat.nexus")
    with nexus.nxload(tmp_path / "peaks.nxs") as root:
        found = root.get_default().nxsignal.nxdata
        np.testing.assert_array_equal(found, FRAMES.max(axis=0), strict=True)
        (process,) = root.entry.NXprocess
        assert str(process.program) == "daskstats"


def test_raw_files_are_noted(tmp_path):
    FRAMES.tofile(tmp_path / "scan.bin")
    compute("max", tmp_path / "scan.bin", "--raw", "30x40,uint16", "-o", tmp_path / "x.tif")
    assert read_notes(tmp_path / "x.tif")["raw"] == "30x40,uint16"
