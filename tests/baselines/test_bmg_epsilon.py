"""Epsilon by bootstrapped meta-gradients: against torch, on runs, and what it costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from dacrl_env.baselines.bmg_epsilon import BMGEpsilon, target
from numpy.typing import NDArray

import dacrl_env
from dacrl_env.algorithms import dqn
from dacrl_env.core import snapshot
from dacrl_env.kernels import dense
from dacrl_env.policies import probe

TASK, PPO = "dacrl/DQN-CartPole-v0", "dacrl/PPO-CartPole-v0"
SHORT: dict[str, Any] = {
    "budget": 2_000, "decision_interval": 200, "eval_episodes": 1,
    "learning_starts": 300, "hidden_sizes": (16,),
}  # fmt: skip
LEDGER = ("fork_gradient_steps", "samples", "update_flops")


def made(P: int = 3, seed: Any = 0, steps: int = 3, **options: Any) -> Any:
    """Members after some decisions at defaults, and what they are told."""
    given = {**SHORT, "action_mode": "values", **options}
    envs = dacrl_env.PopulationEnv(given.pop("task", TASK), P, **given)
    told = envs.reset(seed=seed)
    for _ in range(steps):
        observations, *_, infos = envs.step(envs.to_actions({}))
        told = observations, infos
    return envs, *told


def contents(envs: Any) -> dict[str, bytes]:
    """All that a population is, its account aside."""
    leaves = snapshot.leaves(envs.population.state)
    return {name: leaf.tobytes() for name, leaf in leaves if name not in LEDGER}


# -- the target ----------------------------------------------------------------------


@pytest.mark.parametrize("actions", [2, 3, 18])
@pytest.mark.parametrize("d", [0.02, 0.3])
def test_the_target_is_where_the_divergence_is_smallest(d: float, actions: int) -> None:
    epsilons = np.linspace(1e-4, 1 - 1e-4, 9_999)
    stays = 1 - epsilons * (actions - 1) / actions
    divergence = -(1 - d) * np.log(stays) - d * np.log(epsilons / actions)
    found = epsilons[divergence.argmin()]
    assert target(np.array([d]), actions)[0] == pytest.approx(found, abs=1e-4)


def adam(
    rows: Any, gradients: Any, moments: Any, steps: int, rate: Any, most: Any
) -> Any:
    """A clipped step of torch's Adam, written out."""
    norms = gradients.norm(dim=1, keepdim=True)
    g = gradients * (most / (norms + 1e-6)).clamp(max=1)
    moments[0] += 0.1 * (g - moments[0])
    moments[1] += 0.001 * (g.square() - moments[1])
    mean = moments[0] / (1 - 0.9**steps)
    root = (moments[1] / (1 - 0.999**steps)).sqrt()
    return rows - rate * mean / (root + 1e-8)


