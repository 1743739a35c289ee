"""Series that a YAML file of HEXRD describes: image files, a raw file, a frame cache."""

import numpy as np
import pytest
import yaml
from caches import members, sparse
from helpers import check_series, make_frames

from daskstats.formats.hexrd_yaml import HexrdYamlSource
from daskstats.series.opening import open_source

tifffile = pytest.importorskip("tifffile")


def describe(path, content):
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


@pytest.fixture
def images(tmp_path):
    """Return frames of three files: of three, four and two frames."""
    frames = make_frames("u2", nframes=9)
    (tmp_path / "run").mkdir()
    for name, part in (("a_2", frames[:3]), ("a_10", frames[3:7]), ("b", frames[7:])):
        tifffile.imwrite(tmp_path / f"run/{name}.tif", part, photometric="minisblack")
    (tmp_path / "run/.hidden.tif").write_bytes(b"")
    return frames


def image_files(tmp_path, files="a_*.tif b.tif", directory=None, **options):
    directory = str(tmp_path / "run") if directory is None else directory
    content = {"image-files": {"directory": directory, "files": files}}
    return describe(tmp_path / "scan.yml", {**content, "options": options, "meta": {}})


def test_image_files_in_the_order_of_their_names(tmp_path, images):
    """HEXRD sorts names as text: a_10 before a_2."""
    series = open_source(image_files(tmp_path))
    assert type(series) is HexrdYamlSource
    check_series(series, np.concatenate([images[3:7], images[:3], images[7:]]))
    names = [path.name for path in series.files()]
    assert names == ["scan.yml", "a_10.tif", "a_2.tif", "b.tif"]


def test_a_file_as_it_is_written_by_hand(tmp_path, images):
    text = f"""
image-files:
  directory: {tmp_path}/run
  files: "b.tif"
options:
  empty-frames: 0
  max-frames: 0
meta:
  panel: ge2
  omega: ! load-numpy-array omegas.npy
"""
    with pytest.raises(ValueError, match="has the option max-frames: expected empty-frames, max-"):
        open_source(describe(tmp_path / "scan.yaml", text))
    text = text.replace("max-frames", "max-total-frames")
    check_series(open_source(describe(tmp_path / "scan.yaml", text)), images[7:])


def test_options_choose_frames_of_each_file_and_of_all(tmp_path, images):
    two, ten, b = images[:3], images[3:7], images[7:]
    options = {"empty-frames": 1, "max-file-frames": 2}
    every = np.concatenate([ten[1:3], two[1:3], b[1:]])
    check_series(open_source(image_files(tmp_path, **options)), every)
    options["max-total-frames"] = 3
    check_series(open_source(image_files(tmp_path, **options)), every[:3])
    options["max-total-frames"] = 99
    check_series(open_source(image_files(tmp_path, **options)), every)
    with pytest.raises(ValueError, match=r"empty-frames is 2, and .*b.tif has 2 frames"):
        open_source(image_files(tmp_path, **{"empty-frames": 2}))


def test_another_dtype_holds_every_value(tmp_path, images):
    series = open_source(image_files(tmp_path, files="b.tif", dtype="int32"))
    check_series(series, images[7:].astype("i4"))
    series = open_source(image_files(tmp_path, files="b.tif", dtype="uint8"))
    most = int(images[7].max())
    with pytest.raises(ValueError, match=f"a frame has the value {most}, which uint8 cannot hold"):
        list(series.pieces(0, 1, 0, 5, 1))
    with pytest.raises(TypeError, match="another dtype of integers only, got float32"):
        open_source(image_files(tmp_path, files="b.tif", dtype="float32"))


