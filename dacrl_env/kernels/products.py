"""Products of small matrices in single precision.

`matmul` is what matters, the rest is what layers need beside it. It comes close to the
processor's peak at 64 × 64 because a *tile* keeps a block of the result in registers,
which a compiler does not find out by itself from plain loops (they reach a third of
it). The tile is therefore written in the operations of LLVM, which Numba compiles to.
What it computes is, in Python::

    for r in range(R):
        for j in range(LINE * V):
            c[i + r, at + j] = start[at + j] + sum(a[i + r, k] * w[k, at + j] for k ...)

Every element of a result is a chain of fused multiply-adds in the order of k. So its
bits depend neither on its place nor on the other rows, and not on how wide the vectors
of the processor are.

Widths (the last axis of ``w`` and ``c``, and what `dot` sums over) are multiples of
LINE; all else is arbitrary. Rows lie in memory without gaps between their elements;
``a`` may be a transposed view. Sizes are not checked.

`jumping_matmul` is for convolutions. Its ``a`` lies in segments: after each the address
moves on by a jump, so that windows of an image need not be copied into rows.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import binding as llvm
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from dacrl_env.kernels.compiling import compiled, external
from dacrl_env.kernels.views import LINE, address, matrix

_FLOAT, _INT, _INT32 = ir.FloatType(), ir.IntType(64), ir.IntType(32)
_VECTOR = ir.VectorType(_FLOAT, LINE)  # of AVX-512; LLVM divides it where it must
_ZERO = ir.Constant(_VECTOR, [0.0] * LINE)

# -- LLVM ------------------------------------------------------------------------------


def _pointer(context: Any, builder: Any, kind: Any, array: Any, *indices: Any) -> Any:
    """Address of an element, and bytes from one row to the next, of a Numba array."""
    fields = context.make_array(kind)(context, builder, array)
    strides = cgutils.unpack_tuple(builder, fields.strides, kind.ndim)
    at = builder.ptrtoint(fields.data, _INT)
    for index, stride in zip(indices, strides, strict=False):
        at = builder.add(at, builder.mul(index, stride))
    return at, strides


def _load(builder: Any, address: Any, kind: Any = _VECTOR) -> Any:
    value = builder.load(builder.inttoptr(address, kind.as_pointer()))
    value.align = 4
    return value


def _store(builder: Any, value: Any, address: Any) -> None:
    store = builder.store(value, builder.inttoptr(address, value.type.as_pointer()))
    store.align = 4


def _splat(builder: Any, scalar: Any) -> Any:
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, scalar, _INT32(0))
    zeros = ir.Constant(ir.VectorType(_INT32, LINE), [0] * LINE)
    return builder.shuffle_vector(first, undefined, zeros)


def _shuffle(builder: Any, x: Any, y: Any, lanes: Any) -> Any:
    return builder.shuffle_vector(
        x, y, ir.Constant(ir.VectorType(_INT32, LINE), list(lanes))
    )


def _fma(builder: Any, x: Any, y: Any, z: Any) -> Any:
    name = f"llvm.fma.v{LINE}f32"
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    return builder.call(
        cgutils.get_or_insert_function(builder.module, kind, name), (x, y, z)
    )


def _keep_as_it_is(branch: Any, module: Any) -> None:
    """Let a loop, given by its branch, stay one round long, and start on a cache line.

    Two rounds of a tile in one need more registers than there are, and a processor
    fetches what it has decoded line by line. Together that is a third of the time.
    """
    known = {
        "llvm.loop.unroll.disable": (),
        "llvm.loop.align": (ir.Constant(_INT32, 4 * LINE),),
    }
    parts = [
        module.add_metadata([ir.MetaDataString(module, name), *values])
        for name, values in known.items()
    ]
    itself = ir.MDValue(module, parts, name=str(len(module.metadata)))
    itself.operands = (itself, *parts)  # by which LLVM tells loops apart
    branch.set_metadata("llvm.loop", itself)


def _tile(R: int, V: int, jumps: bool = False) -> Any:
    """A tile of R rows, from row i on, and V vectors of columns.

    It takes addresses and bytes between rows and columns. With ``jumps`` each row has a
    start of its own, ``start_row`` bytes apart, and the address in ``a`` moves on by
    ``jump`` bytes after every ``segment`` of K.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def tile(
        typing_context: Any,
        i: Any,
        a_at: Any,
        a_row: Any,
        a_k: Any,
        w_at: Any,
        w_row: Any,
        c_at: Any,
        c_row: Any,
        start_at: Any,
        K: Any,
        start_row: Any,
        segment: Any,
        jump: Any,
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            i, a_at, a_row, a_k, w_at, w_row, c_at, c_row, start_at = arguments[:9]
            K, start_row, segment, jump = arguments[9:]
            a_at = builder.add(a_at, builder.mul(i, a_row))
            c_at = builder.add(c_at, builder.mul(i, c_row))
            start_at = builder.add(start_at, builder.mul(i, start_row))
            bytes_ = [_INT(4 * LINE * v) for v in range(V)]
            first = [[_load(builder, builder.add(start_at, b)) for b in bytes_]] * R
            for r in range(1, R if jumps else 1):
                row = builder.add(start_at, builder.mul(start_row, _INT(r)))
                first[r] = [_load(builder, builder.add(row, b)) for b in bytes_]
            before = builder.block
            loop = builder.append_basic_block("products")
            after = builder.append_basic_block("after")
            builder.branch(loop)
            builder.position_at_end(loop)
            k, a_now, w_now = (builder.phi(_INT) for _ in range(3))
            left = builder.phi(_INT) if jumps else None
            sums = [[builder.phi(_VECTOR) for _ in range(V)] for _ in range(R)]
            columns = [_load(builder, builder.add(w_now, b)) for b in bytes_]
            new = []
            for r in range(R):
                address = builder.add(a_now, builder.mul(a_row, _INT(r)))
                factor = _splat(builder, _load(builder, address, _FLOAT))
                pairs = zip(columns, sums[r], strict=True)
                new.append([_fma(builder, factor, x, total) for x, total in pairs])
            a_next, counters = builder.add(a_now, a_k), []
            if jumps:
                fewer = builder.sub(left, _INT(1))
                over = builder.icmp_signed("==", fewer, _INT(0))
                further = builder.add(a_next, jump)
                a_next = builder.select(over, further, a_next)
                counters = [(left, segment, builder.select(over, segment, fewer))]
            for phi, begin, onwards in (
                (k, _INT(0), builder.add(k, _INT(1))),
                (a_now, a_at, a_next),
                (w_now, w_at, builder.add(w_now, w_row)),
                *counters,
                *(
                    (sums[r][v], first[r][v], new[r][v])
                    for r in range(R)
                    for v in range(V)
                ),
            ):
                phi.add_incoming(begin, before)
                phi.add_incoming(onwards, loop)
            again = builder.icmp_signed("<", builder.add(k, _INT(1)), K)
            branch = builder.cbranch(again, loop, after)
            _keep_as_it_is(branch, builder.module)
            builder.position_at_end(after)
            for r in range(R):
                row = builder.add(c_at, builder.mul(c_row, _INT(r)))
                for v in range(V):
                    _store(builder, new[r][v], builder.add(row, bytes_[v]))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 13), generate

    return tile