@pytest.mark.parametrize(
    "fixed",
    [
        {"learning_rate": 3e-2},
        {
            "learning_rate": 1e-2, "gradient_steps": 2, "train_freq": 3, "n_step": 3,
            "double_q": True, "loss": "mse", "target_update_interval": 5, "tau": 0.5,
            "max_grad_norm": 0.3, "batch_size": 16,
        },
    ],
)  # fmt: skip
def test_changes_are_those_of_updates_by_torch(fixed: dict[str, Any]) -> None:
    P, B, L = 3, 200, 21
    envs, *_ = made(P, hyperparameters=["epsilon"], fixed=fixed)
    learner, state = envs.population.learner, envs.population.state.learner
    values, keys = probe.applied(envs), probe.words(envs, 2)
    golden, net = np.uint64(0x9E3779B97F4A7C15), learner.fixed.net

    def batch(number: int) -> dqn.Batch:
        """What is drawn for a gradient step from the keys of forks."""
        ahead = (state.gradient_steps + number - state.env_steps).astype(np.uint64)
        own, size = keys[:, 1] + ahead * golden, int(values["batch_size"][0])
        arrays = learner.probe(state, values, own, size)
        return dqn.Batch(*map(torch.from_numpy, arrays))

    rows = torch.from_numpy(state.parameters.copy())
    towards = torch.from_numpy(state.target.copy())
    moments = [torch.from_numpy(x.copy()) for x in (state.mean, state.square)]
    rate, most = (
        torch.from_numpy(values[n][:, None]).float()
        for n in ("learning_rate", "max_grad_norm")
    )
    options = probe.dqn_options(envs)
    states = torch.from_numpy(learner.probe(state, values, keys[:, 0], B)[0])
    before = dense.apply(net, rows, states).argmax(-1)
    since = {"train": int(state.since_train[0]), "target": int(state.since_target[0])}
    done, renewed = 0, 0
    while done < L:
        since = {name: n + 1 for name, n in since.items()}
        if since["target"] >= values["target_update_interval"][0]:
            since["target"], renewed = 0, renewed + 1
            towards += float(values["tau"][0]) * (rows - towards)
        if since["train"] < values["train_freq"][0]:
            continue
        since["train"] = 0
        for _ in range(min(int(values["gradient_steps"][0]), L - done)):
            given = batch(done)
            loss = torch.func.grad(
                lambda r, b=given, t=towards: dqn.loss(net, r, t, b, options).sum()
            )
            steps = int(state.part_steps[0, 0]) + done + 1
            rows = adam(rows, loss(rows), moments, steps, rate, most)
            done += 1
    after = dense.apply(net, rows, states).argmax(-1)
    expected = (before != after).float().mean(1).numpy()
    assert renewed > 0 or "tau" not in fixed
    found = probe.greedy_changes(envs, np.array([True, False, True]), B, L)
    assert (expected > 0.02).all()
    np.testing.assert_allclose(found[[0, 2]], expected[[0, 2]], atol=1e-6)
    assert np.isnan(found[1])


# -- the member ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fixed": {"priority_alpha": 0.6, "n_step": 3}, "num_inner_envs": 2},
        {"normalize_observations": True, "fourier_features": 32},
        {"hyperparameters": ["epsilon", "checkpoint", "priority_alpha"]},
    ],
)
def test_forks_leave_members_as_they_are(options: dict[str, Any]) -> None:
    envs, *_ = made(**options)
    before = contents(envs)
    shares = probe.greedy_changes(envs, np.ones(3, bool), 64, 50)
    assert (shares > 0).any()
    assert contents(envs) == before
    again = probe.greedy_changes(envs, np.ones(3, bool), 64, 50)
    np.testing.assert_array_equal(again, shares)


def test_a_run_with_forks_is_the_run_without() -> None:
    options = {**SHORT, "split": "tuning"}
    names = ["policy", "wall_seconds", "gradient_steps", "flops"]
    with_forks, without = (
        dacrl_env.evaluate(TASK, spec, 3, **options)
        for spec in ("bmg-epsilon,step=0,initial=0.2", "static,epsilon=0.2")
    )
    dropped = (frame.drop(columns=names) for frame in (with_forks, without))
    first, second = dropped
    assert first.equals(second)
    for _, run in with_forks.groupby("seed"):
        own = without[without["seed"] == run["seed"].iloc[0]]
        own = own[own["gradient_steps"].notna()]
        run = run[run["gradient_steps"].notna()]
        extra = run["gradient_steps"].to_numpy() - own["gradient_steps"].to_numpy()
        # at the decisions after 400, 600, … steps; rows are their ends
        assert extra.tolist() == [0, 0, 0, *(100 * np.arange(1, 9))]


def test_what_forks_cost_is_charged() -> None:
    envs, *_ = made(hyperparameters=["epsilon"], fixed={"batch_size": 32})
    info = envs.population.info()
    probe.greedy_changes(envs, np.array([True, False, True]), 64, 50)
    now = envs.population.info()
    learner = envs.population.learner
    act, per_sample = learner.flops(probe.applied(envs))
    for name, each in (
        ("gradient_steps", 50),
        ("samples", 50 * 32),
        ("flops", 50 * 32 * per_sample[0] + 2 * 64 * act),
    ):
        paid = now["objectives"][name] - info["objectives"][name]
        assert paid.tolist() == [each, 0, each], name
    paid = now["gradient_steps"] - info["gradient_steps"]
    assert paid.tolist() == [50, 0, 50]
    envs.reset(seed=1)  # a new run has no debts
    assert not envs.population.state.fork_gradient_steps.any()


