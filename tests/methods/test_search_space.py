"""Spaces that are searched."""

from __future__ import annotations

import numpy as np
import pytest
from searches import (
    CARTPOLE,
    DQN_NAMES,
    QUADRATIC,
    controlled,
)

from dacrl_env import Number
from dacrl_env.methods.search_space import EVENT_OF, FAMILIES, SearchSpace
from dacrl_env.policies.open_loop import OpenLoop
from dacrl_env.policies.static import Static

# -- search spaces --------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_encode_inverts_decode(family):
    event = [EVENT_OF[family]] if family in EVENT_OF else []
    space = SearchSpace(controlled(CARTPOLE, *DQN_NAMES, *event), family=family)
    candidates = space.sample(np.random.default_rng(0), 200)
    parameters = space.decode(candidates)
    again = space.encode(parameters)
    assert space.decode(again) == parameters
    smooth = [isinstance(d, Number) and not d.integer for d in space.dimensions]
    np.testing.assert_allclose(again[:, smooth], candidates[:, smooth], atol=1e-9)
    assert all(set(p) == set(space.names) for p in parameters)


def test_equal_distances_are_equal_factors():
    space = SearchSpace(controlled(CARTPOLE), {"learning_rate": (1e-5, 1e-1)})
    values = [p["learning_rate"] for p in space.decode([[0], [0.25], [0.5], [1]])]
    assert values == [1e-5, 1e-4, 1e-3, 1e-1]


def test_integers_are_rounded_within_their_bounds():
    space = SearchSpace(controlled(CARTPOLE), {"batch_size": (5, 7)})
    values = [p["batch_size"] for p in space.decode(np.linspace(0, 1, 50)[:, None])]
    assert set(values) == {5.0, 6.0, 7.0}
    assert (values[0], values[-1]) == (5.0, 7.0)


def test_shapes_have_equal_shares():
    space = SearchSpace(controlled(QUADRATIC), family="schedule")
    at = space.names.index("learning_rate/shape")
    candidates = np.full((301, 4), 0.5)
    candidates[:, at] = np.arange(301) / 300
    shapes = [p["learning_rate/shape"] for p in space.decode(candidates)]
    assert [shapes.count(shape) for shape in (0, 1, 2)] == [100, 100, 101]


@pytest.mark.parametrize(
    ("shape", "fraction", "positions"),
    [
        (0, 0.5, [0, 1 / 2, 1, 1]),
        (1, 1.0, [0, (1 - np.cos(np.pi / 4)) / 2, 1 / 2, (1 + np.cos(np.pi / 4)) / 2]),
        (2, 1.0, [0, 1 / 3, 2 / 3, 1]),
    ],
)
def test_the_table_of_a_schedule_by_hand(shape, fraction, positions):
    space = SearchSpace(
        controlled(CARTPOLE), {"learning_rate": (1e-6, 1e-1)}, "schedule"
    )
    candidate = space.encode(
        [
            {
                "learning_rate/start": 1e-2,
                "learning_rate/end": 1e-4,
                "learning_rate/shape": shape,
                "learning_rate/fraction": fraction,
            }
        ]
    )
    table = space.values(candidate, 4)
    assert table.shape == (4, 1, 3)
    rates = 10 ** (-2 - 2 * np.array(positions))  # along the log scale
    np.testing.assert_allclose(table[:, 0, 0], rates, rtol=1e-10)
    np.testing.assert_array_equal(table[:, 0, 1:], [[0.1, 64]] * 4)  # the defaults
    policy = space.policy(candidate[0], 4)
    assert isinstance(policy, OpenLoop)
    assert policy.values == {"learning_rate": table[:, 0, 0].tolist()}


def test_a_static_candidate_is_a_static_policy():
    space = SearchSpace(controlled(CARTPOLE), {"epsilon": (0, 0.5)})
    policy = space.policy([0.5], 4)
    assert isinstance(policy, Static)
    assert policy.config == {"epsilon": 0.25}
    np.testing.assert_array_equal(
        space.values([[0.5]], 2), [[[1e-3, 0.25, 64]], [[1e-3, 0.25, 64]]]
    )
