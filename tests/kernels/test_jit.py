"""The options of compiled code."""

from typing import Any

import pytest
from numba.core.compiler import Flags
from numba.core.registry import cpu_target
from numba.core.targetconfig import ConfigStack

from daskstats.kernels import clip, fold, frames, search


@pytest.mark.parametrize("name", ["compiled", "internal", "inlined", "merged"])
def test_code_does_not_depend_on_the_caller_that_is_compiled_first(name: str) -> None:
    """A function has the options it was given, not those of the first function that calls it."""
    function = {
        "compiled": fold.fold_pixels,
        "internal": clip._count_within,
        "inlined": frames.prefetch_frames,
        "merged": search.search,
    }[name]
    alone = _flags(function)
    caller = alone.copy()
    caller.forceinline, caller.fastmath, caller.error_model = not alone.forceinline, True, "python"
    with ConfigStack().enter(caller):
        assert _flags(function) == alone


def _flags(function: Any) -> Flags:
    """Return the options with which numba would compile a function now."""
    flags = Flags()
    cpu_target.options.parse_as_flags(flags, function.targetoptions)
    return flags
