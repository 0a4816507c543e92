"""Stable-Baselines3 as a learner: its real algorithms behind our interface."""

from __future__ import annotations

import itertools
import math
from dataclasses import fields
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch
from cases import quick, sb3_n_steps, slow
from sb3_runs import (
    ALGORITHMS,
    INNER,
    REPLAYING,
    UNIT,
    Counting,
    inner_of,
    keys_of,
    make,
    physics_of,
    vector,
)
from sb3_runs import globals_kept as _globals_kept  # noqa: F401 (a fixture)

from dacrl_env.algorithms.sb3.off_policy import Replay
from dacrl_env.core import streams
from dacrl_env.inner_envs.gymnasium_adapter import GymnasiumAdapter
from dacrl_env.tasks.registration import load_learner

# -- it is Stable-Baselines3 -----------------------------------------------------


class Seeded(gym.Wrapper[Any, Any, Any, Any]):
    """Begins its episodes as the adapter does."""

    def __init__(self, key: Any, env_id: str) -> None:
        super().__init__(gym.make(env_id, max_episode_steps=10))
        self.key, self.episode = key, -1

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.episode += 1
        word = streams.bits(self.key[None], np.array([self.episode]), 1)
        return super().reset(seed=int(word[0, 0] >> np.uint64(33)))


THEIRS: dict[str, dict[str, Any]] = {
    "dqn": {
        "learning_rate": 1e-3,
        "buffer_size": 300,
        "learning_starts": 20,
        "batch_size": 64,
        "gamma": 0.99,
        "train_freq": 4,
        "gradient_steps": 1,
        "target_update_interval": 40,
        "exploration_initial_eps": 0.1,
        "exploration_final_eps": 0.1,
        "max_grad_norm": 10,
    },
    "ppo": {
        "learning_rate": 1e-2,
        "n_steps": 8,
        "batch_size": 8,
        "n_epochs": 3,
        "clip_range": 0.2,
    },
    "sac": {
        "learning_rate": 1e-2,
        "buffer_size": 300,
        "learning_starts": 20,
        "batch_size": 32,
        "train_freq": 4,
    },
}


@pytest.mark.parametrize(
    ("name", "n_step", "options"),
    [
        ("dqn", 1, {}),
        pytest.param("dqn", 3, {}, marks=sb3_n_steps),
        ("ppo", 1, {}),
        slow("sac", 1, {}),
        slow("sac", 1, {"ent_rule": "set", "alpha": 0.3}),
        pytest.param("sac", 3, {}, marks=[sb3_n_steps, pytest.mark.slow]),
    ],
)
def test_a_run_is_that_of_their_own_learn(
    name: str, n_step: int, options: dict[str, Any]
) -> None:
    """The same bits as ``model.learn`` on a Gymnasium environment of its own."""
    from stable_baselines3.common.vec_env import DummyVecEnv

    keys, env_id = keys_of([0]), INNER[name]
    seed = int(streams.of(keys, "init")[0] >> np.uint64(32))
    env_keys = streams.env_keys(keys, 2 if name == "ppo" else 1)[0]
    envs = DummyVecEnv([lambda key=key: Seeded(key, env_id) for key in env_keys])
    given = dict(THEIRS[name])
    if n_step > 1:
        given["n_steps"] = n_step
    if options:
        given["ent_coef"] = options["alpha"]
    net = {"net_arch": [8]}
    model: Any = getattr(stable_baselines3, name.upper())(
        "MlpPolicy", envs, seed=seed, policy_kwargs=net, device="cpu", **given
    )
    env = GymnasiumAdapter(env_id, {"max_episode_steps": 10})
    if name == "ppo":
        ours = make("ppo", env=env, batch_size=8)
        parts = (64, 96)
    else:
        ours = make(name, env=env, replay_capacity=300, n_step=n_step, **options)
        parts = (100, 300)
    model.learn(sum(parts))
    for part in parts:
        ours.train(part)
    trained, optimizers = trained_by(model)
    theirs = torch.cat([p.detach().reshape(-1) for p in trained])
    state = ours.state
    assert torch.equal(state.parameters[0, : len(theirs)], theirs)
    moments = [
        value.reshape(-1)
        for optimizer in optimizers
        for group in optimizer.param_groups
        for p in group["params"]
        for key, value in optimizer.state[p].items()
        if key != "step"
    ]
    flat = torch.cat(moments)
    assert torch.equal(state.optimizer.moments[0, : len(flat)], flat)
    if options:  # nothing was learned of it, and it is where the learned one goes on
        assert state.parameters[0, -1] == pytest.approx(math.log(0.3))
        assert not state.optimizer.moments[0, len(flat) :].any()
        assert state.optimizer.started[0].tolist() == [True, True, False]
    else:
        assert len(theirs) == state.parameters.shape[1]
        assert len(flat) == state.optimizer.moments.shape[1]
    if name in REPLAYING:
        part = model.q_net_target if name == "dqn" else model.critic_target
        flat = torch.cat([p.detach().reshape(-1) for p in part.parameters()])
        assert torch.equal(state.target[0], flat)
        for field in fields(Replay):
            mine = getattr(state.replay, field.name)[0]
            assert (mine == getattr(model.replay_buffer, field.name)).all(), field.name
        ended, cut_off = state.replay.dones, state.replay.timeouts
        # both kinds of ends; Pendulum has one
        assert 0 < cut_off.sum() <= ended.sum()
        assert (cut_off.sum() < ended.sum()) == (name == "dqn")
    assert ours.interval.episodes[0] > 5


