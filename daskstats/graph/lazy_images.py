"""The lazy images of several statistics: a dict that is a dask collection."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from dask.array import Array
from dask.array.optimization import optimize
from dask.base import DaskMethodsMixin, is_dask_collection
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph
from dask.optimization import cull
from dask.threaded import get
from dask.utils import format_bytes

from ..reprs import table
from .arrays import EXPRESSIONS, merged


class LazyImages(dict[str, Array], DaskMethodsMixin):
    """Lazy images by the names of their statistics, which notebooks show as a table.

    dask computes a dict within its arguments, but no object of a subclass, unless it is a
    collection. So it is one: computed it is a dict of numpy arrays, persisted it is like this one.

    >>> import dask.array as da
    >>> images = LazyImages(max=da.ones((2, 3)), sum=da.zeros((2, 3)))
    >>> images
    {'max': dask.array<ones_like, shape=(2, 3), dtype=float64, chunksize=(2, 3), ...>,
     'sum': dask.array<zeros_like, shape=(2, 3), dtype=float64, chunksize=(2, 3), ...>}
    >>> images.compute()["max"].sum()
    np.float64(6.0)
    """

    __dask_scheduler__ = staticmethod(get)
    # The function of arrays itself: images computed beside other arrays are optimised with them.
    __dask_optimize__ = staticmethod(optimize)

    def _lazy(self) -> Iterator[tuple[str, Any]]:
        # Values may be replaced by images that are not lazy.
        return ((name, image) for name, image in self.items() if is_dask_collection(image))

    def __dask_graph__(self) -> Any:
        return merged(image.__dask_graph__() for _, image in self._lazy())

    def __dask_exprs__(self) -> list | None:
        """Return the expressions of the images, where dask has expressions."""
        return [image.expr for _, image in self._lazy()] if EXPRESSIONS else None

    def __dask_rebuild_from_exprs__(self, expressions: Iterable[Any]) -> "LazyImages":
        """Return a copy whose lazy images have other expressions."""
        lazy = ((name, type(image)) for name, image in self._lazy())
        found = {n: kind(expr) for (n, kind), expr in zip(lazy, expressions, strict=True)}
        return LazyImages({**self, **found})

    def __dask_keys__(self) -> list:
        return [image.__dask_keys__() for _, image in self._lazy()]

    def __dask_postcompute__(self) -> tuple[Callable, tuple]:
        return _computed, (dict(self), {n: i.__dask_postcompute__() for n, i in self._lazy()})

    def __dask_postpersist__(self) -> tuple[Callable, tuple]:
        how = {n: (i.__dask_keys__(), *i.__dask_postpersist__()) for n, i in self._lazy()}
        return _persisted, (dict(self), how)

    def __repr__(self) -> str:
        lines = (f"{name!r}: {image!r}" for name, image in self.items())
        return "{" + ",\n ".join(lines) + "}"

    def _repr_html_(self) -> str:
        """Return a table for notebooks, a line for each image."""
        rows = [(name, *_facts(image)) for name, image in self.items()]
        head = "", "shape", "dtype", "size", "tasks"
        return table(f"{len(self)} lazy images", rows, head)


def _facts(image: Any) -> tuple[object, ...]:
    shape = " x ".join(map(str, image.shape))
    tasks = len(image.__dask_graph__()) if is_dask_collection(image) else "computed"
    return shape, image.dtype, format_bytes(image.size * image.dtype.itemsize), tasks


def _computed(results: Sequence, images: dict, how: dict) -> dict:
    """Return the images as a dict of arrays: those that are not lazy stay as they are."""
    finished = dict(zip(how, results, strict=True))
    return images | {name: call(finished[name], *args) for name, (call, args) in how.items()}


def _persisted(graph: HighLevelGraph, images: dict, how: dict, **rename: object) -> LazyImages:
    """Return images of the tasks of a graph, or of the results of tasks."""
    found = LazyImages(images)
    for name, (keys, rebuild, args) in how.items():
        # Of results of tasks an image keeps its own alive only.
        whole = isinstance(graph, HighLevelGraph)
        own = graph if whole else cull(graph, list(flatten(keys)))[0]
        found[name] = rebuild(own, *args, **rename)
    return found
