"""DQN: equality with Stable-Baselines3, and environments whose solution is known."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from batched import BatchedEnv
from cases import sb3_n_steps
from numpy.typing import NDArray
from populations import Runs, make_runs
from sb3_rows import dqn_row
from stable_baselines3 import DQN as SB3DQN
from stable_baselines3.common import logger, type_aliases

from dacrl_env.algorithms import dqn as algorithm
from dacrl_env.algorithms.replay import ACTIONS, CONTINUES, DONE
from dacrl_env.algorithms.sb3 import arguments
from dacrl_env.algorithms.sb3 import dqn as sb3
from dacrl_env.algorithms.sb3.envs import MemberEnvs
from dacrl_env.core import streams
from dacrl_env.inner_envs.env import ENVS
from dacrl_env.inner_envs.images import is_image_array
from dacrl_env.kernels import dense
from dacrl_env.learners import dqn

Floats = NDArray[np.float64]
NAMES = [h.name for h in dqn.HYPERPARAMETERS]


def values_of(runs: Runs, rows: NDArray[np.float32], x: NDArray[Any]) -> NDArray[Any]:
    """Action values ``(P, B, A)`` by rows of parameters, for ``(P, B, D)``."""
    given = torch.from_numpy(rows), torch.from_numpy(np.array(x, np.float32))
    return dense.apply(runs.learner.fixed.net, *given).numpy()


def batches_of_updates(runs: Runs, numbers: NDArray[np.int64], B: int) -> Any:
    """What members drew for their gradient steps of these numbers ``(P,)``.

    They draw from their replay keys and these numbers; a probe does from the keys that
    it is given, and the number of environment steps.
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    ahead = (numbers - runs.state.env_steps).astype(np.uint64)
    keys = streams.of(runs.state.keys, "replay") + ahead * golden
    probe = runs.learner.probe(runs.state, runs.values, keys, B)
    return algorithm.Batch(*map(torch.from_numpy, probe))


# -- Stable-Baselines3 --------------------------------------------------------------


def sb3_dqn(**overrides: Any) -> SB3DQN:
    settings: dict[str, Any] = {
        "policy": "MlpPolicy",
        "learning_rate": 1e-3,
        "buffer_size": 1000,
        "learning_starts": 0,
        "train_freq": 1,
        "target_update_interval": 500,
        "exploration_initial_eps": 0.1,
        "exploration_final_eps": 0.1,
        "policy_kwargs": {"net_arch": [64, 64]},
        "seed": 0,
        "device": "cpu",
        **overrides,
    }
    if "env" not in settings:
        settings["env"] = gym.make("CartPole-v1")
    model = SB3DQN(**settings)
    model.set_logger(logger.configure(None, []))
    return model


@pytest.mark.parametrize("n_step", [1, pytest.param(3, marks=sb3_n_steps)])
@pytest.mark.parametrize("channels", [0, 16])
def test_an_update_is_that_of_stable_baselines3(
    monkeypatch: pytest.MonkeyPatch, n_step: int, channels: int
):
    """Fed with our batches, its own `train` and target updates give our parameters."""
    members = [
        {"batch_size": 64, "max_grad_norm": 10, "gamma": 0.99},
        {"batch_size": 48, "max_grad_norm": 0.1, "gamma": 0.9, "gradient_steps": 2},
        {"batch_size": 5, "learning_rate": 1e-4, "target_update_interval": 7},
    ]
    defaults = {h.name: h.default for h in dqn.HYPERPARAMETERS}
    each = [{**defaults, "train_freq": 1, "n_step": n_step, **m} for m in members]
    values = {name: [m[name] for m in each] for name in NAMES}
    config = {
        "hidden_sizes": (64, 64), "learning_starts": 300, "conv_channels": channels
    }  # fmt: skip
    grid = ENVS["MiniGrid-DoorKey-5x5-v0"]()
    grid.scales_images = True
    runs = make_runs(3, grid if channels else None, **config, **values)
    runs.train(300)  # random actions fill the memory
    net, state = runs.learner.fixed.net, runs.state
    models = []
    for p, chosen in enumerate(each):
        names = ("learning_rate", "gamma", "max_grad_norm", "target_update_interval")
        given = {name: chosen[name] for name in names}
        if channels:
            given |= arguments.of(sb3.SB3DQNConfig(**config), grid)
            given["env"] = MemberEnvs(grid, 1)
        model = sb3_dqn(**given)
        # equal starts; ours is the copy, and the targets differ from the parameters
        with torch.no_grad():
            for parameter in model.q_net_target.parameters():
                parameter.add_(0.01)
        state.parameters[p] = dqn_row(model, net, "q_net")
        state.target[p] = dqn_row(model, net, "q_net_target")
        model._n_calls = int(state.since_target[p])
        models.append(model)
    for update in range(20):
        runs.train(1)
        for p, model in enumerate(models):
            size, several = (int(each[p][n]) for n in ("batch_size", "gradient_steps"))
            drawn = []
            for number in range(several * update, several * (update + 1)):
                batch = batches_of_updates(runs, np.full(3, number), size)
                drawn.append(_as_sb3(batch, p, size, n_step))
            left = iter(drawn)
            monkeypatch.setattr(
                model.replay_buffer, "sample", lambda n, env, left=left: next(left)
            )
            model._on_step()
            model.train(gradient_steps=several, batch_size=size)
            for which, ours in (("q_net", "parameters"), ("q_net_target", "target")):
                np.testing.assert_allclose(
                    getattr(state, ours)[p],
                    dqn_row(model, net, which),
                    rtol=1e-5,
                    atol=1e-6,
                    err_msg=f"{which} {p} update {update}",
                )
    assert state.gradient_steps.tolist() == [20, 40, 20]


