"""Values that are not finite are named; they are no divergence and no outer reward."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from cases import slow
from users_envs import OPTIONS, Walk, task_on

import dacrl_env
from dacrl_env.inner_envs.faults import InnerEnvError
from dacrl_env.outer.env import DynamicConfigEnv
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.tasks import Instance

RARELY = 90  # steps of an object before it goes wrong: after what is checked at first


class Rarely(Walk):
    """Gives something odd, late in its life."""

    lived = 0
    odd: Any = np.nan

    def step(self, action: Any) -> Any:
        type(self).lived += 1
        return super().step(action)


class OddReward(Rarely):
    def earned(self) -> Any:
        return self.odd if self.lived > RARELY and self.t == 5 else 1.0


class OddSight(Rarely):
    def seen(self) -> Any:
        seen = super().seen()
        if self.lived > RARELY and self.t == 5:
            seen[1] = self.odd
        return seen


class OddStart(Rarely):
    def seen(self) -> Any:
        return super().seen() + (np.inf if self.lived > RARELY and self.t == 0 else 0)


def run(task: dacrl_env.Task, options: dict[str, Any]) -> None:
    env = DynamicConfigEnv(task, **options)
    env.reset(seed=0)
    for _ in range(4):
        env.step(np.zeros(3))


PPO = {"num_inner_envs": 2, "rollout_length": 50, "hidden_sizes": (8,)}
ALGORITHMS = [
    ("dqn", {}),
    slow("dqn", {"implementation": "sb3"}),
    slow("ppo", {"learning_starts": None, **PPO}),
    slow("ppo", {"learning_starts": None, "implementation": "sb3", **PPO}),
]


@pytest.mark.parametrize(("algorithm", "options"), ALGORITHMS)
@pytest.mark.parametrize(
    ("kind", "odd", "words"),
    [
        (OddReward, np.nan, ["the reward nan", "at step 5 of the episode with seed"]),
        (OddReward, -np.inf, ["the reward -inf", "at step 5"]),
        (OddReward, np.float32(np.inf), ["the reward inf", "at step 5"]),
        (OddReward, None, ["the reward None", "at step 5"]),
        (OddReward, np.array([1.0]), ["the reward array([1.])", "single numbers"]),
        (OddReward, "1.0", ["the reward '1.0'", "at step 5"]),
        (OddSight, np.nan, ["observation with nan at index 1", "at step 5"]),
        (OddSight, np.inf, ["observation with inf at index 1", "at step 5"]),
        (OddStart, np.inf, ["observation with inf at index 0", "at the reset"]),
    ],
)
def test_what_is_not_finite_is_named(kind, odd, words, algorithm, options):
    entry = type("Odd", (kind,), {"odd": odd, "lived": 0})
    options = {k: v for k, v in {**OPTIONS, **options}.items() if v is not None}
    with (
        task_on(entry, algorithm=algorithm) as task,
        pytest.raises(InnerEnvError) as caught,
    ):
        run(task, options)
    for word in [task.inner_env, *words]:
        assert word in str(caught.value)


def test_a_nan_reward_at_every_step_is_named_before_any_training():
    with (
        task_on(type("E", (Walk,), {"earned": lambda self: float("nan")})) as task,
        pytest.raises(InnerEnvError, match=r"the reward nan.*at step 1 of"),
    ):
        DynamicConfigEnv(task, **OPTIONS)


def test_evaluate_and_fit_name_it():
    entry = type("Odd", (OddSight,), {"lived": 0})
    with task_on(entry) as task:
        with pytest.raises(InnerEnvError, match="observation with nan"):
            dacrl_env.evaluate(task, "default", [0, 1], **OPTIONS)
        entry.lived = 0
        with pytest.raises(InnerEnvError, match="observation with nan"):
            dacrl_env.fit(task, "random-search", 1600, 0, **OPTIONS)


@pytest.mark.parametrize("odd", [1.7e308, -1e39])
def test_rewards_beyond_single_precision_are_named(odd):
    entry = type("Huge", (Walk,), {"earned": lambda self: odd})
    with (
        task_on(entry) as task,
        pytest.raises(InnerEnvError, match=r"reward .*e\+.*, in single precision, too"),
    ):
        run(task, OPTIONS)


@pytest.mark.parametrize("options", [OPTIONS, {**OPTIONS, "implementation": "sb3"}])
def test_observations_beyond_single_precision_are_named(options):
    class Far(Walk):
        observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)

        def seen(self) -> Any:
            return np.array([0.0, 1e39 if self.t == 5 else 0.0])

    words = (
        r"observation with 1e\+39 at index 1: .* in single precision, too .*at step 5"
    )
    with task_on(Far) as task, pytest.raises(InnerEnvError, match=words):
        run(task, options)


def test_large_values_are_no_fault():
    class Large(Walk):
        observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)

        def seen(self) -> Any:
            return super().seen() + np.float32(1e30)

        def earned(self) -> Any:
            return 1e38  # of which two are beyond single precision

    fields = {"reference_return": 1e40, "floor_return": -1e41}
    with task_on(Large, **fields) as task, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = DynamicConfigEnv(task, **OPTIONS)
        assert np.isfinite(env.reset(seed=0)[1]["score"])


@pytest.mark.parametrize("reward", [3, True, np.float32(2), np.array(2.0), np.int8(1)])
def test_numbers_of_all_kinds_are_rewards(reward):
    with task_on(type("E", (Walk,), {"earned": lambda self: reward})) as task:
        env = DynamicConfigEnv(task, **OPTIONS)
        assert env.reset(seed=0)[1]["eval_return"] == 20 * float(reward)


class Unbounded(Walk):
    """A policy can take it as far as it wants."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)

    def step(self, action: Any) -> Any:
        self.x = self.x * 1e10 if abs(self.x) > 1e7 else self.x
        with np.errstate(all="ignore"):
            return super().step(action)

    def seen(self) -> Any:
        with np.errstate(all="ignore"):
            return super().seen()


