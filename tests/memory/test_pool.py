"""Recycled memory: of the right size, given back once nobody has it, and never shared."""

import mmap

import numpy as np
import pytest

from daskstats.memory import pool as memory_pool
from daskstats.memory.pool import HUGE, LARGE, BufferPool


@pytest.mark.parametrize("nbytes", [1, LARGE - 1, LARGE, HUGE - 1, HUGE, HUGE + 4097, 3 * HUGE])
def test_memory_of_every_size_can_be_written(nbytes):
    first, second = (BufferPool(2).array((nbytes,), "u1") for _ in range(2))
    first[...], second[...] = 1, 2
    assert first.shape == second.shape == (nbytes,)
    assert not np.shares_memory(first, second)
    assert (first == 1).all()
    assert (second == 2).all()


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="only Linux is asked for huge pages")
def test_large_memory_begins_where_a_huge_page_may():
    assert memory_pool._fresh(HUGE).ctypes.data % HUGE == 0


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="only Linux is asked for huge pages")
def test_a_kernel_without_huge_pages(monkeypatch):
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", 1 << 20)  # which no kernel knows
    memory = memory_pool._fresh(2 * HUGE)
    memory[...] = 7
    assert memory.nbytes == 2 * HUGE


def test_what_somebody_has_is_not_used_again():
    pool = BufferPool(pieces=4)
    kept = pool.array((4, 5), "f8")
    view = kept[1:]
    kept[...] = 3
    del kept
    other = pool.array((4, 5), "f8")
    other[...] = 4
    assert (view == 3).all()


def test_the_last_to_come_back_is_the_first_to_be_used():
    pool = BufferPool(pieces=4)
    arrays = [pool.array((100,), "u2") for _ in range(3)]
    places = [array.ctypes.data for array in arrays]
    while arrays:
        del arrays[0]
    assert pool.array((100,), "u2").ctypes.data == places[-1]


def test_only_a_few_and_no_large_pieces_are_kept():
    pool = BufferPool(pieces=2, largest=1000)
    several = [pool.array((500,), "u1") for _ in range(5)]
    large = pool.array((1001,), "u1")
    del several, large
    assert [memory.nbytes for memory in pool._free] == [500, 500]


def test_no_more_bytes_are_kept_than_allowed():
    pool = BufferPool(pieces=9, nbytes=1000)
    arrays = [pool.array((size,), "u1") for size in (100, 300, 600, 400, 1001)]
    kept = []
    while arrays:
        del arrays[0]
        kept.append([memory.nbytes for memory in pool._free])
    assert kept == [[100], [100, 300], [100, 300, 600], [600, 400], []]


def test_memory_of_another_size_stays_for_the_next():
    pool = BufferPool(pieces=4)
    place = pool.array((8,), "u1").ctypes.data
    pool.array((9,), "u1")
    assert pool.array((8,), "u1").ctypes.data == place


def test_buffers_of_another_size_make_room_where_use_is_counted():
    pool = BufferPool(pieces=9, nbytes=2000, busy=2000)
    arrays = [pool.array((size,), "u1") for size in (100, 300, 600)]
    while arrays:
        del arrays[0]
    kept = pool.array((301,), "u1")
    assert [memory.nbytes for memory in pool._free] == [600]
    more = pool.array((700,), "u1")
    assert not pool._free
    del kept, more
    assert sorted(memory.nbytes for memory in pool._free) == [301, 700]


def test_more_is_kept_while_as_much_is_in_use():
    pool = BufferPool(pieces=9, nbytes=100, busy=1000)
    arrays = [pool.array((400,), "u1") for _ in range(6)]
    kept = []
    while arrays:
        del arrays[0]
        kept.append(sum(memory.nbytes for memory in pool._free))
    assert kept == [400, 800, 800, 800, 400, 0]
