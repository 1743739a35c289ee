"""Frames as compiled code sees them: addresses, views of some pixels, and pooled arrays."""

from math import prod
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array
from numpy.typing import DTypeLike

from ..memory.pool import BufferPool
from .jit import by_type, inlined

Piece = list[np.ndarray]

# Pixels of a tile of a fold: 16 KB of uint16 frames and 64 KB of sums. Extremes, which need less
# memory than sums, run at 38 GB/s on two threads with tiles of four times as many, and at 31 with
# these.
TILE = 8192
LONG_TILE = 4 * TILE
SHORT_TILE = TILE // 8

# Bytes of a cache line on most processors.
LINE = 64

# Bytes of each frame that are folded before as many, AHEAD bytes further on, are prefetched. Where
# values are not only compared or added, the processor does not read far enough ahead by itself:
# sums of squares took a quarter longer, validity tests a third.
STRETCH = 4 * LINE
AHEAD = 6 * STRETCH

# Frames with sums that fit in 32 bits, for pixels of at most 16 bits.
FRAMES_IN_32_BITS = 1 << 16


class Frames(NamedTuple):
    """Frames for compiled code, with the test for valid values."""

    addresses: np.ndarray
    """uint64: the address of each frame"""
    like: np.ndarray
    """an array of the frames' dtype"""
    test: tuple | None
    """a `ValidityTest`; None if all values count"""


@intrinsic
def copy_bytes(typingctx, target, source, count):
    """Copy bytes from one address to another as C's ``memcpy`` does.

    It writes whole cache lines without reading them first: 60 images of 2 MB take 1.4 ms of two
    threads, by stores of compiled code 5.
    """

    def codegen(context, builder, signature, arguments):
        to, of = (builder.inttoptr(a, cgutils.voidptr_t) for a in arguments[:2])
        cgutils.raw_memcpy(builder, to, of, arguments[2], 1)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64, types.int64), codegen


@intrinsic
def prefetch(typingctx, address):
    """Ask for a cache line that will be read, without waiting for it."""

    def codegen(context, builder, signature, arguments):
        line, integer = builder.inttoptr(arguments[0], cgutils.voidptr_t), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, integer, integer, integer])
        ask = builder.module.declare_intrinsic("llvm.prefetch", (cgutils.voidptr_t,), kind)
        # For reading, into the first level of the data cache.
        builder.call(ask, [line, integer(0), integer(3), integer(1)])
        return context.get_dummy_value()

    return types.void(types.uint64), codegen


@inlined
def prefetch_frames(frames, f, count, first):
    """Prefetch the pixels of ``count`` frames that are AHEAD bytes behind pixel ``first``."""
    for byte in range(AHEAD, AHEAD + STRETCH, LINE):
        for i in range(f, f + count):
            prefetch(frames.addresses[i] + np.uint64(first * frames.like.itemsize + byte))


@intrinsic
def view(typingctx, address, like, first, count):
    """Return ``count`` pixels of a frame, from ``first`` on, as a contiguous array.

    Like `part_of` it is written in LLVM's language, because numba takes longer to compile a call,
    of which there are dozens, than the rest of most folds.
    """

    def codegen(context, builder, signature, arguments):
        frame = builder.inttoptr(arguments[0], context.get_value_type(types.CPointer(like.dtype)))
        return _make_array(context, builder, signature.return_type, frame, arguments[2:])

    kind = types.Array(like.dtype, 1, "C")
    return kind(types.uint64, like, types.int64, types.int64), codegen


@intrinsic
def part_of(typingctx, values, first, count):
    """Return some pixels of a contiguous array that outlives their use.

    Bounds are not checked, and references not counted, which would take a lock each. The part of a
    constant is the constant, that of a tuple the parts of its items.
    """

    def codegen(context, builder, signature, arguments):
        return _part(context, builder, values, arguments[0], arguments[1:])

    return _part_type(values)(values, types.int64, types.int64), codegen


