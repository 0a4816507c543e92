"""Stable-Baselines3 as a learner: the invariants of the design."""

from __future__ import annotations

import math
import random
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch
from cases import quick, sb3_n_steps, slow
from sb3_runs import (
    ALGORITHMS,
    OPTIONS,
    REPLAYING,
    UNIT,
    Counting,
    Runs,
    globals_now,
    inner_of,
    keys_of,
    make,
    physics_of,
    short,
    single,
)
from sb3_runs import globals_kept as _globals_kept  # noqa: F401 (a fixture)

from dacrl_env.algorithms.soft import SET
from dacrl_env.core import random_state
from dacrl_env.tasks.registration import load_learner

# -- invariant 1: actions bite --------------------------------------------------

CHANGES = {
    "dqn": {
        "learning_rate": 1e-4,
        "epsilon": 0.9,
        "batch_size": 16,
        "gamma": 0.9,
        "target_update_interval": 8,
        "train_freq": 8,
        "gradient_steps": 3,
        "max_grad_norm": 0.1,
        "replay_window": 10,
        "tau": 0.5,
    },
    "ppo": {
        "learning_rate": 1e-4,
        "clip_range": 0.01,
        "batch_size": 16,
        "gamma": 0.9,
        "gae_lambda": 0.8,
        "n_epochs": 5,
        "ent_coef": 0.1,
        "vf_coef": 0.1,
        "max_grad_norm": 0.05,
        "stop_early": True,
        "target_kl": 0.002,
    },
    "sac": {
        "learning_rate": 1e-4,
        "batch_size": 16,
        "gamma": 0.9,
        "tau": 0.5,
        "train_freq": 8,
        "gradient_steps": 3,
        "ent_rule": SET,
        "alpha": 2.0,
        "target_entropy": 0.3,
        "replay_window": 10,
    },
}


# what has to be chosen for another hyperparameter to mean anything
WITH: dict[str, dict[str, Any]] = {
    "alpha": {"ent_rule": "set"},
    "stop_early": {"learning_rate": 1e-2},
    "target_kl": {"learning_rate": 1e-2, "stop_early": True},
}
# without what Stable-Baselines3 does not have
MEANINGLESS = {
    "priority_beta",
    "hold_exponent",
    "perturb_strength",
    "drift_alpha",
    "drift_beta",
    "desired_kl",
}


def test_every_hyperparameter_is_tested() -> None:
    for name in ALGORITHMS:
        known = {h.name for h in load_learner(name, "compiled").hyperparameters}
        theirs = load_learner(name, "sb3")
        fixed = {*theirs.only, *theirs.unchanging, *MEANINGLESS}
        assert known - fixed == set(CHANGES[name])
        assert load_learner(name, "sb3").hyperparameters == (
            load_learner(name, "compiled").hyperparameters
        )


OF_PPO = [("ppo", "clip_range"), ("ppo", "n_epochs"), ("ppo", "stop_early")]


@pytest.mark.parametrize(
    ("name", "changed"),
    # setters of PPO are those of DQN, but for a few
    [
        (n, h) if n == "dqn" or (n, h) in OF_PPO else slow(n, h)
        for n in ALGORITHMS
        for h in CHANGES[n]
    ],
)
def test_hyperparameters_bite(name: str, changed: str) -> None:
    options = WITH.get(changed, {})
    a, b = make(name, **options), make(name, **options)
    for runs in (a, b):
        runs.train(6 * UNIT[name])
    assert a.differences(b) == []
    assert a.interval.updates[0] > 0
    b.values[changed][:] = CHANGES[name][changed]
    for runs in (a, b):
        runs.train(6 * UNIT[name])
    where = "envs.observations" if changed == "epsilon" else "parameters"
    assert where in a.differences(b)
    applied = effective(b.learner.model)[changed]
    assert applied == pytest.approx(CHANGES[name][changed])


def effective(model: Any) -> dict[str, float]:
    """What Stable-Baselines3 itself reads when it trains."""
    sac = isinstance(model, stable_baselines3.SAC)
    optimizers = (
        [model.critic.optimizer, model.actor.optimizer, model.ent_coef_optimizer]
        if sac
        else [model.policy.optimizer]
    )
    (rate,) = {group["lr"] for each in optimizers for group in each.param_groups}
    result = {
        "learning_rate": rate,
        "batch_size": model.batch_size,
        "gamma": model.gamma,
    }
    if not isinstance(model, stable_baselines3.PPO):
        result |= {
            "train_freq": model.train_freq.frequency,
            "gradient_steps": model.gradient_steps,
            "replay_window": model.replay_buffer.window * model.n_envs,
            "tau": model.tau,
        }
    if sac:
        tensor = getattr(model, "ent_coef_tensor", None)
        return result | {
            "ent_rule": float(tensor is not None),
            "alpha": 0.0 if tensor is None else float(tensor),
            "target_entropy": model.target_entropy / model.action_space.shape[0],
        }
    result["max_grad_norm"] = model.max_grad_norm
    if isinstance(model, stable_baselines3.DQN):
        return result | {
            "epsilon": model.exploration_rate,
            "target_update_interval": model.target_update_interval,
        }
    assert model.rollout_buffer.gamma == model.gamma
    return result | {
        "clip_range": model.clip_range(1.0),
        "gae_lambda": model.rollout_buffer.gae_lambda,
        "n_epochs": model.n_epochs,
        "ent_coef": model.ent_coef,
        "vf_coef": model.vf_coef,
        "stop_early": model.target_kl is not None,
        "target_kl": model.target_kl,
    }


