"""Layers of a graph as they are built."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from dask._task_spec import Task, TaskRef
from dask.array import Array
from dask.array.optimization import optimize
from dask.base import clone_key
from dask.core import flatten
from dask.graph_manipulation import chunks as manipulated
from dask.highlevelgraph import HighLevelGraph, Layer, MaterializedLayer

from ..images import ImageSpec
from ..memory.reservation import MemoryReservation
from ..planning.values import Plan
from ..scratch.store import ScratchStore
from ..series.base import Source
from ..statistics import State, Statistic
from .arrays import array_of, layers_of

Key = tuple


@dataclass(frozen=True)
class Start:
    """The state from which a run continues."""

    done: int = 0
    """frames, or rows, that it covers"""
    state: State = field(default_factory=dict)
    """arrays of the state; none for rows, which are in the images"""
    images: tuple[np.ndarray, ...] = ()
    """the images so far"""


@dataclass(frozen=True)
class Work:
    """The arguments of every builder: a series that is reduced to images."""

    series: Source
    statistic: Statistic
    """of the states"""
    plan: Plan
    images: Sequence[ImageSpec]
    """one for each statistic in it"""
    start: Start | None = None
    """where a run begins that stores its state; the plan is of the other frames, or rows"""
    in_turn: bool = False
    """whether threads begin a step only when the consumer, which stores states, asks for it"""

    def continued(self, start: Start) -> "Work":
        """Return the work that is left after a state."""
        return replace(self, start=start, plan=self.plan.after(start.done))


class TaskLayer(MaterializedLayer):
    """A layer of tasks that `dask.graph_manipulation` can clone and bind.

    dask's own layers look for keys in lists and tuples only, not in the arguments of a `Task`: a
    clone would go on to depend on the tasks of the original.
    """

    def clone(self, keys: set, seed: Hashable, bind_to: Any = None) -> tuple["TaskLayer", bool]:
        """Return the layer with new names for some keys, and whether it was bound to a key."""
        cloned, bound = {}, False
        for key, task in self.items():
            if key not in keys:
                cloned[key] = task
                continue
            others = {k: clone_key(k, seed) for k in task.dependencies if k in keys}
            name = clone_key(key, seed)
            cloned[name] = task.substitute(others, key=name)
            if bind_to is not None and not others:
                cloned[name] = Task(name, manipulated.bind, cloned[name], TaskRef(bind_to))
                bound = True
        return TaskLayer(cloned), bound


@dataclass
class Tasks:
    """Layers of a graph, each with the names of the layers that it depends on."""

    layers: dict[str, dict] = field(default_factory=dict)
    dependencies: dict[str, set[str]] = field(default_factory=dict)
    reservation: MemoryReservation | None = None
    """of a lazy image, which each run begins anew; that of a stream begins with the stream"""
    store: ScratchStore | None = None
    """its directories are made when the tasks run"""
    reads: list[tuple[Key, int]] = field(default_factory=list)
    """keys of the tasks that read all frames before the first row is reduced, in order, and for
    each the frames that are read with it; none where each task reads its own"""

    def add(self, name: str, after: Iterable[str] = ()) -> dict:
        """Return a new, empty layer."""
        self.layers[name], self.dependencies[name] = {}, set(after)
        return self.layers[name]

    def add_array(self, array: Array) -> str:
        """Add all layers of a dask array, and return the name of the last."""
        layers, dependencies = layers_of(array)
        self.layers.update(layers)
        self.dependencies.update(dependencies)
        return array.name

    def array(self, name: str, chunks: tuple, dtype: np.dtype) -> Array:
        """Return the dask array with the keys of a layer as its blocks."""
        layers = {
            key: layer if isinstance(layer, Layer) else TaskLayer(layer)
            for key, layer in self.layers.items()
        }
        return array_of(HighLevelGraph(layers, self.dependencies), name, chunks, dtype)

    def release(self) -> None:
        """Remove the scratch data of the tasks."""
        if self.store is not None:
            self.store.remove()

    @property
    def shuffles(self) -> bool:
        """Whether a layer of dask's exchanges all data between workers."""
        return any("P2P" in type(layer).__name__ for layer in self.layers.values())

    def runnable(self, keys: list) -> dict:
        """Return one dict of all tasks; those of a dask array are optimised as dask does.

        The keys, which may be in lists, keep their names.
        """
        if any(isinstance(layer, Layer) for layer in self.layers.values()):
            graph = HighLevelGraph(self.layers, self.dependencies)
            return dict(optimize(graph, list(flatten(keys))))
        return {key: task for layer in self.layers.values() for key, task in layer.items()}
