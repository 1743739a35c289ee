"""dask arrays of tasks, in both of dask's worlds: graphs, and expressions.

dask decides between them when `dask.array` is imported (``array.query-planning``).
"""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import dask
import numpy as np
from dask._task_spec import convert_legacy_graph
from dask.array import Array
from dask.highlevelgraph import HighLevelGraph
from dask.utils import key_split

EXPRESSIONS = hasattr(Array, "expr")


class NamedGraph:
    """The tasks of an expression, for ``dict``; their name identifies them.

    dask would look for collections in a dict, copy it, and identify it by each of its tasks.
    """

    def __init__(self, tasks: dict, name: str) -> None:
        self._tasks, self._name = tasks, name

    def keys(self) -> Iterable[Hashable]:
        return self._tasks.keys()

    def __getitem__(self, key: Hashable) -> Any:
        return self._tasks[key]

    def __dask_tokenize__(self) -> Hashable:
        return "daskstats", self._name


def array_of(graph: HighLevelGraph, name: str, chunks: tuple, dtype: np.dtype) -> Array:
    """Return the dask array with the keys of a layer as its blocks."""
    meta = np.empty((0,) * len(chunks), dtype)
    if not EXPRESSIONS:
        return Array(graph, name, chunks=chunks, meta=meta)
    from dask.array._array_expr._collection import from_graph

    tasks = NamedGraph(graph.to_dict(), name)
    return from_graph(tasks, meta, chunks, list(graph.layers[name]), key_split(name))


def settled(array: Array) -> Array:
    """Return an array whose keys stay as they are: expressions are optimised here, graphs later."""
    return array.optimize() if hasattr(array, "expr") else array


def as_graph(array: Array) -> Array:
    """Return an array of a graph: expressions cannot exchange blocks between workers."""
    if not EXPRESSIONS:
        return array
    from dask.array.core import Array as GraphArray

    array = settled(array)
    tasks = convert_legacy_graph(array.__dask_graph__())
    name = array.__dask_keys__()[0][0][0][0]
    graph = HighLevelGraph.from_collections(name, tasks)
    return GraphArray(graph, name, chunks=array.chunks, meta=array._meta)


def layers_of(array: Array) -> tuple[Mapping[str, Any], Mapping[str, set[str]]]:
    """Return the layers of a graph, and the names of those that each depends on."""
    graph = array.__dask_graph__()
    if isinstance(graph, HighLevelGraph):
        return graph.layers, graph.dependencies
    return {array.name: convert_legacy_graph(graph)}, {array.name: set()}


def merged(graphs: Iterable[Any]) -> Any:
    """Return the graph of several arrays."""
    every = list(graphs)
    if all(isinstance(graph, HighLevelGraph) for graph in every):
        return HighLevelGraph.merge(*every)
    return {key: task for graph in every for key, task in graph.items()}


def check_query_planning() -> None:
    """Refuse a choice between the worlds that comes after the import of `dask.array`."""
    wanted = dask.config.get("array.query-planning", None)
    if wanted is not None and bool(wanted) != EXPRESSIONS:
        raise RuntimeError(
            f"dask.array was imported with array.query-planning {'on' if EXPRESSIONS else 'off'}, "
            f"and the configuration now turns it {'on' if wanted else 'off'}: set it before "
            f"(DASK_ARRAY__QUERY_PLANNING={bool(wanted)}), or leave it alone"
        )
