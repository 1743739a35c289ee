"""Digests of the images of 300 seeded calls: two versions of the package must give the same.

Statistics, dtypes, options, schedulers and memory limits are drawn at random. Run it once with each
version, from a directory without the package, and compare the files::

    PYTHONPATH=old python corpus.py old.json
    PYTHONPATH=new python corpus.py new.json
    diff old.json new.json
"""

import hashlib
import json
import sys
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dask
import numpy as np
from distributed import Client, LocalCluster

import daskstats as stats

DTYPES = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "?")
PLAIN = ("max", "min", "sum", "average", "std", "var", "median", "range", "argmax", "argmin")
PLAIN += ("count", "clipped_average")
ITERATED = ("max", "min", "sum", "average", "std", "var", "median", "percentile")
KINDS = ("plain", "percentile", "above", "iter", "aggregate", "aggregate_iter", "snapshots")
KINDS += ("partials",)
SEVERAL = ("max", "average", "std", ("percentile", [5, 50.5]))
LIMITS = (9 << 20, 16 << 20, 64 << 20, 1 << 30)
SCHEDULERS = {1: "synchronous", 3: "processes", 4: "cluster", 7: "synchronous", 9: "cluster"}

Images = dict[str, np.ndarray]


class Series:
    """A HEXRD-like series of copies."""

    def __init__(self, frames: np.ndarray) -> None:
        self.frames, self.shape, self.dtype = frames, frames.shape[1:], frames.dtype

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.frames[index].copy()


def make_frames(rng: np.random.Generator, dtype: np.dtype) -> np.ndarray:
    shape = int(rng.integers(1, 40)), int(rng.integers(1, 24)), int(rng.integers(1, 30))
    if dtype.kind == "f":
        frames = rng.normal(100, 30, shape).astype(dtype)
        if rng.random() < 0.3:
            frames[rng.random(shape) < 0.05] = np.nan
        return frames
    if dtype.kind == "b":
        return rng.random(shape) < 0.4
    info = np.iinfo(dtype)
    if rng.random() < 0.3:
        return rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    return rng.poisson(20, shape).astype(dtype)


def make_options(rng: np.random.Generator, frames: np.ndarray) -> dict[str, Any]:
    options: dict[str, Any] = {"memory_limit": int(rng.choice(LIMITS))}
    nframes, rows, cols = frames.shape
    if rng.random() < 0.25:
        options |= {"mask": rng.random((rows, cols)) < 0.2, "fill_value": 0}
    if rng.random() < 0.25:
        options |= {"invalid": [0, 3], "fill_value": 0}
    if rng.random() < 0.15 and frames.dtype.kind != "b":
        options |= {"saturation": 110, "fill_value": 0}
    if rng.random() < 0.2 and frames.dtype.kind == "f":
        options |= {"skipna": True, "fill_value": 0}
    if rng.random() < 0.2:
        options["frames"] = slice(0, nframes, 2)
    if rng.random() < 0.2:
        options["region"] = ((0, rows // 2 + 1), (0, cols // 2 + 1))
        options.pop("mask", None)
    return options


def make_series(rng: np.random.Generator, frames: np.ndarray) -> Any:
    kind = rng.choice(["array", "series", "dask", "list"])
    if kind == "dask":
        return dask.array.from_array(frames, chunks=(max(1, len(frames) // 3), -1, 7))
    return {"array": frames, "series": Series(frames), "list": list(frames)}[str(kind)]


def images_of(seed: int) -> Images:
    """Make one call, and return its images by name."""
    rng = np.random.default_rng(seed)
    frames = make_frames(rng, np.dtype(DTYPES[int(rng.integers(len(DTYPES)))]))
    kind = str(rng.choice(KINDS))
    ims = make_series(rng, frames)
    name = str(rng.choice(PLAIN if kind == "plain" else ITERATED))
    options = make_options(rng, frames)
    nframes = len(range(len(frames))[options.get("frames", slice(None))])
    rows = options["region"][0][1] if "region" in options else frames.shape[1]
    steps = int(rng.integers(1, min(nframes, rows, 6) + 1))
    chosen = sorted(rng.choice(len(SEVERAL), int(rng.integers(1, 5)), replace=False))
    return call(kind, ims, name, steps, [SEVERAL[i] for i in chosen], options)


def call(kind: str, ims: Any, name: str, steps: int, some: list, options: dict) -> Images:
    if kind == "plain":
        return {"": getattr(stats, name)(ims, **options).compute()}
    if kind == "percentile":
        return {"": stats.percentile(ims, 30, **options).compute()}
    if kind == "above":
        return {"": stats.count_above(ims, 25, **options).compute()}
    if kind == "iter":
        arguments = (30,) if name == "percentile" else ()
        images = getattr(stats, f"{name}_iter")(ims, *arguments, steps, **options)
        return {str(step): image for step, image in enumerate(images)}
    if kind == "partials":
        name = "median" if name == "percentile" else name
        return {"": stats.partials(ims, name, steps, **options).compute()}
    if kind == "aggregate":
        lazy = stats.aggregate(ims, some, **options)
        return dict(zip(lazy, dask.compute(*lazy.values()), strict=True))
    every = stats.aggregate_iter(ims, some, steps, **options)
    if kind == "snapshots":
        found = stats.snapshots(ims, some, steps, **options)
        every = (shot.image for shot in found if shot.phase == "compute")
    return {f"{step} {n}": image for step, shot in enumerate(every) for n, image in shot.items()}


def digest(image: np.ndarray) -> str:
    image = np.ascontiguousarray(image)
    return f"{image.dtype} {image.shape} {hashlib.sha256(image.tobytes()).hexdigest()[:16]}"


def main(path: str, count: int = 300) -> None:
    warnings.simplefilter("ignore")
    results: dict[int, dict[str, str]] = {}
    with ExitStack() as stack:
        workers = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": "2GiB"}
        place = {"host": "127.0.0.1", "dashboard_address": None}
        cluster = stack.enter_context(LocalCluster(**workers, **place))
        client = stack.enter_context(Client(cluster, set_as_default=False))
        for seed in range(count):
            name = SCHEDULERS.get(seed % 12, "threads")
            chosen = {"scheduler": client if name == "cluster" else name, "num_workers": 2}
            with dask.config.set(chosen):
                try:
                    results[seed] = {key: digest(image) for key, image in images_of(seed).items()}
                except stats.MemoryLimitError as error:
                    results[seed] = {"refused": str(error)}
    Path(path).write_text(json.dumps(results, indent=1))
    print(f"{len(results)} calls, {sum(map(len, results.values()))} images")


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:]))
