"""Two Colours against its rules in plain Python, and when its colours swap."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from stepping import STEPS, below, constants, drawn, keys, moved, start

from dacrl_env.inner_envs import dynamics, two_colours
from dacrl_env.inner_envs.env import ENVS
from dacrl_env.inner_envs.shift import NEVER
from dacrl_env.kernels.compiling import entry

ID = "TwoColours-v0"
MOVES = {0: (0, -1), 1: (1, 0), 2: (0, 1), 3: (-1, 0)}  # up, right, down, left
EVERYWHERE = [(x, y) for y in range(5) for x in range(5)]


class World:
    """The rules, on coordinates, with the same random numbers."""

    def __init__(self, key: np.uint64, period: int, offset: int, good: int) -> None:
        self.key, self.period, self.offset, self.good = key, period, offset, good
        self.lifetime = 0
        self.begin(0)

    def begin(self, episode: int) -> None:
        self.steps, free = 0, [*EVERYWHERE]
        words = drawn(self.key, episode, 3)
        self.agent, *self.objects = [free.pop(below(w, len(free))) for w in words]

    def step(self, action: int) -> tuple[float, bool]:
        """Reward, and whether the episode is cut."""
        swaps = sum(
            time <= self.lifetime
            for time in range(self.offset, self.lifetime + 1, self.period)
        )
        word = drawn(self.key, STEPS + self.lifetime, 1)[0]
        self.lifetime, self.steps = self.lifetime + 1, self.steps + 1
        x, y = np.add(self.agent, MOVES[action]).clip(0, 4).tolist()
        self.agent, reward = (x, y), -0.04
        for i, place in enumerate(self.objects):
            if place == self.agent:
                good = (self.good - 1 + swaps) % 2
                reward = 1.0 if i == good else -1.0
                taken = (self.agent, self.objects[1 - i])
                free = [p for p in EVERYWHERE if p not in taken]
                self.objects[i] = free[below(word, len(free))]
                break
        return reward, self.steps == 100

    def seen(self) -> list[float]:
        rows = [np.eye(5)[c] for place in (self.agent, *self.objects) for c in place]
        return np.concatenate(rows).tolist()


def towards(world: World, rng: np.random.Generator) -> int:
    """A move that tends to an object, so that many are taken."""
    x, y = np.subtract(world.objects[int(rng.integers(2))], world.agent)
    if rng.random() < 0.2 or x == y == 0:
        return int(rng.integers(4))
    if abs(x) >= abs(y):
        return 1 if x > 0 else 3
    return 2 if y > 0 else 0


def test_every_step_follows_the_rules() -> None:
    period, offset, good = np.array([13, 200, 450]), np.array([40, 0, 333]), [1, 2, 1]
    physics = {"period": period, "offset": offset, "good": np.array(good)}
    env, state = start(ID, P=3, N=1, **physics)
    worlds = [
        World(state.keys[p, 0], int(period[p]), int(offset[p]), good[p])
        for p in range(3)
    ]
    rng, rewards = np.random.default_rng(0), []
    for _ in range(1_500):
        assert state.observations[:, 0].tolist() == [w.seen() for w in worlds]
        actions = [towards(w, rng) for w in worlds]
        told = [w.step(a) for w, a in zip(worlds, actions, strict=True)]
        step = env.step(state, np.array(actions)[:, None])
        assert step.observations[:, 0].tolist() == [w.seen() for w in worlds]
        assert list(zip(step.rewards[:, 0], step.done[:, 0], strict=True)) == told
        assert not step.terminated.any()
        rewards.append(step.rewards[:, 0])
        for p in np.flatnonzero(step.done):
            worlds[p].begin(int(state.episodes[p, 0]))
    for one in np.stack(rewards, 1):
        assert {*one} == {-0.04, 1.0, -1.0}
        assert min((one == 1).sum(), (one == -1).sum()) > 50
    np.testing.assert_array_equal(state.physics, constants(env, 3, **physics))


def test_cells_at_the_start_and_after_taking_are_all_as_likely() -> None:
    env, n = ENVS[ID](), 4_000
    state = env.init(keys(n, 1), constants(env, n))
    places = state.variables[:, 0].astype(int)
    assert (np.diff(np.sort(places, 1)) > 0).all()
    for column in places.T:
        counts = np.bincount(column, minlength=25)
        assert ((counts - n / 25) ** 2).sum() / (n / 25) < 51  # 24 degrees, 0.001
    beside = np.tile([0.0, 1.0, 24.0], (n, 1))  # the agent takes the first object
    physics = np.tile([1e9, 1e9, 1.0], (n, 1))
    after, _, rewards, _ = moved(env, beside, np.ones(n), physics, state.keys[:, 0])
    assert (rewards == 1).all()
    assert (after[:, [0, 2]] == [1, 24]).all()
    counts = np.bincount(after[:, 1].astype(int), minlength=25)
    assert counts[[1, 24]].tolist() == [0, 0]
    assert ((counts[counts > 0] - n / 23) ** 2).sum() / (n / 23) < 49  # 22 degrees


# -- swaps -----------------------------------------------------------------------------

PERIOD, OFFSET = 10, 25
LIFETIMES = np.array([0, 24, 25, 34, 35, 44, 45])
GOOD = [1, 1, 2, 2, 1, 1, 2]  # of each lifetime


@entry
def _in_force(env, physics, lifetimes, rooms):
    for i in range(len(lifetimes)):
        dynamics.in_force(env, physics, lifetimes[i], rooms[i])


def in_force(lifetimes: NDArray[np.int64], **changed: float) -> NDArray[np.float64]:
    """Constants that are in force after each of some numbers of steps."""
    env = ENVS[ID]()
    rooms = np.zeros((len(lifetimes), 3))
    _in_force(env.env, constants(env, 1, **changed)[0], lifetimes, rooms)
    return rooms


def test_colours_swap_at_their_time_and_constants_in_force_stay() -> None:
    rooms = in_force(LIFETIMES, period=PERIOD, offset=OFFSET)
    assert rooms[:, two_colours.GOOD].tolist() == GOOD
    assert (rooms[:, :2] == NEVER).all()
    turned = in_force(LIFETIMES, period=PERIOD, offset=OFFSET, good=2)
    assert (turned[:, two_colours.GOOD] == 3 - rooms[:, two_colours.GOOD]).all()
    again = in_force(LIFETIMES, period=NEVER, offset=NEVER, good=2)
    assert (again == [NEVER, NEVER, 2]).all()


def test_evaluations_see_the_colours_of_their_time_only() -> None:
    env, n = ENVS[ID](), len(LIFETIMES)
    physics = constants(env, n, period=PERIOD, offset=OFFSET)
    state = env.init(keys(n, 1), physics, LIFETIMES)
    fixed = env.init(keys(n, 1), constants(env, n, good=np.array(GOOD)))
    rng, rewards = np.random.default_rng(0), []
    for _ in range(300):  # past many swaps
        actions = rng.integers(0, 4, (n, 1))
        ours, theirs = env.step(state, actions), env.step(fixed, actions)
        np.testing.assert_array_equal(ours.rewards, theirs.rewards)
        np.testing.assert_array_equal(ours.observations, theirs.observations)
        rewards.append(ours.rewards)
    assert np.abs(np.stack(rewards)).max(0).min() == 1


def test_steps_are_those_of_each_environment_over_all_episodes() -> None:
    env, state = start(ID, P=1, N=3, period=PERIOD, offset=150)
    state.variables[...] = [0, 1, 24]  # first object to the right, second one far away
    for k in range(200):
        state.variables[...] = [0, 1, 24]
        step = env.step(state, np.ones((1, 3), int))
        swaps = 0 if k < 150 else 1 + (k - 150) // PERIOD
        assert (step.rewards == (1 if swaps % 2 == 0 else -1)).all(), k
    assert (state.episodes == 2).all()


@pytest.mark.parametrize(("action", "move"), MOVES.items())
def test_the_edge_of_the_grid_stops_the_agent(
    action: int, move: tuple[int, int]
) -> None:
    env = ENVS[ID]()
    for x, y in itertools.product(range(5), range(5)):
        place = 5 * y + x
        others = [p for p in range(25) if p not in range(place - 5, place + 6)][:2]
        variables = np.array([[place, *others]], float)
        after, *_ = moved(env, variables, np.array([action]), constants(env, 1))
        to_x, to_y = np.clip([x + move[0], y + move[1]], 0, 4)
        assert after[0].tolist() == [5 * to_y + to_x, *others]
