"""numpy on the whole array."""

import numpy as np

from .base import PCTL, Images, Peer


def open_images(frames: np.ndarray) -> Images:
    return {
        "max": lambda: frames.max(axis=0),
        "min": lambda: frames.min(axis=0),
        "sum": lambda: frames.sum(axis=0),
        "average": lambda: frames.mean(axis=0),
        "std": lambda: frames.std(axis=0),
        "median": lambda: np.median(frames, axis=0),
        "percentile": lambda: np.percentile(frames, PCTL, axis=0),
    }


def open_float32(frames: np.ndarray) -> Images:
    return {
        "sum": lambda: frames.sum(axis=0, dtype="f4"),
        "average": lambda: frames.mean(axis=0, dtype="f4"),
        "std": lambda: frames.std(axis=0, dtype="f4"),
    }


PEERS = (
    Peer("numpy", "1 thread", open_images),
    Peer("numpy in float32", "1 thread, inexact for large sums", open_float32, variant=True),
)
