"""Clusters on loopback for tests, their workers, and a browser for their dashboards."""

import asyncio
import base64
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dask
import distributed
import numpy as np
from fakes import FakeSeries, Ramp
from forking import start_method

from daskstats.run import workers

HERE = "127.0.0.1"


@cache
def worker_method() -> str:
    """Return the method to start workers."""
    method = start_method()
    if method == "forkserver":
        forkserver.ensure_running()
    return method


@contextmanager
def local_cluster(n_workers: int = 2, threads: int = 1, **options: Any) -> Iterator[Any]:
    """Give a client of a cluster of processes, all on loopback."""
    settings: dict = {
        "host": HERE,
        "dashboard_address": f"{HERE}:0",
        "worker_dashboard_address": f"{HERE}:0",
        **({} if options.get("processes", True) else {"protocol": "tcp"}),
        **options,
    }
    with (
        dask.config.set(
            {**workers.LASTING, "distributed.worker.multiprocessing-method": worker_method()}
        ),
        distributed.LocalCluster(
            n_workers=n_workers, threads_per_worker=threads, **settings
        ) as local,
        distributed.Client(local) as client,
    ):
        yield client


def logged_series(
    log: Path, nframes: int, shape: tuple[int, int] = (16, 24), **options: Any
) -> FakeSeries:
    """Return a series whose reads, in all processes, are lines of a log."""
    return FakeSeries(Ramp(shape), nframes, log=log, **options)


def workers_of(client: Any) -> list[Any]:
    """Return the states of workers in the scheduler of a local cluster, from another thread."""
    while True:
        # A worker may join meanwhile.
        with suppress(RuntimeError, KeyError, IndexError):
            return list(client.cluster.scheduler.workers.values())


class Killer:
    """Kills random workers of a local cluster at random times."""

    def __init__(self, client: Any, kills: int, seed: int, span: float) -> None:
        rng = np.random.default_rng(seed)
        self.killed = 0
        self._client, self._rng = client, rng
        self._times = sorted(rng.uniform(0, span, kills))
        self._seen: dict[int, float] = {}
        self._dead = {os.getpid()}
        self._began = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        for when in self._times:
            while not (pids := self._grown_up()) or time.monotonic() - self._began < when:
                if self._stop.wait(0.02):
                    return
            with suppress(ProcessLookupError):
                pid = int(self._rng.choice(pids))
                os.kill(pid, signal.SIGKILL)
                self._dead.add(pid)
                self.killed += 1

    def _grown_up(self) -> list[int]:
        """Return workers that have run for a while: nannies give up on those that die too soon."""
        now = time.monotonic()
        alive = {worker.pid for worker in workers_of(self._client)} - self._dead
        self._seen = {pid: self._seen.get(pid, now) for pid in alive}
        return sorted(pid for pid, since in self._seen.items() if now - since > 0.3)

    def __enter__(self) -> "Killer":
        self._thread.start()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._stop.set()
        self._thread.join()


def kill_when(client: Any, due: Callable[[], bool]) -> threading.Thread:
    """Kill a worker of a local cluster as soon as something is so."""

    def run() -> None:
        while not due():
            time.sleep(0.01)
        os.kill(workers_of(client)[0].pid, signal.SIGKILL)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


class Watch:
    """Samples the memory and the state of the workers of a local cluster."""

    def __init__(self, client: Any) -> None:
        import psutil

        self.peaks: dict[int, int] = {}
        self.states: set[str] = set()
        self._process = psutil.Process
        self._client = client
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            for worker in workers_of(self._client):
                rss = self._process(worker.pid).memory_info().rss
                self.peaks[worker.pid] = max(self.peaks.get(worker.pid, 0), rss)
                self.states.add(worker.status.name)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._stop.set()
        self._thread.join()


def left_on(client: Any) -> tuple[int, int, int]:
    """Return the numbers of tasks, wanted keys and futures that a scheduler and its client have."""
    scheduler = client.cluster.scheduler
    wanted = sum(len(state.wants_what) for state in scheduler.clients.values())
    return len(scheduler.tasks), wanted, len(client.futures)


