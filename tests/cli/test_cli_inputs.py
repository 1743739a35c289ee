"""The command line with several inputs: files, folders and patterns."""

import h5py
import numpy as np
import pytest
from programs import check_error, run

from daskstats.cli import computing


@pytest.fixture
def scan(tmp_path, rng):
    """Return a folder with three files, and all their frames in natural order."""
    folder = tmp_path / "run7"
    folder.mkdir()
    frames = rng.integers(0, 1000, (6, 8, 9), "u2")
    for place, number in enumerate((1, 2, 10)):
        np.save(folder / f"scan_{number}.npy", frames[2 * place : 2 * place + 2])
    return folder, frames


@pytest.mark.parametrize("names", [["run7"], ["run7/"], ["run7/scan_*.npy"]])
def test_folder_and_pattern(tmp_path, scan, names):
    _, frames = scan
    output = tmp_path / "image.npy"
    result = run("argmax", *[tmp_path / name for name in names], "-o", output)
    assert result.exit_code == 0, result.stderr
    np.testing.assert_array_equal(np.load(output), frames.argmax(axis=0))
    assert "argmax: 6 frames of 8 x 9 uint16" in result.stderr


def test_several_files_in_their_order(tmp_path, scan):
    folder, frames = scan
    output = tmp_path / "image.npy"
    names = [folder / f"scan_{number}.npy" for number in (10, 1)]
    result = run("argmax", *names, "-o", output, "--quiet")
    assert result.exit_code == 0, result.stderr
    np.testing.assert_array_equal(np.load(output), frames[[4, 5, 0, 1]].argmax(axis=0))


def test_output_among_the_inputs_is_left_out(tmp_path, scan):
    folder, frames = scan
    output = folder / "flat.npy"
    for names in ([folder], [folder / "*.npy"], sorted(folder.glob("*.npy"))):
        for _ in range(2):
            result = run("max", *names, "-o", output, "--force", "--quiet")
            assert result.exit_code == 0, result.stderr
            np.testing.assert_array_equal(np.load(output), frames.max(axis=0))
    listed = sorted(folder.glob("*.npy"))
    result = run("max", *listed, "-o", output, "--force")
    assert "flat.npy is the output, and is left out of the input" in result.stderr


def test_info_of_a_folder(scan):
    folder, _ = scan
    result = run("info", folder)
    assert result.exit_code == 0, result.stderr
    lines = dict(line.split(None, 1) for line in result.stdout.splitlines())
    assert (lines["frames"], lines["shape"]) == ("6", "8 x 9")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run7/*.tif", "no file matches the pattern"),
        ("empty", "empty is empty"),
        ("run8", "run8"),
    ],
    ids=["pattern", "folder", "missing"],
)
def test_nothing_there(tmp_path, scan, name, text):
    (tmp_path / "empty").mkdir()
    result = run("max", tmp_path / name, "-o", tmp_path / "image.npy")
    check_error(result, 2, text)


def test_raw_files(tmp_path, rng):
    frames = rng.integers(0, 1000, (6, 8, 9)).astype(">u2")
    for number in range(2):
        part = frames[3 * number : 3 * number + 3]
        (tmp_path / f"scan_{number}.ge").write_bytes(b"header" + part.tobytes())
    output = tmp_path / "image.npy"
    result = run("argmax", tmp_path / "scan_*.ge", "-o", output, "--raw", "8x9,>u2,6")
    assert result.exit_code == 0, result.stderr
    np.testing.assert_array_equal(np.load(output), frames.argmax(axis=0))
    result = run("info", tmp_path / "scan_0.ge", "--raw", "8x9,>u2,6")
    lines = dict(line.split(None, 1) for line in result.stdout.splitlines())
    assert (lines["frames"], lines["shape"], lines["dtype"]) == ("3", "8 x 9", "uint16")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("8x9", "'8x9' is not ROWSxCOLS,DTYPE[,SKIP[,GAP]]"),
        ("8x9,u2,a", "is not ROWSxCOLS"),
        ("8x9,colour", "is not ROWSxCOLS"),
        ("8x9,u2,1,2,3", "is not ROWSxCOLS"),
        ("8x9,u2,5", "16 = 0 x 144 + 16"),
        ("8x9,S3", "frames must be bool, integers or floats"),
    ],
)
def test_raw_files_that_do_not_fit(tmp_path, value, text):
    (tmp_path / "scan.bin").write_bytes(bytes(21))
    result = run("max", tmp_path / "scan.bin", "-o", tmp_path / "image.npy", "--raw", value)
    check_error(result, 2, text)


def test_result_that_a_format_cannot_hold_is_kept(tmp_path, scan):
    folder, frames = scan
    (tmp_path / "flat.npy").write_bytes(b"another file")
    result = run("average", folder, "-o", tmp_path / "flat.cbf")
    check_error(result, 1, "a .cbf file holds int32", f"the result is kept in {tmp_path}/flat1.npy")
    np.testing.assert_array_equal(
        np.load(tmp_path / "flat1.npy"), frames.mean(axis=0).astype("f4"), strict=True
    )
    assert not (tmp_path / "flat.cbf").exists()


@pytest.mark.parametrize(
    ("arguments", "output", "words", "kept"),
    [
        (["max", "--force"], "out.h5::/entry/x", "out.h5 holds /raw", "out.npy"),
        (["max"], "out.h5", "out.h5 exists already", "out.npy"),
        (["aggregate", "--stats", "max,min"], "out.h5", "out.h5 exists already", "out.npz"),
    ],
)
def test_result_is_kept_where_another_program_has_written(
    tmp_path, scan, monkeypatch, arguments, output, words, kept
):
    """It may have taken hours."""
    (folder, frames), compute = scan, computing.last_image

    def write_as_well(*arguments):
        with h5py.File(tmp_path / "out.h5", "w") as file:
            file["raw"] = [7]
        return compute(*arguments)

    monkeypatch.setattr(computing, "last_image", write_as_well)
    command, *options = arguments
    result = run(command, folder, "-o", tmp_path / output, *options)
    check_error(result, result.exit_code, words, f"the result is kept in {tmp_path / kept}")
    assert result.exit_code in (1, 2)
    found = np.load(tmp_path / kept)
    found = found["max"] if command == "aggregate" else found
    np.testing.assert_array_equal(found, frames.max(axis=0))
    with h5py.File(tmp_path / "out.h5") as file:
        assert list(file) == ["raw"]
