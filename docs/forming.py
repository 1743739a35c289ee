"""Draw ``images/forming.gif``, a maximum and a median that form: ``python docs/forming.py``.

Both are the images of one run over a simulated series, as `daskstats.snapshots` gives them.
"""

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

import daskstats as stats
from daskstats.pictures import palette
from daskstats.simulate import simulate

TARGET = Path(__file__).parent / "images/forming.gif"
SIZE, FRAMES, STEPS = 300, 240, 30
SAME = 255

# Few levels, because a pixel that keeps its level costs nothing in the file.
LEVELS = 20


def levels(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the level of each pixel on a logarithmic scale, 1 and more; 0 for no value yet."""
    scale = (np.log(np.maximum(image, low)) - np.log(low)) / (np.log(high) - np.log(low))
    found = 1 + np.floor(np.clip(scale, 0, 1) * (LEVELS - 2) + 0.5)
    return np.where(image > 0, found, 0).astype("u1")


def pictures(series: Path) -> list[np.ndarray]:
    """Return one picture for each step: the maximum so far, and the rows of the median so far."""
    brightest = list(stats.max_iter(series, STEPS))
    middle = list(stats.median_iter(series, STEPS))
    gap = np.zeros((SIZE, 12), "u1")
    return [
        np.hstack([levels(left, 130, 2600), gap, levels(right, 35, 320)])
        for left, right in zip(brightest, middle, strict=True)
    ]


def main() -> None:
    """Draw the picture."""
    with tempfile.TemporaryDirectory() as directory:
        series = Path(directory) / "scan.zarr"
        simulate(series, FRAMES, (SIZE, SIZE), seed=4)
        every = pictures(series)
    # A pixel that keeps its level is drawn as the index that is transparent.
    changes = [np.where(now == before, SAME, now).astype("u1") for before, now in pairwise(every)]
    frames = [Image.fromarray(picture, "P") for picture in (every[0], *changes)]
    colors = np.frombuffer(palette("inferno"), "u1").reshape(256, 3)
    chosen = [[128, 128, 128], *colors[np.linspace(1, 255, LEVELS - 1).astype(int)].tolist()]
    for frame in frames:
        frame.putpalette([value for color in chosen for value in color])
    times = [110] * (STEPS - 1) + [3000]
    kept = {"transparency": SAME, "disposal": 1, "optimize": False}
    frames[0].save(TARGET, save_all=True, append_images=frames[1:], duration=times, loop=0, **kept)
    print(f"{TARGET.name}: {TARGET.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
