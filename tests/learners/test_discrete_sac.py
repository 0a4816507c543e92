"""SAC with discrete actions: updates by torch, and probes whose solution is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from batched import BatchedEnv
from numpy.typing import NDArray
from populations import Runs, make_runs

import dacrl_env
from dacrl_env.algorithms import discrete_sac as algorithm
from dacrl_env.algorithms import soft
from dacrl_env.algorithms.replay import ACTIONS, CONTINUES, REWARD
from dacrl_env.core import streams
from dacrl_env.inner_envs.env import ENVS
from dacrl_env.learners import discrete_sac


class Pick:
    """One-step probe: of three actions the second is worth 1, the others 0 and ½."""

    observation_shape = (2,)
    observation_dtype: np.dtype[Any] = np.dtype(np.float32)
    num_actions = 3
    action_low = action_high = np.empty(0)
    max_episode_steps = 10
    uniforms_per_reset = 2
    physics: dict[str, float] = {}  # noqa: RUF012
    worth = np.array([0.0, 1.0, 0.5])

    def initial(self, uniforms, physics):
        return uniforms.copy()

    def step(self, variables, actions, physics):
        return variables, self.worth[actions], np.ones(actions.shape, bool)

    def observe(self, variables):
        return variables.astype(np.float32)


class Chain(Pick):
    """Probe: reward 1 at the second and last step, whatever is done."""

    observation_shape = (1,)
    uniforms_per_reset = 1

    def initial(self, uniforms, physics):
        return np.zeros(uniforms.shape)

    def step(self, variables, actions, physics):
        last = variables[..., 0] == 1.0
        return variables + 1.0, last.astype(float), last


class Nothing(Chain):
    """Probe: no reward, and never an end."""

    max_episode_steps = 5

    def step(self, variables, actions, physics):
        shape = variables.shape[:-1]
        return variables, np.zeros(shape), np.zeros(shape, bool)


def make(P: int = 2, env: Any = None, **options: Any) -> Runs:
    env = ENVS["CartPole-v1"]() if env is None else BatchedEnv(env)
    return make_runs(P, env, algorithm="discrete_sac", **options)


def values_at(runs: Runs, seen: list[float]) -> NDArray[np.float32]:
    """Values ``(P, 2, A)`` that both critics give all actions."""
    observations = torch.tensor([[seen]] * len(runs.keys), dtype=torch.float32)
    rows = torch.from_numpy(runs.state.parameters)
    both = algorithm.critics(runs.learner.fixed, rows, observations)
    return torch.stack(both, 1)[:, :, 0].numpy()


LEARNING: dict[str, Any] = {
    "learning_rate": 3e-3,
    "batch_size": 64,
    "tau": 0.05,
    "learning_starts": 100,
}
COLD: dict[str, Any] = {"ent_rule": "set", "alpha": 1e-4}


# -- updates ---------------------------------------------------------------------------


MEMBERS: list[dict[str, Any]] = [
    {"batch_size": 64},
    {"batch_size": 5, "gamma": 0.9, "tau": 1.0, "target_entropy": 0.3},
    {"ent_rule": 1.0, "alpha": 0.2, "batch_size": 32, "learning_rate": 1e-2},
]


def batch_of(runs: Runs, p: int, number: int, B: int) -> algorithm.Batch:
    """What a member with one inner environment drew for the draw of this number."""
    replay, written = runs.state.replay, int(runs.state.env_steps[p])
    key = streams.of(runs.state.keys, "replay")[p : p + 1]
    high = np.array([written])
    places = streams.integers(key, np.array([number]), B, high)[0]
    rows = replay.transitions[p, 0, places]
    seen, following = replay.observations[p, 0, places].swapaxes(0, 1)
    given = torch.tensor(rows)
    return algorithm.Batch(
        torch.tensor(seen),
        given[:, ACTIONS].long(),
        given[:, REWARD],
        torch.tensor(following),
        float(runs.values["gamma"][p]) * given[:, CONTINUES],
        torch.ones(B),
    )


def test_updates_are_those_of_adam_on_the_definition() -> None:
    """Temperature, then critics, then actor; targets follow."""
    defaults = {h.name: h.start for h in discrete_sac.HYPERPARAMETERS}
    each = [{**defaults, **member} for member in MEMBERS]
    columns = {name: np.array([m[name] for m in each]) for name in defaults}
    runs = make(len(each), learning_starts=200, **columns)
    runs.train(200)
    fixed, state = runs.learner.fixed, runs.state
    critics = slice(fixed.actor.row, fixed.actor.row + 2 * fixed.critic.row)
    rows = [torch.tensor(state.parameters[p].copy()) for p in range(len(each))]
    targets = [row.clone() for row in rows]
    parts = [
        [row[: fixed.actor.row], row[critics], row[-soft.REST : -soft.REST + 1]]
        for row in rows
    ]
    optimisers = [
        [torch.optim.Adam([x], m["learning_rate"]) for x in three]
        for three, m in zip(parts, each, strict=True)
    ]

    def follow(optimiser: torch.optim.Adam, part: torch.Tensor, grad: Any) -> None:
        part.grad = grad.clone()
        optimiser.step()

    for k in range(8):
        runs.train(1)
        for p, (row, target, chosen) in enumerate(
            zip(rows, targets, each, strict=True)
        ):
            batch = batch_of(runs, p, k, int(chosen["batch_size"]))
            (of_actor, of_critics, of_heat), learns = parts[p], not chosen["ent_rule"]
            heat = of_heat.exp().item() if learns else chosen["alpha"]
            log_probs = algorithm.policy(fixed, row, batch.observations)
            if learns:
                entropies = -(log_probs.exp() * log_probs).sum(-1)
                wanted = chosen["target_entropy"] * math.log(2)
                log_heat = torch.zeros((), requires_grad=True)
                loss = algorithm.temperature_loss(log_heat, entropies, wanted)
                loss.backward()
                follow(optimisers[p][2], of_heat, log_heat.grad.view(1))
            whole = row.clone().requires_grad_()
            algorithm.critic_loss(fixed, whole, target, batch, heat).backward()
            follow(optimisers[p][1], of_critics, whole.grad[critics])
            whole = row.clone().requires_grad_()
            algorithm.actor_loss(fixed, whole, batch, heat).backward()
            follow(optimisers[p][0], of_actor, whole.grad[: fixed.actor.row])
            target[critics] += chosen["tau"] * (row[critics] - target[critics])
            if not learns:  # where a learned one would go on from
                of_heat[0] = math.log(chosen["alpha"])
            close = {"rtol": 2e-4, "atol": 2e-5, "err_msg": f"{p}, {k}"}
            np.testing.assert_allclose(state.parameters[p], row, **close)
            np.testing.assert_allclose(
                state.target[p, critics], target[critics], **close
            )
    assert state.gradient_steps.tolist() == [8] * len(each)


def test_floating_point_operations() -> None:
    runs = make(2, hidden_sizes=(64, 32))
    act, (learn, _) = runs.learner.flops(runs.values)
    assert act == 2 * (4 * 64 + 64 * 32 + 32 * 2)
    # of the actor: forward twice, backward but to observations; of each critic forward
    # three times and backward; all networks are alike
    first = 2 * 4 * 64
    assert learn == (4 * act - first) + 2 * (5 * act - first)
    seen = 2 * 4 * 10
    config = {"hidden_sizes": (64, 32), "fourier_features": 20}
    other, (more, _) = make(2, **config).learner.flops(runs.values)
    assert other == act + 2 * 16 * 64 + seen
    assert more == learn + 14 * 2 * 16 * 64 - 3 * 2 * 16 * 64 + 2 * seen


# -- probes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"target_entropy": 0.2},
        {"ent_rule": "set", "alpha": 0.05},
        {"num_inner_envs": 2, "ent_rule": "set", "alpha": 0.05},
        {"priority_alpha": 0.6, "activation": "tanh", "target_entropy": 0.2},
        {"normalize_observations": True, "fourier_features": 16, "target_entropy": 0.2},
    ],
)
def test_the_best_action_is_found(options: dict[str, Any]) -> None:
    runs = make(2, Pick(), **{**LEARNING, **options})
    runs.train(1_000 * options.get("num_inner_envs", 1))
    best = runs.learner.policy(runs.state, np.arange(2))
    actions = best(np.full((2, 1, 2), 0.5, np.float32))
    assert actions.ravel().tolist() == [1, 1]
    if "fourier_features" not in options:
        values = values_at(runs, [0.5, 0.5])
        np.testing.assert_allclose(
            values, np.broadcast_to(Pick.worth, (2, 2, 3)), atol=0.2
        )


def test_the_value_of_a_later_reward_is_discounted() -> None:
    runs = make(3, Chain(), gamma=[0.8, 0.9, 0.99], **LEARNING, **COLD)
    runs.train(1_500)
    expected = np.array([0.8, 0.9, 0.99])[:, None, None] + np.zeros((2, 3))
    np.testing.assert_allclose(values_at(runs, [0.0]), expected, atol=0.07)
    np.testing.assert_allclose(values_at(runs, [1.0]), 1.0, atol=0.07)


def test_entropy_is_worth_its_temperature() -> None:
    """Of an endless loop without rewards the value is that of the entropy to come."""
    runs = make(1, Nothing(), gamma=0.5, ent_rule="set", alpha=0.5, **LEARNING)
    runs.train(2_000)
    # from the next step on, γ · α · log 3 / (1 − γ)
    np.testing.assert_allclose(values_at(runs, [0.0]), 0.5 * math.log(3), rtol=0.1)


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_learned_temperature_keeps_the_entropy(share: float) -> None:
    runs = make(2, Pick(), target_entropy=share, **LEARNING)
    runs.train(2_500)
    runs.begin_interval()
    runs.train(200)
    entropy = runs.interval.means(runs.learner.sums)["entropy"]
    np.testing.assert_allclose(entropy, share * math.log(3), atol=0.15)


def test_actions_are_drawn_by_their_probabilities() -> None:
    runs = make(1, Pick(), ent_rule="set", alpha=0.5, **LEARNING)
    runs.train(2_000)
    before = runs.state.parameters.copy()
    runs.values["learning_rate"][:] = 0.0
    runs.train(2_000)
    np.testing.assert_array_equal(before, runs.state.parameters)
    taken = runs.state.replay.transitions[0, 0, 2_000:4_000, ACTIONS].astype(int)
    shares = np.bincount(taken, minlength=3) / 2_000
    soft_values = np.exp(Pick.worth / 0.5)
    np.testing.assert_allclose(shares, soft_values / soft_values.sum(), atol=0.08)


# -- what there is not -----------------------------------------------------------------


def test_stable_baselines3_has_none() -> None:
    for task in ("dacrl/DiscreteSAC-CartPole-v0", "dacrl/Pipeline-CartPole-v0"):
        with pytest.raises(
            ValueError, match="no implementation 'sb3'; valid: compiled"
        ):
            dacrl_env.DynamicConfigEnv(task, implementation="sb3")


def test_continuous_actions_are_refused() -> None:
    for name in ("discrete_sac", "pipeline"):
        task = dacrl_env.Task(
            id="dacrl-tests/Continuous-v0", inner_env="Pendulum-v1", algorithm=name,
            budget=5_120, decisions=10, random_return=-1230.0, reference_return=-150.0,
            floor_return=-3300.0,
        )  # fmt: skip
        with pytest.raises(ValueError, match="has continuous actions"):
            dacrl_env.DynamicConfigEnv(task)
