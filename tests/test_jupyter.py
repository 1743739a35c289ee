"""Watching in real Jupyter kernels, and in JupyterLab in a real browser."""

import base64
import io
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
import pytest
from clusters import Browser, find_browser
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

ROOT = Path(__file__).parent.parent

# A series whose frames take a while; rows far below the others show the contrast.
SERIES = """\
import time
import numpy as np
import daskstats as stats

class Scan:
    shape, dtype = (200, 150), np.dtype("u2")
    def __len__(self):
        return 60
    def __getitem__(self, index):
        time.sleep({delay})
        frame = np.full(self.shape, 100, "u2")
        frame[index : index + 20, 20:40] += 50
        return frame
"""


def notebook(*cells, delay=0.02):
    cells = [nbformat.v4.new_code_cell(cell) for cell in (SERIES.format(delay=delay), *cells)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def executed(book):
    """Execute a notebook in a real kernel, whose parent does not ignore SIGINT."""
    NotebookClient(book, timeout=120, kernel_name="python3").execute()
    return book.cells


def pictures(markup):
    """Return the pictures in some HTML as arrays of palette indices."""
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', markup)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(each)))) for each in found]


@pytest.fixture(scope="module")
def cells():
    return executed(
        notebook(
            "image = stats.watch(Scan(), 'max')",
            "for shot in stats.watch(stats.snapshots(list(map(Scan().__getitem__, range(60))),\n"
            "                                        ['median', 'max'], 12)):\n"
            "    time.sleep(0.03)",
            "import os, signal, threading\n"
            "threading.Timer(0.6, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
            "try:\n"
            "    stats.watch(Scan(), 'average', 60)\n"
            "except KeyboardInterrupt:\n"
            "    print('interrupted at', stats.last_watched().done)",
            "threading.Timer(0.6, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
            "try:\n"
            "    stats.median(Scan()).compute()\n"
            "except KeyboardInterrupt:\n"
            "    time.sleep(1)  # for the tasks that were running",
            "from daskstats.memory.reservation import unreserved\n"
            "[t.name for t in threading.enumerate() if 'daskstats' in t.name], unreserved(1)",
        )
    )


def test_one_output_with_the_last_picture_stays(cells):
    (output,) = cells[1].outputs
    assert 'data-state="done"' in output.data["text/html"]
    assert output.data["text/plain"].startswith("max: 60 of 60 frames, done after")
    (picture,) = pictures(output.data["text/html"])
    assert picture.shape == (200, 150)
    assert (picture > 0).all()
    assert len(output.data["text/html"]) < 400_000


def test_several_pictures_are_side_by_side(cells):
    (output,) = cells[2].outputs
    assert len(pictures(output.data["text/html"])) == 2
    assert "median, max: 200 of 200 rows, done" in output.data["text/plain"]


def test_an_interrupted_cell_keeps_its_picture_and_ends_red(cells):
    *shown, printed = cells[3].outputs
    done = int(re.search(r"interrupted at (\d+)", printed.text).group(1))
    assert 1 <= done < 60
    assert 'data-state="interrupted"' in shown[0].data["text/html"]
    assert "#d32f2f" in shown[0].data["text/html"]
    assert len(pictures(shown[0].data["text/html"])) == 1


def test_nothing_is_left_of_interrupted_cells(cells):
    """Neither of one that watches nor of a plain ``compute`` are there threads or memory."""
    assert cells[5].outputs[0].data["text/plain"] == "([], 1)"


def test_a_failing_cell_ends_red():
    book = notebook(
        "class Cut(Scan):\n"
        "    def __getitem__(self, index):\n"
        "        return super().__getitem__(index)[: 200 - (index == 30)]\n"
        "stats.watch(Cut(), 'max')"
    )
    with pytest.raises(CellExecutionError, match="ValueError"):
        executed(book)
    assert 'data-state="ValueError"' in book.cells[1].outputs[0].data["text/html"]


def test_the_two_lines_of_the_readme(tmp_path):
    h5py = pytest.importorskip("h5py")
    (lines,) = re.findall(r"```py\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len(lines.split("\n\n")) == 2
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["entry/data/data"] = np.arange(480, dtype="u2").reshape(5, 8, 12)
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(lines + "dark.tolist()")])
    NotebookClient(
        book, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    shown, result = book.cells[0].outputs
    assert 'data-state="done"' in shown.data["text/html"]
    assert result.data["text/plain"].startswith("[[192.0,")


# ---------------------------------------------------------------------- JupyterLab

PANEL = "[...(window.jupyterapp?.shell.widgets('main') ?? [])][0]"
STATE = "document.querySelector('.daskstats-watch')?.dataset.state"
PICTURES = "[...document.querySelectorAll('.daskstats-watch img')].map(each => each.src)"
WIDTH = "document.querySelector('.daskstats-watch div div').style.width"


@contextmanager
def jupyterlab(directory):
    """Serve notebooks of a directory on loopback; yield the address of one, given its name."""
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0"]
    command += ["--allow-root", "--expose-app-in-browser", f"--notebook-dir={directory}"]
    environment = os.environ | {
        "JUPYTER_TOKEN": token,
        "JUPYTER_RUNTIME_DIR": str(directory / "runtime"),
        "JUPYTER_CONFIG_DIR": str(directory / "config"),
        "JUPYTER_DATA_DIR": str(directory / "data"),
        "JUPYTERLAB_SETTINGS_DIR": str(directory / "settings"),
    }
    news = directory / "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false"}')
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        port = wait_for_port(directory / "runtime", server)
        yield lambda name: f"http://127.0.0.1:{port}/lab/tree/{name}?token={token}&reset"
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_for_port(runtime, server):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        for file in runtime.glob("jpserver-*.json"):
            if text := file.read_text():
                return json.loads(text)["port"]
        time.sleep(0.1)
    raise RuntimeError((runtime.parent / "log").read_text()[-2000:])


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    if find_browser() is None:
        pytest.skip("there is no Chromium")
    directory = tmp_path_factory.mktemp("lab")
    # Pictures are at most a second apart, and two frames are read at once: four seconds show three.
    one = "image = stats.watch(Scan(), 'average')"
    four = "images = stats.watch(Scan(), ['max', 'min', 'average', 'std'])"
    books = {"one": ([one], 0.14), "four": ([four], 0.14), "stop": ([one], 0.2)}
    books["cluster"] = [CLUSTER, "image = stats.watch(Scan(), 'average', 60)"], 0.5
    for name, (cells, delay) in books.items():
        nbformat.write(notebook(*cells, delay=delay), directory / f"{name}.ipynb")
    with jupyterlab(directory) as address, Browser(directory / "profile") as browser:
        yield directory, address, browser


