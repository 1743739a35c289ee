"""How a function becomes public: its whole docstring, its keywords, and its types.

Type checkers see that of a DataArray an image is a DataArray. They know it by its attributes, so
that nobody needs xarray for the types of other arrays.
"""

from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from dask.array import Array

from . import docstrings
from .arguments import ImageSeries

F = TypeVar("F", bound=Callable[..., object])
P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
DatasetT = TypeVar("DatasetT")
DatasetT_co = TypeVar("DatasetT_co", covariant=True)

# The defaults of keywords that are not None.
DEFAULTS = {"lock": False, "skipna": False, "restart": False}


def defaults_of(function: Callable) -> dict[str, object]:
    """Return the keywords that a function takes as ``**options``, with their defaults."""
    unpacked = function.__annotations__.get("options")
    options = unpacked.__args__[0].__annotations__ if unpacked is not None else ()
    return {name: DEFAULTS.get(name) for name in options}


class Labelled(Protocol[DatasetT_co]):
    """An `xarray.DataArray`: no other array has these attributes."""

    @property
    def dims(self) -> tuple[Hashable, ...]: ...

    @property
    def to_dataset(self) -> Callable[..., DatasetT_co]: ...


DataArrayT = TypeVar("DataArrayT", bound=Labelled[Any])


class ImageFunction(Protocol[P, R_co]):
    """A function of a series that returns an image."""

    @overload
    def __call__(self, ims: DataArrayT, *args: P.args, **kwargs: P.kwargs) -> DataArrayT: ...
    @overload
    def __call__(self, ims: ImageSeries, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


class ImagesFunction(Protocol[P, R]):
    """A function of a series that returns several images: of a DataArray a Dataset."""

    @overload
    def __call__(self, ims: Labelled[DatasetT], *args: P.args, **kwargs: P.kwargs) -> DatasetT: ...
    @overload
    def __call__(self, ims: ImageSeries, *args: P.args, **kwargs: P.kwargs) -> dict[str, R]: ...


def public(dtype: str = "", *, see: str) -> Callable[[F], F]:
    """Give a function its whole docstring, and a signature with the common keywords.

    Type checkers see the keywords of its options; `inspect.signature` and help list them by name.
    """

    def publish(function: F) -> F:
        name = function.__name__
        signature = docstrings.common_signature(function, defaults_of(function))

        @wraps(function)
        def call(*args: object, **options: object) -> object:
            unknown = options.keys() - signature.parameters.keys()
            if unknown:
                raise TypeError(f"{name}() has no keyword argument {', '.join(sorted(unknown))}")
            return function(*args, **options)

        if function.__doc__:  # python -OO leaves out all docstrings
            call.__doc__ = docstrings.compose(
                name, function.__doc__, signature.parameters, dtype=dtype, see=see
            )
        call.__signature__ = signature  # type: ignore[attr-defined]
        return call  # type: ignore[return-value]

    return publish


def public_image(
    dtype: str = "", *, see: str
) -> Callable[[Callable[Concatenate[ImageSeries, P], Array]], ImageFunction[P, Array]]:
    """Do the same for a function that returns a lazy image, for a DataArray a DataArray."""
    return public(dtype, see=see)  # type: ignore[return-value]


def public_images(
    dtype: str = "", *, see: str
) -> Callable[[Callable[Concatenate[ImageSeries, P], dict[str, Array]]], ImagesFunction[P, Array]]:
    """Do the same for a function that returns several of them, for a DataArray a Dataset."""
    return public(dtype, see=see)  # type: ignore[return-value]
