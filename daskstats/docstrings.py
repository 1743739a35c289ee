"""How a public docstring is put together: numpydoc sections from parts that functions share."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from inspect import Parameter, Signature, cleandoc, signature


class Parameters:
    """The text of each parameter; ``function.name`` is that of one function only.

    ims : path, array, list of 2-D arrays, or HEXRD-like image series
        Frames of shape (rows, cols); `wrap` lists every accepted form.
    wrap.ims : path, array, list of 2-D arrays, or HEXRD-like image series
        Anything with ``len(ims)``, ``ims[i]`` (a 2-D array for a Python int ``i``), ``.shape`` (of
        a frame) and ``.dtype``; a numpy, zarr, h5py or dask array (frames, rows, cols); a list of
        2-D arrays; an `xarray.DataArray`; the path of a ``.npy``, ``.npz`` (HEXRD frame cache),
        ``.zarr`` or HDF5 file, with ``file.h5::/path/to/dataset`` to name one of several datasets.
    along : "frames" or "rows"
        Whether blocks hold whole frames, or all frames of a band of rows.
    pctl : float or sequence of float
        Percentiles, each in [0, 100].
    threshold : float
        In units of the frames; NaN is not larger.
    sigma : float
        Number of standard deviations, more than 0.
    maxiters : int or None
        Maximum number of rounds; None repeats until no value is left out.
    statistics : sequence
        Names, or names with their parameters: ``["max", ("percentile", [5, 95]), "median"]``.
    statistic : str, tuple, Statistic, or a list of them
        A name, or a name with its parameter: ``("percentile", 95)``.
    partials.statistic : str, tuple or Statistic
        A name, or a name with its parameter: ``("percentile", 95)``.
    snapshots.statistic : str, tuple, Statistic, or a list of them
        A name, or a name with its parameter: ``("percentile", 95)``. For a list, the image of a
        snapshot is a dict, as in `aggregate_iter`.
    watch.ims : path, array, list of 2-D arrays, HEXRD-like image series, or iterator
        Frames of shape (rows, cols); `wrap` lists every accepted form. Or an iterator of this
        package, such as that of `snapshots`, which takes neither ``statistic`` nor ``nchunk``.
    watch.nchunk : int
        Number of intermediate images, at most: there are fewer where the frames are fewer, or would
        have to be read more often.
    log : bool
        Whether colours follow the logarithm of the values.
    contrast : tuple of float
        Percentiles of the pixels that get the darkest and the brightest colour.
    cmap : str
        "gray", "viridis" or "inferno", or another colour map of matplotlib if it is installed.
    size : int, optional
        Pixels of a picture along an edge, at most; by default 512, and 320 for several pictures.
    follow.ims : path
        Of a zarr array, an HDF5 file (that is written in its mode SWMR), a folder of image files,
        or a pattern; it need not be there yet.
    follow.nframes : int
        Number of frames to wait for; 0: there is no end but the timeout.
    follow.frames : None
        All frames of a series that grows are used.
    follow.checkpoint : path, optional
        Directory for the state of the run, which is stored there every 30 seconds
        (``daskstats.checkpoint-interval``) and at the end. The same call goes on from there.
    timeout : float
        Seconds without new frames after which the series has ended.
    nchunk : int
        Number of images. Image k covers the first k of ``nchunk`` nearly equal chunks of frames;
        the last image is the result.
    nchunks : int
        Number of images. Image k has the result in the first k of ``nchunks`` nearly equal chunks
        of rows and zero in the others; the last image is the result.
    aggregate_iter.nchunk : int
        Number of intermediate images of each statistic.
    partials.nchunk : int
        Number of intermediate images.
    snapshots.nchunk : int
        Number of intermediate images. If all frames are read before the first row is reduced,
        additional snapshots of phase "read" come before them, at most 50.
    plan.nchunk : int, optional
        Number of intermediate images of an iterator; by default the plain call is planned.
    nframes : int
        Number of frames to use, from the first on; 0, a negative number, or more than the series
        has means all.
    ddof : float
        The divisor is the number of frames minus ``ddof``.
    use_buffer : bool
        Whether frames may be kept, in memory or on disk, until all have been read. With False, a
        series that can be read by whole frames only is read again for each band of rows.
    dtype : dtype, optional
        Dtype of the image; {dtype} by default.
    memory_limit : int or str, optional
        Bytes the call may use, or text such as "4 GiB"; by default the value that `memory_limit`
        returns.
    wrap.memory_limit : int or str, optional
        Bytes that blocks read at the same time may take, or text such as "4 GiB"; by default the
        value that `memory_limit` returns.
    lock : bool or lock
        Whether only one thread at a time may read the series; a lock may be given. A series that
        refills one buffer for every frame is detected without it. Several series that share one
        reader need the same lock.
    frames : slice, sequence of int, or bool array, optional
        Frames to use; the others are not read. ``nframes`` counts the selected frames.
    region : ((int, int), (int, int)), optional
        First row and end, first column and end: the image covers this part of the frames.
    mask : array of bool, optional
        (rows, cols), True for pixels to leave out, as in `numpy.ma`.
    invalid : number or sequence of numbers, optional
        Values to leave out, such as 4294967295, or -1 and -2: the statistic of a pixel is that of
        its other values. A value that no frame can hold raises a warning.
    saturation : number, optional
        Values at or above it are left out.
    skipna : bool
        Whether NaN is left out, instead of making its pixel NaN.
    fill_value : number, optional
        Value of pixels where everything is left out; NaN in images of floats. Images of integers
        with such pixels need one.
    dark : path or array, optional
        (rows, cols) as in the file: subtracted from each frame, in a dtype that cannot wrap
        (integers of uint16 less integers are int32). ``invalid`` and ``saturation`` are of the
        values in the file.
    dim : str or sequence of str, optional
        The dimension of the frames of an `xarray.DataArray`, or several; by default all before the
        last two. An image is a DataArray then, and several are a Dataset.
    flip : str, optional
        "v" reverses the columns and "h" the rows, "hv" both; "t" transposes, "r90" and "r270" turn
        counterclockwise and clockwise: the names of HEXRD. The dark is subtracted before;
        ``region`` and ``mask`` are of the flipped frames.
    checkpoint : path, optional
        Directory for the state of the run, which is stored there every 30 seconds
        (``daskstats.checkpoint-interval``) and when the run is stopped. The same call continues
        after the last stored step, and has the images that are left; after all frames it has the
        last one. Frames that were appended to the series since are added.
    restart : bool
        Whether the checkpoint is removed, and the run starts over.
    """


class Returns:
    """The returned value of each function; "image" and "_iter" are those of functions not named.

    image : dask.array.Array
        The lazy image (rows, cols); nothing is read before it is computed.
    std : dask.array.Array
        The lazy image (rows, cols), in units of the frames; NaN if there are at most ``ddof``
        frames.
    var : dask.array.Array
        The lazy image (rows, cols), in units of the frames squared; NaN if there are at most
        ``ddof`` frames.
    percentile : dask.array.Array
        The lazy image (rows, cols); (len(pctl), rows, cols) for a sequence.
    argmax : dask.array.Array
        The lazy image (rows, cols) of indices among the frames in use, from 0 on.
    argmin : dask.array.Array
        The lazy image (rows, cols) of indices among the frames in use, from 0 on.
    aggregate : dict of dask.array.Array
        The lazy image of each statistic under its name; parameters are part of the name:
        ``"percentile_5_95"``. Each image equals that of the function of the statistic, bit for
        bit.
    partials : dask.array.Array
        (nchunk, rows, cols); the last plane is the result.
    plan : Plan
        ``str(plan)`` describes it in one line.
    wrap : dask.array.Array
        (frames, rows, cols) of the dtype of the frames in native byte order. Blocks of a numpy
        array are read-only views of it.
    _iter : Stream
        Sized iterator of numpy arrays (rows, cols); each array belongs to the caller.
    percentile_iter : Stream
        Sized iterator of numpy arrays of the shape that `percentile` returns; each array belongs
        to the caller.
    aggregate_iter : Stream
        Sized iterator of dicts of numpy arrays; each array belongs to the caller.
    snapshots : Stream
        Sized iterator of `Snapshot`.
    follow : iterator
        Of `Snapshot`. Its `close` ends the run.
    watch : numpy.ndarray, dict or iterator
        The last image (rows, cols), for a list of statistics a dict of images, and for an iterator
        a sized iterator over the same items.
    """


class Sources:
    """The publication of the method of a function.

    sum : D. E. Knuth, The Art of Computer Programming, volume 2, section 4.2.2 (TwoSum).
    std : T. F. Chan, G. H. Golub and R. J. LeVeque, "Algorithms for computing the sample
       variance", The American Statistician 37 (1983), 242-247.
    var : T. F. Chan, G. H. Golub and R. J. LeVeque, "Algorithms for computing the sample
       variance", The American Statistician 37 (1983), 242-247.
    percentile : R. J. Hyndman and Y. Fan, "Sample quantiles in statistical packages", The
       American Statistician 50 (1996), 361-365: definition 7.
    """


ERRORS = """\
ValueError, TypeError
    If an argument is wrong; the message names it. Arguments are checked at the call.
