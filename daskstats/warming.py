"""Code that is compiled beforehand: for images of containers, and before many workers need it."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .compiling import compiled_for
from .graph.tasks import finish
from .images import ImageSpec, are_states
from .packages import load
from .run.scheduler import current_scheduler
from .run.ways import own_images
from .series.base import check_native
from .series.piece import Piece
from .statistics import EXAMPLES, Statistic, Validity, as_statistic, compile_seconds
from .statistics.base import copy_state
from .statistics.fusion import fuse
from .statistics.shared import load_kernels

Named = str | tuple | Statistic
Call = tuple[list[Statistic], np.dtype]

# Most calls are of these. All of them take 50 s of a core, 20 s of these for uint16, because dtypes
# of one size share code; half of it is the median's.
COMMON = ("max", "min", "sum", "average", "std", "var", "median", "percentile")
DTYPES = ("uint16", "uint32", "int32", "float32")


def warm(
    dtypes: Sequence[DTypeLike] = DTYPES,
    statistics: Sequence[Named | list] = COMMON,
    *,
    invalid: bool = False,
) -> dict[str, float]:
    """Compile the code of statistics, and keep it on disk for the processes that follow.

    With a `distributed.Client` the workers compile it, once on each host.

    Parameters
    ----------
    dtypes : sequence of dtype, or the name of one
        Of the frames.
    statistics : sequence, or a name
        Names, with parameters or without, which make no difference to the code; a list among them
        is compiled as `aggregate` computes it, in one pass.
    invalid : bool
        Whether code that leaves out values (``invalid``, ``saturation``, ``skipna``) is compiled as
        well, which takes two to four times as long.

    Returns
    -------
    dict of float
        For each statistic and dtype the seconds that it took; 0 if the code was there already.

    Raises
    ------
    ValueError, TypeError
        If there is no such statistic, or frames cannot have the dtype.

    Examples
    --------
    >>> seconds = warm(["uint16"], ["max", "average"])
    >>> list(seconds)
    ['max of uint16', 'average of uint16']
    """
    return dict(warming(dtypes, statistics, invalid=invalid))


def warming(
    dtypes: Sequence[DTypeLike], statistics: Sequence[Named | list], *, invalid: bool = False
) -> Iterator[tuple[str, float]]:
    """Compile as `warm` does; iterate over the names of statistics and dtypes, and the seconds."""
    # A name alone would be taken for a sequence of letters.
    dtypes = [dtypes] if isinstance(dtypes, str) else dtypes
    statistics = [statistics] if isinstance(statistics, str) else statistics
    lists = [each if isinstance(each, list) else [each] for each in statistics]
    members = [[as_statistic(_with_parameters(one)) for one in each] for each in lists]
    calls: list[Call] = [(each, _check_dtype(dtype)) for dtype in dtypes for each in members]
    client = getattr(current_scheduler(), "client", None)
    if client is not None:
        return _on_hosts(client, calls, invalid)
    return ((_name(*call), compile_statistics(*call, invalid)) for call in calls)


def _on_hosts(client: Any, calls: list[Call], invalid: bool) -> Iterator[tuple[str, float]]:
    """Compile by the workers of a cluster; those of one host share the work."""
    hosts: dict[str, list[str]] = {}
    for address, worker in client.scheduler_info(n_workers=-1)["workers"].items():
        hosts.setdefault(worker["host"], []).append(address)
    names = {
        client.submit(compile_statistics, *call, invalid, workers=workers, pure=False): _name(*call)
        + (f" on {host}" if len(hosts) > 1 else "")
        for call in calls
        for host, workers in hosts.items()
    }
    for future, seconds in load("distributed").as_completed(list(names), with_results=True):
        yield names[future], seconds


def _with_parameters(statistic: Named) -> Named:
    if isinstance(statistic, str) and statistic in EXAMPLES:
        return statistic, *EXAMPLES[statistic]
    return statistic


def _check_dtype(dtype: DTypeLike) -> np.dtype:
    try:
        return check_native(np.dtype(dtype))
    except TypeError as error:
        raise TypeError(f"frames cannot be of dtype {dtype!r}: {error}") from None


def _name(members: list[Statistic], dtype: np.dtype) -> str:
    return f"{', '.join(member.name for member in members)} of {dtype}"


def compile_statistics(members: list[Statistic], dtype: np.dtype, invalid: bool) -> float:
    """Compile the code of one pass over frames of a dtype; return the seconds that it took."""
    estimate = compile_seconds(members[0]) if len(members) == 1 else None
    with compiled_for("-".join(member.name for member in members), dtype, estimate) as subject:
        before = subject.seconds
        _use(members, dtype)
        if invalid:
            _use([member.excluding(Validity(invalid=(1,)), 0) for member in members], dtype)
    return subject.seconds - before


def _use(members: list[Statistic], dtype: np.dtype) -> None:
    """Do to a few frames all that a call, an iterator, and the workers of a cluster do."""
    _use_frames(members, np.arange(24 * 4 * 16).reshape(24, 4, 16).astype(dtype))
    if all(member.along == "frames" for member in members):
        # Sums of so many frames take twice the bytes.
        _use_frames(members, np.zeros((load_kernels().FRAMES_IN_32_BITS + 1, 1, 16), dtype))


def _use_frames(members: list[Statistic], frames: np.ndarray) -> None:
    (_, rows, cols), dtype, piece = frames.shape, frames.dtype, Piece([frames])
    each = [ImageSpec(member, rows, cols, member.image_dtype(dtype)) for member in members]
    statistic = fuse(members, [spec.dtype for spec in each], dtype)
    specs = own_images(each, statistic)
    state = statistic.chunk([piece], 0)
    states = [state]
    if statistic.along == "frames":
        more = statistic.advance([piece], len(frames), copy_state(state))
        sent = statistic.combine(state, statistic.packed(more))
        states += [statistic.combine(state, more), sent, statistic.combine(sent, sent)]
    for found in states:
        for index, spec in enumerate(specs):
            finish(spec, statistic, index, found, statistic.along == "rows")
    if are_states(specs, statistic, dtype):
        assert statistic.trail is not None
        statistic.trail(piece, None, [(len(frames), specs[0].empty())])


def cache_directories() -> list[str]:
    """Return the directories of compiled code, of all workers if there is a client."""
    client = getattr(current_scheduler(), "client", None)
    found = [cache_directory()] if client is None else client.run(cache_directory).values()
    return sorted({directory for directory in found if directory is not None})


def cache_directory() -> str | None:
    """Return the directory of compiled code; None if there is none that can be written to."""
    load_kernels()
    return load(f"{__package__}.kernels.extremes")._extreme.stats.cache_path
