"""Announcements of compilations: one line for a statistic and dtype, and none without."""

import logging
from collections.abc import Iterator

import numba
import numpy as np
import pytest

from daskstats import compiling
from daskstats.compiling import Subject, compiled_for, observed


@pytest.fixture(autouse=True)
def _nothing_is_compiled_yet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hide the compilations of other tests."""
    monkeypatch.setattr(compiling, "_subjects", {})
    compiling.listen()
    yield
    assert not compiling.compiling()


@numba.njit
def inner(x: float) -> float:
    return x + 1


@numba.njit
def outer(x: float) -> float:
    return inner(x)


def test_a_compilation_is_announced_once_and_its_end_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "daskstats")
    for value in (1, 2, 1.5):  # of two types, the function that it calls included
        with compiled_for("median", np.dtype("u2"), 4.9):
            outer(value)
    begin, end = caplog.messages
    assert begin == "compiling the median of uint16, once: about 4.9 s"
    assert end.startswith("compiled the median of uint16 in ")
    outer(1)
    assert len(caplog.messages) == 2


def test_code_of_other_packages_belongs_to_no_statistic(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "daskstats")
    with compiled_for("median", "uint16"):
        pass
    numba.njit(lambda x: x)(1)
    assert not caplog.messages


def test_a_failure_to_compile_ends_the_compilation() -> None:
    with compiled_for("median", "uint16"), pytest.raises(numba.TypingError):
        numba.njit(lambda x: x.nothing)(1)
    assert not compiling.compiling()


def test_a_remark_tells_of_the_compilation_that_runs() -> None:
    remarks: list[tuple[str, str, bool]] = []

    def observe(text: str) -> None:
        remarks.append((text, compiling.remark(), compiling.compiling()))

    with observed(observe), compiled_for("median", "uint16", 5):
        numba.njit(lambda x: x + 2)(1)
    text = "compiling the median of uint16, once: about 5 s"
    assert remarks == [(text, text, True), ("", "", False)]
    assert compiling.remark() == ""
    assert str(Subject("max, sum of int8")) == "compiling the max, sum of int8, once"
