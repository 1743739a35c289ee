"""pyFAI's average of images."""

import logging
from functools import partial
from typing import Any

import numpy as np

from .base import PCTL, Images, Peer

NAMES = {"max": "max", "min": "min", "sum": "sum", "average": "mean", "std": "std"}


def open_images(frames: np.ndarray) -> Images:
    from pyFAI.average import Average, create_algorithm

    logging.disable(logging.CRITICAL)

    def run(name: str, **options: Any) -> np.ndarray:
        # `average_images` would drop bright pixels; `Average` does not.
        average = Average()
        average.set_images(list(frames))
        algorithm = create_algorithm(name, **options)
        average.add_algorithm(algorithm)
        average.process()
        return average.get_image_reduction(algorithm)

    images: Images = {ours: partial(run, theirs) for ours, theirs in NAMES.items()}
    images["median"] = partial(run, "median")
    images["percentile"] = partial(run, "quantiles", quantiles=(PCTL / 100, PCTL / 100))
    return images


PEERS = (Peer("pyFAI", "1 thread, Average(), float32", open_images, "pyFAI"),)
