"""Addresses of files on this machine are their paths."""

import os
from pathlib import Path

import numpy as np
import pytest

from daskstats.formats.addresses import as_path, hide_secrets, local_path, without_secrets
from daskstats.formats.growing import checked_name
from daskstats.formats.paths import parse
from daskstats.series.opening import open_source

FRAMES = np.arange(60, dtype="u2").reshape(3, 4, 5)


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("file:///{place}/a b.npy", "a b.npy"),
        ("local:///{place}/a b.npy", "a b.npy"),
        ("file://localhost/{place}/a%20b.npy", "a b.npy"),
        ("file:///{place}/a%20b.npy", "a b.npy"),
        ("file:///{place}/%41.npy", "%41.npy"),  # as fsspec takes it, if there is such a file
        ("file://a b.npy", "a b.npy"),  # in the working directory, as fsspec takes it
        ("file://~/a b.npy", "a b.npy"),
    ],
)
def test_address_is_a_path(tmp_path, monkeypatch, address, path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a b.npy", "%41.npy"):
        np.save(tmp_path / name, FRAMES)
    address = address.format(place=str(tmp_path).lstrip("/"))
    assert Path(as_path(address)).samefile(tmp_path / path)
    series = open_source(address)
    assert series.files() == (tmp_path / path,)
    assert len(series) == 3


@pytest.mark.parametrize(
    "rest", ["", "::/entry/data", "?path=/entry/data", "?path=/entry/data&slice=1:2"]
)
def test_what_follows_an_address(tmp_path, rest):
    path = tmp_path / "scan.h5"
    path.touch()
    assert parse(f"{path.as_uri()}{rest}") == parse(f"{path}{rest}")
    assert parse(f"silx:{path.as_uri()}{rest}") == parse(f"{path}{rest}")
    assert checked_name(f"{path.as_uri()}::/entry") == parse(f"{path}::/entry")


def test_folder_and_pattern(tmp_path):
    for number in (10, 2):
        np.save(tmp_path / f"scan_{number}.npy", FRAMES)
    for name in (tmp_path.as_uri(), f"{tmp_path.as_uri()}/scan_*.npy"):
        assert open_source(name).files() == (tmp_path / "scan_2.npy", tmp_path / "scan_10.npy")


def test_addresses_that_read_files(tmp_path):
    for ways in ("", "simplecache::", "blockcache::simplecache::"):
        assert local_path(f"{ways}file://{tmp_path}") == tmp_path
    assert local_path("file://x.zarr") == Path.cwd() / "x.zarr"
    for url in ("s3://bucket/x.zarr", "memory://x.zarr", "simplecache::https://host/x.zarr"):
        assert local_path(url) is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me@127.0.0.1:80/a@b/x.zarr", "http://127.0.0.1:80/a@b/x.zarr"),
        ("sftp://me:a@b:c@host/x.zarr", "sftp://host/x.zarr"),
        ("simplecache::https://me:pw@host/x.zarr?X=1", "simplecache::https://host/x.zarr"),
        ("s3://bucket/me@home/x.zarr", "s3://bucket/me@home/x.zarr"),
        ("zip::https://me@host/x.zip?X=1::/a?b", "zip::https://host/x.zip::/a?b"),
        ("abfs://container@account/x.zarr", "abfs://container@account/x.zarr"),
        ("github://org:repo@main/x.zarr", "github://org:repo@main/x.zarr"),
    ],
)
def test_addresses_for_people_have_no_password(url, shown):
    assert without_secrets(url) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no http://me:pw@host/x, nor s3://b/y", "no http://host/x, nor s3://b/y"),
        ("(<Store at https://host/x?sig=pw>)", "(<Store at https://host/x>)"),
        ("url='http://me:pw@host/x?a=b', 403", "url='http://host/x', 403"),
        ("/home/me@host/x?y and a::b are paths", "/home/me@host/x?y and a::b are paths"),
    ],
)
def test_texts_for_people_have_no_password(text, shown):
    assert hide_secrets(text) == shown


def test_addresses_of_other_machines_are_left():
    for text in ("s3://bucket/a%20b.zarr::/g", "memory://x.zarr", "a%20b.npy", os.sep):
        assert as_path(text) == text