def test_a_relative_directory(tmp_path, images, monkeypatch):
    """HEXRD looks for it from the working directory; one that lies beside the file is found."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    path = image_files(tmp_path, files="b.tif", directory="run")
    check_series(open_source(path), images[7:])
    (tmp_path / "elsewhere/run").mkdir()
    with pytest.raises(ValueError, match="run is both .*elsewhere/run and .*: write the whole"):
        open_source(path)
    tifffile.imwrite(tmp_path / "elsewhere/run/b.tif", images[:2], photometric="minisblack")
    (tmp_path / "run").rename(tmp_path / "run2")
    check_series(open_source(path), images[:2])


@pytest.mark.parametrize(
    ("files", "options", "error", "message"),
    [
        ("c*.tif", {}, FileNotFoundError, r"scan.yml: no file matches .*run/c\*.tif"),
        ("a_*.tif a_2.tif", {}, ValueError, "a_2.tif matches two patterns, and would count twice"),
        ("", {}, ValueError, "files must be text, got ''"),
        ("b.tif", {"empty-frames": -1}, ValueError, "empty-frames must be at least 0, got -1"),
        ("b.tif", {"empty-frames": "one"}, TypeError, "empty-frames must be an integer, got 'one'"),
        ("b.tif", {"dtype": "u17"}, TypeError, "scan.yml: dtype 'u17'"),
    ],
)
def test_wrong_descriptions_of_files(tmp_path, images, files, options, error, message):
    with pytest.raises(error, match=message):
        open_source(image_files(tmp_path, files=files, **options))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1", "scan.yml is not a file of YAML: "),
        ("", "describes no image series of HEXRD: it has none of image-files, filename, data"),
        ("- 1\n- 2", "describes no image series of HEXRD"),
        ("image-files: 3", "image-files must have entries of its own, got 3"),
        ("image-files: {files: x.tif}", "directory must be text, got None"),
        ("!!python/object/apply:os.system ['true']", "is not a file of YAML"),
    ],
)
def test_other_files_of_yaml(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        open_source(describe(tmp_path / "scan.yml", content))


SCALARS = {
    "u1": {"type": "i", "bytes": 1, "signed": False},
    "i2": {"type": "i", "bytes": 2, "signed": True},
    "u4": {"type": "i", "bytes": 4, "signed": False},
    "i8": {"type": "i", "bytes": 8, "signed": True},
    "f4": {"type": "f", "bytes": 4, "signed": True},
    "f8": {"type": "d", "bytes": 8, "signed": True},
    "?": {"type": "b", "bytes": 1, "signed": False},
}


def raw(tmp_path, frames, skip=17, **changes):
    dtype = frames.dtype.newbyteorder("=")
    little = frames.dtype.newbyteorder("<") == frames.dtype
    (tmp_path / "frames.raw").write_bytes(b"x" * skip + frames.tobytes())
    content = {
        "filename": str(tmp_path / "frames.raw"),
        "scalar": {**SCALARS["?" if dtype.kind == "b" else dtype.str[1:]]},
        "shape": "5 6",
        "skip": skip,
    }
    content["scalar"]["endian"] = "little" if little else "big"
    for name, value in changes.items():
        entry = content["scalar"] if name in content["scalar"] else content
        entry[name] = value
    return describe(tmp_path / "raw.yml", content)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", SCALARS)
def test_raw_images(tmp_path, dtype, order):
    frames = make_frames(f"{order}{dtype}")
    check_series(open_source(raw(tmp_path, frames)), frames)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"endian": "middle"}, "endian must be little or big, got 'middle'"),
        ({"type": "c"}, "a scalar is of type i .* got 'c'"),
        ({"bytes": 3}, "a scalar is of type i with 1, 2, 4 or 8 bytes.* with 3"),
        ({"shape": "5"}, "shape must be two numbers, got '5'"),
        ({"shape": "5 8"}, "frames.raw has .* bytes"),
        ({"filename": "none.raw"}, "there is no .*none.raw"),
        ({"skip": -3}, "skip must be at least 0, got -3"),
    ],
)
def test_wrong_descriptions_of_raw_images(tmp_path, changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        open_source(raw(tmp_path, make_frames("<i2"), **changes))


def cache(tmp_path, file="cache.npz", **changes):
    entry = {"file": file, "nframes": 7, "shape": [5, 6], "dtype": "uint16", **changes}
    return describe(tmp_path / "cache.yml", {"data": entry, "meta": {}})


def test_frame_caches(tmp_path, monkeypatch):
    """They lie beside the YAML file; the first frames may be all that is described."""
    frames = sparse(make_frames("u2"))
    np.savez(tmp_path / "cache.npz", **members(frames))
    check_series(open_source(cache(tmp_path)), frames)
    assert open_source(cache(tmp_path)).kept == open_source(tmp_path / "cache.npz").kept > 0
    check_series(open_source(cache(tmp_path, nframes=4)), frames[:4])
    check_series(open_source(cache(tmp_path, file=str(tmp_path / "cache.npz"))), frames)


def test_frame_caches_in_hdf5(tmp_path):
    pytest.importorskip("h5py")
    from test_fch5 import save

    frames = sparse(make_frames("u2"))
    save(tmp_path / "cache.fch5", frames)
    check_series(open_source(cache(tmp_path, "cache.fch5")), frames)


def test_options_that_are_no_mapping(tmp_path, images):
    content = {"image-files": {"directory": str(tmp_path / "run"), "files": "b.tif"}}
    path = describe(tmp_path / "scan.yml", {**content, "options": [1, 2]})
    with pytest.raises(ValueError, match=r"scan.yml: options must have entries of its own"):
        open_source(path)


@pytest.mark.parametrize("changes", [{"shape": 5}, {"dtype": "u17"}, {"dtype": [3]}])
def test_a_frame_cache_of_no_array(tmp_path, changes):
    np.savez(tmp_path / "cache.npz", **members(sparse(make_frames("u2"))))
    with pytest.raises(ValueError, match="cache.yml has another shape or dtype than an array"):
        open_source(cache(tmp_path, **changes))


@pytest.mark.parametrize(
    "changes", [{"nframes": 8}, {"nframes": 0}, {"shape": [6, 5]}, {"dtype": "int32"}]
)
def test_a_frame_cache_that_is_described_otherwise_is_refused(tmp_path, changes):
    np.savez(tmp_path / "cache.npz", **members(sparse(make_frames("u2"))))
    with pytest.raises(ValueError, match=r"cache.yml describes \{.*\}, and .*cache.npz holds"):
        open_source(cache(tmp_path, **changes))
    with pytest.raises(FileNotFoundError, match="cache.yml: there is no file .*none.npz"):
        open_source(cache(tmp_path, "none.npz"))


def test_the_output_is_not_a_described_file(tmp_path, images):
    from programs import check_error, run

    target = tmp_path / "run/b.tif"
    before = target.read_bytes()
    check_error(run("max", image_files(tmp_path), "-o", target, "--force"), 2, "is the input")
    assert target.read_bytes() == before