def _as_sb3(
    batch: algorithm.Batch, p: int, size: int, n_step: int
) -> type_aliases.ReplayBufferSamples:
    """The first transitions of member p."""
    over = batch.discounts[p, :size, None] == 0
    seen, following = batch.observations[p, :size], batch.next_observations[p, :size]
    if seen.shape[1] == 147:  # of a grid: it scales them itself, and moves the channels
        seen, following = (
            (255 * x).round().view(-1, 7, 7, 3).movedim(-1, 1)
            for x in (seen, following)
        )
    return type_aliases.ReplayBufferSamples(
        seen,
        batch.actions[p, :size, None],
        following,
        dones=over.float(),
        rewards=batch.returns[p, :size, None],
        **({"discounts": batch.discounts[p, :size, None]} if n_step > 1 else {}),
    )


@pytest.mark.parametrize(
    ("starts", "train_freq", "gradient_steps", "interval"),
    [(100, 4, 1, 50), (98, 4, 1, 33), (0, 1, 1, 500), (99, 1, 2, 1), (50, 7, 3, 10)],
)
def test_counts_are_those_of_stable_baselines3(
    monkeypatch: pytest.MonkeyPatch,
    starts: int,
    train_freq: int,
    gradient_steps: int,
    interval: int,
):
    steps = 28 * train_freq  # it finishes the collection it has begun
    syncs: list[int] = []
    updates: list[int] = []
    model = sb3_dqn(
        learning_starts=starts,
        train_freq=train_freq,
        gradient_steps=gradient_steps,
        target_update_interval=interval,
        batch_size=4,
        policy_kwargs={"net_arch": [4]},
    )
    # called twice a sync: for parameters, and for (no) batch norm statistics
    monkeypatch.setattr(
        "stable_baselines3.dqn.dqn.polyak_update",
        lambda *_: syncs.append(model.num_timesteps),
    )
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

    runs = make_runs(
        1,
        learning_starts=starts,
        train_freq=train_freq,
        gradient_steps=gradient_steps,
        target_update_interval=interval,
        batch_size=4,
        hidden_sizes=(4, 4),
    )
    our_updates, our_syncs = [], []
    for step in range(1, steps + 1):
        before = int(runs.state.gradient_steps[0])
        runs.train(1)
        done = int(runs.state.gradient_steps[0]) - before
        our_updates += [step] * done
        if runs.state.since_target[0] == 0:
            our_syncs += [step] * 2
    assert our_updates == updates
    assert our_syncs == syncs
    assert runs.interval.updates[0] == len(updates)
    assert runs.interval.samples[0] == 4 * len(updates)