def trained_by(model: Any) -> tuple[list[torch.Tensor], list[torch.optim.Optimizer]]:
    """Parameters that a model of theirs trains, in our order, and what with."""
    if isinstance(model, stable_baselines3.DQN):
        return [*model.q_net.parameters()], [model.policy.optimizer]
    if isinstance(model, stable_baselines3.PPO):
        return [*model.policy.parameters()], [model.policy.optimizer]
    parts: list[Any] = [model.critic, model.actor]
    trained = [p for part in parts for p in part.parameters()]
    optimizers = [part.optimizer for part in parts]
    if model.ent_coef_optimizer is not None:
        trained.append(model.log_ent_coef)
        optimizers.append(model.ent_coef_optimizer)
    return trained, optimizers


def test_loss_and_norm_are_those_of_the_update() -> None:
    norms = []
    for limit in (0.05, 10.0):
        runs = make("ppo", n_epochs=1, batch_size=16, max_grad_norm=limit, ent_coef=0.1)
        runs.train(16)
        assert runs.interval.updates.tolist() == [1]
        logged = runs.learner.model.logger.name_to_value
        means = runs.interval.means(("loss", "grad_norm", "kl", "entropy"))
        assert means["loss"][0] == pytest.approx(logged["train/loss"], rel=1e-5)
        assert 0 < means["entropy"][0] <= math.log(2) + 1e-6
        norms.append(means["grad_norm"][0])
    assert norms[0] == norms[1] > 0.05  # before clipping


@pytest.mark.parametrize("name", quick(ALGORITHMS, "dqn", "ppo"))
def test_signals(name: str) -> None:
    runs = make(name, [0, 1])
    runs.train(4 * UNIT[name])
    before = runs.rows(0)
    signals = runs.learner.signals(runs.state, runs.values, runs.interval)
    assert runs.rows(0) == before
    assert set(signals) == set(runs.learner.signal_names)
    assert all(s.shape == (2,) and np.isfinite(s).all() for s in signals.values())
    again = runs.learner.signals(runs.state, runs.values, runs.interval)
    assert all((signals[n] == again[n]).all() for n in signals)
    if name != "dqn":
        return
    # the probe is a sample of the whole replay, which is small here
    q = runs.learner.model.q_net
    with runs.learner.off_policy.loaded(runs.state, 1), torch.no_grad():
        seen = torch.from_numpy(runs.state.replay.observations[1, :64, 0])
        chosen = torch.from_numpy(runs.state.replay.actions[1, :64, 0])
        mean = float(q(seen).gather(1, chosen).mean())
    spread = signals["value_std"][1] / 16
    assert signals["value_mean"][1] == pytest.approx(mean, abs=6 * spread)


@pytest.mark.parametrize("name", quick(ALGORITHMS, "dqn", "ppo"))
def test_operations_are_counted_as_elsewhere(name: str) -> None:
    sb3_kind, own = (load_learner(name, i) for i in ("sb3", "compiled"))
    env = inner_of(name)
    D, A = env.observation_shape[0], len(env.action_low)
    for sizes in ((8,), (64, 32)):
        counts = []
        for kind in (sb3_kind, own):
            learner = kind(env, env, kind.config_class(hidden_sizes=sizes), 1000)
            values = {h.name: np.full(2, h.start) for h in kind.hyperparameters}
            act, sample = learner.flops(values)
            counts.append((act, sample))
        (act, sample), (own_act, own_sample) = counts
        assert act == own_act
        if name == "sac":  # whose actor's loss goes back through all of both critics
            widths = (D + A, *sizes, 1)
            weights = sum(i * o for i, o in itertools.pairwise(widths))
            own_sample = own_sample + 2 * (2 * weights + 2 * D * sizes[0])
        assert sample.tolist() == own_sample.tolist()


# -- evaluation ------------------------------------------------------------------


