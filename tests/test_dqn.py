from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stable_baselines3 import DQN as SB3DQN
from stable_baselines3.common import logger, type_aliases
from torch import Tensor

from dacrl_env.inner_envs.batched import BatchedEnv
from dacrl_env.learners import dqn, networks, replay, streams

if TYPE_CHECKING:
    from conftest import MakeRuns, Runs

Floats = NDArray[np.float64]
NAMES = [h.name for h in dqn.HYPERPARAMETERS]

# a value of every hyperparameter that binds at the step it is set
CHANGED = {
    "learning_rate": 1e-2,
    "epsilon": 1.0,
    "batch_size": 17,
    "gamma": 0.8,
    "target_update_interval": 10,
    "train_freq": 1,
    "gradient_steps": 3,
    "max_grad_norm": 0.1,
    "replay_window": 10,
}

# members that differ in everything, in the order of how many gradient steps they take
# neither by member nor by batch size
MIXED = {
    "batch_size": [64, 5, 32, 4, 17, 33],
    "train_freq": [4, 1, 3, 4, 7, 2],
    "gradient_steps": [1, 3, 2, 4, 1, 2],
    "target_update_interval": [50, 7, 500, 20, 1, 33],
    "learning_rate": [1e-3, 1e-2, 1e-5, 1e-3, 3e-3, 1e-4],
    "epsilon": [0.1, 0.0, 1.0, 0.5, 0.05, 0.2],
    "gamma": [0.99, 0.9, 0.8, 0.999, 0.95, 0.99],
    "max_grad_norm": [10, 0.1, 1, 100, 0.5, 10],
    "replay_window": [100_000, 50, 120, 100_000, 7, 64],
}


def mixed(P: int) -> dict[str, Floats]:
    return {name: np.resize(np.array(v, float), P) for name, v in MIXED.items()}


# -- the loss and its gradient ------------------------------------------------------