def test_the_target_is_what_the_parameters_were():
    runs = make_runs(3, target_update_interval=[7, 7, 10], train_freq=1)
    runs.train(40)
    held = runs.state.target.copy()
    changed = []
    for step in range(41, 71):
        before = runs.state.parameters.copy()
        runs.train(1)
        for p, every in enumerate((7, 7, 10)):
            if step % every == 0:  # before the update of the same step
                held[p] = before[p]
                changed.append(p)
        np.testing.assert_array_equal(runs.state.target, held)
        assert (runs.state.parameters != held).any(1).all()
    assert changed.count(0) == 5
    assert changed.count(2) == 3


def test_actions_are_random_before_learning_starts_and_then_at_rate_epsilon():
    P = 50
    epsilon = np.resize([0.0, 0.3, 1.0], P)
    runs = make_runs(P, epsilon=epsilon, learning_starts=100, learning_rate=1e-6)
    runs.train(500)
    actions = runs.state.replay.transitions[:, 0, :500, ACTIONS].astype(int)
    seen = runs.state.replay.observations[:, 0, :500, 0]
    q = values_of(runs, runs.state.parameters, seen)
    # parameters hardly move at this learning rate, but ties may be decided otherwise
    clear = abs(q[..., 0] - q[..., 1]) > 1e-3
    odd = (actions != q.argmax(-1)) & clear
    before, after = odd[:, :100], odd[:, 100:]
    assert before.sum() / clear[:, :100].sum() == pytest.approx(0.5, abs=0.04)
    for rate in (0.0, 0.3, 1.0):
        rows = epsilon == rate
        share = after[rows].sum() / clear[rows, 100:].sum()
        assert share == pytest.approx(rate / 2, abs=0.04 * (rate > 0))


# -- divergence ------------------------------------------------------------------------


def test_a_loss_that_was_not_finite_is_remembered():
    runs = make_runs(3)
    runs.train(60)
    healthy = runs.state.parameters.copy()
    runs.state.target[1] = np.inf
    runs.train(4)
    runs.state.parameters[...] = healthy
    assert runs.diverged() == [False, True, False]


# -- configuration, caps, signals ---------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_inner_envs": 0}, "num_inner_envs must be at least 1"),
        ({"learning_starts": -1}, "learning_starts must not be negative"),
        ({"replay_capacity": 0}, "replay_capacity 0 is below"),
        ({"replay_capacity": 3, "num_inner_envs": 4}, "below num_inner_envs = 4"),
        ({"conv_channels": 8}, "conv_channels must be a multiple of 16, or 0"),
        ({"conv_channels": -16}, "conv_channels must be a whole number of at least 0"),
        ({"fourier_features": 7}, "fourier_features must be even, or 0 for none"),
        ({"fourier_features": -2}, "a whole number of at least 0"),
        ({"fourier_features": 8, "conv_channels": 16}, "set one of them to 0"),
        ({"fourier_scale": 0.0}, "fourier_scale must be above 0 and finite"),
        ({"fourier_scale": np.inf}, "fourier_scale must be above 0 and finite"),
    ],
)
def test_impossible_configurations_are_refused(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        dqn.DQNConfig(**fields)


@pytest.mark.parametrize("algorithm", ["dqn", "ppo"])
@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((4,), np.float32, r"observations \(rows, columns, channels\).*are \(4,\)"),
        ((2, 8, 3), np.float32, "at least 3 rows and columns"),
        ((8, 2, 3), np.uint8, "at least 3 rows and columns"),
        ((3, 8, 8), np.uint8, "seem to have them first"),
        ((3, 3, 8, 8), np.uint8, r"are \(3, 3, 8, 8\); pass conv_channels=0"),
    ],
)
def test_convolutions_are_of_images(
    algorithm: str, shape: tuple[int, ...], dtype: Any, message: str
):
    env = ENVS["CartPole-v1"]()
    env.observation_shape, env.observation_dtype = shape, np.dtype(dtype)
    env.has_images = is_image_array(shape, dtype)
    with pytest.raises(ValueError, match=message):
        make_runs(1, env, algorithm=algorithm, conv_channels=16)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="unknown activation 'swish'; valid: relu"):
        make_runs(1, activation="swish")


@pytest.mark.parametrize(
    ("fields", "budget", "capacity"),
    [
        ({}, 50_000, 50_000),
        ({}, 1_000_000, 100_000),
        ({"replay_capacity": 10}, 50_000, 10),
        ({"replay_capacity": 11, "num_inner_envs": 4}, 50_000, 8),
        ({"num_inner_envs": 4}, 2, 4),
    ],
)
def test_capacity(fields: dict[str, int], budget: int, capacity: int):
    assert dqn.DQN.replay_capacity(dqn.DQNConfig(**fields), budget) == capacity