@pytest.mark.parametrize("name", REPLAYING)
def test_train_freq_counts_environment_steps(name: str) -> None:
    for freq, updates in ((4, 20), (6, 10), (1, 20), (80, 1)):
        runs = make(name, num_inner_envs=4, learning_starts=0, train_freq=freq)
        runs.train(80)
        assert runs.state.gradient_steps[0] == updates, freq


@sb3_n_steps
@pytest.mark.parametrize("name", REPLAYING)
def test_n_step_returns_use_the_discount(name: str) -> None:
    a, b = (make(name, n_step=3, gamma=gamma) for gamma in (0.99, 0.9))
    for runs in (a, b):
        runs.train(60)
    assert "parameters" in a.differences(b)
    assert b.learner.model.replay_buffer.gamma == 0.9
    assert b.learner.model.replay_buffer.n_steps == 3


# -- invariant 2: when training is cut changes nothing ----------------------------


@pytest.mark.parametrize("name", quick(REPLAYING, "dqn"))
@pytest.mark.parametrize("num_envs", [1, 2])
def test_cutting_changes_nothing_with_a_replay(name: str, num_envs: int) -> None:
    own = {"epsilon": 0.3} if name == "dqn" else {}

    def fresh() -> Runs:
        return make(
            name, num_inner_envs=num_envs, train_freq=6, gradient_steps=2, **own
        )

    whole, cut = fresh(), fresh()
    whole.train(120)
    for steps in (2, 4, 2, 18, 50, 4, 40):
        cut.train(steps)
    assert whole.differences(cut) == []
    # sums are added up in another order
    np.testing.assert_allclose(whole.interval.sums, cut.interval.sums)
    assert whole.interval.updates == cut.interval.updates


@pytest.mark.slow
def test_cutting_changes_nothing_ppo() -> None:
    whole, cut = make("ppo"), make("ppo")
    whole.train(80)
    for steps in (16, 48, 16):
        cut.train(steps)
    assert whole.differences(cut) == []


# -- invariant 3: members do not touch each other --------------------------------


@pytest.mark.parametrize("name", quick(ALGORITHMS, "dqn"))
def test_members_are_independent(name: str) -> None:
    together, changed = make(name, [0, 1, 2]), make(name, [0, 1, 2])
    alone = make(name, [2])
    changed.values["learning_rate"][1] = 1e-1
    for runs in (together, changed, alone):
        for _ in range(2):
            runs.train(4 * UNIT[name])
    assert together.differences(changed, 0) == []
    assert together.differences(changed, 2) == []
    assert together.differences(alone, 2, 0) == []
    assert "parameters" in together.differences(changed, 1)
    assert not torch.equal(together.state.parameters[0], together.state.parameters[2])


# -- invariant 5: budgets are exact ----------------------------------------------


@pytest.mark.parametrize("name", REPLAYING)
@pytest.mark.parametrize("train_freq", [1, 7, 256])
def test_budgets_are_exact_with_a_replay(name: str, train_freq: int) -> None:
    env = Counting(name)
    runs = make(name, [0, 1], env=env, train_freq=train_freq)
    taken = 0
    for steps in (1, 2, 3, 50, 11):
        runs.train(steps)
        taken += steps
        assert runs.state.env_steps.tolist() == [taken, taken]
        assert env.steps == 2 * taken
    filled = (runs.state.replay.next_observations[0] != 0).any((1, 2))
    assert filled.sum() == taken  # no transition is lost where a stretch ends


def test_budgets_are_exact_ppo() -> None:
    env = Counting()
    runs = make("ppo", [0, 1], env=env)
    runs.train(48)
    assert runs.state.env_steps.tolist() == [48, 48]
    assert env.steps == 96


@pytest.mark.parametrize("name", quick(ALGORITHMS, "dqn", "ppo"))
def test_what_is_reported_was_taken(name: str) -> None:
    env = single(name)
    counting = Counting(name)
    env.population.learner.venv.env = counting
    env.reset(seed=0)
    ended, decisions = False, 0
    while not ended:
        *_, ended, _, info = env.step(env.action_space.sample())
        decisions += 1
    budget = OPTIONS[name]["budget"]
    assert decisions == 4
    assert info["env_steps"] == info["objectives"]["training_steps"] == budget
    assert counting.steps == budget
    assert info["gradient_steps"] == env.population.state.learner.gradient_steps[0] > 0


# -- invariant 6: terminated is not truncated ------------------------------------


