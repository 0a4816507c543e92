"""Calls of compiled functions by address, with tuples that lie in memory.

Whoever calls a function by its address is compiled without it, so that neither is
compiled anew for each of the other. Nothing is checked: a call gives exactly the types
that the function was compiled for. The address of a tuple is passed as a whole number,
which all machines of 64 bits pass as they do addresses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.errors import TypingError
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numpy.typing import NDArray

from dacrl_env.kernels.compiling import entry


def words_of(kind: Any) -> int:
    """Words of 8 bytes that a value of a type takes in memory."""
    context = cpu_target.target_context
    return -(-int(context.get_abi_sizeof(context.get_value_type(kind))) // 8)


def lying(value: Any, words: int) -> NDArray[np.int64]:
    """Memory (words,) that a tuple lies in, for functions that take its address.

    Arrays in it are not counted: the caller keeps them alive.

    Args:
        value: a named tuple of numbers, arrays and named tuples.
        words: that it takes, see `words_of`.

    Raises:
        TypingError: an array that is not contiguous, or is not to be written to; for
            functions are compiled for others.
    """
    place = np.zeros(words, np.int64)
    _put(value, place)
    return place


def _check(kind: Any) -> None:
    for each in getattr(kind, "types", ()):  # of a named tuple
        _check(each)
    if isinstance(kind, types.Array) and (kind.layout != "C" or not kind.mutable):
        raise TypingError(f"arrays lie in memory as they are made here, got {kind}")


@intrinsic  # type: ignore[untyped-decorator]
def _store(typing_context: Any, value: Any, place: Any) -> Any:
    _check(value)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        given, array = arguments
        fields = context.make_array(signature.args[1])(context, builder, array)
        builder.store(given, builder.bitcast(fields.data, given.type.as_pointer()))
        return context.get_dummy_value()

    return types.void(value, place), generate


@entry
def _put(value, place):
    """Write a tuple to memory, which is large enough."""
    _store(value, place)


def _call(gives: Any) -> Any:
    """What calls a function that gives a value of some type."""

    def call(typing_context: Any, address: Any, given: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            at, values = arguments
            each = [builder.extract_value(values, k) for k in range(len(given.types))]
            result = context.get_value_type(gives)
            if gives == types.void:
                result = ir.VoidType()
            kind = ir.FunctionType(result, [value.type for value in each])
            back = builder.call(builder.inttoptr(at, kind.as_pointer()), each)
            return context.get_dummy_value() if gives == types.void else back

        return gives(types.int64, given), generate

    return intrinsic(call)


# each takes an address, and a tuple of what the function is called with
call = _call(types.void)
call_for_number = _call(types.int64)
