"""The options --dark and --flip."""

import numpy as np
import pytest
from programs import check_error, run

FRAMES = np.random.default_rng(0).integers(0, 1000, (6, 30, 40)).astype("u2")


@pytest.fixture
def scan(tmp_path):
    np.save(tmp_path / "scan.npy", FRAMES)
    np.save(tmp_path / "dark.npy", FRAMES[0])
    return tmp_path / "scan.npy"


def test_dark_and_flip(scan, tmp_path):
    given = "--dark", tmp_path / "dark.npy", "--flip", "r90", "--region", "30:40,0:20"
    result = run("min", scan, "-o", tmp_path / "image.npy", *given)
    assert result.exit_code == 0, result.stderr
    assert "6 frames of 10 x 20 int32" in result.stderr
    corrected = FRAMES.astype("i4") - FRAMES[0]
    wanted = np.rot90(corrected.min(axis=0))[30:40, :20]
    np.testing.assert_array_equal(np.load(tmp_path / "image.npy"), wanted, strict=True)


def test_values_are_those_of_the_file(scan, tmp_path):
    given = "--dark", tmp_path / "dark.npy", "--saturation", 900, "--fill-value", -1
    result = run("max", scan, "-o", tmp_path / "image.npy", *given)
    assert result.exit_code == 0, result.stderr
    corrected = np.where(FRAMES < 900, FRAMES.astype("i4") - FRAMES[0], -9999).max(axis=0)
    wanted = np.where(corrected == -9999, -1, corrected)
    np.testing.assert_array_equal(np.load(tmp_path / "image.npy"), wanted)


def test_info_has_the_shape_of_flipped_frames(scan, tmp_path):
    given = "--dark", tmp_path / "dark.npy", "--flip", "t", "--region", "30:40,0:20"
    result = run("info", scan, *given)
    assert result.exit_code == 0, result.stderr
    assert "10 x 20 of 40 x 30" in result.stdout


def test_the_output_is_not_the_dark(scan, tmp_path):
    dark = tmp_path / "dark.npy"
    before = dark.read_bytes()
    check_error(run("max", scan, "-o", dark, "--force", "--dark", dark), 2, "is the input")
    assert dark.read_bytes() == before


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--flip", "z"], ["'z' is not one of v, y, h"]),
        (["--dark", "none.npy"], ["there is no", "none.npy"]),
        (["--dark", "scan.npy"], ["dark has shape (6, 30, 40), expected (30, 40)"]),
        (["--dark", "small.npy"], ["dark has shape (3, 4), expected (30, 40)"]),
    ],
)
def test_errors_are_one_sentence(scan, tmp_path, monkeypatch, given, words):
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "small.npy", np.zeros((3, 4)))
    check_error(run("max", scan, "-o", tmp_path / "image.npy", *given), 2, *words)
