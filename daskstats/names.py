"""Names that the command line offers, as plain data: it takes no package to look them up.

`statistics.STATISTICS` and `formats.table.FORMATS` have the objects of these names.
"""

# Each statistic: the value of a pixel in words.
STATISTICS = {
    "max": "maximum over all frames",
    "min": "minimum over all frames",
    "sum": "sum over all frames",
    "average": "average over all frames",
    "std": "standard deviation over all frames",
    "var": "variance over all frames",
    "snr": "average over standard deviation",
    "percentile": "percentile over all frames",
    "median": "median over all frames",
    "range": "maximum less the minimum over all frames",
    "argmax": "frame number of the maximum",
    "argmin": "frame number of the minimum",
    "count": "number of frames that count",
    "count_above": "number of frames above a threshold",
    "clipped_average": "average without outliers (sigma-clipped)",
}

# Suffixes of files: of one image, of several, and those that may name the dataset of one.
WRITTEN = (
    *(".cbf", ".edf", ".fits", ".h5", ".hdf5", ".mrc", ".npy", ".nxs", ".png", ".tif", ".tiff"),
    ".zarr",
)
COLLECTIONS = (".h5", ".hdf5", ".npz", ".nxs", ".zarr")
WITH_DATASETS = (".h5", ".hdf5", ".nxs")

# Suffixes of simulated series, and dtypes of their pixels.
SIMULATED = (".h5", ".hdf5", ".npy", ".npz", ".zarr")
DTYPES = ("uint8", "uint16", "uint32", "int32", "float32")


# Keywords that select frames, pixels and values, and those that may name the file of an image.
SELECTION = (
    *("frames", "region", "mask", "invalid", "saturation", "skipna", "fill_value", "dark", "flip"),
)
IMAGES = ("mask", "dark")


def check_statistic(name: object) -> str:
    """Return the name of a statistic, or refuse another one.

    >>> check_statistic("mode")
    Traceback (most recent call last):
        ...
    ValueError: there is no statistic 'mode': choose from max, min, ...
    """
    if not isinstance(name, str) or name not in STATISTICS:
        raise ValueError(f"there is no statistic {name!r}: choose from {', '.join(STATISTICS)}")
    return name
