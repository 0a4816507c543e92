"""Views of memory that the caller keeps alive.

Numba counts references to every array that it passes on, by atomic instructions: a call
with four arrays takes 40 ns longer. These views have no owner and are not counted.
Whoever makes one sees to it that the memory outlives it, and that it lies inside:
nothing is checked.

A named tuple of fifty arrays is some four hundred arguments of a function. `held` makes
one of them: compiling takes half the time, and training four fifths.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, models, register_model
from numba.np import arrayobj
from numpy.typing import NDArray

from dacrl_env.kernels.compiling import compiled

LINE = 16  # numbers of single precision in a cache line

_INT = ir.IntType(64)
# of a plain 0 the compiler makes a type of its own, and compiles anew what is called
FIRST, ONE = np.int64(0), np.int64(1)


class Held(types.Type):
    """Where a named tuple lies, of which nothing is assigned to meanwhile."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        super().__init__(f"Held({kind})")

    @property
    def key(self) -> Any:
        """What tells types apart: classes of one name have the same text."""
        return self.kind


@register_model(Held)
class _Pointer(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        pointer = manager.lookup(kind.kind).get_value_type().as_pointer()
        super().__init__(manager, kind, pointer)


@infer_getattr
class _Fields(AttributeTemplate):
    key = Held

    def generic_resolve(self, held: Any, name: str) -> Any:  # type: ignore[override]
        if name not in held.kind.fields:
            return None
        kind = held.kind.types[held.kind.fields.index(name)]
        return Held(kind) if isinstance(kind, types.BaseNamedTuple) else kind


@lower_getattr_generic(Held)
def _field(context: Any, builder: Any, held: Any, pointer: Any, name: str) -> Any:
    place = held.kind.fields.index(name)
    kind = held.kind.types[place]
    at = cgutils.gep_inbounds(builder, pointer, 0, place)
    if isinstance(kind, types.BaseNamedTuple):
        return at
    if not isinstance(kind, types.Array):
        return builder.load(at)
    array = context.make_array(kind)(context, builder)
    for place, name in enumerate(array._datamodel._fields):
        part = cgutils.gep_inbounds(builder, at, 0, place)
        counted = name in ("meminfo", "parent")
        nothing = cgutils.get_null_value(part.type.pointee)
        setattr(array, name, nothing if counted else builder.load(part))
    return array._getvalue()


@intrinsic  # type: ignore[untyped-decorator]
def held(typing_context: Any, value: Any) -> Any:
    """Where a named tuple of arrays and others lies until the caller returns.

    Functions take one pointer for it, in place of all that its arrays consist of.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = cgutils.alloca_once(builder, arguments[0].type)
        builder.store(arguments[0], place)
        return place

    return Held(value)(value), generate


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
def approach(goal, share, array):
    """Move an array (n,) a share of the way to another one, all of it exactly."""
    if share == 1.0:
        copy(goal, array)
        return
    part = np.float32(share)
    for k in range(len(array)):
        array[k] += part * (goal[k] - array[k])


@compiled
def row_of(p, rows):
    """Row p of a matrix, whole."""
    return vector(rows, p * rows.shape[1], rows.shape[1])


@compiled
def start_of(p, rows, n):
    """The first n numbers of row p of a matrix."""
    return vector(rows, p * rows.shape[1], n)


def _view(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    memory, at, *shape = arguments
    source = context.make_array(signature.args[0])(context, builder, memory)
    kind = signature.return_type
    result = context.make_array(kind)(context, builder)
    size = _INT(context.get_abi_sizeof(context.get_data_type(kind.dtype)))
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