def _part_type(values):
    """Return the type of a part of a value for compiled code."""
    if isinstance(values, types.BaseTuple):
        return types.Tuple([_part_type(each) for each in values])
    return types.Array(values.dtype, 1, "C") if isinstance(values, types.Array) else values


def _part(context, builder, kind, value, run):
    """Return the part of a value of LLVM: ``run`` is its first pixel and their number."""
    if isinstance(kind, types.BaseTuple):
        items = [
            _part(context, builder, each, builder.extract_value(value, i), run)
            for i, each in enumerate(kind)
        ]
        return context.make_tuple(builder, _part_type(kind), items)
    if isinstance(kind, types.Array):
        data = context.make_array(kind)(context, builder, value).data
        return _make_array(context, builder, _part_type(kind), data, run)
    return value


def _make_array(context, builder, kind, data, run):
    """Return an array of LLVM without an owner, which begins some items behind a pointer."""
    array = context.make_array(kind)(context, builder)
    itemsize = context.get_constant(
        types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype))
    )
    first, count = run
    shape, strides = (cgutils.pack_array(builder, [each]) for each in (count, itemsize))
    populate_array(array, builder.gep(data, [first]), shape, strides, itemsize, meminfo=None)
    return array._getvalue()


@by_type
def value_at(values, pixel):
    """Return the value of a pixel, or the one of all pixels."""
    if isinstance(values, types.Array):
        return lambda values, pixel: values[pixel]
    return lambda values, pixel: values


def addresses_of(piece: Piece) -> np.ndarray:
    """Return the address of every frame; the arrays must outlive its use."""
    if all(len(block) == 1 for block in piece):  # 1 us a frame instead of 5
        every = [block.__array_interface__["data"][0] for block in piece]
        return np.array(every, np.uint64)
    return np.concatenate([_block_addresses(block) for block in piece])


def _block_addresses(block: np.ndarray) -> np.ndarray:
    """Return the address of every frame of a block, which may run backwards or repeat one."""
    first, step = block.__array_interface__["data"][0], block.strides[0]
    if step == 0:
        return np.full(len(block), first, np.uint64)
    return np.arange(first, first + step * len(block), step, dtype=np.uint64)


def frames_of(piece: Piece, test: tuple | None) -> Frames:
    """Return a piece of a dtype that numba knows for compiled code; it must outlive its use."""
    return Frames(addresses_of(piece), np.empty(1, piece[0].dtype), test)


def plain(piece: Piece) -> Piece:
    """Return a piece of a dtype that numba knows: bool as bytes, float16 widened to float32."""
    dtype = piece[0].dtype
    if dtype == np.bool_:
        return [block.view(np.uint8) for block in piece]
    if dtype == np.float16:
        return [block.astype(np.float32, order="C") for block in piece]
    return piece


def count_frames(piece: Piece) -> int:
    """Return the number of frames of a piece."""
    return sum(len(block) for block in piece)


# ---------------------------------------------------------------------- arrays


# Buffers of states and tiles that were released. Without them, 60 sums of 8 MB took 148 ms instead
# of 51; two bands of four statistics need 12: with fewer, their 31 ms were 35.
# The allocator has up to 128 KB at hand itself, in a tenth of the time.
_states = BufferPool(pieces=16, largest=8 << 20, nbytes=64 << 20, smallest=128 << 10)


def aligned(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Return an uninitialised array that begins with a cache line.

    Elsewhere every other load of half a line or more is of two lines: a search took a fifth longer.
    """
    nbytes = prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(nbytes + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + nbytes].view(dtype).reshape(shape)


def pooled(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Return an uninitialised array, in a pooled buffer unless it is small."""
    return _states.array(shape, dtype)


def pooled_zeros(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Return an array of zeros, in a pooled buffer unless it is small."""
    array = pooled(shape, dtype)
    array[...] = 0
    return array
