"""SAC: equality with Stable-Baselines3, and environments whose solution is known."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from batched import BatchedEnv
from cases import sb3_n_steps, slow
from numpy.typing import NDArray
from populations import Runs, make_runs
from sb3_rows import sac_layers, sac_row
from stable_baselines3 import SAC as SB3SAC
from stable_baselines3.common import logger, type_aliases

from dacrl_env.algorithms import sac as algorithm
from dacrl_env.algorithms import soft
from dacrl_env.algorithms.interval import SAMPLES, UPDATES
from dacrl_env.algorithms.replay import ACTIONS, CONTINUES, DONE, REWARD
from dacrl_env.algorithms.sb3.envs import MemberEnvs
from dacrl_env.algorithms.tanh_gaussian import proposed
from dacrl_env.core import streams
from dacrl_env.inner_envs.env import ENVS
from dacrl_env.kernels import dense
from dacrl_env.kernels.random_numbers import normals
from dacrl_env.learners import sac

Floats = NDArray[np.float64]
NAMES = [h.name for h in sac.HYPERPARAMETERS]
GOLDEN = 0x9E3779B97F4A7C15


class Reach:
    """One-step probe: the reward is best at one action, and worth 1 there."""

    observation_shape = (2,)
    observation_dtype: np.dtype[Any] = np.dtype(np.float32)
    num_actions = 0
    action_low = np.array([-2.0, 0.0])
    action_high = np.array([2.0, 3.0])
    best = np.array([0.5, 2.0])
    max_episode_steps = 10
    uniforms_per_reset = 2
    physics: dict[str, float] = {}  # noqa: RUF012
    taken = np.empty(0)

    def initial(self, uniforms, physics):
        return uniforms.copy()

    def step(self, variables, actions, physics):
        self.taken = actions.copy()
        rewards = 1.0 - np.square(actions - self.best).sum(-1)
        return variables, rewards, np.ones(rewards.shape, bool)

    def observe(self, variables):
        return variables.astype(np.float32)


class Chain(Reach):
    """Probe: reward 1 at the second and last step, whatever is done."""

    observation_shape = (1,)
    uniforms_per_reset = 1

    def initial(self, uniforms, physics):
        return np.zeros(uniforms.shape)

    def step(self, variables, actions, physics):
        last = variables[..., 0] == 1.0
        return variables + 1.0, last.astype(float), last


class Loop(Chain):
    """Probe: reward 1 a step, never terminated, truncated after one step."""

    max_episode_steps = 1

    def step(self, variables, actions, physics):
        shape = variables.shape[:-1]
        return variables, np.ones(shape), np.zeros(shape, bool)


class Wander:
    """Moves by its A actions, terminates far from where it began, or is truncated.

    Args:
        A: components of an action, whose bounds all differ.
    """

    observation_shape = (4,)
    observation_dtype: np.dtype[Any] = np.dtype(np.float32)
    num_actions = 0
    max_episode_steps = 12
    uniforms_per_reset = 4
    physics: dict[str, float] = {}  # noqa: RUF012

    def __init__(self, A: int) -> None:
        self.action_low = np.array([-2.0, 0.0, -0.5])[:A]
        self.action_high = np.array([2.0, 3.0, 4.0])[:A]
        self.ways = np.random.default_rng(A).normal(size=(A, 4)) / 3

    def initial(self, uniforms, physics):
        return 2.0 * uniforms - 1.0

    def step(self, variables, actions, physics):
        variables = variables + actions @ self.ways
        size = np.square(variables).mean(-1)
        return variables, 1.0 - size, size > 4.0

    def observe(self, variables):
        return variables.astype(np.float32)


def make(P: int | list[int] = 2, env: Any = None, **options: Any) -> Runs:
    if env is not None and not hasattr(env, "init"):
        env = BatchedEnv(env)
    env = ENVS["Pendulum-v1"]() if env is None else env
    return make_runs(P, env, algorithm="sac", **options)


# -- what members draw -----------------------------------------------------------------


def drawn(keys: streams.UInts, numbers: NDArray[np.int64]) -> streams.UInts:
    """The draws ``(P,)`` of these numbers, as keys of further draws."""
    ahead = [(int(k) + int(n) * GOLDEN) % 2**64 for k, n in zip(keys, numbers)]  # noqa: B905
    return streams._mix(np.array(ahead, np.uint64))


def batch_of(runs: Runs, p: int, number: int, B: int) -> algorithm.Batch:
    """What a member with one inner environment drew for the draw of this number."""
    replay, values = runs.state.replay, runs.values
    (env,), env_steps = replay.transitions[p], int(runs.state.env_steps[p])
    capacity, n_step = len(env), int(values["n_step"][p])
    kept = min(env_steps, capacity)
    size = min(kept, int(values["replay_window"][p]))
    high = np.array([size])
    key = streams.of(runs.state.keys, "replay")[p : p + 1]
    ages = streams.integers(key, np.array([number]), B, high)[0]
    first = (env_steps - size + ages if size < kept else ages) % capacity
    last, returns = first.copy(), env[first, REWARD].astype(np.float64)
    discounts = np.full(B, values["gamma"][p])
    for b in range(B):
        for _ in range(1, n_step):
            newest = (env_steps - 1) % capacity
            if env[last[b], DONE] or last[b] == newest:
                break
            last[b] = (last[b] + 1) % capacity
            returns[b] += discounts[b] * env[last[b], REWARD]
            discounts[b] *= values["gamma"][p]
    low, high = runs.learner.env.action_low, runs.learner.env.action_high
    actions = 2 * (env[first, ACTIONS:] - low) / (high - low) - 1
    discounts *= env[last, CONTINUES]
    columns = (
        replay.observations[p, 0, first, 0],
        actions,
        returns,
        replay.observations[p, 0, last, 1],
        discounts,
        np.ones(B),
    )
    return algorithm.Batch(*(torch.tensor(np.float32(c)) for c in columns))


def noise_of(runs: Runs, p: int, number: int, B: int) -> list[torch.Tensor]:
    """Noise ``(B, A)`` of actions for what was seen, and for what followed."""
    key, A = streams.of(runs.state.keys, "replay")[p : p + 1], runs.learner.fixed.A
    keys = drawn(key, np.array([number]))
    every = (normals(keys, np.array([k]), B * A) for k in range(2))
    return [torch.tensor(np.float32(n.reshape(B, A))) for n in every]


def log_temperatures(runs: Runs) -> NDArray[np.float32]:
    """Of all members ``(P,)``: a view."""
    return runs.state.parameters[:, -soft.REST]


# -- Stable-Baselines3 -----------------------------------------------------------------


def sb3_sac(env: Any, **overrides: Any) -> SB3SAC:
    settings: dict[str, Any] = {
        "buffer_size": 1000,
        "policy_kwargs": {"net_arch": [16, 16]},
        "seed": 0,
        "device": "cpu",
        **overrides,
    }
    model = SB3SAC("MlpPolicy", env, **settings)
    model.set_logger(logger.configure(None, []))
    return model


@pytest.fixture
def noises(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What its normal distributions draw, in turn."""
    left: list[torch.Tensor] = []

    def sample(self: Any, shape: Any = ()) -> torch.Tensor:
        return self.loc + self.scale * left.pop(0)

    monkeypatch.setattr(torch.distributions.Normal, "rsample", sample)
    return left