@pytest.mark.parametrize("activation", networks.ACTIVATIONS)
@pytest.mark.parametrize("double_q", [False, True])
@pytest.mark.parametrize("n_step", [1, 3])
def test_the_explicit_gradient_is_that_of_the_loss(
    make_runs: MakeRuns,
    monkeypatch: pytest.MonkeyPatch,
    activation: str,
    double_q: bool,
    n_step: int,
):
    runs = make_runs(
        6,
        activation=activation,
        double_q=double_q,
        n_step=n_step,
        hidden_sizes=(16, 8),
        **mixed(6),
    )
    learner, seen = runs.learner, set()
    explicit = learner._loss_and_gradient

    def check(rows: Any, batch: replay.Batch, work: Any) -> Tensor:
        loss = explicit(rows, batch, work)
        with torch.inference_mode(False), torch.enable_grad():
            batch = replay.Batch(*(values.clone() for values in batch))
            parameters = rows.parameters.clone().requires_grad_()
            expected = learner.loss(parameters, rows.target, batch)
            (gradient,) = torch.autograd.grad(expected.sum(), parameters)
        torch.testing.assert_close(loss[:, 0], expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(work.gradients, gradient, rtol=1e-4, atol=1e-5)
        assert (gradient.abs().sum(1) > 0).all()
        seen.update((batch.weights == 0).any(1).flatten().tolist())
        return loss

    monkeypatch.setattr(learner, "_loss_and_gradient", check)
    runs.train(100)
    assert seen == {False, True}  # with padding and without


def test_the_loss_by_hand(make_runs: MakeRuns):
    runs = make_runs(1, hidden_sizes=())
    learner = runs.learner
    # Q(s, a) = s[a], and the target network's is twice that
    rows = torch.zeros(2, 1, learner.network.row)
    for k in range(2):
        weight = learner.network.layers(rows[k])[0].weight
        weight[0, 0, 0] = weight[0, 1, 1] = k + 1
    batch = replay.Batch(
        observations=torch.tensor([[[3.0, 1, 0, 0], [3, 1, 0, 0], [9, 9, 9, 9]]]),
        actions=torch.tensor([[[0], [1], [0]]]),
        returns=torch.tensor([[[1.0], [1.0], [0.0]]]),
        next_observations=torch.tensor([[[2.0, 1, 0, 0], [2, 5, 0, 0], [9, 9, 9, 9]]]),
        discounts=torch.tensor([[[0.5], [0.0], [1.0]]]),
        weights=torch.tensor([[[0.5], [0.5], [0.0]]]),
    )
    # errors: 3 − (1 + 0.5 · 4) = 0 and 1 − (1 + 0)
    assert learner.loss(rows[0], rows[1], batch).tolist() == [0.0]
    far = batch._replace(returns=torch.tensor([[[-1.0], [0.5], [0.0]]]))
    # errors: 2, Huber 1.5, and 0.5, Huber 0.125
    assert learner.loss(rows[0], rows[1], far).item() == pytest.approx(1.625 / 2)


def test_double_q_takes_the_online_networks_choice(make_runs: MakeRuns):
    runs = make_runs(1, hidden_sizes=(), double_q=True)
    learner = runs.learner
    rows = torch.zeros(2, 1, learner.network.row)
    for k, (a, b) in enumerate([(1.0, 2.0), (10.0, 3.0)]):  # of online and target
        bias = learner.network.layers(rows[k])[0].bias
        bias[0, 0, 0], bias[0, 0, 1] = a, b
    batch = replay.Batch(
        *(torch.zeros(1, 1, k) for k in (4, 1, 1, 4)),
        discounts=torch.ones(1, 1, 1),
        weights=torch.ones(1, 1, 1),
    )
    batch = batch._replace(actions=torch.zeros(1, 1, 1, dtype=torch.int64))
    errors, taken = learner.td_errors(rows[0], rows[1], batch)
    assert (taken.item(), errors.item()) == (1.0, 1.0 - 3.0)


# -- Stable-Baselines3 --------------------------------------------------------------


def sb3_dqn(**overrides: Any) -> SB3DQN:
    settings: dict[str, Any] = {
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
    model = SB3DQN("MlpPolicy", gym.make("CartPole-v1"), **settings)
    model.set_logger(logger.configure(None, []))
    return model


def sb3_parameters(model: SB3DQN, network: networks.StackedMLP, which: str) -> Tensor:
    """Parameters of a Stable-Baselines3 network as a row ``(1, row)``."""
    row = torch.zeros(1, network.row)
    linears = [m for m in getattr(model, which).q_net if hasattr(m, "weight")]
    for layer, linear in zip(network.layers(row), linears, strict=True):
        layer.weight[0] = linear.weight.detach().T
        layer.bias[0, 0] = linear.bias.detach()
    return row


def test_an_update_is_that_of_stable_baselines3(
    make_runs: MakeRuns, monkeypatch: pytest.MonkeyPatch
):
    """Fed with our batches, its own `train` and target updates give our parameters."""
    members = [
        {"batch_size": 64, "max_grad_norm": 10, "gamma": 0.99},
        {"batch_size": 48, "max_grad_norm": 0.1, "gamma": 0.9},
        {"batch_size": 5, "learning_rate": 1e-4, "target_update_interval": 7},
    ]
    defaults = {h.name: h.default for h in dqn.HYPERPARAMETERS}
    each = [{**defaults, "train_freq": 1, **m} for m in members]
    values = {name: [m[name] for m in each] for name in NAMES}
    runs = make_runs(3, hidden_sizes=(64, 64), learning_starts=300, **values)
    runs.train(300)  # random actions fill the memory
    learner, state = runs.learner, runs.state
    models = []
    for p, chosen in enumerate(each):
        names = ("learning_rate", "gamma", "max_grad_norm", "target_update_interval")
        model = sb3_dqn(**{name: chosen[name] for name in names})
        # equal starts; ours is the copy, and the targets differ from the parameters
        with torch.no_grad():
            for parameter in model.q_net_target.parameters():
                parameter.add_(0.01)
        state.parameters[p] = sb3_parameters(model, learner.network, "q_net")[0]
        state.target[p] = sb3_parameters(model, learner.network, "q_net_target")[0]
        model._n_calls = int(state.since_target[p])
        models.append(model)

    batches: dict[int, type_aliases.ReplayBufferSamples] = {}
    sample = replay.Replay.sample

    def record(self: Any, members: Any, *args: Any) -> replay.Batch:
        batch = sample(self, members, *args)
        with torch.inference_mode(False):  # as Stable-Baselines3 wants to have them
            own = replay.Batch(*(values.clone() for values in batch))
            for k, p in enumerate(members):
                size = int(values["batch_size"][p])
                batches[int(p)] = type_aliases.ReplayBufferSamples(
                    own.observations[k, :size],
                    own.actions[k, :size],
                    own.next_observations[k, :size],
                    dones=(own.discounts[k, :size] == 0).float(),
                    rewards=own.returns[k, :size],
                )
        return batch

    monkeypatch.setattr(replay.Replay, "sample", record)
    for update in range(20):
        runs.train(1)
        for p, model in enumerate(models):
            size = int(values["batch_size"][p])
            assert len(batches[p].rewards) == size
            monkeypatch.setattr(
                model.replay_buffer, "sample", lambda n, env, p=p: batches[p]
            )
            model._on_step()
            model.train(gradient_steps=1, batch_size=size)
            for which, ours in (("q_net", "parameters"), ("q_net_target", "target")):
                torch.testing.assert_close(
                    getattr(state, ours)[p],
                    sb3_parameters(model, learner.network, which)[0],
                    rtol=1e-5,
                    atol=1e-6,
                    msg=lambda m, p=p, w=which, u=update: f"{w} {p} update {u}: {m}",
                )
    assert state.gradient_steps.tolist() == [20] * 3


@pytest.mark.parametrize(
    ("starts", "train_freq", "gradient_steps", "interval"),
    [(100, 4, 1, 50), (98, 4, 1, 33), (0, 1, 1, 500), (99, 1, 2, 1), (50, 7, 3, 10)],
)
def test_counts_are_those_of_stable_baselines3(
    make_runs: MakeRuns,
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
        hidden_sizes=(4,),
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


def test_the_target_is_what_the_parameters_were(make_runs: MakeRuns):
    runs = make_runs(3, target_update_interval=[7, 7, 10], train_freq=1)
    runs.train(40)
    held = runs.state.target.clone()
    changed = []
    for step in range(41, 71):
        before = runs.state.parameters.clone()
        runs.train(1)
        for p, every in enumerate((7, 7, 10)):
            if step % every == 0:  # before the update of the same step
                held[p] = before[p]
                changed.append(p)
        assert torch.equal(runs.state.target, held)
        assert not torch.equal(runs.state.parameters, held)
    assert changed.count(0) == 5
    assert changed.count(2) == 3


def test_actions_are_random_before_learning_starts_and_then_at_rate_epsilon(
    make_runs: MakeRuns,
):
    P = 50
    epsilon = np.resize([0.0, 0.3, 1.0], P)
    runs = make_runs(P, epsilon=epsilon, learning_starts=100, learning_rate=1e-6)
    runs.train(500)
    memory = runs.state.replay
    actions = memory.transitions[:, 0, :500, replay.ACTION].numpy().astype(int)
    q = runs.learner.network.apply(
        runs.state.parameters, memory.observations[:, 0, :500, 0]
    )
    # parameters hardly move at this learning rate, but ties may be decided otherwise
    clear = (q[..., 0] - q[..., 1]).abs().numpy() > 1e-3
    odd = (actions != q.argmax(-1).numpy()) & clear
    before, after = odd[:, :100], odd[:, 100:]
    assert before.sum() / clear[:, :100].sum() == pytest.approx(0.5, abs=0.04)
    for rate in (0.0, 0.3, 1.0):
        rows = epsilon == rate
        share = after[rows].sum() / clear[rows, 100:].sum()
        assert share == pytest.approx(rate / 2, abs=0.04 * (rate > 0))


# -- invariants ---------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_hyperparameter_bites_and_bites_one_member_only(
    make_runs: MakeRuns, name: str
):
    a, b = make_runs(3, train_freq=2), make_runs(3, train_freq=2)
    for runs in (a, b):
        runs.train(60)
    assert all(a.differences(b, i) == [] for i in range(3))
    b.values[name][1] = CHANGED[name]
    for runs in (a, b):
        runs.train(60)
    assert "parameters" in a.differences(b, 1)
    assert a.differences(b, 0) == []
    assert a.differences(b, 2) == []
    assert a.member(0)["parameters"] != a.member(2)["parameters"]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"activation": "tanh", "hidden_sizes": (7,)},
        {"hidden_sizes": (33, 17), "double_q": True},
        {"n_step": 3, "num_inner_envs": 2},
    ],
    ids=["default", "tanh", "odd sizes", "n_step"],
)
def test_members_do_not_feel_what_others_do(
    make_runs: MakeRuns, config: dict[str, Any]
):
    """More members than are updated together, and none like its neighbour.

    Changed members change the company that others are computed in; one diverges.
    """
    P, changed = 40, [3, 20, 39]
    a, b = (make_runs(P, **mixed(P), **config) for _ in range(2))
    for runs in (a, b):
        runs.train(40)
    for name, value in CHANGED.items():
        b.values[name][changed] = value
    b.state.parameters[20] = torch.nan
    for runs in (a, b):
        runs.train(80)
    for i in range(P):
        different = a.differences(b, i)
        assert ("parameters" in different) == (i in changed), i
        assert i in changed or different == [], i