def _all_rows(V: int, most: int, jumps: bool = False) -> Any:
    """A function for all rows and V vectors of columns.

    It has ``most`` rows at a time: sums enough that no addition waits for another, and
    no more than there are registers for.
    """
    many, four, two, one = (_tile(R, V, jumps) for R in (most, 4, 2, 1))

    @compiled
    def all_rows(a, a_row, a_k, w, w_row, c, c_row, start, M, K, s_row, segment, jump):
        i = 0
        # two rows at a time take as long as four: 8 are better two times 4 than 6 and 2
        while M - i >= most and (most != 6 or M - i != 8):
            many(i, a, a_row, a_k, w, w_row, c, c_row, start, K, s_row, segment, jump)
            i += most
        while M - i >= 4:
            four(i, a, a_row, a_k, w, w_row, c, c_row, start, K, s_row, segment, jump)
            i += 4
        if M - i >= 2:
            two(i, a, a_row, a_k, w, w_row, c, c_row, start, K, s_row, segment, jump)
            i += 2
        if M - i >= 1:
            one(i, a, a_row, a_k, w, w_row, c, c_row, start, K, s_row, segment, jump)

    return all_rows


def _has_avx512() -> bool:
    config: Any = numba.config
    features = config.CPU_FEATURES
    if features is not None:
        return "+avx512f" in features
    return llvm.get_host_cpu_features().get("avx512f", False)


