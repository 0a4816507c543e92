"""Views of memory that the caller keeps alive.

Numba counts references to every array that it passes on, by atomic instructions: a call
with four arrays takes 40 ns longer. These views have no owner and are not counted.
Whoever makes one sees to it that the memory outlives it, and that it lies inside:
nothing is checked.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np import arrayobj
from numpy.typing import NDArray

from dacrl_env.kernels.compiling import compiled

LINE = 16  # numbers of single precision in a cache line

_INT = ir.IntType(64)
# of a plain 0 the compiler makes a type of its own, and compiles anew what is called
FIRST, ONE = np.int64(0), np.int64(1)


@intrinsic  # type: ignore[untyped-decorator]
def borrowed(typing_context: Any, value: Any) -> Any:
    """The same array, or named tuple of arrays and others, for a while."""

    def lend(context: Any, builder: Any, kind: Any, value: Any) -> Any:
        if isinstance(kind, types.Array):
            fields = context.make_array(kind)(context, builder, value)
            for name in ("meminfo", "parent"):
                nothing = cgutils.get_null_value(getattr(fields, name).type)
                setattr(fields, name, nothing)
            return fields._getvalue()
        if isinstance(kind, types.BaseTuple):
            kinds: Any = kind
            parts = cgutils.unpack_tuple(builder, value)
            items = zip(kinds.types, parts, strict=True)
            lent = [lend(context, builder, part, item) for part, item in items]
            return context.make_tuple(builder, kind, lent)
        return value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return lend(context, builder, value, arguments[0])

    return value(value), generate


@intrinsic  # type: ignore[untyped-decorator]
def address(typing_context: Any, array: Any) -> Any:
    """Where the first element of an array lies."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        fields = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.ptrtoint(fields.data, _INT)

    return types.int64(array), generate


@intrinsic  # type: ignore[untyped-decorator]
def vector(typing_context: Any, memory: Any, at: Any, n: Any) -> Any:
    """View of n elements of an array from its element number ``at`` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _view(context, builder, signature, arguments)

    kind = types.Array(memory.dtype, 1, "C")
    return kind(memory, types.int64, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def matrix(typing_context: Any, memory: Any, at: Any, rows: Any, columns: Any) -> Any:
    """View ``(rows, columns)`` of an array from its element number ``at`` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _view(context, builder, signature, arguments)

    kind = types.Array(memory.dtype, 2, "C")
    return kind(memory, types.int64, types.int64, types.int64), generate


@compiled
def copy(source, into):
    """Copy all elements (n,) to another array (n,).

    The compiler takes a second for ``into[:] = source``, which tells of shapes that do
    not fit.
    """
    for i in range(len(into)):
        into[i] = source[i]


@compiled
def row_of(p, rows):
    """Row p of a matrix, whole."""
    return vector(rows, p * rows.shape[1], rows.shape[1])


def _view(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    memory, at, *shape = arguments
    source = context.make_array(signature.args[0])(context, builder, memory)
    kind = signature.return_type
    result = context.make_array(kind)(context, builder)
    size = _INT(kind.dtype.bitwidth // 8)
    strides = [size] if len(shape) == 1 else [builder.mul(size, shape[1]), size]
    arrayobj.populate_array(
        result,
        data=builder.gep(source.data, [at]),
        shape=shape,
        strides=strides,
        itemsize=size,
        meminfo=None,
    )
    return result._getvalue()


def aligned(*shape: int) -> NDArray[np.float32]:
    """Zeros in single precision that start on a cache line."""
    size = int(np.prod(shape))
    memory = np.zeros(size + LINE, np.float32)
    first = -memory.ctypes.data % 64 // 4
    return memory[first : first + size].reshape(shape)