@pytest.mark.parametrize(
    ("steps", "config"),
    [
        (1000, {}),
        (400, {"num_inner_envs": 2, "n_step": 3}),
        (400, {"activation": "tanh", "double_q": True}),
        (400, {"replay_capacity": 100}),
    ],
)
def test_cutting_a_run_changes_nothing(
    make_runs: MakeRuns, steps: int, config: dict[str, Any]
):
    whole, cut, odd = (make_runs(4, **mixed(4), **config) for _ in range(3))
    whole.train(steps)
    for _ in range(4):
        cut.train(steps // 4)
    around = (2, 126, 128, 130)  # draws are made 128 iterations ahead
    for part in (*around, steps - sum(around)):
        odd.train(part)
    for other in (cut, odd):
        assert all(whole.differences(other, i) == [] for i in range(4))
        assert torch.equal(whole.interval.sums, other.interval.sums)
        for name in ("updates", "samples", "episodes", "returns", "lengths"):
            a, b = getattr(whole.interval, name), getattr(other.interval, name)
            np.testing.assert_array_equal(a, b)
    assert (whole.interval.episodes > 5).all()


def test_looking_at_a_run_does_not_change_it(make_runs: MakeRuns):
    a, b = make_runs(3), make_runs(3)
    for runs in (a, b):
        runs.train(100)
    b.learner.signals(b.state, b.values, b.interval)
    b.learner.greedy(b.state.parameters, b.state.envs.observations)
    b.learner.diverged(b.state, b.interval)
    for runs in (a, b):
        runs.train(100)
    assert all(a.differences(b, i) == [] for i in range(3))


def test_the_order_of_training_populations_with_one_learner_does_not_matter(
    make_runs: MakeRuns,
):
    a, b = make_runs(3), make_runs(3)
    other = copy.deepcopy(b.state)
    for _ in range(3):
        a.train(50)
        b.train(50)  # keeps views of its tensors, which the next line must not use
        b.learner.train(other, b.values, 50, b.interval)
    assert all(a.differences(b, i) == [] for i in range(3))
    b.state = other
    assert all(a.differences(b, i) == [] for i in range(3))


@pytest.mark.parametrize("member", [0, 41])
def test_a_member_alone_is_the_same_run_as_among_64(make_runs: MakeRuns, member: int):
    values = mixed(64)
    many = make_runs(64, **values)
    one = make_runs([member], **{name: v[[member]] for name, v in values.items()})
    assert one.member(0) == many.member(member)
    for runs in (many, one):
        runs.train(32)  # no update yet
    assert one.member(0) == many.member(member)
    for _ in range(20):
        for runs in (many, one):
            runs.train(1)
        np.testing.assert_allclose(
            one.state.parameters[0], many.state.parameters[member], rtol=0, atol=1e-5
        )
        for name in ("envs.variables", "env_steps", "gradient_steps", "since_train"):
            assert one.member(0)[name] == many.member(member)[name]
    assert one.state.gradient_steps[0] > 4


def test_every_gradient_step_draws_a_batch_of_its_own(
    make_runs: MakeRuns, monkeypatch: pytest.MonkeyPatch
):
    runs = make_runs(6, **mixed(6))
    draws = np.zeros(6, np.int64)  # of each member so far
    sample = replay.Replay.sample
    keys = streams.of(runs.keys, "replay")

    def record(self: Any, members: Any, written: Any, words: Any, *rest: Any):
        np.testing.assert_array_equal(written, runs.state.env_steps[members])
        own = streams.bits(keys[members], draws[members], words.shape[1])
        np.testing.assert_array_equal(words, own)
        draws[members] += 1
        return sample(self, members, written, words, *rest)

    monkeypatch.setattr(replay.Replay, "sample", record)
    for _ in range(3):
        runs.train(40)
    np.testing.assert_array_equal(draws, runs.state.gradient_steps)
    assert draws.min() > 10


@pytest.mark.parametrize("at_once", [1, 64, 10**6])
def test_draws_do_not_depend_on_how_many_are_made_at_once(
    make_runs: MakeRuns, monkeypatch: pytest.MonkeyPatch, at_once: int
):
    expected, runs = make_runs(6, **mixed(6)), make_runs(6, **mixed(6))
    expected.train(120)
    monkeypatch.setattr(dqn, "_WORDS", at_once)
    runs.train(120)
    for i in range(6):
        assert runs.differences(expected, i) == []


def test_members_have_runs_of_their_own(make_runs: MakeRuns):
    runs = make_runs(6)
    runs.train(50)
    members = [runs.member(i) for i in range(6)]
    for name in ("parameters", "envs.variables", "replay.transitions", "keys"):
        assert len({m[name] for m in members}) == 6, name


def test_no_global_randomness_or_setting(make_runs: MakeRuns):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002
    runs = make_runs(2)
    runs.train(60)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert torch.is_grad_enabled()
    assert not runs.state.parameters.requires_grad


# -- divergence and restarts --------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_a_diverged_member_is_noticed_and_alone(make_runs: MakeRuns, value: float):
    runs = make_runs(5, batch_size=[64, 64, 64, 9, 64])
    runs.train(60)
    assert not runs.learner.diverged(runs.state, runs.interval).any()
    runs.state.parameters[2] = value
    runs.train(60)
    lost = runs.learner.diverged(runs.state, runs.interval)
    assert lost.tolist() == [False, False, True, False, False]


def test_a_loss_that_was_not_finite_is_remembered(make_runs: MakeRuns):
    runs = make_runs(3)
    runs.train(60)
    healthy = runs.state.parameters.clone()
    runs.state.target[1] = torch.inf
    runs.train(4)
    runs.state.parameters.copy_(healthy)
    lost = runs.learner.diverged(runs.state, runs.interval)
    assert lost.tolist() == [False, True, False]


@pytest.mark.parametrize("P", [4, 40])
def test_a_diverged_member_leaves_nothing_behind(make_runs: MakeRuns, P: int):
    """Neither in its own next run nor in those that use the same scratch memory."""
    bad = np.array([1])
    runs, fresh = make_runs(P), make_runs(P)
    runs.train(60)
    runs.state.parameters[1] = torch.nan
    runs.train(20)
    for each in (runs, fresh):
        each.learner.restart(each.state, bad, each.keys[bad], each.physics[bad])
        each.interval = each.learner.begin_interval(each.state)
    runs.train(100)
    assert not runs.learner.diverged(runs.state, runs.interval).any()
    fresh.train(100)
    again, first = runs.member(1), fresh.member(1)
    for name in ("parameters", "target", "adam.mean", "adam.square", "envs.variables"):
        assert again[name] == first[name], name


def test_restarted_members_begin_again_and_others_go_on(make_runs: MakeRuns):
    runs, undisturbed = make_runs(4), make_runs(4)
    other = make_runs([7])
    for each in (runs, undisturbed):
        each.train(150)
    which = np.array([2])
    runs.learner.restart(runs.state, which, other.keys, other.physics)
    for counter in ("env_steps", "gradient_steps", "since_train", "since_target"):
        assert getattr(runs.state, counter)[2] == 0
    first, expected = runs.member(2), other.member(0)
    # what lies in the memory is not seen any more, so it may stay
    assert [name for name in first if first[name] != expected[name]] == [
        "replay.observations",
        "replay.transitions",
    ]
    for each in (runs, undisturbed):
        each.train(150)
    other.train(150)
    assert all(runs.differences(undisturbed, i) == [] for i in (0, 1, 3))
    np.testing.assert_allclose(
        runs.state.parameters[2], other.state.parameters[0], rtol=0, atol=1e-3
    )
    rows = runs.state.replay.transitions[2, 0, :60]
    np.testing.assert_allclose(rows, other.state.replay.transitions[0, 0, :60])


# -- configuration, caps, signals ---------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_inner_envs": 0}, "num_inner_envs must be at least 1"),
        ({"n_step": 0}, "n_step must be at least 1"),
        ({"learning_starts": -1}, "learning_starts must not be negative"),
        ({"replay_capacity": 0}, "replay_capacity 0 is below"),
        (
            {"replay_capacity": 7, "num_inner_envs": 4, "n_step": 2},
            "num_inner_envs × n_step = 8",
        ),
    ],
)
def test_impossible_configurations_are_refused(fields: dict[str, int], message: str):
    with pytest.raises(ValueError, match=message):
        dqn.DQNConfig(**fields)