@pytest.mark.parametrize("name", quick(ALGORITHMS, "dqn"))
def test_evaluation_plays_each_members_policy(name: str) -> None:
    runs = make(name, [0, 1, 2])
    runs.train(6 * UNIT[name])
    before = [runs.rows(i) for i in range(3)]
    keys = np.arange(12, dtype=np.uint64).reshape(3, 4)
    physics = physics_of(inner_of(name), 3)
    returns, steps = runs.learner.play(runs.state, np.array([2, 0, 1]), keys, physics)
    assert [runs.rows(i) for i in range(3)] == before
    assert returns.shape == (3, 4)
    if name == "sac":  # Pendulum does not end before its time
        assert steps.tolist() == 3 * [4 * 200]
    else:
        assert (steps == returns.sum(1)).all()  # CartPole pays one a step
    for k, member in enumerate((2, 0, 1)):
        one = slice(k, k + 1)
        alone = runs.learner.play(
            runs.state, np.array([member]), keys[one], physics[one]
        )
        assert (alone[0] == returns[one]).all()
    swapped, _ = runs.learner.play(runs.state, np.array([0, 2, 1]), keys, physics)
    assert (swapped[2] == returns[2]).all()
    assert (swapped[:2] != returns[:2]).any()


# -- restart, divergence ---------------------------------------------------------


@pytest.mark.parametrize("name", quick(ALGORITHMS, "dqn"))
def test_a_restarted_member_is_a_new_run(name: str) -> None:
    runs, fresh, untouched = make(name, [0, 1]), make(name, [7]), make(name, [0, 1])
    physics = physics_of(inner_of(name), 1)
    # those with a replay stop between two training events, PPO has no between
    steps = 5 * UNIT[name] + (3 if name in REPLAYING else 0)
    runs.train(steps)
    untouched.train(steps)
    runs.learner.restart(runs.state, np.array([1]), keys_of([7]), physics)

    def old() -> list[str]:
        names = runs.differences(fresh, 1, 0)
        return [n for n in names if not n.startswith("replay.")]

    assert old() == []
    for each in (runs, fresh, untouched):
        each.train(3 * UNIT[name])
    assert old() == []
    if name in REPLAYING:  # rows of the run before are there, out of reach
        written = 3 * UNIT[name]
        for field in fields(Replay):
            mine, theirs = (getattr(r.state.replay, field.name) for r in (runs, fresh))
            assert (mine[1, :written] == theirs[0, :written]).all()
    assert runs.differences(untouched, 0) == []


@pytest.mark.parametrize("name", quick(ALGORITHMS, "ppo"))
def test_divergence_is_a_members_own(name: str) -> None:
    env = Counting(name)
    runs, healthy = make(name, [0, 1, 2], env=env), make(name, [0, 1, 2])
    for each in (runs, healthy):
        each.train(3 * UNIT[name])
    runs.state.parameters[1] = torch.nan
    env.steps = 0
    for each in (runs, healthy):
        each.train(2 * UNIT[name])
        each.train(UNIT[name])
    diverged = runs.learner.diverged(runs.state, runs.interval)
    assert diverged.tolist() == [False, True, False]
    assert not healthy.learner.diverged(healthy.state, healthy.interval).any()
    assert runs.differences(healthy, 0) == runs.differences(healthy, 2) == []
    # its steps are taken all the same
    assert (runs.state.env_steps == 6 * UNIT[name]).all()
    assert env.steps == 3 * 3 * UNIT[name]


def test_probabilities_that_overflow_are_divergence() -> None:
    runs = make("ppo", [0, 1])
    runs.state.parameters[1] = 3e38  # finite, but products are not
    runs.train(16)
    assert torch.isfinite(runs.state.parameters).all()
    diverged = runs.learner.diverged(runs.state, runs.interval)
    assert diverged.tolist() == [False, True]


def test_overflow_while_diverging_is_silent() -> None:
    runs = make("ppo", [0, 1], n_epochs=1, batch_size=16)
    runs.state.parameters[1, -9:] = 1e25  # the value head
    runs.train(16)  # warnings are errors here
    diverged = runs.learner.diverged(runs.state, runs.interval)
    assert diverged.tolist() == [False, True]


@pytest.mark.parametrize("name", quick(ALGORITHMS, "dqn", "ppo"))
def test_divergence_from_the_updates_themselves(name: str) -> None:
    runs = make(name, [0, 1])
    runs.values["learning_rate"][1] = 1e30
    runs.train(6 * UNIT[name])
    diverged = runs.learner.diverged(runs.state, runs.interval)
    assert diverged.tolist() == [False, True]
    runs.learner.signals(runs.state, runs.values, runs.interval)  # no warnings


@pytest.mark.parametrize("name", quick(ALGORITHMS, "ppo"))
def test_a_diverged_run_ends_and_another_begins(name: str) -> None:
    envs = vector(name)
    envs.reset(seed=0)
    envs.step(np.zeros((3, 3)))
    envs.population.state.learner.parameters[1] = torch.nan
    _, _, ended, truncated, infos = envs.step(np.zeros((3, 3)))
    assert ended.tolist() == [False, True, False]
    assert not truncated.any()
    final = infos["final_info"]
    assert final["diverged"].tolist() == [False, True, False]
    assert final["score"][1] == envs.settings.task.floor_score
    steps = final["env_steps"][1]
    assert infos["env_steps"].tolist() == [steps, 0, steps]
    _, _, ended, _, infos = envs.step(np.zeros((3, 3)))
    assert not ended.any()
    assert not infos["diverged"].any()
    assert infos["gradient_steps"][1] > 0