MEMBERS: list[dict[str, Any]] = [
    {"batch_size": 64},
    {"batch_size": 5, "gamma": 0.9, "tau": 1.0, "target_entropy": 0.3},
    {"batch_size": 48, "learning_rate": 1e-2, "gradient_steps": 3, "tau": 0.1},
    {"ent_rule": "set", "alpha": 0.2, "batch_size": 32, "learning_rate": 1e-4},
    {"ent_rule": "set", "alpha": 3.0, "batch_size": 256, "gradient_steps": 2},
]


@pytest.mark.parametrize("A", [1, slow(2), 3])
@pytest.mark.parametrize("n_step", [1, pytest.param(3, marks=sb3_n_steps)])
def test_updates_equal_those_of_stable_baselines3(
    A: int, n_step: int, monkeypatch: pytest.MonkeyPatch, noises: list[torch.Tensor]
):
    """Fed with our batches and our noise, its own `train` gives our parameters."""
    env = BatchedEnv(Wander(A))
    defaults = {h.name: h.default for h in sac.HYPERPARAMETERS}
    each = [{**defaults, "n_step": n_step, **member} for member in MEMBERS]
    columns = {name: [m[name] for m in each] for name in NAMES}
    columns["ent_rule"] = np.array([m["ent_rule"] == "set" for m in each], float)
    runs = make(len(each), env, learning_starts=300, **columns)
    runs.train(300)  # random actions fill the memory
    state, fixed, models = runs.state, runs.learner.fixed, []
    for p, chosen in enumerate(each):
        learns = chosen["ent_rule"] == "auto"
        model = sb3_sac(
            MemberEnvs(env, 1),
            ent_coef="auto" if learns else chosen["alpha"],
            target_entropy=chosen["target_entropy"] * A,
            **{name: chosen[name] for name in ("learning_rate", "gamma", "tau")},
        )
        # equal starts; ours is the copy, and the targets differ from the parameters
        with torch.no_grad():
            for parameter in model.critic_target.parameters():
                parameter.add_(0.01)
        state.parameters[p] = sac_row(model, fixed)
        state.target[p] = sac_row(model, fixed, "critic_target")
        models.append(model)
    critics = slice(fixed.actor.row, -soft.REST)
    for _ in range(10):
        done = state.gradient_steps.copy()
        runs.begin_interval()
        runs.train(1)
        for p, model in enumerate(models):
            B, several = (int(each[p][n]) for n in ("batch_size", "gradient_steps"))
            numbers = range(done[p], done[p] + several)
            batches = iter([_as_sb3(batch_of(runs, p, k, B), n_step) for k in numbers])
            for k in numbers:
                noises += noise_of(runs, p, k + algorithm._NOISE, B)
            monkeypatch.setattr(
                model.replay_buffer, "sample", lambda n, env, left=batches: next(left)
            )
            model.train(gradient_steps=several, batch_size=B)
            assert not noises
            expected = sac_row(model, fixed)
            if each[p]["ent_rule"] == "set":  # where a learned one would go on from
                expected[-soft.REST] = math.log(each[p]["alpha"])
            close = {"rtol": 1e-5, "atol": 1e-5, "err_msg": f"{p}, {done[p]}"}
            np.testing.assert_allclose(state.parameters[p], expected, **close)
            target = sac_row(model, fixed, "critic_target")[critics]
            np.testing.assert_allclose(state.target[p, critics], target, **close)
            told = runs.interval.means(runs.learner.sums)
            for name, theirs in (
                ("loss", "critic_loss"),
                ("actor_loss", "actor_loss"),
                ("temperature", "ent_coef"),
            ):
                value = model.logger.name_to_value[f"train/{theirs}"]
                assert told[name][p] == pytest.approx(value, rel=1e-4, abs=1e-5)
    assert state.gradient_steps.tolist() == [10, 10, 30, 10, 20]
    bounds = env.action_low, env.action_high
    taken = state.replay.transitions[:, 0, :310, ACTIONS:]
    assert (taken >= bounds[0]).all()
    assert (taken <= bounds[1]).all()