def test_an_unknown_activation_is_refused(make_runs: MakeRuns):
    with pytest.raises(ValueError, match="unknown activation 'swish'; valid: relu"):
        make_runs(1, activation="swish")


@pytest.mark.parametrize(
    ("fields", "budget", "capacity"),
    [
        ({}, 50_000, 50_000),
        ({}, 1_000_000, 100_000),
        ({"replay_capacity": 10}, 50_000, 10),
        ({"replay_capacity": 11, "num_inner_envs": 4}, 50_000, 8),
        ({"num_inner_envs": 4, "n_step": 3}, 8, 12),
    ],
)
def test_capacity(fields: dict[str, int], budget: int, capacity: int):
    assert dqn.DQN.replay_capacity(dqn.DQNConfig(**fields), budget) == capacity


def test_values_are_capped_together():
    values = {h.name: np.full(3, float(h.default)) for h in dqn.HYPERPARAMETERS}
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
    assert {h.name: (h.low, h.high, h.default) for h in dqn.HYPERPARAMETERS} == {
        "learning_rate": (1e-6, 1e-1, 1e-3),
        "epsilon": (0, 1, 0.1),
        "batch_size": (4, 512, 64),
        "gamma": (0.8, 1.0, 0.99),
        "target_update_interval": (1, 10_000, 500),
        "train_freq": (1, 1_000, 4),
        "gradient_steps": (1, 1_000, 1),
        "max_grad_norm": (0.1, 100, 10),
        "replay_window": (1_000, 100_000, 100_000),
    }


