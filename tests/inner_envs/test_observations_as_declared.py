"""Observations that are not of the declared space are refused, and named."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from cases import slow
from users_envs import OPTIONS, Walk, task_on

import dacrl_env
from dacrl_env.inner_envs.faults import InnerEnvError
from dacrl_env.outer.env import DynamicConfigEnv


def walk(seen: Any, space: gym.Space[Any], **fields: Any) -> type[Walk]:
    """A walk that shows what a function makes of its observation."""
    return type(
        "Shown",
        (Walk,),
        {
            "observation_space": space,
            "seen": lambda self: seen(self, Walk.seen(self)),
            **fields,
        },
    )


def play(entry: Any, **options: Any) -> float:
    with task_on(entry) as task:
        env = DynamicConfigEnv(task, **{**OPTIONS, **options})
        return float(env.reset(seed=0)[1]["eval_return"])


F32 = gym.spaces.Box(-100, 100, (2,), np.float32)
BYTES = gym.spaces.Box(0, 255, (2,), np.uint8)


@pytest.mark.parametrize(
    ("seen", "space", "words"),
    [
        (lambda e, x: x[0], F32, ["shape []", "declares shape [2]"]),
        (lambda e, x: x[:1], F32, ["shape [1]", "declares shape [2]"]),
        (lambda e, x: x[None], F32, ["shape [1, 2]", "declares shape [2]"]),
        (lambda e, x: [*x, 0.0], F32, ["shape [3]", "declares shape [2]"]),
        (lambda e, x: {"x": x}, F32, ["shape []", "{'x': array("]),
        (lambda e, x: None, F32, ["shape []", "None"]),
        (lambda e, x: np.abs(x) + 0.5, BYTES, ["dtype float32", "declares uint8"]),
        (lambda e, x: [0.0, 1.0], BYTES, ["dtype float64", "declares uint8"]),
        (lambda e, x: np.array([0, 256]), BYTES, ["dtype int64", "declares uint8"]),
        (lambda e, x: x + 1j, F32, ["dtype complex64", "declares float32"]),
        (lambda e, x: np.array(["a", "b"]), F32, ["dtype <U1", "declares float32"]),
        (lambda e, x: x + 150, F32, ["outside of its bounds", "between -100 and 100"]),
        (lambda e, x: x * 0 - 102.1, F32, ["outside of its bounds", "-102.1 at index"]),
    ],
)
def test_what_is_not_as_declared_is_refused_at_the_first_reset(seen, space, words):
    with pytest.raises(InnerEnvError) as caught:
        play(walk(seen, space))
    for word in ["inner environment dacrl-tests/Users", *words, "at "]:
        assert word in str(caught.value)
    assert "reset" in str(caught.value)


@pytest.mark.parametrize(
    ("seen", "space", "words"),
    [
        (lambda e, x: x if e.t == 0 else x[:1], F32, ["shape [1]", "at step 1"]),
        (lambda e, x: x if e.t == 0 else x + 200, F32, ["bounds", "at the first step"]),
    ],
)
def test_and_at_the_first_step(seen, space, words):
    with pytest.raises(InnerEnvError) as caught:
        play(walk(seen, space))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("implementation", ["compiled", "sb3"])
def test_shapes_and_numbers_are_looked_at_in_every_step(implementation):
    late = walk(lambda e, x: x if e.t < 17 else x[:1], F32)
    with pytest.raises(InnerEnvError, match=r"shape \[1\].*at step 17 of the episode"):
        play(late, implementation=implementation)
    wrong = walk(
        lambda e, x: np.array([0, 1 if e.t < 17 else 300]),
        BYTES,
    )
    with pytest.raises(InnerEnvError, match=r"dtype int64.*at step 17 of the episode"):
        play(wrong, implementation=implementation)


@pytest.mark.parametrize(
    ("seen", "space"),
    [
        (lambda e, x: x.astype(np.float64), F32),  # loses digits alone
        (lambda e, x: x.astype(np.float16), F32),
        (lambda e, x: x.tolist(), F32),
        (lambda e, x: tuple(x), F32),
        (lambda e, x: x.astype(np.int64), F32),
        (lambda e, x: np.array([e.t, 255]), BYTES),  # no byte becomes another number
        (lambda e, x: np.array([True, False]), BYTES),
        # rounding and sensors: a little beyond
        (lambda e, x: x * 0 + np.float32(101.9), F32),
        (lambda e, x: x, gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)),
        slow(lambda e, x: x, gym.spaces.Box(-50, np.inf, (2,), np.float64)),
    ],
)
def test_what_can_be_taken_is_taken(seen, space):
    assert play(walk(seen, space)) == 20


def test_later_steps_may_leave_the_bounds():
    """As those of Gymnasium's own LunarLander do."""
    assert play(walk(lambda e, x: x if e.t < 17 else x + 200, F32)) == 20


@pytest.mark.parametrize("implementation", ["compiled", "sb3"])
def test_single_numbers_are_observations(implementation):
    space = gym.spaces.Box(-100, 100, (), np.float32)
    assert play(walk(lambda e, x: x[0], space), implementation=implementation) == 20


@pytest.mark.parametrize(
    ("algorithm", "implementation"),
    [
        ("dqn", "compiled"),
        ("dqn", "sb3"),
        slow("ppo", "compiled"),
        slow("ppo", "sb3"),
    ],
)
def test_true_and_false_are_learned_from_as_1_and_0(algorithm, implementation):
    def run(dtype: Any) -> tuple[Any, list[list[float]]]:
        space = gym.spaces.Box(0, 1, (2, 3, 2), dtype)
        bits = 2 ** np.arange(12).reshape(2, 3, 2)
        entry = walk(lambda e, x: (int(99 * abs(e.x)) & bits != 0).astype(dtype), space)
        small = {"num_inner_envs": 2, "rollout_length": 50, "hidden_sizes": (8,)}
        options = OPTIONS | {"implementation": implementation}
        if algorithm == "ppo":
            options = {k: v for k, v in options.items() if k != "learning_starts"}
            options |= small
        with task_on(entry, algorithm=algorithm) as task:
            env = DynamicConfigEnv(task, **options)
            env.reset(seed=0)
            told = [env.step(np.zeros(3))[0].tolist() for _ in range(3)]
            return env.population.state.learner, told

    learner, told = run(np.bool_)
    assert told == run(np.float32)[1]
    if (algorithm, implementation) == ("dqn", "compiled"):
        kept = learner.replay.observations
        assert kept.dtype == np.bool_
        assert set(np.unique(kept)) == {False, True}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"step": lambda self, a: (np.zeros(2), 1.0, False, {})}, ["step() must"]),
        ({"step": lambda self, a: None}, ["step() must return", "None"]),
        ({"reset": lambda self, **_: np.zeros(3)}, ["reset() must return"]),
        ({"reset": lambda self, **_: None}, ["reset() must return", "None"]),
    ],
)
def test_methods_of_older_interfaces_are_named(fields, words):
    with pytest.raises(InnerEnvError) as caught:
        play(type("Old", (Walk,), fields))
    for word in ["inner environment dacrl-tests/Users", *words]:
        assert word in str(caught.value)


def test_bounds_are_looked_at_with_the_switch_too():
    entry = walk(lambda e, x: x + 150, F32)
    with task_on(entry, stateful=True) as task, pytest.raises(InnerEnvError):
        dacrl_env.evaluate(task, "default", [0], **OPTIONS)