def _as_sb3(batch: algorithm.Batch, n_step: int) -> type_aliases.ReplayBufferSamples:
    over = batch.discounts[:, None] == 0
    discounts = {"discounts": batch.discounts[:, None]} if n_step > 1 else {}
    return type_aliases.ReplayBufferSamples(
        batch.observations,
        batch.actions,
        batch.next_observations,
        dones=over.float(),
        rewards=batch.returns[:, None],
        **discounts,
    )


@pytest.mark.parametrize(
    ("starts", "train_freq", "gradient_steps"),
    [(100, 4, 1), (98, 4, 1), (0, 1, 1), (99, 1, 2), (50, 7, 3)],
)
def test_counts_are_those_of_stable_baselines3(
    monkeypatch: pytest.MonkeyPatch, starts: int, train_freq: int, gradient_steps: int
):
    steps = 28 * train_freq  # it finishes the collection it has begun
    counts = {
        "learning_starts": starts,
        "train_freq": train_freq,
        "gradient_steps": gradient_steps,
        "batch_size": 4,
    }
    updates: list[int] = []
    model = sb3_sac(gym.make("Pendulum-v1"), **counts)
    # counting is enough, learning takes time
    monkeypatch.setattr(
        model,
        "train",
        lambda gradient_steps, batch_size: updates.extend(
            [model.num_timesteps] * gradient_steps
        ),
    )
    model.learn(steps)
    assert model.num_timesteps == steps
    runs, ours = make(1, **counts), []
    for step in range(1, steps + 1):
        before = int(runs.state.gradient_steps[0])
        runs.train(1)
        ours += [step] * (int(runs.state.gradient_steps[0]) - before)
    assert ours == updates
    assert runs.interval.counts[0, UPDATES] == len(updates)
    assert runs.interval.counts[0, SAMPLES] == 4 * len(updates)