def settle(client: Any, seconds: float = 2.0) -> tuple[int, int, int]:
    """Wait until nothing is left, or the time is over, and return the rest as `left_on` does."""
    deadline = time.monotonic() + seconds
    while any(left_on(client)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left_on(client)


def find_browser() -> str | None:
    """Return the path of a Chromium, if there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


DASHBOARD_READY = "typeof Bokeh != 'undefined' && Bokeh.documents.length > 0"


class Browser:
    """A Chromium without a window, controlled through its debugging port on loopback."""

    def __init__(self, profile: Path) -> None:
        flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-sync"
        flags += " disable-background-networking disable-component-update hide-scrollbars"
        self._profile = profile
        self._command = [
            str(find_browser()),
            *(f"--{flag}" for flag in flags.split()),
            f"--user-data-dir={profile}",
            "--remote-debugging-port=0",
            "--remote-allow-origins=*",
            "--window-size=1200,700",
            "about:blank",
        ]

    def __enter__(self) -> "Browser":
        null = subprocess.DEVNULL
        # Chromium leaves directories of sockets, whose paths must be short.
        self._sockets = TemporaryDirectory(prefix="chromium-")
        self._process = subprocess.Popen(
            self._command, stdout=null, stderr=null, env=os.environ | {"TMPDIR": self._sockets.name}
        )
        self._loop = asyncio.new_event_loop()
        self._numbers = iter(range(1, 10_000))
        try:
            self._socket = self._wait_for(self._connect())
        except BaseException:
            self._process.kill()
            self._process.wait()
            self._sockets.cleanup()
            raise
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._sockets.cleanup()
        self._wait_for(self._leave())
        self._loop.close()

    async def _leave(self) -> None:
        self._socket.close()
        await asyncio.sleep(0.1)

    def _wait_for(self, coroutine: Any) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(coroutine, 60))

    async def _connect(self) -> Any:
        from tornado.httpclient import AsyncHTTPClient
        from tornado.websocket import websocket_connect

        file = self._profile / "DevToolsActivePort"
        while not file.exists() or not file.read_text().count("\n"):
            await asyncio.sleep(0.05)
        port = file.read_text().split()[0]
        answer = await AsyncHTTPClient().fetch(f"http://{HERE}:{port}/json/list")
        (page,) = [page for page in json.loads(answer.body) if page["type"] == "page"]
        return await websocket_connect(page["webSocketDebuggerUrl"], max_message_size=1 << 26)

    def _ask(self, method: str, **params: Any) -> dict:
        return self._wait_for(self._exchange(next(self._numbers), method, params))

    async def _exchange(self, number: int, method: str, params: dict) -> dict:
        message = {"id": number, "method": method, "params": params}
        await self._socket.write_message(json.dumps(message))
        while True:
            answer = json.loads(await self._socket.read_message())
            if answer.get("id") == number:
                return answer["result"]

    def open(self, url: str, ready: str = DASHBOARD_READY) -> None:
        """Go to a page, and wait until an expression says that it has its data."""
        self._ask("Page.navigate", url=url)
        self.wait_until(ready)

    def wait_until(self, expression: str, seconds: float = 60) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + seconds
        while not self.evaluate(expression):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{expression} is not true after {seconds} s")
            time.sleep(0.05)

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, of a promise its result."""
        answer = self._ask(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        return answer["result"].get("value")

    def values(self, url: str, expression: str, wanted: str) -> list:
        """Return the list that an expression gives as JSON once it holds a value."""
        if url:
            self.open(url)
        deadline = time.monotonic() + 60
        while True:
            found = json.loads(self.evaluate(expression) or "[]")
            if wanted in found or time.monotonic() > deadline:
                return found
            time.sleep(0.1)

    def screenshot(self, path: Path) -> None:
        """Save an image of the page."""
        time.sleep(1)  # for the last changes to be drawn
        path.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot")["data"]))
