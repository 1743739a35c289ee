"""How compiled code sees frames, and where states live: addresses, tiles, recycled memory."""

from math import prod

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import DTypeLike

from ..memory.pool import BufferPool
from .jit import by_type, by_type_inline, inlined

Piece = list[np.ndarray]

# Pixels of a tile of a fold: 16 KB of uint16 frames and 64 KB of sums. Extremes, which need less
# beside the frames, run at 38 GB/s on two threads with longer tiles, and at 31 with these.
TILE, LONG_TILE = 8192, 32768

# Bytes of a line of a cache, on most processors.
LINE = 64

# Bytes of each frame that are worked on before as many, so far behind them, are asked for. Where
# there is more to do than to compare or to add, the processor does not read far enough ahead by
# itself: sums of squares took a quarter longer, tests for values that do not count a third.
STRETCH, AHEAD = 256, 1536

# Frames that a 32-bit accumulator holds the sum of, for pixels of at most 16 bits.
FRAMES_IN_32_BITS = 1 << 16


@intrinsic
def pointer(typingctx, address, like):
    """Return an address as a pointer to items of the dtype of ``like``."""

    def codegen(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(like.dtype)(types.uint64, like), codegen


@intrinsic
def copy_bytes(typingctx, target, source, count):
    """Copy bytes from one address to another as C's ``memcpy`` does.

    That writes whole lines of cache without reading them first: 60 images of 2 MB take 1.4 ms of
    two threads, by stores of compiled code 5.
    """

    def codegen(context, builder, signature, arguments):
        to, of = (builder.inttoptr(a, cgutils.voidptr_t) for a in arguments[:2])
        cgutils.raw_memcpy(builder, to, of, arguments[2], 1)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64, types.int64), codegen


@intrinsic
def prefetch(typingctx, address):
    """Ask for a line of cache that will be read, without waiting for it."""

    def codegen(context, builder, signature, arguments):
        line, integer = builder.inttoptr(arguments[0], cgutils.voidptr_t), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, integer, integer, integer])
        ask = builder.module.declare_intrinsic("llvm.prefetch", (cgutils.voidptr_t,), kind)
        # To be read, in the first level of cache, data.
        builder.call(ask, [line, integer(0), integer(3), integer(1)])
        return context.get_dummy_value()

    return types.void(types.uint64), codegen


@inlined
def prefetch_frames(addresses, f, frames, like, first):
    """Ask for what a few frames from number ``f`` on have a little behind pixel ``first``."""
    for byte in range(AHEAD, AHEAD + STRETCH, LINE):
        for i in range(f, f + frames):
            prefetch(addresses[i] + np.uint64(first * like.itemsize + byte))


@inlined
def view(address, like, first, count):
    """Return ``count`` pixels of a frame, from ``first`` on, as a contiguous array."""
    return carray(pointer(address + np.uint64(first * like.itemsize), like), count)


@by_type_inline
def part_of(values, first, count):
    """Return some pixels of a contiguous array that outlives their use; None, if there is none.

    They are not looked for beyond its end, and nobody counts references to them, which would take
    a lock each.
    """
    if not isinstance(values, types.Array):
        return lambda values, first, count: None
    return lambda values, first, count: view(np.uint64(values.ctypes.data), values, first, count)


@by_type
def at(value, pixel):
    """Return a pixel's own number, or the one that all share."""
    if isinstance(value, types.Array):
        return lambda value, pixel: value[pixel]
    return lambda value, pixel: value


def addresses(piece: Piece) -> np.ndarray:
    """Return the address of every frame; the arrays must outlive its use."""
    return np.concatenate([_addresses(block) for block in piece])


def _addresses(block: np.ndarray) -> np.ndarray:
    """Return the address of every frame of a block, which may run backwards or repeat one."""
    first, step = block.__array_interface__["data"][0], block.strides[0]
    return np.arange(len(block), dtype=np.uint64) * np.uint64(step % (1 << 64)) + np.uint64(first)


def plain(piece: Piece) -> Piece:
    """Return a piece of a dtype that numba knows: bool as bytes, float16 widened to float32."""
    dtype = piece[0].dtype
    if dtype == np.bool_:
        return [block.view(np.uint8) for block in piece]
    if dtype == np.float16:
        return [block.astype(np.float32, order="C") for block in piece]
    return piece


# Bytes below which the allocator has memory at hand itself, in a tenth of the time.
SMALL = 128 << 10

# What the last few states and tiles left. Without it, 60 sums of 8 MB took 148 ms instead of 51.
# Two bands of four statistics need 12 pieces: with fewer to keep, their 31 ms were 35.
_states = BufferPool(pieces=16, largest=8 << 20, nbytes=64 << 20)


def aligned(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Return an uninitialised array that begins with a line of cache.

    Elsewhere every other load of half a line or more is of two lines: a search took a fifth longer.
    """
    nbytes = prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(nbytes + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + nbytes].view(dtype).reshape(shape)


def pooled(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Return an uninitialised array, in recycled memory unless it is small."""
    if prod(shape) * np.dtype(dtype).itemsize < SMALL:
        return np.empty(shape, dtype)
    return _states.array(shape, dtype)


def pooled_zeros(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Return an array of zeros in recycled memory."""
    array = pooled(shape, dtype)
    array[...] = 0
    return array