# -- acting ----------------------------------------------------------------------------


def actions_of(runs: Runs, p: int) -> NDArray[np.float32]:
    """Actions ``(T, A)`` in the replay, oldest first, of a single environment."""
    return runs.state.replay.transitions[p, 0, : runs.state.env_steps[p], ACTIONS:]


def ideal(runs: Runs, p: int, mean: float, log_std: float) -> None:
    """Let the actor say the same of everything."""
    A = runs.learner.fixed.A
    weight, bias = sac_layers(runs.learner.fixed, runs.state.parameters[p])[0][-1]
    weight[...], bias[:A], bias[A:] = 0.0, mean, log_std


def test_actions_before_learning_starts_have_equal_density():
    runs = make(2, Wander(3), learning_starts=4_000)
    ideal(runs, 0, 3.0, -5.0)  # is not asked
    runs.train(4_000)
    low, high = runs.learner.env.action_low, runs.learner.env.action_high
    for p in range(2):
        shares = (actions_of(runs, p) - low) / (high - low)
        assert ((shares >= 0) & (shares < 1)).all()
        for a in range(3):
            counts, _ = np.histogram(shares[:, a], 10, (0, 1))
            assert np.square(counts - 400).sum() / 400 < 33  # χ², p = 0.0001
        correlations = np.corrcoef(shares.T) - np.eye(3)
        assert abs(correlations).max() < 0.07
    assert (actions_of(runs, 0) != actions_of(runs, 1)).all()
    assert runs.interval.updates.tolist() == [0, 0]
    runs.train(100)
    tenths = (actions_of(runs, 0)[4_000:] - low) / (high - low)
    assert tenths.min() > 0.95  # and is now


@pytest.mark.parametrize("N", [1, 3])
def test_actions_before_learning_starts_are_held(N: int):
    fields = {"num_inner_envs": N, "learning_starts": 20 * N, "train_freq": 1_000}
    held, single = (make(2, **fields, held_starts=n) for n in (8, 1))
    for runs in (held, single):
        runs.train(5 * N)  # cut within a stretch
        runs.train(23 * N)
    for p in range(2):
        actions, other = (
            runs.state.replay.transitions[p, :, :28, ACTIONS:]
            for runs in (held, single)
        )
        for start, end in ((0, 8), (8, 16), (16, 20)):
            assert (actions[:, start:end] == other[:, [start]]).all()
        assert (actions[:, 20:-1] != actions[:, 21:]).all()  # the actor's are not