def run_all(lab, name):
    """Open a notebook, and run its cells."""
    _, address, browser = lab
    browser.open(
        address(f"{name}.ipynb"), f"{PANEL}?.sessionContext?.session?.kernel?.status == 'idle'"
    )
    browser.evaluate(f"void jupyterapp.shell.activateById({PANEL}.id)")
    browser.evaluate("void jupyterapp.commands.execute('notebook:run-all-cells')")
    browser.wait_until(f"{STATE} == 'running'")
    return browser


@pytest.mark.browser
@pytest.mark.parametrize(("name", "count"), [("one", 1), ("four", 4)])
def test_the_images_form_in_jupyterlab(lab, name, count):
    browser, seen, widths = run_all(lab, name), [], []
    while browser.evaluate(STATE) == "running":
        shown = browser.evaluate(PICTURES)
        if shown and shown not in seen:
            seen.append(shown)
            widths.append(float(browser.evaluate(WIDTH).rstrip("%")))
        time.sleep(0.05)
    assert browser.evaluate(STATE) == "done"
    assert browser.evaluate(WIDTH) == "100%"
    assert len(seen) >= 3
    assert widths == sorted(widths)
    assert {len(shown) for shown in seen} == {count}
    assert browser.evaluate("document.querySelectorAll('.daskstats-watch').length") == 1
    save_picture(browser, f"watch-{name}.png")


@pytest.mark.browser
def test_the_stop_button_of_jupyterlab(lab):
    browser = run_all(lab, "stop")
    browser.wait_until(f"{PICTURES}.length == 1")
    browser.evaluate("void jupyterapp.commands.execute('notebook:interrupt-kernel')")
    browser.wait_until(f"{STATE} == 'interrupted'")
    browser.wait_until("document.body.innerText.includes('KeyboardInterrupt')")
    assert browser.evaluate(f"{PICTURES}.length") == 1
    save_picture(browser, "watch-stopped.png")


# Starts a cluster, which stays until the kernel ends.
CLUSTER = """\
from distributed import Client, LocalCluster
here = "127.0.0.1"
cluster = LocalCluster(2, threads_per_worker=1, host=here, dashboard_address=f"{here}:0")
client = Client(cluster)
print("dashboard:", client.dashboard_link)"""

# The bars that the dashboard draws: name, tasks that are done, and all tasks.
BARS = """\
Bokeh.documents.flatMap(document => [...document._all_models.values()])
    .filter(model => model.type === "ColumnDataSource" && model.data.all && model.data.name)
    .flatMap(({data}) => [...data.name].map(
        (name, i) => [name, parseInt(data.done[i]), data.all[i]]))"""


@pytest.mark.browser
def test_the_dashboard_beside_a_notebook(lab):
    """Its bars have the names of the guide, and count all tasks of the run."""
    pytest.importorskip("bokeh")
    browser = run_all(lab, "cluster")
    text = browser.evaluate("document.body.innerText")
    base = re.search(r"dashboard: (http://\S+)/status", text).group(1)
    browser.open(f"{base}/individual-progress")
    browser.wait_until(f"{BARS}.some(([name, done]) => name == 'average-partial' && done > 1)")
    bars = {name: (done, total) for name, done, total in browser.evaluate(BARS)}
    done, total = bars["average-partial"]
    assert 1 < done < total
    assert total == 60
    browser.open(f"{base}/status")
    save_picture(browser, "dashboard.png")


def save_picture(browser, name):
    """Save a picture of the page where ``DASKSTATS_PICTURES`` names a directory for them."""
    if directory := os.environ.get("DASKSTATS_PICTURES"):
        browser.screenshot(Path(directory) / name)