def test_members_are_alone() -> None:
    def epsilons(P: int, seeds: list[int], threads: int) -> NDArray[Any]:
        policy, found = BMGEpsilon(updates=70, states=64), []
        envs, observations, infos = made(P, seeds, 0, num_threads=threads)
        policy.reset(envs, 0)
        for _ in range(6):
            actions = policy.act(observations, infos)
            found.append(policy.epsilons.copy())
            observations, *_, infos = envs.step(actions)
        return np.array(found)

    together = epsilons(64, list(range(64)), 2)
    np.testing.assert_array_equal(together[:, 9:10], epsilons(1, [9], 1))
    assert (together[-1] != together[0]).mean() > 0.9


# -- the policy ------------------------------------------------------------------------


def test_epsilon_goes_a_share_of_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    number = dacrl_env.Number("epsilon", 0.05, 0.8, 0.1)
    envs, observations, infos = made(hyperparameters=[number])
    policy = BMGEpsilon(step=0.25, initial=0.4, states=10, updates=7)
    policy.reset(envs, 0)
    asked = []

    def changes(envs: Any, live: NDArray[np.bool_], *numbers: int) -> NDArray[Any]:
        asked.append((live.tolist(), numbers))
        return np.where(live, [0.0, 0.1, 0.9], np.nan)

    monkeypatch.setattr(probe, "greedy_changes", changes)
    steps = [[0, 0, 0], [200, 300, 400], [400, 400, 600], [600, 0, 800]]
    found = []
    for row in steps:
        policy.act(observations, dict(infos, env_steps=np.array(row)))
        found.append(policy.epsilons.copy())
    assert asked == [
        ([False, False, True], (10, 7)),  # nothing is learned until 300
        ([True, True, True], (10, 7)),
        ([True, False, True], (10, 7)),
    ]

    def moved(start: float, towards: float, times: int) -> float:
        return towards + (start - towards) * 0.75**times

    expected = [  # the second begins a new run in the end
        [0.4, 0.4, 0.4],
        [0.4, 0.4, moved(0.4, 0.8, 1)],  # 1.8 is beyond the range
        [moved(0.4, 0.05, 1), moved(0.4, 0.2, 1), moved(0.4, 0.8, 2)],
        [moved(0.4, 0.05, 2), 0.4, moved(0.4, 0.8, 3)],
    ]
    np.testing.assert_allclose(found, expected)


def test_a_diverged_member_gets_an_action_and_pays_nothing() -> None:
    envs, observations, infos = made()
    policy = BMGEpsilon(updates=5, states=16)
    policy.reset(envs, 0)
    envs.population.state.learner.parameters[1] = np.nan
    for diverged in (False, True):
        envs.population.state.diverged[1] = diverged
        before = envs.population.state.fork_gradient_steps.copy()
        assert np.isfinite(policy.act(observations, infos)).all()
    paid = envs.population.state.fork_gradient_steps - before
    assert paid.tolist() == [5, 0, 5]


@pytest.mark.parametrize(
    ("spec", "task", "words"),
    [
        ("bmg-epsilon,updates=0", TASK, "updates"),
        ("bmg-epsilon,states=0", TASK, "states"),
        ("bmg-epsilon,decisions=0", TASK, "decisions"),
        ("bmg-epsilon,step=1.5", TASK, "step must lie between 0 and 1"),
        ("bmg-epsilon,initial=2", TASK, "outside its range"),
        ("bmg-epsilon", PPO, "does not know the algorithm 'ppo'; valid: dqn"),
        ("bmg-epsilon", "dacrl/NoisyQuadratic-v0", "'sgd'; valid: dqn"),
    ],
)
def test_what_cannot_be(spec: str, task: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dacrl_env.evaluate(task, spec, 1)


def test_populations_that_it_cannot_act_in() -> None:
    with pytest.raises(ValueError, match="forks the compiled dqn; SB3DQN"):
        dacrl_env.evaluate(TASK, "bmg-epsilon", 1, implementation="sb3")
    envs, *_ = made(1, steps=0, hyperparameters=["learning_rate"])
    with pytest.raises(ValueError, match=r"epsilon.*valid: learning_rate"):
        BMGEpsilon().reset(envs, 0)