def test_actions_follow_their_distribution():
    runs = make(1, Reach(), learning_starts=0, train_freq=1_000_000)
    ideal(runs, 0, 0.3, math.log(0.5))
    runs.train(8_000)
    low, high = runs.learner.env.action_low, runs.learner.env.action_high
    actions = actions_of(runs, 0)
    assert ((actions > low) & (actions < high)).all()
    raw = np.arctanh(2 * (actions.astype(float) - low) / (high - low) - 1)
    np.testing.assert_allclose(raw.mean(0), 0.3, atol=0.02)
    np.testing.assert_allclose(raw.std(0), 0.5, atol=0.02)
    within = (abs(raw - 0.3) < 0.5).mean(0)
    np.testing.assert_allclose(within, 0.6827, atol=0.02)
    assert abs(np.corrcoef(raw.T)[0, 1]) < 0.04
    assert abs(np.corrcoef(raw[1:, 0], raw[:-1, 0])[0, 1]) < 0.04


def test_the_best_action_is_the_mean_within_the_bounds():
    runs = make(3, Wander(3))
    for row in runs.state.parameters:  # far enough for tanh to bend
        sac_layers(runs.learner.fixed, row)[0][-1][0][...] *= 5.0
    fixed, seen = runs.learner.fixed, np.random.default_rng(0).normal(size=(3, 20, 4))
    best = runs.learner.policy(runs.state, np.arange(3))(np.float32(seen))
    rows = torch.from_numpy(runs.state.parameters[:, : fixed.actor.row])
    outputs = dense.apply(fixed.actor, rows, torch.tensor(np.float32(seen)))
    shares = (outputs[..., :3].tanh().numpy() + 1) / 2
    low, high = runs.learner.env.action_low, runs.learner.env.action_high
    np.testing.assert_allclose(best, low + shares * (high - low), rtol=1e-5, atol=1e-5)
    assert shares.std() > 0.1


@pytest.mark.parametrize(
    ("value", "actions"),
    [(np.nan, [0.0, 1.5]), (np.inf, [2.0, 3.0]), (-np.inf, [-2.0, 0.0])],
)
def test_actions_of_a_diverged_member_are_numbers(value: float, actions: list[float]):
    """Physics engines stop the process, or raise, at others."""
    dynamics = Reach()
    runs = make(2, dynamics, learning_starts=0, train_freq=1_000)
    ideal(runs, 1, value, 0.0)
    runs.train(1)
    assert dynamics.taken[1, 0].tolist() == actions
    assert np.isfinite(dynamics.taken).all()
    best = runs.learner.policy(runs.state, np.array([1]))
    assert best(np.ones((1, 1, 2), np.float32)).tolist() == [[actions]]
    assert runs.diverged() == [False, True]


# -- the temperature -------------------------------------------------------------------


def test_a_temperature_that_is_set_is_used_and_kept():
    runs = make(2, ent_rule="set", alpha=[0.02, 5.0], learning_starts=50)
    assert (log_temperatures(runs) == 0).all()
    runs.train(80)
    expected = np.array([0.02, 5.0], np.float32)
    told = runs.interval.means(runs.learner.sums)["temperature"]
    np.testing.assert_allclose(told, expected, rtol=1e-6)
    np.testing.assert_allclose(np.exp(log_temperatures(runs)), expected, rtol=1e-6)
    assert (runs.state.part_steps[:, -1] == 0).all()  # nothing of it was learned
    # a learned one goes on from there
    runs.values["ent_rule"][:] = algorithm.AUTO
    runs.begin_interval()
    runs.train(1)
    told = runs.interval.means(runs.learner.sums)["temperature"]
    np.testing.assert_allclose(told, expected, rtol=1e-6)
    # Adam's first step is as long as the learning rate
    moved = abs(log_temperatures(runs) - np.log(expected))
    np.testing.assert_allclose(moved, runs.values["learning_rate"], rtol=1e-2)
    assert (runs.state.part_steps[:, -1] == 1).all()


