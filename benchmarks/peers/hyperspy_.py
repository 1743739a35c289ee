"""hyperspy's signals of images."""

import numpy as np

from .base import Images, Peer

NAMES = {"max": "max", "min": "min", "sum": "sum", "average": "mean", "std": "std"}


def open_images(frames: np.ndarray) -> Images:
    from hyperspy.api import signals

    signal = signals.Signal2D(frames)
    axis = signal.axes_manager.navigation_axes
    return {
        ours: lambda theirs=theirs: getattr(signal, theirs)(axis=axis).data
        for ours, theirs in NAMES.items()
    }


PEERS = (Peer("hyperspy", "1 thread, eager", open_images, "hyperspy"),)