MemoryLimitError
    If {condition}; nothing is read then."""

# The frames of most examples: four frames of one row and two columns.
FRAMES = '>>> frames = np.array([[[1, 8]], [[2, 6]], [[3, 4]], [[4, 2]]], "u2")\n'


@cache
def entries(texts: type) -> dict[str, str]:
    """Return the entries of a docstring: the text behind and below each name.

    >>> entries(Sources)["sum"]
    'D. E. Knuth, The Art of Computer Programming, volume 2, section 4.2.2 (TwoSum).'
    """
    text = cleandoc(texts.__doc__ or "")
    return dict(re.findall(r"^([\w.]+) : (.*(?:\n +.*)*)", text, re.M))


def compose(
    name: str, text: str, parameters: Iterable[str], *, dtype: str = "", see: str = ""
) -> str:
    """Return the whole docstring of a public function.

    Parameters
    ----------
    name : str
        Name of the function.
    text : str
        Its summary and description, and its example; `FRAMES` is added to an example that uses
        ``frames`` without defining them.
    parameters : iterable of str
        Names from `Parameters`, in the order of the signature.
    dtype : str
        Default dtype of the image.
    see : str
        Names of related functions.

    Examples
    --------
    >>> text = "Return 1.\\n\\n>>> one([])\\n1"
    >>> print(*compose("one", text, ["saturation"]).splitlines()[:6], sep="\\n")
    Return 1.
    <BLANKLINE>
    Parameters
    ----------
    saturation : number, optional
        Values at or above it are left out.
    """
    description, _, example = cleandoc(text).partition("\n\n>>> ")
    example = f">>> {example}"
    if "frames" in example and "frames =" not in example:
        example = FRAMES + example
    texts, returns, source = entries(Parameters), entries(Returns), entries(Sources).get(name)
    found = [f"{each} : {texts.get(f'{name}.{each}') or texts[each]}" for each in parameters]
    small = "not even one frame (or row) for each worker fits"
    if name != "wrap":
        small = "the memory limit is too small for even the smallest blocks"
    sections = {
        "Parameters": "\n".join(found).format(dtype=dtype),
        "Returns": returns.get(name) or returns["_iter" if "_iter" in name else "image"],
        "Raises": ERRORS.format(condition=small),
        "See Also": see,
        "References": source and f".. [1] {source}",
        "Examples": example,
    }
    return "\n\n".join(
        [description]
        + [f"{title}\n{'-' * len(title)}\n{body}" for title, body in sections.items() if body]
    )


def common_signature(function: Callable, defaults: Mapping[str, object]) -> Signature:
    """Return the signature of a function with each common keyword in the place of ``**options``.

    >>> def function(ims, **options): ...
    >>> common_signature(function, {"lock": False})
    <Signature (ims, *, lock=False)>
    """
    found = signature(function)
    own = [each for each in found.parameters.values() if each.kind is not each.VAR_KEYWORD]
    if len(own) == len(found.parameters):
        return found
    common = [Parameter(name, Parameter.KEYWORD_ONLY, default=defaults[name]) for name in defaults]
    return found.replace(parameters=[*own, *common])


# The words of a docstring that are about lazy images, and those of images that are computed.
COMPUTED = {
    "dask.array.Array": "numpy.ndarray",
    "The lazy image": "The image",
    "the lazy stack": "the stack",
    "; nothing is read before it is computed": "",
    "``partials(...)[k]`` computes the first k + 1 steps only.\n\n": "",
    ">>> import dask\n": "",
    ">>> (images,) = dask.compute(images)\n": "",
    ".compute()": "",
}


def without_laziness(text: str | None) -> str | None:
    """Return the docstring of a public function for one that computes its images.

    >>> without_laziness("dask.array.Array\\n    The lazy image (rows, cols).")
    'numpy.ndarray\\n    The image (rows, cols).'
    """
    for lazy, eager in COMPUTED.items():
        text = text and text.replace(lazy, eager)
    return text