def test_the_temperature_pulls_the_entropy_to_its_target():
    wanted = [-2.0, -1.0, 0.3]
    runs = make(
        3,
        Wander(2),
        target_entropy=wanted,
        learning_starts=50,
        learning_rate=3e-3,
        batch_size=64,
    )
    runs.train(1_500)
    runs.begin_interval()
    runs.train(300)
    entropy = runs.interval.means(runs.learner.sums)["entropy"]
    np.testing.assert_allclose(entropy, 2 * np.array(wanted), atol=0.5)


@pytest.mark.parametrize(("log_std", "falls"), [(0.0, True), (-4.0, False)])
def test_the_temperature_falls_where_there_is_too_much_entropy(
    log_std: float, falls: bool
):
    runs = make(1, learning_starts=50)
    ideal(runs, 0, 0.0, log_std)
    runs.train(52)
    entropy = runs.interval.means(runs.learner.sums)["entropy"][0]
    assert (entropy > -1.0) == falls
    assert (log_temperatures(runs)[0] < 0) == falls


# -- signals, configuration ------------------------------------------------------------


def test_signals_and_interval_sums():
    runs = make(3, Wander(2), learning_starts=60, batch_size=32, n_step=2)
    runs.values["ent_rule"][2] = soft.SET
    runs.train(120)
    fixed, start = runs.learner.fixed, runs.state.parameters.copy()
    runs.begin_interval()
    sums = {name: np.zeros(3) for name in runs.learner.sums}
    for _ in range(20):
        before = torch.tensor(runs.state.parameters.copy())
        target = torch.tensor(runs.state.target.copy())
        number = runs.state.gradient_steps.copy()
        runs.train(1)
        for p in range(3):
            batch = batch_of(runs, p, number[p], 32)
            noise, following = noise_of(runs, p, number[p] + algorithm._NOISE, 32)
            row = before[p].clone().requires_grad_()
            heat = math.exp(before[p, -soft.REST].item())
            if p == 2:
                heat = float(runs.values["alpha"][2])
            loss = algorithm.critic_loss(fixed, row, target[p], batch, heat, following)
            (gradient,) = torch.autograd.grad(loss, row)
            # the actor learns from critics that have taken their step
            after = torch.tensor(runs.state.parameters[p])
            after[: fixed.actor.row] = before[p, : fixed.actor.row]
            acting = algorithm.actor_loss(fixed, after, batch, heat, noise)
            actor = before[p, : fixed.actor.row]
            _, log_probs = proposed(fixed.actor, actor, batch.observations, noise)
            for name, value in (
                ("loss", loss.item()),
                ("actor_loss", acting.item()),
                ("grad_norm", gradient.norm().item()),
                ("entropy", -log_probs.mean().item()),
                ("temperature", heat),
            ):
                sums[name][p] += value
    signals = runs.learner.signals(runs.state, runs.values, runs.interval)
    assert set(signals) == set(sac.SIGNALS)
    assert all(v.shape == (3,) and np.isfinite(v).all() for v in signals.values())
    for name, total in sums.items():
        close = {"rtol": 1e-4, "atol": 1e-4, "err_msg": name}
        np.testing.assert_allclose(signals[name], total / 20, **close)
    moved = np.linalg.norm(runs.state.parameters - start, axis=1)
    expected = moved / np.linalg.norm(start, axis=1)
    np.testing.assert_allclose(signals["update_ratio"], expected, rtol=1e-5)