@pytest.mark.parametrize("far", [[1], [0, 1]])
def test_a_policy_that_leads_an_environment_to_infinity_has_diverged(far):
    options = {k: v for k, v in OPTIONS.items() if k != "learning_starts"} | PPO
    with task_on(Unbounded, algorithm="ppo", budget=400) as task:
        env = PopulationEnv(task, 2, **options)
        env.reset(seed=0)
        learner = env.population.state.learner
        # the means of the policies of some members are far out
        actor = env.population.learner.fixed.actor
        learner.parameters[far, actor.biases[-1]] = 1e9
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, rewards, ended, _, infos = env.step(np.zeros((2, 3)))
    expected = [member in far for member in range(2)]
    assert ended.tolist() == expected
    assert infos["final_info"]["diverged"].tolist() == expected
    assert np.isfinite(rewards).all()
    assert (infos["final_info"]["score"][far] == task.floor_score).all()


# -- outer rewards --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda c: c.score / 0, ["finite", "inf", "{0: "]),
        (lambda c: np.full_like(c.score, np.nan), ["finite", "nan"]),
        (lambda c: np.ma.masked_all(len(c.score)), ["masked values"]),
        (lambda c: np.ma.masked_less(c.fraction, 9), ["masked values"]),
        (lambda c: np.array(["a"] * len(c.score)), ["real numbers", "<U1"]),
        (lambda c: c.score + 1j, ["real numbers", "complex128"]),
        (lambda c: np.array([None] * len(c.score)), ["real numbers", "object"]),
        (lambda c: 1.0, ["shape ()", "for each member"]),
        (lambda c: [[1.0], [1.0, 2.0]], ["for each member"]),
    ],
)
def test_outer_rewards_that_are_none_are_named(given, words):
    def my_reward(context: Any) -> Any:
        with np.errstate(all="ignore"):
            return given(context)

    env = PopulationEnv("dacrl/NoisyQuadratic-v0", 2, reward=my_reward)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"reward .*my_reward") as caught:
        env.step(np.zeros((2, 1)))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("given", [lambda c: c.ended, lambda c: [1, 2]])
def test_outer_rewards_may_be_numbers_of_any_kind(given):
    env = PopulationEnv("dacrl/NoisyQuadratic-v0", 2, reward=given)
    env.reset(seed=0)
    rewards = env.step(np.zeros((2, 1)))[1]
    assert rewards.dtype == np.float64


# -- what scores are made of ----------------------------------------------------------


@pytest.mark.parametrize(
    "returns",
    [
        {"floor_return": -np.inf},
        {"reference_return": np.inf},
        {"floor_return": -np.inf, "random_return": -np.inf},
    ],
)
def test_returns_of_a_task_are_finite(returns):
    with (
        task_on(Walk) as task,
        pytest.raises(ValueError, match="must be finite"),
    ):
        dacrl_env.register_task(
            **{
                "id": "dacrl-tests/Infinite-v0",
                "inner_env": task.inner_env,
                "algorithm": "dqn",
                "budget": 400,
                "random_return": 0.0,
                "reference_return": 20.0,
                "floor_return": -1.0,
                **returns,
            }
        )


@pytest.mark.parametrize(
    "physics", [{"half_length": 0.0}, {"mass_cart": np.nan}, {"gravity": np.inf}]
)
def test_physical_constants_that_make_no_numbers_are_named(physics):
    name = next(iter(physics))
    valid = dacrl_env.DynamicConfigEnv("dacrl/DQN-CartPole-v0").population.env.physics
    assert name in valid
    with pytest.raises(ValueError, match="not finite") as caught:
        DynamicConfigEnv(
            "dacrl/DQN-CartPole-v0", instances=["default", Instance("bad", physics)]
        )
    for word in ("CartPole-v1", "bad", name):
        assert word in str(caught.value)
