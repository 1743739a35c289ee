"""daskstats itself."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from common import THREADS

from .base import PCTL, STEPS, TWO, Images, Peer, rows_of

PLAIN = ("max", "min", "sum", "average", "std", "median")


def open_images(frames: Any) -> Images:
    import dask

    import daskstats as stats

    dask.config.set(num_workers=THREADS)
    images: Images = {
        name: lambda name=name: getattr(stats, name)(frames).compute() for name in PLAIN
    }
    images["percentile"] = lambda: stats.percentile(frames, PCTL).compute()
    images["median_iter"] = lambda: last(stats.median_iter(frames, min(STEPS, rows_of(frames))))
    return images


def open_plain_call(frames: Any) -> Images:
    return {"median_iter": open_images(frames)["median"]}


def last(images: Iterator[np.ndarray]) -> np.ndarray:
    for image in images:  # noqa: B007
        pass
    return image


PEERS = (
    Peer("daskstats", TWO, open_images, reads_files=True, role="ours"),
    Peer("daskstats, plain call", TWO, open_plain_call, role="ours", variant=True),
)
