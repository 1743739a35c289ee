"""Zarr stores at addresses: in an S3 server and a plain HTTP server of this process, and memory."""

import functools
import http.server
import pickle
import shutil
import subprocess
import sys
import textwrap
import threading
import urllib.request
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr
from helpers import check_series, make_frames, read_dense

import daskstats as stats
from daskstats.formats import zarr_remote
from daskstats.formats.zarr_url import ZarrUrlSource, open_url
from daskstats.series.opening import as_series

fsspec = pytest.importorskip("fsspec")

FRAMES = make_frames("u2", 7, 8, 6)


def save(where, frames, chunks=(1, 4, 6), name=None, **options):
    if name:
        where = zarr.open_group(where, mode="a").store_path / name
    array = zarr.create_array(
        where, shape=frames.shape, dtype=frames.dtype, chunks=chunks, **options
    )
    array[...] = frames
    return array


def close_sessions(protocol):
    """Close the connections of a client, which it keeps until the process ends."""
    kind = fsspec.get_filesystem_class(protocol)
    sessions = [filesystem._session for filesystem in kind._cache.values()]
    kind.clear_instance_cache()
    for session in filter(None, sessions):
        zarr.core.sync.sync(session.close())


def check(series, frames):
    """Check the frames with few requests."""
    assert (len(series), series.shape, series.dtype) == (len(frames), frames.shape[1:], "u2")
    np.testing.assert_array_equal(read_dense(series, (0, len(frames), 0, 8, 4)), frames)
    np.testing.assert_array_equal(read_dense(series, (1, 3, 2, 5, 4)), frames[1:3, 2:5])


@pytest.fixture(scope="module")
def s3():
    """Return the file system of an S3 server on the loopback interface, with a bucket."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        filesystem = fsspec.filesystem("s3")
        filesystem.mkdir("bucket")
        yield filesystem
    server.stop()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, but no listings, as most servers of data do."""

    def list_directory(self, path):
        self.send_error(403, "no listings here")

    def log_message(self, *args):
        pass


@pytest.fixture
def web(tmp_path):
    """Return the address of a server of the files below ``tmp_path``."""
    pytest.importorskip("aiohttp")
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        close_sessions("http")
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_array_in_s3(s3, zarr_format):
    url = f"s3://bucket/plain{zarr_format}.zarr"
    save(url, FRAMES, (7, 8, 6), zarr_format=zarr_format)
    for name in (url, f"{url}/", open_url(url)):
        series = as_series(name)
        assert type(series) is ZarrUrlSource
        check(series, FRAMES)
    check_series(as_series(f"{url}"), FRAMES)
    assert series.frames_without_data().size == 0
    assert url in repr(series)


def test_group_in_s3(s3):
    url = "s3://bucket/group.zarr"
    save(url, FRAMES.reshape(7, 1, 8, 6), (1, 1, 8, 6), name="entry/images")
    save(url, np.zeros((7, 3, 3)), (7, 3, 3), name="entry/matrices")
    for name in (url, f"{url}::/entry", f"{url}::entry/images", f"{url}/entry/images"):
        check(as_series(name), FRAMES)
    with pytest.raises(ValueError, match=r"s3://bucket/group\.zarr has no array '/other'"):
        as_series(f"{url}::/other")


