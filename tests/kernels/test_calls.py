"""Compiled functions that are called by address, with tuples that lie in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import typeof, types
from numba.core.errors import TypingError
from numpy.typing import NDArray

from dacrl_env.algorithms.interval import Interval, Run
from dacrl_env.kernels.calls import call, call_for_number, lying, words_of
from dacrl_env.kernels.compiling import address_of, entry
from dacrl_env.kernels.views import Held, address

# tuples of the package: the code of a function is kept with the types it was compiled
# for, which other processes have to know


def _outer(numbers: NDArray[np.float64], flag: bool) -> Run:
    return Run(Interval(numbers, flag, 3.0, 40), 3.0, 40, 0)


def _other(numbers: NDArray[np.float64]) -> Interval:
    return Interval(0.5, numbers, 1, 2)


def _scale(i, key, row, given):
    if given.fixed.counts:
        given.fixed.sums[i] = given.values * row[i] + np.float64(key)


def _move(i, key, row, given):
    given.counts[i] = row[i] + given.sums


def _count(i, given):
    return i + given.state


@entry
def _use(function, key, row, memory):
    for i in range(len(row)):
        call(function, (np.int64(i), key, row, address(memory)))


@entry
def _ask(function, i, memory):
    return call_for_number(function, (i, address(memory)))


def _known(value: Any) -> tuple[Any, NDArray[np.int64]]:
    kind = typeof(value)
    return Held(kind), lying(value, words_of(kind))


ROW = types.Array(types.float64, 1, "C")


@pytest.mark.parametrize("flag", [False, True])
def test_one_caller_calls_functions_of_different_tuples(flag: bool) -> None:
    numbers, moved, row = np.zeros(5), np.zeros(5), np.arange(5.0)
    outer = _outer(numbers, flag)
    before = len(_use.signatures)
    for value, function in ((outer, _scale), (_other(moved), _move)):
        kind, memory = _known(value)
        signature = types.void(types.int64, types.uint64, ROW, kind)
        _use(address_of(function, signature), np.uint64(7), row, memory)
    assert numbers.tolist() == ([7.0, 10.0, 13.0, 16.0, 19.0] if flag else [0.0] * 5)
    assert moved.tolist() == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert len(_use.signatures) - before <= 1  # compiled for neither


def test_a_number_comes_back() -> None:
    kind, memory = _known(_outer(np.zeros(1), True))
    function = address_of(_count, types.int64(types.int64, kind))
    assert _ask(function, 2, memory) == 42
    assert _ask(function, -(2**40), memory) == 40 - 2**40


def test_arrays_of_another_kind_are_refused() -> None:
    words = words_of(typeof(_other(np.zeros(3))))
    fixed = np.zeros(3)
    fixed.flags.writeable = False
    for array in (np.zeros(6)[::2], fixed):
        with pytest.raises(TypingError, match="as they are made here"):
            lying(_other(array), words)


def test_whole_words_are_there_for_every_part() -> None:
    array, value = words_of(typeof(np.zeros(3))), _outer(np.zeros(3), True)
    assert words_of(typeof(value.fixed)) == array + 3  # a truth takes a word, too
    assert words_of(typeof(value)) == array + 6
