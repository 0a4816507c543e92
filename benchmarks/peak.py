"""What one core can do at all: fused multiply-adds on numbers that are in registers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from dacrl_env.kernels.compiling import entry
from dacrl_env.kernels.products import _VECTOR, _ZERO, WIDE, _fma, _splat
from dacrl_env.kernels.views import LINE

PEAK = "fused multiply-adds of one core"
# sums enough that none waits for itself, and no more than there are registers for
CHAINS = 24 if WIDE > 1 else 6
_INT = ir.IntType(64)
_TURNS = 1_000_000


@intrinsic
def _chains(typing_context: Any, turns: Any, factor: Any, addend: Any) -> Any:
    """``x = x * factor + addend``, ``turns`` times, for many x; the first of each."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        turns, factor, addend = arguments
        factor, addend = _splat(builder, factor), _splat(builder, addend)
        before = builder.block
        loop = builder.append_basic_block("turns")
        after = builder.append_basic_block("after")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(_INT)
        sums = [builder.phi(_VECTOR) for _ in range(CHAINS)]
        new = [_fma(builder, x, factor, addend) for x in sums]
        following = builder.add(k, _INT(1))
        k.add_incoming(_INT(0), before)
        k.add_incoming(following, loop)
        for number, (x, y) in enumerate(zip(sums, new, strict=True)):
            # chains that began alike would be one to the compiler
            x.add_incoming(ir.Constant(_VECTOR, [float(number)] * LINE), before)
            x.add_incoming(y, loop)
        builder.cbranch(builder.icmp_signed("<", following, turns), loop, after)
        builder.position_at_end(after)
        total = _ZERO
        for y in new:
            total = builder.fadd(total, y)
        return builder.extract_element(total, ir.IntType(32)(0))

    return types.float32(types.int64, types.float32, types.float32), generate


@entry
def chains(turns, factor, addend):  # type: ignore[no-untyped-def]
    """Sum of the numbers 0, 1, … after so many multiply-adds of each."""
    return _chains(turns, factor, addend)  # type: ignore[call-arg]


def operations(turns: int) -> int:
    """Floating-point operations of so many turns, two a multiply-add."""
    return 2 * turns * CHAINS * LINE


def program() -> Callable[[], int]:
    """Does some multiply-adds and returns how many floating-point operations."""

    def run() -> int:
        chains(_TURNS, np.float32(0.5), np.float32(1.0))
        return operations(_TURNS)

    return run


def of_step(learner: Any, values: Mapping[str, Any]) -> float | None:
    """Floating-point operations that an environment step of a member stands for.

    They are those of `flops`: matrix products alone, of actions and of updates.

    Args:
        learner: of this package; None for one that says nothing of its products.
        values: of its hyperparameters as it takes them, by name; arrays are averaged.
    """
    if not hasattr(learner, "flops"):
        return None
    P = max(np.size(x) for x in values.values())
    codes = {name: np.broadcast_to(x, P) for name, x in values.items()}
    act, samples_cost = learner.flops(codes)
    sample = float(np.mean(samples_cost))
    if "n_epochs" in values:
        samples = np.mean(values["n_epochs"])
    else:
        freq = np.asarray(values["train_freq"])
        samples = np.mean(values["batch_size"] * values["gradient_steps"] / freq)
    return float(act + sample * samples)