# As many sums as fit the registers: 32 of LINE numbers with AVX-512. The choice does
# not change a bit of the result.
WIDE = 4 if _has_avx512() else 1
_wide = _all_rows(4, 4) if _has_avx512() else _all_rows(1, 6)
_narrow = _all_rows(1, 8) if _has_avx512() else _wide
# rows of an image are short
_jumping = _all_rows(1, 8 if _has_avx512() else 4, jumps=True)


def _sum_of_products(V: int) -> Any:
    """A function for the sum of ``x[i, k] * y[j, k]`` for k below n.

    It has LINE × V sums, which are then added in pairs.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def sum_of_products(
        typing_context: Any, x: Any, y: Any, i: Any, j: Any, n: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            x, y, i, j, n = arguments
            x_at, _ = _pointer(context, builder, signature.args[0], x, i)
            y_at, _ = _pointer(context, builder, signature.args[1], y, j)
            before = builder.block
            loop = builder.append_basic_block("products")
            after = builder.append_basic_block("after")
            builder.branch(loop)
            builder.position_at_end(loop)
            k = builder.phi(_INT)
            sums = [builder.phi(_VECTOR) for _ in range(V)]
            new = []
            for v, total in enumerate(sums):
                at = builder.mul(builder.add(k, _INT(v * LINE)), _INT(4))
                one = _load(builder, builder.add(x_at, at))
                other = _load(builder, builder.add(y_at, at))
                new.append(_fma(builder, one, other, total))
            following = builder.add(k, _INT(V * LINE))
            for phi, begin, onwards in (
                (k, _INT(0), following),
                *((total, _ZERO, x) for total, x in zip(sums, new, strict=True)),
            ):
                phi.add_incoming(begin, before)
                phi.add_incoming(onwards, loop)
            builder.cbranch(builder.icmp_signed("<", following, n), loop, after)
            builder.position_at_end(after)
            while len(new) > 1:
                new = [
                    builder.fadd(one, other)
                    for one, other in zip(new[::2], new[1::2], strict=True)
                ]
            total, half = new[0], LINE // 2
            while half:
                turned = [(lane + half) % LINE for lane in range(LINE)]
                total = builder.fadd(total, _shuffle(builder, total, total, turned))
                half //= 2
            return builder.extract_element(total, _INT32(0))

        return types.float32(x, y, types.int64, types.int64, types.int64), generate

    return sum_of_products


_short_sum, _long_sum = _sum_of_products(1), _sum_of_products(4)


@intrinsic  # type: ignore[untyped-decorator]
def _transpose_block(
    typing_context: Any, source: Any, into: Any, i: Any, j: Any
) -> Any:
    """``into[j : j + LINE, i : i + LINE] = source[i : i + LINE, j : j + LINE].T``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, into, i, j = arguments
        at, (row, _) = _pointer(context, builder, signature.args[0], source, i, j)
        to, (to_row, _) = _pointer(context, builder, signature.args[1], into, j, i)
        rows = [
            _load(builder, builder.add(at, builder.mul(row, _INT(r))))
            for r in range(LINE)
        ]
        step = LINE // 2
        while step:  # exchange squares of `step` numbers with those across the diagonal
            upper = [k if not k & step else LINE + k - step for k in range(LINE)]
            lower = [k + step if not k & step else LINE + k for k in range(LINE)]
            for r in range(LINE):
                if not r & step:
                    x, y = rows[r], rows[r + step]
                    rows[r] = _shuffle(builder, x, y, upper)
                    rows[r + step] = _shuffle(builder, x, y, lower)
            step //= 2
        for r in range(LINE):
            _store(builder, rows[r], builder.add(to, builder.mul(to_row, _INT(r))))
        return context.get_dummy_value()

    return types.void(source, into, types.int64, types.int64), generate


# -- functions -------------------------------------------------------------------------


# The product is compiled once and called by its name: whatever it were a part of would
# take a second longer to compile.
_NAME = "dacrl_env_matmul"
_SIGNATURE = types.void(*[types.int64] * 11)


@external(_NAME, _SIGNATURE)
def _matmul(a, a_row, a_k, w, w_row, c, c_row, start, M, K, N):
    wide, line = 4 * WIDE * LINE, 4 * LINE  # bytes
    rest = 4 * N // wide * wide
    for j in range(0, rest, wide):
        _wide(a, a_row, a_k, w + j, w_row, c + j, c_row, start + j, M, K, 0, K, 0)
    for j in range(rest, 4 * N, line):
        _narrow(a, a_row, a_k, w + j, w_row, c + j, c_row, start + j, M, K, 0, K, 0)


