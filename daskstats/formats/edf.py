"""Single images of detectors, such as ``.edf`` and ``.cbf``, read with fabio."""

from pathlib import Path

import numpy as np

from ..packages import load


def read_image(path: Path, dataset: str = "") -> np.ndarray:
    with load("fabio").open(str(path)) as image:
        return np.asarray(image.data)
