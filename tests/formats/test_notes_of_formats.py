"""Notes in the headers of formats that other programs read."""

import numpy as np
import pytest

from daskstats.formats.notes import Notes
from daskstats.formats.outputs import save

NOTES = Notes({"max": {"statistic": "max"}}, {"sources": ("a{1};.npy", "b" * 200)})


def edf_header(path):
    fabio = pytest.importorskip("fabio")
    with fabio.open(str(path)) as file:
        assert file.data.tolist() == [[1, 2, 3]] * 2
        return dict(file.header)


def test_edf(tmp_path):
    save(np.array([[1, 2, 3]] * 2, "i4"), tmp_path / "a.edf", notes=NOTES)
    header = edf_header(tmp_path / "a.edf")
    assert header["statistic"] == "max"
    assert header["sources"] == rf"a\x7b1\x7d\x3b.npy | {'b' * 200}"


def test_edf_gives_every_name_back(tmp_path):
    name = "a;b{c}=\\x3b \u00e9.npy"
    notes = Notes({"max": {}}, {"sources": name})
    save(np.array([[1, 2, 3]] * 2, "i4"), tmp_path / "a.edf", notes=notes)
    text = edf_header(tmp_path / "a.edf")["sources"]
    assert text.encode().decode("unicode_escape") == name


def test_fits(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    save(np.array([[1, 2, 3]] * 2, "i4"), tmp_path / "a.fits", notes=NOTES)
    with fits.open(tmp_path / "a.fits") as file:
        assert file[0].data.tolist() == [[1, 2, 3]] * 2
        text = "".join(file[0].header["HISTORY"])
    assert "statistic = max" in text
    assert f"sources = a{{1}};.npy | {'b' * 200}" in text


@pytest.mark.parametrize("blanks", [1, 2, 5])
def test_fits_keeps_blanks_between_cards(tmp_path, blanks):
    """astropy drops those at the end of a card."""
    fits = pytest.importorskip("astropy.io.fits")
    for length in range(50, 75):
        name = ("a" * length + " " * blanks) * 3 + ".npy"
        notes = Notes({"max": {"statistic": "max"}}, {"sources": name})
        save(np.zeros((2, 3), "i4"), tmp_path / "a.fits", notes=notes, force=True)
        assert "".join(fits.getheader(tmp_path / "a.fits")["HISTORY"]).endswith(f" = {name}")


@pytest.mark.parametrize("suffix", [".cbf", ".mrc"])
def test_headers_without_room(tmp_path, suffix):
    save(np.array([[1, 2, 3]] * 2, "i2"), tmp_path / f"with{suffix}", notes=NOTES)
    save(np.array([[1, 2, 3]] * 2, "i2"), tmp_path / f"without{suffix}")
    assert (tmp_path / f"with{suffix}").stat().st_size == (
        tmp_path / f"without{suffix}"
    ).stat().st_size