def test_truncated_transitions_are_stored_as_such() -> None:
    runs = make("dqn", env=short(), epsilon=1.0)
    runs.train(40)
    replay = runs.state.replay
    last = np.arange(40) % 5 == 4
    assert (replay.dones[0, :40, 0] == last).all()
    assert (replay.timeouts[0, :40, 0] == last).all()
    follows = replay.next_observations[0, :39, 0] == replay.observations[0, 1:40, 0]
    # within an episode steps follow each other; after it there is another beginning
    assert (follows.all(1) == ~last[:39]).all()
    with runs.learner.off_policy.loaded(runs.state, 0) as model:
        assert not model.replay_buffer.sample(100).dones.any()


@pytest.mark.parametrize("n_step", [1, pytest.param(3, marks=sb3_n_steps)])
def test_the_newest_transitions_are_sampled(n_step: int) -> None:
    runs = make("dqn", epsilon=1.0, n_step=n_step, replay_window=10)
    runs.train(40)
    newest = runs.state.replay.observations[0, 30:40, 0]
    with runs.learner.off_policy.loaded(runs.state, 0) as model:
        assert model.replay_buffer.window == 10
        drawn = model.replay_buffer.sample(400).observations.numpy()
        model.replay_buffer.window = 10**6
        wide = model.replay_buffer.sample(400).observations.numpy()
    assert {row.tobytes() for row in drawn} == {row.tobytes() for row in newest}
    assert len({row.tobytes() for row in wide}) == 40


def test_terminated_transitions_are_stored_as_such() -> None:
    runs = make("dqn", epsilon=1.0)
    runs.train(200)
    replay = runs.state.replay
    assert runs.interval.episodes[0] == replay.dones[0].sum() > 3
    assert not replay.timeouts.any()
    ends = replay.next_observations[0, :, 0][replay.dones[0, :, 0] == 1]
    beyond = (np.abs(ends[:, 0]) > 2.4) | (np.abs(ends[:, 2]) > 12 * 2 * math.pi / 360)
    assert beyond.all()


def test_episodes_are_counted() -> None:
    runs = make("ppo", [0, 1], env=short())
    runs.train(48)
    assert runs.interval.episodes.tolist() == [8, 8]  # 24 steps in each of two
    assert runs.interval.lengths.tolist() == [40, 40]
    assert runs.interval.returns.tolist() == [40, 40]


# -- invariant 7: no global randomness -------------------------------------------


@pytest.mark.parametrize("name", quick(ALGORITHMS, "dqn", "ppo"))
def test_global_state_is_untouched(name: str) -> None:
    finals = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        np.random.standard_normal()  # noqa: NPY002 - a spare normal waits
        random.gauss()
        torch.manual_seed(seed)
        before = globals_now()
        runs = make(name, [0, 1])
        assert globals_now() == before
        runs.train(3 * UNIT[name])
        assert globals_now() == before
        signals = runs.learner.signals(runs.state, runs.values, runs.interval)
        assert globals_now() == before
        physics = physics_of(inner_of(name), 2)
        played = runs.learner.play(
            runs.state,
            np.arange(2),
            np.arange(6, dtype=np.uint64).reshape(2, 3),
            physics,
        )
        assert globals_now() == before
        runs.learner.restart(runs.state, np.array([1]), keys_of([5]), physics[:1])
        assert globals_now() == before
        finals.append((runs, signals, played))
    (a, one, first), (b, two, second) = finals
    assert a.differences(b, 0) == a.differences(b, 1) == []
    assert all((one[n] == two[n]).all() for n in one)
    assert (first[0] == second[0]).all()


class Breaking(Counting):
    left = 30

    def step(self, state: Any, actions: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            raise ValueError("the environment broke")
        return super().step(state, actions)


@pytest.mark.parametrize("name", quick(ALGORITHMS, "dqn", "ppo"))
def test_global_state_is_untouched_by_exceptions(name: str) -> None:
    runs = make(name, env=Breaking(name))
    before = globals_now()
    with pytest.raises(ValueError, match="the environment broke"):
        runs.train(6 * UNIT[name])  # and it is not taken for divergence
    assert globals_now() == before
    assert not runs.learner.diverged(runs.state, runs.interval).any()


def test_generator_states_come_back_as_they_were() -> None:
    space: gym.spaces.Discrete = gym.spaces.Discrete(1000, seed=3)
    states = random_state.Generators.allocate(1)
    key = np.uint64(7)

    def draws() -> list[float]:
        result: list[float] = []
        for _ in range(700):  # beyond the 624 words of a Mersenne Twister
            result += [random.gauss(0, 1), random.random()]
            result += [np.random.standard_normal(), np.random.rand()]  # noqa: NPY002
            result += [float(torch.randn(())), float(space.sample())]
        return result

    random.gauss(0, 1)
    np.random.standard_normal()  # noqa: NPY002
    space.sample()
    random_state.read(space, states, 0, key)
    first = draws()
    random_state.write(space, states, 0, key)
    assert draws() == first