def test_signals_and_interval_sums(
    make_runs: MakeRuns, monkeypatch: pytest.MonkeyPatch
):
    runs = make_runs(3, train_freq=1, gradient_steps=[1, 2, 1])
    runs.train(100)
    start = runs.state.parameters.clone()
    runs.interval = runs.learner.begin_interval(runs.state)
    losses = torch.zeros(3)
    sample = replay.Replay.sample

    def record(self: Any, members: Any, *args: Any) -> replay.Batch:
        batch = sample(self, members, *args)
        state = runs.state
        losses[members] += runs.learner.loss(
            state.parameters[members], state.target[members], batch
        )
        return batch

    with monkeypatch.context() as patched:
        patched.setattr(replay.Replay, "sample", record)
        # one gradient step a training event, so that the state is up to date
        runs.values["gradient_steps"][:] = 1
        runs.train(30)
    signals = runs.learner.signals(runs.state, runs.values, runs.interval)
    assert set(signals) == set(dqn.SIGNALS)
    assert all(v.shape == (3,) and np.isfinite(v).all() for v in signals.values())
    np.testing.assert_allclose(signals["loss"], losses / 30, rtol=1e-4)
    moved = (runs.state.parameters - start).norm(dim=1) / start.norm(dim=1)
    np.testing.assert_allclose(signals["update_ratio"], moved, rtol=1e-5)
    assert (signals["grad_norm"] > 0).all()
    rows = runs.state.replay.observations[:, 0, :130, 0]
    q = runs.learner.network.apply(runs.state.parameters, rows)
    # of the values of the actions taken, in a sample of all transitions
    assert (signals["value_mean"] < q.amax(-1).mean(1).numpy() + 0.1).all()
    assert (signals["value_mean"] > q.amin(-1).mean(1).numpy() - 0.1).all()