_call_matmul = types.ExternalFunction(_NAME, _SIGNATURE)
_JUMPING_NAME = "dacrl_env_jumping_matmul"
_JUMPING_SIGNATURE = types.void(*[types.int64] * 14)


@external(_JUMPING_NAME, _JUMPING_SIGNATURE)
def _jumping_matmul(
    a, a_row, a_k, segment, jump, w, w_row, c, c_row, start, s_row, M, K, N
):
    for j in range(0, 4 * N, 4 * LINE):
        _jumping(
            a, a_row, a_k, w + j, w_row, c + j, c_row, start + j, M, K, s_row, segment,
            jump,
        )  # fmt: skip


_call_jumping_matmul = types.ExternalFunction(_JUMPING_NAME, _JUMPING_SIGNATURE)


@compiled
def matmul(a, w, c, start):
    """``c = start + a @ w``: (M, N) from (N,), (M, K) and (K, N).

    N is a multiple of LINE.
    """
    M, K = a.shape
    _call_matmul(
        address(a), a.strides[0], a.strides[1], address(w), w.strides[0], address(c),
        c.strides[0], address(start), M, K, c.shape[1],
    )  # fmt: skip


@compiled
def jumping_matmul(a, at, a_row, a_k, segment, jump, w, c, start, s_row):
    """``c = start + a @ w``, where ``a`` (M, K) is not in rows.

    Element (i, k) of it lies ``at + i · a_row + k · a_k + k // segment · jump`` numbers
    from the first of an array.

    Args:
        a: the array.
        at: where it begins; this and the next four in numbers, not in bytes.
        a_row: from a row to the next.
        a_k: from a column to the next.
        segment: columns after which the address jumps.
        jump: by so much.
        w: (K, N), N a multiple of LINE.
        c: (M, N) written to.
        start: (N,), or (M, N), which may be ``c`` itself.
        s_row: numbers from one row of the start to the next; 0: it has one.
    """
    K, N = w.shape
    _call_jumping_matmul(
        address(a) + 4 * at, 4 * a_row, 4 * a_k, segment, 4 * jump, address(w),
        w.strides[0], address(c), c.strides[0], address(start), 4 * s_row, c.shape[0],
        K, N,
    )  # fmt: skip


_SMALL = 4096  # numbers, half of the first cache


@compiled
def turned_matmul(a, w, c, start, turned):
    """``c = start + a @ w.T``: (M, N) from (N,), (M, K) and (N, K).

    N and K are multiples of LINE. Columns of ``w.T`` are written to ``turned``
    (N · K,), many of them a few at a time: what is then used is still in the first
    cache.
    """
    (M, K), N = a.shape, c.shape[1]
    most = N if N * K <= _SMALL else LINE * WIDE
    for j in range(0, N, most):
        columns = min(most, N - j)
        block = matrix(turned, 0, K, columns)
        transpose(matrix(w, j * K, columns, K), block)
        _call_matmul(
            address(a), a.strides[0], a.strides[1], address(block), block.strides[0],
            address(c) + 4 * j, c.strides[0], address(start) + 4 * j, M, K, columns,
        )  # fmt: skip


@compiled
def dot(x, i, y, j):
    """Sum of the products of row i of ``x`` and row j of ``y``."""
    return _short_sum(x, y, i, j, x.shape[1])


@compiled
def norm(x):
    """Euclidean norm of a vector, whose length is a multiple of 4 × LINE."""
    row = matrix(x, 0, 1, len(x))
    return np.sqrt(_long_sum(row, row, 0, 0, len(x)))


@compiled
def narrow_matmul(x, y, c, bias):
    """``c = x @ y.T + bias`` for few rows of y: (M, A) from (M, N), (A, N), (A,)."""
    for i in range(len(x)):
        for j in range(len(y)):
            c[i, j] = _short_sum(x, y, i, j, x.shape[1]) + bias[j]


@compiled
def transpose(source, into):
    """``into[:N, :M] = source.T``; both sizes multiples of LINE."""
    for i in range(0, source.shape[0], LINE):
        for j in range(0, source.shape[1], LINE):
            _transpose_block(source, into, i, j)