def test_another_process_reads_s3(s3, tmp_path):
    """Its credentials and the address of the server come from its own environment."""
    url = "s3://bucket/sent.zarr"
    save(url, FRAMES)
    (tmp_path / "series").write_bytes(pickle.dumps(as_series(url)))
    code = f"""
    import pickle, pathlib
    series = pickle.loads(pathlib.Path({str(tmp_path / "series")!r}).read_bytes())
    print(sum(int(block.sum()) for block in series.read(0, 7, 0, 8)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == int(FRAMES.sum())


def test_chunk_that_vanishes_from_s3(s3):
    """It would read as zeros."""
    url = "s3://bucket/lost.zarr"
    save(url, FRAMES)
    series = as_series(url)
    s3.rm("bucket/lost.zarr/c/3/1/0")
    np.testing.assert_array_equal(series.read(0, 3, 0, 8)[0], FRAMES[:3])
    np.testing.assert_array_equal(series.read(3, 4, 0, 4)[0], FRAMES[3:4, :4])
    text = r"s3://bucket/lost\.zarr is not there, or not any more: chunk c/3/1/0 was there"
    for sent in (series, pickle.loads(pickle.dumps(series))):
        with pytest.raises(FileNotFoundError, match=text):
            sent.read(2, 5, 0, 8)
    image = stats.average(zarr.open(url, mode="r"))  # an open array is watched as well
    s3.rm("bucket/lost.zarr/c/5/0/0")
    with pytest.raises(FileNotFoundError, match="chunk c/5/0/0 was there"):
        image.compute(scheduler="synchronous")


def test_chunks_that_s3_never_had(s3):
    url = "s3://bucket/sparse.zarr"
    array = zarr.create_array(url, shape=(7, 8, 6), dtype="u2", chunks=(1, 4, 6))
    array[2] = 5
    series = as_series(url)
    assert series.frames_without_data().tolist() == [0, 1, 3, 4, 5, 6]
    expected = np.zeros((7, 8, 6), "u2")
    expected[2] = 5
    check(series, expected)
    array[4] = 6  # another one meanwhile
    assert series.read(4, 5, 0, 8)[0].max() == 6
    with pytest.warns(UserWarning, match="5 of 7 frames have no data"):
        stats.average(url)


def test_shard_that_vanishes_from_s3(s3):
    url = "s3://bucket/shards.zarr"
    save(url, FRAMES, shards=(4, 8, 6))
    series = as_series(url)
    check(series, FRAMES)
    s3.rm("bucket/shards.zarr/c/1/0/0")
    with pytest.raises(FileNotFoundError, match="chunk c/1/0/0 was there"):
        series.read(3, 5, 0, 8)


def test_array_that_is_replaced_in_s3(s3):
    url = "s3://bucket/other.zarr"
    save(url, FRAMES)
    series = as_series(url)
    save(url, FRAMES.astype("i4"), overwrite=True)
    with pytest.raises(ValueError, match=r"s3://bucket/other\.zarr was replaced"):
        series.read(0, 1, 0, 8)


def test_stores_that_are_too_large_to_list_warn(s3, monkeypatch):
    monkeypatch.setattr(zarr_remote, "MOST_CHUNKS", 3)
    url = "s3://bucket/large.zarr"
    save(url, FRAMES)
    s3.rm("bucket/large.zarr/c/3/1/0")
    series = as_series(url)
    assert series.frames_without_data().size == 0
    with pytest.warns(UserWarning, match="has no chunk c/3/1/0, which counts as the fill value"):
        series.read(2, 5, 0, 8)


# ---------------------------------------------------------------------- HTTP


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_array_at_a_web_server(tmp_path, web, zarr_format):
    save(tmp_path / "x.zarr", FRAMES, zarr_format=zarr_format)
    check_series(as_series(f"{web}/x.zarr"), FRAMES)
    save(tmp_path / "scan.zarr", FRAMES[:6].reshape(2, 3, 8, 6), (1, 2, 8, 6))
    check(as_series(f"{web}/scan.zarr"), FRAMES[:6])


def test_missing_chunk_at_a_web_server_is_warned_about_once(tmp_path, web):
    save(tmp_path / "x.zarr", FRAMES)
    series = as_series(f"{web}/x.zarr")
    (tmp_path / "x.zarr" / "c" / "3" / "1" / "0").unlink()
    text = r"http://.*/x\.zarr has no chunk c/3/1/0, which counts as the fill value"
    with pytest.warns(UserWarning, match=text) as caught:
        assert not [series.read(3, 4, 0, 8)[0][:, 4:].any() for _ in range(2)][1]
    assert len(caught) == 1


def test_store_that_vanishes_from_a_web_server(tmp_path, web):
    save(tmp_path / "x.zarr", FRAMES)
    series = as_series(f"{web}/x.zarr")
    shutil.rmtree(tmp_path / "x.zarr")
    with pytest.raises(FileNotFoundError, match=r"http://.*/x\.zarr is not there"):
        series.read(0, 1, 0, 8)


def test_group_at_a_web_server(tmp_path, web):
    save(tmp_path / "x.zarr", FRAMES, name="entry/images")
    with pytest.raises(ValueError, match=r"x\.zarr is a group.*name one as http://.*x\.zarr::name"):
        as_series(f"{web}/x.zarr")
    for name in ("x.zarr::entry/images", "x.zarr::/entry/images", "x.zarr/entry/images"):
        check(as_series(f"{web}/{name}"), FRAMES)
    with pytest.warns(UserWarning, match="Consolidated"):
        zarr.consolidate_metadata(tmp_path / "x.zarr")
    check(as_series(f"{web}/x.zarr"), FRAMES)


def test_ome_image_at_a_web_server(tmp_path, web):
    group = zarr.open_group(tmp_path / "x.zarr", mode="w")
    save(tmp_path / "x.zarr", FRAMES.reshape(7, 1, 1, 8, 6), (1, 1, 1, 8, 6), name="0")
    image = {"axes": [{"name": name} for name in "tczyx"], "datasets": [{"path": "0"}]}
    group.attrs["ome"] = {"multiscales": [image]}
    check(as_series(f"{web}/x.zarr"), FRAMES)


def test_server_that_fails(tmp_path, web, monkeypatch):
    monkeypatch.setattr("daskstats.series.base.RETRY_AFTER", (0,))
    save(tmp_path / "x.zarr", FRAMES)
    series = as_series(f"{web}/x.zarr")
    answer, failed = Quiet.do_GET, []

    def fail_once(self):
        if "/c/" in self.path and not failed:
            failed.append(self.path)
            self.send_error(503)
        else:
            answer(self)

    monkeypatch.setattr(Quiet, "do_GET", fail_once)
    (piece,) = series.pieces(0, 1, 0, 8, 1)  # it is tried again
    np.testing.assert_array_equal(piece[0], FRAMES[:1])
    assert failed
    monkeypatch.setattr(Quiet, "do_GET", lambda self: self.send_error(503))
    with pytest.raises(ConnectionError, match=r"http://.*/x\.zarr cannot be read: 503"):
        series.read(0, 1, 0, 8)


CODECS = {
    "zstd": {},
    "none": {"compressors": None},
    "gzip": {"compressors": zarr.codecs.GzipCodec()},
    "blosc": {"compressors": zarr.codecs.BloscCodec()},
    "shards": {"shards": (4, 8, 6)},
}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    "content", [b"<html>log in first, please</html>", b""], ids=["page", "empty"]
)
def test_content_of_a_web_server_that_is_no_chunk(tmp_path, web, codec, content):
    """The errors of codecs name nothing."""
    save(tmp_path / "x.zarr", FRAMES, **CODECS[codec])
    series = as_series(f"{web}/x.zarr")
    for path in (tmp_path / "x.zarr" / "c").rglob("0"):
        if path.is_file():
            path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{web}/x\.zarr cannot be decoded: ") as caught:
        series.read(0, 1, 0, 8)
    assert caught.value.__cause__ is not None


def test_web_server_that_ignores_ranges(tmp_path, web):
    """The one of the standard library does."""
    save(tmp_path / "x.zarr", FRAMES, shards=(4, 8, 6))
    text = r"x\.zarr cannot be decoded: of c/0/0/0 the server gives more than the part that it is"
    with pytest.raises(ValueError, match=text):
        as_series(f"{web}/x.zarr").read(0, 1, 0, 8)


def test_shards_without_a_checksum_from_a_web_server_that_ignores_ranges(tmp_path, web):
    """Frames could be made of any bytes."""
    bytes_only = [zarr.codecs.BytesCodec()]
    codec = zarr.codecs.ShardingCodec(
        chunk_shape=(1, 8, 6), codecs=bytes_only, index_codecs=bytes_only
    )
    save(tmp_path / "x.zarr", FRAMES, (4, 8, 6), serializer=codec, compressors=None)
    with pytest.raises(ValueError, match="the server gives more than the part"):
        as_series(f"{web}/x.zarr").read(0, 1, 0, 8)


# ---------------------------------------------------------------------- addresses


def test_store_in_memory():
    url = "memory://series17/x.zarr"
    save(url, FRAMES)
    check_series(as_series(url), FRAMES, pickles=False)
    np.testing.assert_array_equal(
        stats.max(url).compute(scheduler="synchronous"), FRAMES.max(axis=0)
    )


def test_store_of_obstore(tmp_path):
    obstore = pytest.importorskip("obstore.store")
    save(tmp_path / "x.zarr", FRAMES)
    store = zarr.storage.ObjectStore(obstore.LocalStore(tmp_path / "x.zarr"), read_only=True)
    series = as_series(zarr.open(store, mode="r"))
    check_series(series, FRAMES, pickles=False)
    (tmp_path / "x.zarr" / "c" / "3" / "1" / "0").unlink()
    with pytest.raises(FileNotFoundError, match="chunk c/3/1/0 was there"):
        series.read(3, 4, 0, 8)


def test_server_of_obstore_that_fails(tmp_path, web, monkeypatch):
    """Its errors are those of a client, and say nothing about the content of chunks."""
    obstore = pytest.importorskip("obstore.store")
    save(tmp_path / "x.zarr", FRAMES)
    http_store = obstore.HTTPStore.from_url(
        f"{web}/x.zarr", client_options={"allow_http": True}, retry_config={"max_retries": 0}
    )
    store = zarr.storage.ObjectStore(http_store, read_only=True)
    series = as_series(zarr.open(store, mode="r"))
    monkeypatch.setattr(Quiet, "do_GET", lambda self: self.send_error(403))
    with pytest.raises((ConnectionError, PermissionError), match="read"):
        series.read(3, 4, 0, 8)


@pytest.mark.parametrize(
    ("url", "error", "text"),
    [
        ("http://127.0.0.1:9/x.zarr", OSError, "127.0.0.1:9"),
        ("nowhere://host/x.zarr", ValueError, r"nowhere://host/x\.zarr is no zarr.*not known"),
        ("memory://none/x.zarr", ValueError, r"memory://none/x\.zarr is no zarr array or group"),
        ("memory://none/x.zarr::a/b", ValueError, r"memory://none/x\.zarr is no zarr array or"),
    ],
)
def test_addresses_without_a_store(url, error, text):
    with pytest.raises(error, match=text):
        as_series(url)


def test_address_in_s3_without_a_store(s3):
    for url in ("s3://bucket/none.zarr", "s3://nobody/x.zarr"):
        with pytest.raises(ValueError, match=f"{url} is no zarr array or group"):
            as_series(url)


def refuse_some(self):
    if "refused" in self.path:
        self.send_error(503)
    else:
        http.server.SimpleHTTPRequestHandler.do_GET(self)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("missing.zarr", "is no zarr array or group"),
        ("missing.zarr?signature=hidden", "is no zarr array or group"),
        ("group.zarr", "is a group, and a plain"),
        ("group.zarr::other", "has no array 'other'"),
        ("damaged.zarr", "cannot be decoded"),
        ("gap.zarr", "has no chunk c/0/0/0"),
        ("refused.zarr", "cannot be read: 503"),
    ],
)
def test_messages_have_no_password(tmp_path, web, monkeypatch, name, text):
    monkeypatch.setattr(Quiet, "do_GET", refuse_some, raising=False)
    save(tmp_path / "group.zarr", FRAMES, name="images")
    for store in ("damaged", "gap"):
        save(tmp_path / f"{store}.zarr", FRAMES)
    (tmp_path / "damaged.zarr/c/0/0/0").write_bytes(b"damaged")
    (tmp_path / "gap.zarr/c/0/0/0").unlink()
    place = web.replace("://", "://me:hidden@")
    with pytest.raises((ValueError, OSError, UserWarning)) as caught, warnings.catch_warnings():
        warnings.simplefilter("error")
        as_series(f"{place}/{name}").read(0, 1, 0, 8)
    assert text in str(caught.value)
    assert f"{web}/{name.partition('.')[0]}.zarr" in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("cache", ["simplecache", "filecache", "zip::blockcache"])
def test_caches_of_fsspec_are_refused(web, cache):
    """An error of asyncio said that a context manager was used in the wrong place."""
    with pytest.raises(ValueError, match="zarr cannot read through a cache of fsspec: leave out "):
        as_series(f"{cache}::{web}/x.zarr")


def test_package_that_is_not_installed(monkeypatch):
    def missing(url, **options):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr("fsspec.url_to_fs", missing)
    text = r"gs://bucket/x\.zarr needs gcsfs: pip install 'daskstats\[remote\]'"
    with pytest.raises(ImportError, match=text):
        as_series("gs://bucket/x.zarr")


def test_paths_are_no_addresses(tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match="no file|no known suffix"):
        as_series(tmp_path / "x.zarr")
    assert Path("s3://bucket/x.zarr") != "s3://bucket/x.zarr"  # a path has one slash
    assert urllib.request.urlparse("s3://bucket/x.zarr").netloc == "bucket"