def test_floating_point_operations(make_runs: MakeRuns):
    act, learn = make_runs(1, hidden_sizes=(64, 64)).learner.flops
    forward = 2 * (4 * 64 + 64 * 64 + 64 * 2)
    assert act == forward
    # two forward passes; backward to the weights, and to all inputs but the first
    assert learn == 2 * forward + forward + (forward - 2 * 4 * 64)
    double = make_runs(1, hidden_sizes=(64, 64), double_q=True).learner.flops
    assert double == (act, learn + forward)


def test_episodes_are_counted(make_runs: MakeRuns):
    runs = make_runs(3, num_inner_envs=2)
    runs.train(400)
    table = runs.state.replay.transitions[:, :, :200]
    done = table[..., replay.DONE].numpy() == 1
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
    make_runs: MakeRuns, probe: Probe, gamma: list[float], **config: Any
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
    starts = torch.from_numpy(STARTS).expand(len(gamma), -1, -1)
    return runs, runs.learner.network.apply(runs.state.parameters, starts).numpy()


VARIANTS = [{}, {"double_q": True}, {"n_step": 3}, {"activation": "tanh"}]


@pytest.mark.parametrize("config", VARIANTS)
def test_the_value_of_a_sure_reward_is_the_reward(
    make_runs: MakeRuns, config: dict[str, Any]
):
    _, q = learned(make_runs, Probe(), [0.9, 0.99], **config)
    np.testing.assert_allclose(q, 1.0, atol=0.05)