def test_values_are_capped_together():
    values = {h.name: np.full(3, h.start) for h in dqn.HYPERPARAMETERS}
    values["n_step"][2] = 10
    values["batch_size"] = np.array([4.0, 50, 256])
    values["train_freq"] = np.array([1.0, 4, 256])
    values["gradient_steps"] = np.array([256.0, 3, 256])
    expected = {name: v.copy() for name, v in values.items()}
    expected["batch_size"] = np.array([4.0, 50, 50])
    expected["gradient_steps"] = np.array([4.0, 3, 256])
    expected["replay_window"] = np.array([50.0, 50, 50])
    dqn.DQN.constrain(values, dqn.DQNConfig(replay_capacity=50), 10_000)
    for name in NAMES:
        np.testing.assert_array_equal(values[name], expected[name], err_msg=name)


def test_defaults_are_those_of_the_specification():
    assert {h.name: (*h.ends, h.default) for h in dqn.HYPERPARAMETERS} == {
        "learning_rate": (1e-6, 1e-1, 1e-3),
        "epsilon": (0, 1, 0.1),
        "batch_size": (4, 512, 64),
        "gamma": (0.8, 1.0, 0.99),
        "target_update_interval": (1, 10_000, 500),
        "train_freq": (1, 1_000, 4),
        "gradient_steps": (1, 1_000, 1),
        "max_grad_norm": (0.1, 100, 10),
        "replay_window": (1_000, 100_000, 100_000),
        "n_step": (1, 10, 1),
        "double_q": (0, 1, False),
        "loss": (0, 1, "huber"),
        "q_regularisation": (0, 1, 0),
        "tau": (1e-3, 1, 1),
        "priority_alpha": (0, 1, 0),
        "priority_beta": (0, 1, 0.4),
        "exploration": (0, 1, "epsilon-greedy"),
        "hold_exponent": (1, 5, 2),
        "checkpoint": (0, 2, "none"),
        "swap": (0, 2, "none"),
        "reset_head": (0, 1, False),
        "reset_all": (0, 1, False),
        "shrink_perturb": (0, 1, False),
        "perturb_strength": (0, 1, 0.5),
        "clear_replay": (0, 1, False),
    }


def test_signals_and_interval_sums():
    runs = make_runs(3, train_freq=1)
    runs.train(100)
    start, net = runs.state.parameters.copy(), runs.learner.fixed.net
    runs.begin_interval()
    losses = np.zeros(3)
    for _ in range(30):
        before = [runs.state.parameters.copy(), runs.state.target.copy()]
        number = runs.state.gradient_steps.copy()
        runs.train(1)
        batch = batches_of_updates(runs, number, 64)
        rows = map(torch.tensor, before)
        losses += algorithm.loss(net, *rows, batch, algorithm.Options()).numpy()
    signals = runs.learner.signals(runs.state, runs.values, runs.interval)
    assert set(signals) == set(dqn.SIGNALS)
    assert all(v.shape == (3,) and np.isfinite(v).all() for v in signals.values())
    np.testing.assert_allclose(signals["loss"], losses / 30, rtol=1e-4)
    moved = np.linalg.norm(runs.state.parameters - start, axis=1)
    expected = moved / np.linalg.norm(start, axis=1)
    np.testing.assert_allclose(signals["update_ratio"], expected, rtol=1e-5)
    assert (signals["grad_norm"] > 0).all()


@pytest.mark.parametrize("double_q", [False, True])
def test_signals_of_a_batch_that_training_does_not_draw(double_q: bool):
    runs = make_runs(3, train_freq=1, double_q=double_q)
    runs.train(300)
    signals = runs.learner.signals(runs.state, runs.values, runs.interval)
    beyond = runs.state.env_steps + algorithm._PROBE_DRAWS
    batch = batches_of_updates(runs, beyond, algorithm.PROBE_BATCH)
    rows = [torch.from_numpy(r) for r in (runs.state.parameters, runs.state.target)]
    net = runs.learner.fixed.net
    options = algorithm.Options(double_q=float(double_q))
    _, errors = algorithm.td_errors(net, *rows, batch, options)
    np.testing.assert_allclose(signals["td_error"], errors.abs().mean(1), rtol=1e-4)
    q = dense.apply(net, rows[0], batch.observations)
    taken = q.gather(-1, batch.actions[..., None])[..., 0]
    np.testing.assert_allclose(signals["value_mean"], taken.mean(1), rtol=1e-4)
    np.testing.assert_allclose(signals["value_std"], taken.std(1), rtol=1e-3)


