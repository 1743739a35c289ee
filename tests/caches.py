"""Frame caches of HEXRD, made of dense frames."""

import numpy as np


def members(frames, dtype=None, index="i8"):
    """Return the members of a frame cache of dense frames."""
    arrays = {
        "shape": np.array(frames.shape[1:]),
        "nframes": np.array(len(frames)),
        "dtype": np.array(dtype or str(frames.dtype)),
        "omega": np.zeros((len(frames), 2)),
    }
    for i, frame in enumerate(frames):
        # NaN and -0.0 are pixels too.
        row, col = np.nonzero((frame != 0) | np.signbit(frame))
        arrays |= {
            f"{i}_row": row.astype(index),
            f"{i}_col": col.astype(index),
            f"{i}_data": frame[row, col],
        }
    return arrays


def sparse(frames):
    """Return frames that are mostly zero, the first and the last all zero."""
    frames = frames.copy()
    frames[:, ::2, 1::3] = 0
    frames[[0, -1]] = 0
    return frames


def save(path, arrays, compressed=True):
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path