@pytest.mark.parametrize("config", VARIANTS)
def test_the_value_of_a_later_reward_is_discounted(
    make_runs: MakeRuns, config: dict[str, Any]
):
    gamma = [0.8, 0.9, 0.99]
    _, q = learned(make_runs, Delayed(), gamma, **config)
    expected = np.array(gamma)[:, None, None]
    np.testing.assert_allclose(q, np.broadcast_to(expected, q.shape), atol=0.05)


@pytest.mark.parametrize(("n_step", "known"), [(1, False), (3, True)])
def test_n_step_returns_carry_rewards_back_without_the_target_network(
    make_runs: MakeRuns, n_step: int, known: bool
):
    class Late(Probe):
        """The reward comes with the last of three steps."""

        length = 3.0

        def reward(self, variables: Floats, actions: NDArray[np.int64]) -> Floats:
            return 5.0 * (variables[..., 1] == 2)

    never = 10_000  # as long as the target network stays as it began
    _, q = learned(
        make_runs, Late(), [0.9], n_step=n_step, target_update_interval=never
    )
    assert np.allclose(q, 5 * 0.9**2, atol=0.2) == known


@pytest.mark.parametrize("config", VARIANTS)
def test_the_better_action_is_found(make_runs: MakeRuns, config: dict[str, Any]):
    runs, q = learned(make_runs, Match(), [0.99, 0.8], **config)
    right = np.array([[1.0, -1.0], [-1.0, 1.0]])
    np.testing.assert_allclose(q, np.broadcast_to(right, q.shape), atol=0.1)
    greedy = runs.learner.greedy(runs.state.parameters, np.stack([STARTS, STARTS]))
    assert greedy.tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize("config", [{}, {"n_step": 3}, {"num_inner_envs": 2}])
