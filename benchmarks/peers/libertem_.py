"""LiberTEM, with its functions for sums and standard deviations."""

from typing import Any

import numpy as np
from common import THREADS

from .base import TWO, Images, Peer


def open_images(frames: np.ndarray) -> Images:
    from libertem.api import Context
    from libertem.udf.stddev import StdDevUDF
    from libertem.udf.sum import SumUDF

    context = Context.make_with("threads", cpus=THREADS)
    dataset = context.load("memory", data=frames, sig_dims=2, num_partitions=THREADS)

    def run(udf: Any, name: str) -> np.ndarray:
        return context.run_udf(dataset, udf)[name].data

    return {
        "sum": lambda: run(SumUDF(dtype="float32"), "intensity"),
        "average": lambda: run(SumUDF(dtype="float32"), "intensity") / len(frames),
        "std": lambda: run(StdDevUDF(dtype="float32"), "std"),
    }


PEERS = (Peer("LiberTEM", f"{TWO}, float32", open_images, "libertem"),)
