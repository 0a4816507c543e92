"""Worlds that switch: against plain Python, and what they are like."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from stepping import STEPS, below, constants, drawn, keys, start

from dacrl_env.inner_envs import switching
from dacrl_env.inner_envs.env import ENVS
from dacrl_env.inner_envs.switching import Worlds, describe

ID = "SwitchingMDP-v0"
MOVES = {0: (0, -1), 1: (1, 0), 2: (0, 1), 3: (-1, 0)}  # up, right, down, left
EVERYWHERE = [(x, y) for y in range(5) for x in range(5)]


class World:
    """A world by its rules, on coordinates: walls as pairs of cells."""

    def __init__(self, number: int) -> None:
        words = drawn(switching._KEY, number, 51)
        self.goal = EVERYWHERE[below(words[50], 25)]
        self.worth = {
            cell: 0.1 * (2.0 * ((word >> 11) * 2.0**-53) - 1.0)
            for cell, word in zip(EVERYWHERE, words[25:50], strict=True)
        }
        self.walls: set[frozenset[tuple[int, int]]] = set()
        for (x, y), word in zip(EVERYWHERE, words, strict=False):
            if x == 0 or y == 0 or (word >> 1) % 4 == 0:
                continue
            closed = (x, y - 1) if word % 2 == 1 else (x - 1, y)
            self.walls.add(frozenset([(x, y), closed]))

    def moved(self, place: tuple[int, int], action: int) -> tuple[int, int]:
        x, y = np.add(place, MOVES[action]).clip(0, 4).tolist()
        return place if frozenset([place, (x, y)]) in self.walls else (x, y)


def one_hot(place: tuple[int, int]) -> list[float]:
    return [float(cell == place) for cell in EVERYWHERE]


@cache
def some(n: int) -> Worlds:
    return describe(np.arange(n))


# -- rules -----------------------------------------------------------------------------


def test_every_step_follows_the_rules() -> None:
    W, FIRST, PERIOD, OFFSET, STAGE = 3, 70, 130, 45, 2
    options = {"period": PERIOD, "offset": OFFSET, "worlds": W, "first": FIRST}
    env, state = start(ID, P=1, N=2, stage=1 + STAGE, **options)
    worlds = [World(FIRST + w) for w in range(W)]
    rng, goals, visited = np.random.default_rng(0), 0, set()

    def elsewhere(word: int, goal: tuple[int, int]) -> tuple[int, int]:
        return [cell for cell in EVERYWHERE if cell != goal][below(word, 24)]

    def placed(n: int, episode: int, k: int) -> tuple[int, int]:
        word = drawn(state.keys[0, n], episode, 1)[0]
        return elsewhere(word, worlds[number(k)].goal)

    def number(k: int) -> int:
        switches = 0 if k < OFFSET else 1 + (k - OFFSET) // PERIOD
        return (STAGE + switches) % W

    places = [placed(n, 0, 0) for n in range(2)]
    for k in range(3_000):
        assert state.observations[0].tolist() == [one_hot(p) for p in places]
        world = worlds[number(k)]
        visited.add(number(k))
        actions = rng.integers(0, 4, 2)
        step = env.step(state, actions[None])
        for n, action in enumerate(actions.tolist()):
            places[n] = world.moved(places[n], action)
            reward = world.worth[places[n]]
            if places[n] == world.goal:
                reward, goals = 1.0, goals + 1
                word = drawn(state.keys[0, n], STEPS + k, 1)[0]
                places[n] = elsewhere(word, world.goal)
            assert step.rewards[0, n] == reward
        assert step.observations[0].tolist() == [one_hot(p) for p in places]
        assert not step.terminated.any()
        assert step.done.all() == ((k + 1) % 100 == 0)
        if step.done.all():  # a world that switches now is the next episode's
            places = [placed(n, (k + 1) // 100, k + 1) for n in range(2)]
    assert goals > 40
    assert visited == {0, 1, 2}


def test_descriptions_are_those_of_the_rules() -> None:
    found = some(50)
    for number in range(50):
        world = World(number)
        assert EVERYWHERE[found.goals[number]] == world.goal
        for i, cell in enumerate(EVERYWHERE):
            worth = 1.0 if cell == world.goal else world.worth[cell]
            assert found.worths[number, i] == worth
            for action in range(4):
                there = EVERYWHERE[found.following[number, i, action]]
                assert there == world.moved(cell, action)


def test_evaluations_see_the_world_of_their_time_only() -> None:
    env, lifetimes = ENVS[ID](), np.array([0, 44, 45, 174, 175, 45 + 3 * 130])
    n = len(lifetimes)
    physics = constants(env, n, period=130, offset=45, worlds=3, first=70)
    state = env.init(keys(n, 1), physics, lifetimes)
    stages = np.array([1, 1, 2, 2, 3, 2])
    fixed = env.init(keys(n, 1), constants(env, n, first=69 + stages))
    np.testing.assert_array_equal(state.physics[:, switching.STAGE], stages)
    np.testing.assert_array_equal(state.variables, fixed.variables)
    rng = np.random.default_rng(0)
    for _ in range(500):
        actions = rng.integers(0, 4, (n, 1))
        ours, theirs = env.step(state, actions), env.step(fixed, actions)
        np.testing.assert_array_equal(ours.rewards, theirs.rewards)
        np.testing.assert_array_equal(ours.observations, theirs.observations)


# -- what worlds are like --------------------------------------------------------------


@pytest.mark.parametrize(("few_id", "worlds"), [("FourMDPs-v0", 4), ("TwoMDPs-v0", 2)])
def test_few_worlds_are_the_same_ones_that_come_back(few_id: str, worlds: int) -> None:
    many, few = ENVS[ID](), ENVS[few_id]()
    lifetimes = np.arange(0, 1_000, 50)
    stages = []
    for env in (many, few):
        n = len(lifetimes)
        physics = constants(env, n, period=100, offset=100)
        state = env.init(keys(n, 1), physics, lifetimes)
        stages.append(state.physics[:, switching.STAGE].astype(int))
    assert stages[0].tolist() == [1 + t // 100 for t in lifetimes]
    assert stages[1].tolist() == [1 + t // 100 % worlds for t in lifetimes]


def test_every_cell_is_reached_from_every_other() -> None:
    following = some(1_000).following
    n = len(following)
    reached = np.broadcast_to(np.eye(25, dtype=bool), (n, 25, 25)).copy()
    rows = np.arange(n)[:, None]
    for _ in range(25):
        for action in range(4):
            # what is reached from where a move leads
            reached |= reached[rows, following[:, :, action]]
    assert reached.all()


def test_there_are_as_many_walls_as_said_and_they_hold_both_ways() -> None:
    following = some(1_000).following
    there = np.arange(25)
    walls = np.zeros(len(following))
    for (x, y), (action, back) in itertools.product(EVERYWHERE, ((1, 3), (2, 0))):
        to = (x + MOVES[action][0], y + MOVES[action][1])
        if to not in EVERYWHERE:
            continue
        here, beside = there[5 * y + x], there[5 * to[1] + to[0]]
        closed = following[:, here, action] == here
        np.testing.assert_array_equal(closed, following[:, beside, back] == beside)
        walls += closed
    assert walls.mean() == pytest.approx(12, abs=0.2)


def values(worlds: Worlds, policies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean rewards of a step ``(n,)`` of policies ``(n, 25, 4)`` for ever."""
    n = len(worlds.goals)
    rows, cells = np.arange(n)[:, None], np.arange(25)
    moves = np.zeros((n, 25, 25))
    for action in range(4):
        moves[rows, cells, worlds.following[:, :, action]] += policies[:, :, action]
    rewards = np.einsum("nij,nj->ni", moves, worlds.worths)
    at_goal = np.zeros((n, 25))
    at_goal[np.arange(n), worlds.goals] = 1
    away = (1 - at_goal) / 24
    kept = moves * (1 - at_goal)[:, None]
    moves = kept + (moves * at_goal[:, None]).sum(-1)[..., None] * away[:, None]
    visits = away  # of a hundred steps, as an episode's
    total = np.zeros(n)
    for _ in range(100):
        total += (visits * rewards).sum(1)
        visits = np.einsum("ni,nij->nj", visits, moves)
    return total / 100


def best(worlds: Worlds) -> NDArray[np.float64]:
    """Policies ``(n, 25, 4)`` that are best for a discount of 0.99."""
    n = len(worlds.goals)
    rows = np.arange(n)[:, None, None]
    value = np.zeros((n, 25))
    goal = np.arange(25) == worlds.goals[:, None]
    for _ in range(2_000):
        outside = np.where(goal, 0, value).sum(1, keepdims=True) / 24
        arrived = worlds.worths + 0.99 * np.where(goal, outside, value)
        q = arrived[rows, worlds.following]
        value = q.max(-1)
    policies = np.zeros((n, 25, 4))
    np.put_along_axis(policies, q.argmax(-1)[..., None], 1, -1)
    return policies


def test_worlds_differ_so_much_that_an_old_policy_is_poor_in_a_new_one() -> None:
    worlds = some(200)
    policies = best(worlds)
    good = values(worlds, policies)
    random = values(worlds, np.full_like(policies, 0.25))
    old = values(worlds, np.roll(policies, 1, axis=0))
    scores = (old - random) / (good - random)
    assert good.min() > 0.1
    assert 0.0 < random.mean() < 0.05
    assert (scores < 0.1).mean() > 0.8
    assert np.median(scores) < 0
