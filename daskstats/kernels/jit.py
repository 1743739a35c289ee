"""The decorators of compiled code, and one for functions that are chosen by type."""

from collections.abc import Callable
from functools import wraps
from inspect import signature

from numba import njit, types
from numba.extending import overload

from .cache import cached

# Every option is given, because numba takes those that are missing from the caller for which a
# function is compiled first: folds with values left out took twice as long after a median.
# Division by zero gives NaN or infinity, as numpy's: looking for it would keep LLVM from vectors.
# No wrapper for C is made, which nothing calls: compiling takes a tenth less.
_OPTIONS = {
    "nogil": True,
    "no_cfunc_wrapper": True,
    "error_model": "numpy",
    "fastmath": False,
    "forceinline": False,
}

compiled = cached(njit(**_OPTIONS))

# Functions that only compiled code calls are part of their callers: machine code of their own on
# disk, and a wrapper for Python, would never be used.
_PART = _OPTIONS | {"no_cpython_wrapper": True}
internal = njit(**_PART)

# A call hands over every field of every array in its arguments: for a few hundred pixels that takes
# longer than the work.
inlined = njit(**_PART | {"forceinline": True})

# Functions that are called once, and not from a loop over pixels, are compiled as a part of their
# callers: each level of calls has LLVM optimise all the code below it once more. The search for a
# median compiles in 6.6 s like this, in 8.5 s by calls. Loops over pixels become slower: a maximum
# with values left out took twice as long. Code for an argument of None would be compiled as well.
merged = njit(**_OPTIONS, inline="always")


def by_type(choose: Callable) -> Callable:
    """Make a function for compiled code from one that takes numba types and returns its body."""

    @wraps(choose)
    def stub(*args: object) -> None:
        raise NotImplementedError("only compiled code calls this")

    overload(stub)(choose)
    return stub


def if_tested(otherwise: Callable) -> Callable[[Callable], Callable]:
    """Make a function for compiled code that is another one where its argument ``test`` is None."""

    def decorate(function: Callable) -> Callable:
        arguments = signature(function)
        place = list(arguments.parameters).index("test")

        @wraps(function)
        def choose(*given: object) -> Callable:
            return otherwise if given[place] is types.none else function

        return by_type(choose)

    return decorate