def test_signals_of_a_batch_that_training_does_not_draw():
    runs = make(3, Wander(2), learning_starts=60, n_step=2)
    runs.train(300)
    before = [runs.member(p) for p in range(3)]
    signals = runs.learner.signals(runs.state, runs.values, runs.interval)
    assert [runs.member(p) for p in range(3)] == before
    fixed, B = runs.learner.fixed, algorithm.PROBE_BATCH
    for p in range(3):
        row = torch.tensor(runs.state.parameters[p])
        target, steps = torch.tensor(runs.state.target[p]), runs.state.env_steps[p]
        batch = batch_of(runs, p, steps + algorithm._PROBE_DRAWS, B)
        _, noise = noise_of(runs, p, steps + algorithm._PROBE_NOISE, B)
        seen, actor = batch.next_observations, row[: fixed.actor.row]
        actions, log_probs = proposed(fixed.actor, actor, seen, noise)
        least = torch.minimum(*algorithm.critics(fixed, target, seen, actions))
        heat = row[-soft.REST].exp()
        goal = batch.returns + batch.discounts * (least - heat * log_probs)
        value, _ = algorithm.critics(fixed, row, batch.observations, batch.actions)
        for name, expected in (
            ("td_error", (value - goal).abs().mean()),
            ("value_mean", value.mean()),
            ("value_std", value.std()),
        ):
            close = pytest.approx(expected.item(), rel=1e-3, abs=1e-5)
            assert signals[name][p] == close, name


def test_floating_point_operations():
    runs = make(2, Wander(3), hidden_sizes=(64, 32))
    act, (learn, _) = runs.learner.flops(runs.values)
    trunk = 64 * 32
    assert act == 2 * (4 * 64 + trunk + 32 * 6)
    value = 2 * (7 * 64 + trunk + 32 * 1)
    # of the actor: forward twice, backward to its weights, and to all inputs but the
    # first; of each critic: forward three times, backward, and once to the actions
    actor = 2 * act + 2 * act - 2 * 4 * 64
    critic = 3 * value + 2 * value - 2 * 7 * 64 + value - 2 * 4 * 64
    assert learn == actor + 2 * critic


