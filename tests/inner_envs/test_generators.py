"""Forks draw from streams of their own, whatever generator an environment has."""

from __future__ import annotations

import copy
import random
from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from users_envs import OPTIONS, Walk, task_on

from dacrl_env.inner_envs import gymnasium_adapter, objects
from dacrl_env.outer.vector_env import PopulationEnv

FEEDBACK = {**OPTIONS, "budget": 4000, "decision_interval": 10, "feedback": "train"}


class Drawing(Walk):
    """Walks by a generator of its own, for 400 steps."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        gym.Env.reset(self, seed=seed)
        self.x, self.t = 0.0, 0
        self.begin(seed)
        return self.seen(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        self.x += float(self.draw())
        return self.seen(), 1.0, False, self.t >= 400, {}

    def begin(self, seed: int | None) -> None: ...

    def draw(self) -> float:
        raise NotImplementedError


class Generator(Drawing):
    def begin(self, seed: int | None) -> None:
        self.rng = np.random.default_rng(seed)

    def draw(self) -> float:
        return self.rng.random()


class Philox(Drawing):
    def begin(self, seed: int | None) -> None:
        self.rng = np.random.Generator(np.random.Philox(seed))

    def draw(self) -> float:
        return self.rng.random()


class OldNumpy(Drawing):
    def begin(self, seed: int | None) -> None:
        self.rng = np.random.RandomState(seed)

    def draw(self) -> float:
        return self.rng.normal()


class OldNumpyPCG(Drawing):
    def begin(self, seed: int | None) -> None:
        self.rng = np.random.RandomState(np.random.PCG64(seed))

    def draw(self) -> float:
        return self.rng.normal()


class Python(Drawing):
    def begin(self, seed: int | None) -> None:
        self.rng = random.Random(seed)

    def draw(self) -> float:
        return self.rng.gauss(0, 1)


class World:
    __slots__ = ("dice", "rest")

    def __init__(self, seed: int | None) -> None:
        self.dice = {"left": [np.random.default_rng(seed)]}
        self.rest = deque([random.Random(seed)])


class Inside(Drawing):
    """What draws is a part of a part."""

    def begin(self, seed: int | None) -> None:
        self.world = World(seed)

    def draw(self) -> float:
        return self.world.dice["left"][0].random() + self.world.rest[0].random()


class Spaces(Drawing):
    """Draws from a space of its own."""

    def begin(self, seed: int | None) -> None:
        self.dice = gym.spaces.Box(0, 1, ())
        self.dice.seed(seed)

    def draw(self) -> float:
        return float(self.dice.sample())


class Gymnasium(Drawing):
    def draw(self) -> float:
        return self.np_random.random()


class Noise(gym.ObservationWrapper[Any, Any, Any]):
    """A layer that draws."""

    def __init__(self) -> None:
        super().__init__(Still())

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.noise = np.random.default_rng(seed)
        return super().reset(seed=seed)

    def observation(self, seen: Any) -> Any:
        return seen + np.float32(self.noise.random())


class Still(Drawing):
    def draw(self) -> float:
        return 0.0


KINDS = [
    Gymnasium,
    Generator,
    Philox,
    OldNumpy,
    OldNumpyPCG,
    Python,
    Inside,
    Spaces,
    Noise,
]


@pytest.mark.parametrize("kind", KINDS)
def test_forks_draw_numbers_of_their_own(kind):
    with task_on(kind) as task:
        envs = PopulationEnv(task, 3, **FEEDBACK)
        envs.reset(seed=0)
        envs.step(np.zeros((3, 3)))
        state = envs.population.state.learner.envs
        for shared in (True, False):
            envs.fork([0, 0, 0], shared_streams=shared)
            envs.step(np.zeros((3, 3)))
            assert (state.episodes == 0).all()
            seen = envs.population.state.learner.envs.observations[:, 0, 0]
            assert len(np.unique(seen)) == (1 if shared else 3)
        envs.close()


@pytest.mark.parametrize("kind", KINDS)
def test_they_follow_from_keys_alone_and_snapshots_go_on(kind):
    with task_on(kind) as task:
        seen = []
        for _ in range(2):
            envs = PopulationEnv(task, 2, **FEEDBACK)
            envs.reset(seed=0)
            envs.step(np.zeros((2, 3)))
            envs.fork([0, 0])
            snap = envs.snapshot()
            for _ in range(2):
                envs.step(np.zeros((2, 3)))
                seen.append(envs.population.state.learner.envs.observations.copy())
                envs.restore(snap)
            envs.close()
        for other in seen[1:]:
            np.testing.assert_array_equal(other, seen[0])


def test_what_is_held_twice_is_one_generator_still():
    class Twice(Generator):
        def begin(self, seed: int | None) -> None:
            super().begin(seed)
            self.same = [self.rng, self.np_random]

    env = gym.wrappers.TimeLimit(Twice(), 50)
    env.reset(seed=1)
    assert objects.reseed(env, 5)
    inner: Any = env.unwrapped
    assert inner.same[0] is inner.rng
    assert inner.same[1] is inner.np_random
    # Gymnasium's has the seed itself, as ever
    first = np.random.default_rng(5).random()
    assert inner.np_random.random() == first
    assert inner.rng.random() != first


def test_torch_generators_are_seeded():
    class Torch(Still):
        def begin(self, seed: int | None) -> None:
            self.rng = torch.Generator()

    env = Torch()
    env.reset(seed=1)
    env.np_random = None  # type: ignore[assignment]
    draws = set()
    for seed in (1, 2, 2):
        assert objects.reseed(env, seed)
        draws.add(float(torch.rand(1, generator=env.rng)))
    assert len(draws) == 2


@pytest.mark.parametrize("kind", [np.random.mtrand._rand, random._inst])
def test_global_generators_are_left_alone(kind):
    class Global(Still):
        rng = None

    env = Global()
    env.rng = kind
    before = copy.deepcopy(kind)
    objects.reseed(env, 7)
    draw = "random_sample" if hasattr(kind, "random_sample") else "random"
    twin = getattr(before, draw)()
    assert getattr(copy.deepcopy(kind), draw)() == twin


class Hidden(Drawing):
    """Draws in a way that nobody can see from outside."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.x, self.t = 0.0, 0
        self.word = seed
        return self.seen(), {}

    def draw(self) -> float:
        self.word = (self.word * 48271 + 11) % (2**31 - 1)
        return self.word / 2**31


class Deterministic(Hidden):
    def draw(self) -> float:
        return 0.25


def test_a_generator_that_is_not_found_is_warned_of_once(monkeypatch):
    monkeypatch.setattr(gymnasium_adapter, "_warned", set())
    with task_on(Hidden) as task:
        envs = PopulationEnv(task, 3, **FEEDBACK)
        envs.reset(seed=0)
        envs.step(np.zeros((3, 3)))
        with pytest.warns(RuntimeWarning, match="no generator was found") as caught:
            envs.fork([0, 0, 0])
        assert len(caught) == 1
        assert task.inner_env in str(caught[0].message)
        envs.fork([1, 1, 1])  # warnings are errors here
        envs.close()


def test_without_chance_there_is_no_warning(monkeypatch):
    monkeypatch.setattr(gymnasium_adapter, "_warned", set())
    with task_on(Deterministic) as task:
        envs = PopulationEnv(task, 2, **FEEDBACK)
        envs.reset(seed=0)
        envs.step(np.zeros((2, 3)))
        envs.fork([0, 0])
        envs.close()