def test_truncation_bootstraps_and_termination_does_not(
    make_runs: MakeRuns, config: dict[str, Any]
):
    for probe, bootstraps in ((Endless(), 1.0), (Probe(), 0.0)):
        runs = make_runs(3, env=BatchedEnv(probe), **config)
        runs.train(30)
        N = runs.learner.config.num_inner_envs
        batch = runs.state.replay.sample(
            np.arange(3),
            runs.state.env_steps // N,
            streams.bits(runs.keys[:, 2], np.zeros(3, np.int64), 64),
            torch.ones(3, 64, 1),
            torch.full((3, 1, 1), 0.9),
            runs.learner.config.n_step,
        )
        # every episode has one step, so no return reaches into the next one
        assert (batch.returns == 1).all()
        assert (batch.discounts == np.float32(0.9) * bootstraps).all()
        # what followed is the end of the same episode, not the start of the next
        assert (batch.observations[..., 1] == 0).all()
        assert (batch.next_observations[..., 1] == 1).all()
        assert torch.equal(batch.next_observations[..., 0], batch.observations[..., 0])


def test_the_memory_holds_episodes_as_they_went(make_runs: MakeRuns):
    class Long(Probe):
        max_episode_steps = 7
        length = np.inf

    runs = make_runs(2, env=BatchedEnv(Long()), num_inner_envs=3)
    runs.train(90)
    before, after = runs.state.replay.observations[:, :, :30].unbind(3)
    steps = torch.arange(30) % 7
    assert (before[..., 1] == steps).all()
    assert (after[..., 1] == steps + 1).all()
    assert torch.equal(before[..., 0], after[..., 0])
    table = runs.state.replay.transitions[:, :, :30]
    assert (table[..., replay.DONE] == (steps == 6)).all()
    assert (table[..., replay.CONTINUES] == 1).all()


def test_a_truncated_task_is_worth_more_than_its_one_reward(make_runs: MakeRuns):
    class Loop(Endless):
        """The next observation is again a start, so that values have one answer."""

        def observe(self, variables: Floats) -> NDArray[np.float32]:
            return super().observe(variables * [1.0, 0.0])

    _, q = learned(make_runs, Loop(), [0.5, 0.8])
    np.testing.assert_allclose(q[0], 2.0, atol=0.1)
    np.testing.assert_allclose(q[1], 5.0, atol=0.5)