def test_a_loss_that_was_not_finite_is_remembered():
    runs = make(3)
    runs.train(60)
    healthy = runs.state.parameters.copy()
    runs.state.target[1] = np.inf
    runs.train(4)
    runs.state.parameters[...] = healthy
    assert runs.diverged() == [False, True, False]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_inner_envs": 0}, "num_inner_envs must be at least 1"),
        ({"learning_starts": -1}, "learning_starts must not be negative"),
        ({"replay_capacity": 3, "num_inner_envs": 4}, "below num_inner_envs = 4"),
        ({"hidden_sizes": (0,)}, "hidden size"),
        ({"held_starts": 0}, "held_starts must be a whole number of at least 1"),
        ({"activation": "gelu"}, "valid: relu, tanh"),
    ],
)
def test_impossible_configurations_are_refused(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        make(1, **fields)


@pytest.mark.parametrize(
    ("low", "high"), [(-np.inf, np.inf), (-1.0, np.inf), (-np.inf, 1.0)]
)
def test_actions_without_finite_bounds_are_refused(low: float, high: float):
    dynamics = Reach()
    dynamics.action_low = np.array([-1.0, low])
    dynamics.action_high = np.array([1.0, high])
    with pytest.raises(ValueError, match=r"finite bounds, got low \[.*high \["):
        make(1, dynamics)


def test_discrete_actions_are_refused():
    with pytest.raises(ValueError, match="needs continuous actions; valid: dqn, ppo"):
        make(1, ENVS["CartPole-v1"]())


def test_defaults_are_those_of_stable_baselines3():
    """Where it has them; each has a range of its own here."""
    theirs = sb3_sac(gym.make("Pendulum-v1"), policy_kwargs=None)
    defaults = {h.name: h.default for h in sac.HYPERPARAMETERS}
    assert defaults["ent_rule"] == theirs.ent_coef == "auto"
    assert defaults["target_entropy"] * 1 == theirs.target_entropy
    for name in ("learning_rate", "batch_size", "gamma", "tau", "gradient_steps"):
        assert defaults[name] == getattr(theirs, name), name
    assert defaults["train_freq"] == theirs.train_freq.frequency
    assert sac.SACConfig().learning_starts == theirs.learning_starts


# -- probes: environments whose solution is known --------------------------------------


def values_at(runs: Runs, seen: list[float], action: Floats) -> NDArray[np.float32]:
    """Values ``(P, 2)`` that both critics give an action within ± 1."""
    P, fixed = len(runs.state.env_steps), runs.learner.fixed
    observations = torch.tensor([[seen]] * P, dtype=torch.float32)
    actions = torch.tensor(np.float32(action)).expand(P, 1, -1)
    rows = torch.from_numpy(runs.state.parameters)
    values = algorithm.critics(fixed, rows, observations, actions)
    return torch.stack(values, -1)[:, 0].numpy()


LEARNING: dict[str, Any] = {
    "learning_rate": 3e-3,
    "batch_size": 64,
    "tau": 0.05,
    "learning_starts": 100,
}
COLD: dict[str, Any] = {"ent_rule": "set", "alpha": 1e-4}


VARIANTS: list[dict[str, Any]] = [
    {},
    {"ent_rule": "set", "alpha": 0.01},
    {"n_step": 3},
    {"activation": "tanh"},
    {"num_inner_envs": 2},
    {"priority_alpha": 0.6},
]


@pytest.mark.parametrize("options", VARIANTS)
def test_the_best_action_is_found(options: dict[str, Any]):
    dynamics = Reach()
    runs = make(2, dynamics, **{**LEARNING, "target_entropy": -2.0, **options})
    runs.train(1_500 * options.get("num_inner_envs", 1))
    best = runs.learner.policy(runs.state, np.arange(2))
    actions = best(np.full((2, 1, 2), 0.5, np.float32))
    np.testing.assert_allclose(actions[:, 0], [dynamics.best] * 2, atol=0.25)
    # which is 0.25 and 1/3 of the way, from − 1 to 1
    values = values_at(runs, [0.5, 0.5], np.array([0.25, 1 / 3]))
    np.testing.assert_allclose(values, 1.0, atol=0.3)


@pytest.mark.parametrize("options", [{}, {"n_step": 3}, {"num_inner_envs": 2}])
def test_the_value_of_a_later_reward_is_discounted(options: dict[str, Any]):
    runs = make(3, Chain(), gamma=[0.8, 0.9, 0.99], **LEARNING, **COLD, **options)
    runs.train(1_500)
    for action in (np.array([0.0, 0.0]), np.array([-0.8, 0.5])):
        values = values_at(runs, [0.0], action)
        expected = np.array([[0.8], [0.9], [0.99]])
        np.testing.assert_allclose(values, expected + np.zeros(2), atol=0.07)
        np.testing.assert_allclose(values_at(runs, [1.0], action), 1.0, atol=0.07)


def test_a_truncated_episode_is_worth_more_than_its_one_reward():
    runs = make(2, Loop(), gamma=[0.5, 0.8], **LEARNING, **COLD)
    runs.train(2_000)
    values = values_at(runs, [0.0], np.array([0.0, 0.0]))
    np.testing.assert_allclose(values, [[2.0] * 2, [5.0] * 2], rtol=0.1)


def test_entropy_is_worth_its_temperature():
    """Of an endless loop without rewards the value is that of the entropy to come."""

    class Nothing(Loop):
        def step(self, variables, actions, physics):
            variables, rewards, over = super().step(variables, actions, physics)
            return variables, 0.0 * rewards, over

    runs = make(1, Nothing(), gamma=0.5, ent_rule="set", alpha=0.5, **LEARNING)
    runs.train(2_000)
    runs.begin_interval()
    runs.train(200)
    entropy = runs.interval.means(runs.learner.sums)["entropy"][0]
    # nothing else matters: actions become even, whose entropy is the largest there is
    assert entropy == pytest.approx(2 * math.log(2), abs=0.15)
    # from the next step on, γ · α · H / (1 − γ)
    values = values_at(runs, [0.0], np.array([0.0, 0.0]))
    np.testing.assert_allclose(values, 0.5 * 0.5 * entropy / 0.5, rtol=0.1)