def test_floating_point_operations():
    runs = make_runs(2, hidden_sizes=(64, 64), double_q=[False, True])
    act, (learn, double) = runs.learner.flops(runs.values)
    forward = 2 * (4 * 64 + 64 * 64 + 64 * 2)
    assert act == forward
    # two forward passes; backward to the weights, and to all inputs but the first
    assert learn == 2 * forward + forward + (forward - 2 * 4 * 64)
    assert double == learn + forward


def test_floating_point_operations_of_a_convolution_and_of_fourier_features():
    grid = ENVS["MiniGrid-Empty-5x5-v0"]()
    runs = make_runs(1, grid, hidden_sizes=(64,), conv_channels=16)
    act, (learn,) = runs.learner.flops(runs.values)
    front = 2 * 25 * 27 * 16
    assert act == front + 2 * (400 * 64 + 64 * grid.num_actions)
    assert learn == 4 * act - front
    runs = make_runs(1, hidden_sizes=(64, 64), fourier_features=20)
    act, (learn,) = runs.learner.flops(runs.values)
    forward, features = 2 * (20 * 64 + 64 * 64 + 64 * 2), 2 * 4 * 10
    assert act == forward + features
    assert learn == 4 * forward - 2 * 20 * 64 + 2 * features


def test_episodes_are_counted():
    runs = make_runs(3, num_inner_envs=2)
    runs.train(400)
    done = runs.state.replay.transitions[:, :, :200, DONE] == 1
    np.testing.assert_array_equal(runs.interval.episodes, done.sum((1, 2)))
    running = runs.state.envs.lengths.sum(1)
    np.testing.assert_array_equal(runs.interval.lengths, 400 - running)
    np.testing.assert_array_equal(runs.interval.returns, 400 - running)


# -- probes: environments whose solution is known -----------------------------------


class Probe:
    """Starts at one of two places and moves on; subclasses say when that ends.

    Variables: the place (−1 or 1) and the steps taken, which are the observations.
    """

    observation_shape = (2,)
    observation_dtype = np.dtype(np.float32)
    num_actions = 2
    max_episode_steps = 100
    uniforms_per_reset = 1
    physics: ClassVar[dict[str, float]] = {}

    def initial(self, uniforms: Floats, physics: Floats) -> Floats:
        place = np.where(uniforms < 0.5, -1.0, 1.0)
        return np.concatenate([place, np.zeros_like(place)], -1)

    def step(
        self, variables: Floats, actions: NDArray[np.int64], physics: Floats
    ) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        rewards, length = self.reward(variables, actions), self.length
        following = variables + np.array([0.0, 1.0])
        return following, rewards, following[..., 1] >= length

    def observe(self, variables: Floats) -> NDArray[np.float32]:
        return variables.astype(np.float32)

    length = 1.0

    def reward(self, variables: Floats, actions: NDArray[np.int64]) -> Floats:
        return np.ones(actions.shape)


class Delayed(Probe):
    """The reward comes with the second of two steps."""

    length = 2.0

    def reward(self, variables: Floats, actions: NDArray[np.int64]) -> Floats:
        return variables[..., 1].copy()


class Endless(Probe):
    """Never terminates; the time limit ends it after one step."""

    max_episode_steps = 1
    length = np.inf


class Match(Probe):
    """The action must match the place."""

    def reward(self, variables: Floats, actions: NDArray[np.int64]) -> Floats:
        return np.where((actions == 1) == (variables[..., 0] > 0), 1.0, -1.0)


STARTS = np.array([[-1, 0], [1, 0]], np.float32)


def learned(
    probe: Probe, gamma: list[float], **config: Any
) -> tuple[Runs, NDArray[np.float32]]:
    """Trains on a probe; values ``(P, 2 starts, actions)``."""
    runs = make_runs(
        len(gamma),
        env=BatchedEnv(probe),
        gamma=gamma,
        epsilon=1.0,
        learning_rate=3e-3,
        train_freq=1,
        budget=3000,
        **{"target_update_interval": 20, **config},
    )
    runs.train(1000)
    runs.values["learning_rate"][:] = 3e-4
    runs.train(500)
    starts = np.tile(STARTS, (len(gamma), 1, 1))
    return runs, values_of(runs, runs.state.parameters, starts)


