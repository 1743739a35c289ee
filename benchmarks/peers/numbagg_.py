"""numbagg, on copies in float32."""

import numpy as np

from .base import PCTL, TWO, Images, Peer


def open_images(frames: np.ndarray) -> Images:
    import numbagg

    def wide() -> np.ndarray:
        # Without this, maxima of uint16 are int64; made each time, as a user would have to.
        return frames if frames.dtype == np.float32 else frames.astype(np.float32)

    return {
        "max": lambda: numbagg.nanmax(wide(), axis=0),
        "min": lambda: numbagg.nanmin(wide(), axis=0),
        "sum": lambda: numbagg.nansum(wide(), axis=0),
        "average": lambda: numbagg.nanmean(wide(), axis=0),
        "std": lambda: numbagg.nanstd(wide(), axis=0, ddof=0),
        "median": lambda: numbagg.nanmedian(wide(), axis=0),
        "percentile": lambda: numbagg.nanquantile(wide(), PCTL / 100, axis=0),
    }


PEERS = (Peer("numbagg", f"{TWO}, copied to float32", open_images, "numbagg"),)
