"""Named tuples that compiled functions take as one pointer."""

from __future__ import annotations

from collections import namedtuple
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dacrl_env.kernels.compiling import compiled, entry
from dacrl_env.kernels.views import held


class Inner(NamedTuple):
    numbers: NDArray[np.float64]
    table: NDArray[np.float32]
    doubled: bool


class Outer(NamedTuple):
    offset: float
    inner: Inner
    counts: NDArray[np.int64]


@compiled
def _add(i, inner, offset):
    change = inner.table[i, 1] + offset
    inner.numbers[i] += 2.0 * change if inner.doubled else change


@entry
def _add_all(outer):
    outer = held(outer)
    for i in range(len(outer.inner.numbers)):
        _add(i, outer.inner, outer.offset)
        outer.counts[i] += outer.inner.table.shape[0]


def test_all_that_a_tuple_holds_is_there():
    for doubled in (False, True):
        table = np.arange(6, dtype=np.float32).reshape(3, 2)
        outer = Outer(0.5, Inner(np.zeros(3), table, doubled), np.zeros(3, np.int64))
        _add_all(outer)
        expected = (1 + doubled) * (table[:, 1] + 0.5)
        np.testing.assert_array_equal(outer.inner.numbers, expected)
        np.testing.assert_array_equal(outer.counts, 3)


def test_a_column_of_a_table_is_read_as_it_lies():
    numbers = np.zeros((3, 2))[:, 0]  # with strides of its own
    table = np.ones((3, 4), np.float32)[:, ::2]
    outer = Outer(0.0, Inner(numbers, table, False), np.zeros(3, np.int64))
    _add_all(outer)
    np.testing.assert_array_equal(numbers, 1.0)


@entry
def _total(one):
    return held(one).total[0]


def test_classes_of_one_name_are_two_types():
    """Numba writes both alike where all fields are of one type."""
    array = np.array([1.0])
    for fields, place in (("total rest", 0), ("rest total", 1)):
        made = namedtuple("Values", fields)
        given = [np.array([7.0]), np.array([7.0])]
        given[place] = array
        assert _total(made(*given)) == 1.0