VARIANTS = [{}, {"double_q": True}, {"n_step": 3}, {"activation": "tanh"}]


@pytest.mark.parametrize("config", VARIANTS)
def test_the_value_of_a_sure_reward_is_the_reward(config: dict[str, Any]):
    _, q = learned(Probe(), [0.9, 0.99], **config)
    np.testing.assert_allclose(q, 1.0, atol=0.05)


@pytest.mark.parametrize("config", VARIANTS)
def test_the_value_of_a_later_reward_is_discounted(config: dict[str, Any]):
    gamma = [0.8, 0.9, 0.99]
    _, q = learned(Delayed(), gamma, **config)
    expected = np.array(gamma)[:, None, None]
    np.testing.assert_allclose(q, np.broadcast_to(expected, q.shape), atol=0.05)


@pytest.mark.parametrize(("n_step", "known"), [(1, False), (3, True)])
def test_n_step_returns_carry_rewards_back_without_the_target_network(
    n_step: int, known: bool
):
    class Late(Probe):
        """The reward comes with the last of three steps."""

        length = 3.0

        def reward(self, variables: Floats, actions: NDArray[np.int64]) -> Floats:
            return 5.0 * (variables[..., 1] == 2)

    never = 10_000  # as long as the target network stays as it began
    _, q = learned(Late(), [0.9], n_step=n_step, target_update_interval=never)
    assert np.allclose(q, 5 * 0.9**2, atol=0.2) == known


@pytest.mark.parametrize("config", VARIANTS)
def test_the_better_action_is_found(config: dict[str, Any]):
    runs, q = learned(Match(), [0.99, 0.8], **config)
    right = np.array([[1.0, -1.0], [-1.0, 1.0]])
    np.testing.assert_allclose(q, np.broadcast_to(right, q.shape), atol=0.1)
    best = runs.learner.policy(runs.state, np.arange(2))
    assert best(np.stack([STARTS, STARTS])).tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize("config", [{}, {"n_step": 3}, {"num_inner_envs": 2}])
def test_truncation_bootstraps_and_termination_does_not(config: dict[str, Any]):
    for probe, bootstraps in ((Endless(), 1.0), (Probe(), 0.0)):
        runs = make_runs(3, env=BatchedEnv(probe), **config)
        runs.train(30)
        runs.values["gamma"][:] = 0.9
        keys = streams.of(runs.keys, "replay")
        batch = runs.learner.probe(runs.state, runs.values, keys, 64)
        seen, _, returns, following, discounts, _ = batch
        # every episode has one step, so no return reaches into the next one
        assert (returns == 1).all()
        assert (discounts == np.float32(0.9) * bootstraps).all()
        # what followed is the end of the same episode, not the start of the next
        assert (seen[..., 1] == 0).all()
        assert (following[..., 1] == 1).all()
        np.testing.assert_array_equal(following[..., 0], seen[..., 0])


def test_the_memory_holds_episodes_as_they_went():
    class Long(Probe):
        max_episode_steps = 7
        length = np.inf

    runs = make_runs(2, env=BatchedEnv(Long()), num_inner_envs=3)
    runs.train(90)
    before, after = np.moveaxis(runs.state.replay.observations[:, :, :30], 3, 0)
    steps = np.arange(30) % 7
    assert (before[..., 1] == steps).all()
    assert (after[..., 1] == steps + 1).all()
    np.testing.assert_array_equal(before[..., 0], after[..., 0])
    table = runs.state.replay.transitions[:, :, :30]
    assert (table[..., DONE] == (steps == 6)).all()
    assert (table[..., CONTINUES] == 1).all()


def test_a_truncated_task_is_worth_more_than_its_one_reward():
    class Loop(Endless):
        """The next observation is again a start, so that values have one answer."""

        def observe(self, variables: Floats) -> NDArray[np.float32]:
            return super().observe(variables * [1.0, 0.0])

    _, q = learned(Loop(), [0.5, 0.8])
    np.testing.assert_allclose(q[0], 2.0, atol=0.1)
    np.testing.assert_allclose(q[1], 5.0, atol=0.5)
