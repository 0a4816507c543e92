"""The compiled gradients against the definitions in torch, option by option."""

import math

import numpy as np
import pytest
import torch

from dacrl_env.algorithms import (
    discrete_sac,
    dqn,
    drivers,
    ppo,
    ppo_gain,
    sac,
    soft,
    tanh_gaussian,
)
from dacrl_env.algorithms.interval import Run, begin
from dacrl_env.algorithms.rollout import make_rollout
from dacrl_env.kernels import dense
from dacrl_env.kernels.compiling import entry

NO_PARTS = np.zeros(6, np.int64)  # of a row; losses know nothing of them
SIZES = [(64, 64), (50, 30)]  # for other numbers of layers see the tests of kernels


@entry
def _dqn_loss(p, B, parameters, target, fixed, values, memory):
    return dqn.loss_and_gradient(p, B, parameters, target, fixed, values, memory)


@entry
def _ppo_loss(p, B, parameters, run, memory):
    return ppo.loss_and_gradient(p, B, parameters, run, memory)


@entry
def _sac_losses(B, temperature, row, target, fixed, memory):
    sac.draw_actions(B, np.uint64(7), row, fixed, memory)
    loss = sac.critic_gradient(B, temperature, row, target, fixed, memory)
    return loss, sac.actor_gradient(B, temperature, row, fixed, memory)


@entry
def _discrete_losses(B, temperature, row, target, fixed, memory):
    discrete_sac.think(B, memory.inputs, row, fixed, memory.policies)
    discrete_sac.think(B, memory.next_inputs, row, fixed, memory.next_policies)
    loss = discrete_sac.critic_gradient(B, temperature, row, target, fixed, memory)
    return loss, discrete_sac.actor_gradient(B, temperature, row, fixed, memory)


def _fresh(net: dense.Network, rng: np.random.Generator) -> np.ndarray:
    """Parameters, and nothing between them."""
    return 0.3 * rng.normal(size=net.row) * dense.real_parameters(net)


# -- DQN -------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", SIZES)
@pytest.mark.parametrize("double_q", [0.0, 1.0])
@pytest.mark.parametrize("loss", [dqn.HUBER, dqn.MSE])
@pytest.mark.parametrize("k", [0.0, 0.3])
@pytest.mark.parametrize("B", [4, 5, 64, 256])
def test_dqn(hidden, double_q, loss, k, B) -> None:
    _check_dqn(5, {}, None, hidden, double_q, loss, k, B)


@pytest.mark.parametrize("double_q", [0.0, 1.0])
@pytest.mark.parametrize("loss", [dqn.HUBER, dqn.MSE])
@pytest.mark.parametrize("B", [4, 5, 64])
@pytest.mark.parametrize("hidden", [(50,), (50, 30)])
def test_dqn_with_a_convolution_in_front(hidden, double_q, loss, B) -> None:
    _check_dqn(6 * 5 * 2, {}, (6, 5, 2), hidden, double_q, loss, 0.1, B)


# more of them than features of an observation, and fewer
@pytest.mark.parametrize("features", [34, 4])
@pytest.mark.parametrize("B", [5, 64])
def test_dqn_with_fourier_features(features, B) -> None:
    options = {"fourier_features": features, "normalize_observations": True}
    _check_dqn(features, options, None, (50, 30), 1.0, dqn.HUBER, 0.0, B)


def _check_dqn(inputs, options, image, hidden, double_q, loss, k, B) -> None:
    """Loss and gradient of a network that sees so many inputs."""
    rng, A = np.random.default_rng(B), 3
    activation = "tanh" if B == 5 else "relu"
    net = dense.make_network(inputs, hidden, A, activation, image)
    parts, D = np.array([0, net.weights[-1], net.row]), 5 if options else inputs
    fixed = dqn.Fixed(net, 1, 1, D, A, 0, 1.0, parts, False, **options)
    memory = dqn.make_memory(fixed, 256, 1)
    rows = dqn.make_state(2, fixed, 2, np.float32, 3).parameters
    rows[:] = [_fresh(net, rng), _fresh(net, rng)]
    parameters, target = rows
    memory.inputs[:B] = rng.normal(size=(B, inputs))
    memory.next_inputs[:B] = rng.normal(size=(B, inputs))
    memory.taken[:B, 0] = rng.integers(0, A, B)
    returns, discounts = 2 * rng.normal(size=B), 0.9 * rng.integers(0, 2, B)
    columns = np.stack([returns, discounts, rng.random(B), np.zeros(B)])
    columns = columns.astype(np.float32)
    memory.columns.reshape(-1)[: 4 * B] = columns.ravel()
    values = dqn.Values(*np.ones((len(dqn.Values._fields), 1)))
    values.double_q[0], values.loss[0], values.q_regularisation[0] = double_q, loss, k
    got = _dqn_loss(0, B, parameters, target, fixed, values, memory)
    batch = dqn.Batch(
        torch.tensor(memory.inputs[:B]),
        torch.tensor(memory.taken[:B, 0]).long(),
        torch.tensor(columns[0]),
        torch.tensor(memory.next_inputs[:B]),
        torch.tensor(columns[1]),
        torch.tensor(columns[2]),
    )
    row, options = torch.tensor(parameters, requires_grad=True), (double_q, loss, k)
    given = torch.tensor(target), batch, dqn.Options(*options)
    expected = dqn.loss(net, row, *given)
    expected.backward()
    assert got == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    _, errors = dqn.td_errors(net, row, *given)
    told = memory.columns.ravel()[3 * B : 4 * B]
    np.testing.assert_allclose(told, errors.detach(), rtol=1e-4, atol=1e-5)
    real = dense.real_parameters(net)
    np.testing.assert_allclose(
        memory.gradients[real], row.grad[real], rtol=1e-4, atol=2e-6
    )
    assert (memory.gradients[~real] == 0).all()
    assert abs(memory.gradients).max() > 1e-2


def _identity(scale: float, biases: tuple[float, float] = (0.0, 0.0)) -> torch.Tensor:
    """Q(s, a) = scale · s[a] + biases[a], where s is not negative."""
    row = torch.zeros(SMALL.row)
    hidden = row[: 4 * SMALL.sizes[1]].view(4, -1)
    hidden[0, 0] = hidden[1, 1] = 1.0
    last = row[SMALL.weights[1] :][: 2 * SMALL.sizes[1]].view(2, -1)
    last[0, 0] = last[1, 1] = scale
    row[SMALL.biases[1] :][:2] = torch.tensor(biases)
    return row


SMALL = dense.make_network(4, (2,), 2, "relu")


def test_the_loss_of_dqn_by_hand() -> None:
    # Q(s, a) = s[a], and the target network's is twice that
    one, twice = _identity(1.0), _identity(2.0)
    batch = dqn.Batch(
        observations=torch.tensor([[3.0, 1, 0, 0], [3, 1, 0, 0]]),
        actions=torch.tensor([0, 1]),
        returns=torch.tensor([1.0, 1.0]),
        next_observations=torch.tensor([[2.0, 1, 0, 0], [2, 5, 0, 0]]),
        discounts=torch.tensor([0.5, 0.0]),
        weights=torch.ones(2),
    )
    options = dqn.Options()
    # errors: 3 − (1 + 0.5 · 4) = 0 and 1 − (1 + 0)
    assert dqn.loss(SMALL, one, twice, batch, options).item() == 0.0
    far = batch._replace(returns=torch.tensor([-1.0, 0.5]))
    # errors: 2, Huber 1.5, and 0.5, Huber 0.125
    assert dqn.loss(SMALL, one, twice, far, options).item() == 1.625 / 2
    # squared: 4 and 0.25; the first counts half
    squared = options._replace(loss=dqn.MSE)
    weighed = far._replace(weights=torch.tensor([0.5, 1.0]))
    assert dqn.loss(SMALL, one, twice, weighed, squared).item() == 2.25 / 2
    # DQNReg: and the values taken, 3 and 1
    low = squared._replace(q_regularisation=0.5)
    assert dqn.loss(SMALL, one, twice, far, low).item() == (4.25 + 2.0) / 2


def test_options_may_be_of_each_member() -> None:
    rng = np.random.default_rng(0)
    rows = [torch.tensor(_fresh(SMALL, rng)).float() for _ in range(2)]
    batch = dqn.Batch(
        observations=torch.tensor(rng.normal(size=(6, 4))).float(),
        actions=torch.tensor(rng.integers(0, 2, 6)),
        returns=torch.tensor(rng.normal(size=6)).float(),
        next_observations=torch.tensor(rng.normal(size=(6, 4))).float(),
        discounts=torch.ones(6),
        weights=torch.ones(6),
    )
    every = [(d, loss, k) for d in (0.0, 1.0) for loss in (0.0, 1.0) for k in (0.0, 1)]
    alone = [dqn.loss(SMALL, *rows, batch, dqn.Options(*each)) for each in every]
    together = dqn.loss(
        SMALL,
        *(row.expand(8, -1) for row in rows),
        dqn.Batch(*(x.expand(8, *x.shape) for x in batch)),
        dqn.Options(*torch.tensor(every).T),
    )
    torch.testing.assert_close(together, torch.stack(alone))
    assert len(set(together.tolist())) > 4


def test_double_q_takes_the_online_networks_choice() -> None:
    online, target = _identity(0.0, (1.0, 2.0)), _identity(0.0, (10.0, 3.0))
    nothing = torch.zeros(1, 4)
    batch = dqn.Batch(
        nothing, torch.tensor([0]), torch.zeros(1), nothing, *torch.ones(2, 1)
    )
    for double_q, value in ((True, 3.0), (False, 10.0)):
        options = dqn.Options(double_q=double_q)
        _, errors = dqn.td_errors(SMALL, online, target, batch, options)
        assert errors.item() == 1.0 - value


# -- PPO -------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", SIZES)
@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("limit", [math.inf, 0.2])
@pytest.mark.parametrize("drift", [ppo_gain.CLIP, ppo_gain.DPO])
@pytest.mark.parametrize("B", [1, 7, 64, 256])
def test_ppo(hidden, continuous, limit, drift, B) -> None:
    _check_ppo(5, None, hidden, continuous, limit, drift, B)


@pytest.mark.parametrize("hidden", [(50,), (50, 30)])
@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("B", [1, 7, 64])
def test_ppo_with_convolutions_in_front(hidden, continuous, B) -> None:
    _check_ppo(6 * 5 * 2, (6, 5, 2), hidden, continuous, math.inf, ppo_gain.CLIP, B)


def _check_ppo(D, image, hidden, continuous, limit, drift, B) -> None:
    rng, A = np.random.default_rng(B), 3
    activation = "relu" if B == 7 else "tanh"
    actor, critic = (
        dense.make_network(D, hidden, n, activation, image) for n in (A, 1)
    )
    fixed = ppo.Fixed(
        actor, critic, 4, 64, D, A, continuous, False, False, True, limit, 1.0, NO_PARTS
    )
    bounds = np.full(A, 2.0)
    memory, state = (
        ppo.make_memory(fixed, 256, 1, -bounds, bounds, make_rollout(1, fixed)),
        ppo.make_state(1, fixed, 3),
    )
    parameters, at = state.parameters[0], actor.row + critic.row
    parameters[: actor.row] = _fresh(actor, rng)
    parameters[actor.row : at] = _fresh(critic, rng)
    parameters[at : at + A] = [-0.5, 0.1, 0.3] if continuous else 0.0
    chosen = rng.normal(size=(B, A)) if continuous else rng.integers(0, A, (B, 1))
    memory.inputs[:B], memory.taken[:B] = rng.normal(size=(B, D)), chosen
    columns = rng.normal(size=(4, B)).astype(np.float32)
    columns[ppo.LOG_PROB] = -(4.0 if continuous else 1.0) + 0.3 * columns[ppo.LOG_PROB]
    memory.columns.reshape(-1)[: 4 * B] = columns.ravel()
    # widths of the drift that bend within the ratios of this batch
    coefficients = {
        "clip_range": 0.2,
        "ent_coef": 0.05,
        "vf_coef": 0.5,
        "drift": drift,
        "drift_alpha": 0.5,
        "drift_beta": 0.3,
    }
    values = ppo.Values(
        **{name: np.array([coefficients.get(name, 1.0)]) for name in ppo.Values._fields}
    )
    interval = begin(state.parameters, ("loss", "grad_norm", "kl", "entropy"))
    arrays = drivers.arrays_of(ppo.Arrays, state)
    run = Run(fixed, values, arrays, interval)
    loss, _, entropy = _ppo_loss(0, B, parameters, run, memory)
    actions = torch.tensor(memory.taken[:B])
    batch = ppo.Batch(
        torch.tensor(memory.inputs[:B]),
        actions if continuous else actions[:, 0].long(),
        *(
            torch.tensor(columns[k])
            for k in (ppo.LOG_PROB, ppo.ADVANTAGE, ppo.RETURN, ppo.VALUE)
        ),
    )
    row = torch.tensor(parameters, requires_grad=True)
    expected = ppo.loss(fixed, row, batch, ppo.Options(**coefficients))
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-4, abs=1e-5)
    assert 0 < entropy < 10
    # clipping makes both policy and value gradients vanish for some
    np.testing.assert_allclose(memory.gradients, row.grad, rtol=1e-3, atol=5e-6)
    assert abs(memory.gradients).max() > 1e-3


def test_the_gain_of_ppo_by_hand() -> None:
    advantages, ratio = torch.tensor([2.0, 2.0, -2.0, -2.0]), torch.tensor([3.0, 0.5])
    log_ratio = ratio.repeat(2).log()
    clip = ppo_gain.gains(log_ratio, advantages, ppo.Options(clip_range=0.2))
    # what is clipped counts where that makes the gain smaller
    np.testing.assert_allclose(clip, [2.4, 1.0, -6.0, -1.6], rtol=1e-6)
    # the constants that Lu et al. publish
    dpo = ppo_gain.gains(log_ratio, advantages, ppo.Options(drift=ppo_gain.DPO))
    expected = [
        6 - (4 - 2 * math.tanh(2)),  # (3 − 1) · 2 = 4, α = 2
        1.0,  # moved the wrong way: no drift
        -6.0,
        -1 - (2 * math.log(2) - 0.6 * math.tanh(2 * math.log(2) / 0.6)),
    ]
    np.testing.assert_allclose(dpo, expected, rtol=1e-6)


def test_options_of_ppo_may_be_of_each_member() -> None:
    advantages, log_ratio = torch.tensor([1.0, -1.0]), torch.tensor([0.5, -0.5])
    every = [(0.1, ppo_gain.CLIP), (0.3, ppo_gain.CLIP), (0.3, ppo_gain.DPO)]
    alone = [
        ppo_gain.gains(log_ratio, advantages, ppo.Options(clip_range=c, drift=d))
        for c, d in every
    ]
    clip, drift = torch.tensor(every).T
    options = ppo.Options(clip_range=clip, drift=drift)
    together = ppo_gain.gains(log_ratio.expand(3, 2), advantages.expand(3, 2), options)
    torch.testing.assert_close(together, torch.stack(alone))
    assert len(set(together[:, 0].tolist())) == 3


# -- SAC -------------------------------------------------------------------------------


def _sac_row(fixed: sac.Fixed, rng: np.random.Generator) -> np.ndarray:
    nets = (fixed.actor, fixed.critic, fixed.critic)
    rows = [_fresh(net, rng) for net in nets]
    return np.concatenate([*rows, np.zeros(soft.REST)])


def _of(arrays: np.ndarray, B: int, columns: int) -> torch.Tensor:
    """What a batch of B rows has written to memory for more."""
    return torch.tensor(arrays.ravel()[: B * columns].reshape(B, columns))


@pytest.mark.parametrize("hidden", SIZES)
@pytest.mark.parametrize("A", [1, 3])
@pytest.mark.parametrize("spread", [0.0, 4.0])
@pytest.mark.parametrize("B", [4, 5, 64, 256])
def test_sac(hidden, A, spread, B) -> None:
    rng, D, temperature = np.random.default_rng(B), 5, np.float32(0.3)
    activation = "tanh" if B == 5 else "relu"
    actor = dense.make_network(D, hidden, 2 * A, activation)
    critic = dense.make_network(D + A, hidden, 1, activation)
    fixed = sac.Fixed(actor, critic, 1, 1, D, A, 0, 0, 1.0, NO_PARTS, False)
    memory = sac.make_memory(fixed, 256, 1, np.full(A, -2.0), np.full(A, 2.0))
    rows = sac.make_state(2, fixed, 2, np.float32, 3).parameters
    rows[:] = [_sac_row(fixed, rng), _sac_row(fixed, rng)]
    parameters, target = rows
    # deviations that are at their bounds for some observations
    biases = actor.biases[-1]
    parameters[biases + A : biases + 2 * A] = spread - 1.0
    memory.inputs[:B] = rng.normal(size=(B, D))
    memory.next_inputs[:B] = rng.normal(size=(B, D))
    memory.taken.reshape(-1)[: B * A] = rng.uniform(-1, 1, B * A)
    returns, discounts = 2 * rng.normal(size=B), 0.9 * rng.integers(0, 2, B)
    columns = np.stack([returns, discounts, rng.random(B), np.zeros(B)])
    columns = columns.astype(np.float32)
    memory.columns.reshape(-1)[: 4 * B] = columns.ravel()
    got = _sac_losses(B, temperature, parameters, target, fixed, memory)
    batch = sac.Batch(
        torch.tensor(memory.inputs[:B]),
        _of(memory.taken, B, A),
        torch.tensor(columns[0]),
        torch.tensor(memory.next_inputs[:B]),
        torch.tensor(columns[1]),
        torch.tensor(columns[2]),
    )
    row, other = torch.tensor(parameters, requires_grad=True), torch.tensor(target)
    noise, next_noise = (
        _of(drawn.noise, B, A) for drawn in (memory.drawn, memory.next_drawn)
    )
    heat = float(temperature)
    critics = sac.critic_loss(fixed, row, other, batch, heat, next_noise)
    acting = sac.actor_loss(fixed, row, batch, heat, noise)
    (critics + acting).backward()
    for mine, theirs in zip(got, (critics, acting), strict=True):
        assert mine == pytest.approx(theirs.item(), rel=1e-4, abs=1e-5)
    actions, log_probs = tanh_gaussian.proposed(
        actor, row[: actor.row], batch.observations, noise
    )
    log_stds = _of(memory.drawn.outputs, B, 2 * A)[:, A:]
    if spread and B > 5:
        assert (log_stds > tanh_gaussian.HIGHEST_LOG_STD).any()
        assert (log_stds < tanh_gaussian.HIGHEST_LOG_STD).any()
    np.testing.assert_allclose(
        _of(memory.drawn.actions, B, A), actions.detach(), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        memory.drawn.log_probs[:B],
        log_probs.detach(),
        rtol=1e-4,
        atol=1e-4,
    )
    grown = max(1.0, float(abs(row.grad).max()))
    np.testing.assert_allclose(
        memory.gradients / grown,
        row.grad / grown,
        rtol=1e-3,
        atol=1e-5,
    )
    for at in (slice(actor.row), slice(actor.row, None)):
        assert abs(memory.gradients[at]).max() > 1e-3
    real = np.concatenate(
        [*(dense.real_parameters(n) for n in (actor, critic, critic))]
    )
    assert (memory.gradients[: len(real)][~real] == 0).all()


def test_the_temperature_falls_where_there_is_too_much_entropy() -> None:
    log_temperature = torch.tensor([0.0, 0.0], requires_grad=True)
    # entropies of 2 and −2, of which −1 is wanted
    log_probs = torch.tensor([[-1.0, -3.0], [1.0, 3.0]])
    loss = sac.temperature_loss(log_temperature, log_probs, -1.0)
    loss.sum().backward()
    assert log_temperature.grad.tolist() == [3.0, -1.0]


# -- SAC with discrete actions ---------------------------------------------------------


@pytest.mark.parametrize("hidden", SIZES)
@pytest.mark.parametrize("A", [2, 5])
@pytest.mark.parametrize("temperature", [0.3, 0.0])
@pytest.mark.parametrize("B", [4, 5, 64, 256])
def test_discrete_sac(hidden, A, temperature, B) -> None:
    rng, D, heat = np.random.default_rng(B), 5, np.float32(temperature)
    activation = "tanh" if B == 5 else "relu"
    actor, critic = (dense.make_network(D, hidden, A, activation) for _ in range(2))
    fixed = discrete_sac.Fixed(actor, critic, 1, 1, D, A, 0, 1.0, NO_PARTS, False)
    memory = discrete_sac.make_memory(fixed, 256, 1)
    rows = discrete_sac.make_state(2, fixed, 2, np.float32, 3).parameters
    rows[:] = [_sac_row(fixed, rng), _sac_row(fixed, rng)]
    parameters, target = rows
    memory.inputs[:B] = rng.normal(size=(B, D))
    memory.next_inputs[:B] = rng.normal(size=(B, D))
    memory.taken[:B, 0] = rng.integers(0, A, B)
    returns, discounts = 2 * rng.normal(size=B), 0.9 * rng.integers(0, 2, B)
    columns = np.stack([returns, discounts, rng.random(B), np.zeros(B)])
    columns = columns.astype(np.float32)
    memory.columns.reshape(-1)[: 4 * B] = columns.ravel()
    got = _discrete_losses(B, heat, parameters, target, fixed, memory)
    batch = discrete_sac.Batch(
        torch.tensor(memory.inputs[:B]),
        torch.tensor(memory.taken[:B, 0]).long(),
        torch.tensor(columns[0]),
        torch.tensor(memory.next_inputs[:B]),
        torch.tensor(columns[1]),
        torch.tensor(columns[2]),
    )
    row, other = torch.tensor(parameters, requires_grad=True), torch.tensor(target)
    critics = discrete_sac.critic_loss(fixed, row, other, batch, temperature)
    acting = discrete_sac.actor_loss(fixed, row, batch, temperature)
    (critics + acting).backward()
    for mine, theirs in zip(got, (critics, acting), strict=True):
        assert mine == pytest.approx(theirs.item(), rel=1e-4, abs=1e-5)
    log_probs = discrete_sac.policy(fixed, row, batch.observations).detach()
    np.testing.assert_allclose(
        _of(memory.policies.log_probs, B, A), log_probs, rtol=1e-4, atol=1e-5
    )
    entropies = -(log_probs.exp() * log_probs).sum(-1)
    np.testing.assert_allclose(memory.policies.entropies[:B], entropies, rtol=1e-4)
    grown = max(1.0, float(abs(row.grad).max()))
    np.testing.assert_allclose(memory.gradients / grown, row.grad / grown, atol=5e-6)
    for k in range(2):  # of every network there is one
        at = actor.row + k * critic.row
        assert abs(memory.gradients[at : at + critic.row]).max() > 1e-3
    assert abs(memory.gradients[: actor.row]).max() > 1e-3


def test_the_losses_of_discrete_sac_by_hand() -> None:
    # one input that is nothing: networks are their biases
    net = dense.make_network(1, (2,), 2, "relu")
    fixed = discrete_sac.Fixed(net, net, 1, 1, 1, 2, 0, 1.0, NO_PARTS, False)

    def row(logits, first, second):
        whole = torch.zeros(fixed.row)
        for k, outputs in enumerate((logits, first, second)):
            whole[k * net.row + net.biases[-1] :][:2] = torch.tensor(outputs)
        return whole

    # probabilities ¾ and ¼
    online = row([math.log(3.0), 0.0], [1.0, 2.0], [3.0, 0.0])
    target = row([0.0, 0.0], [4.0, 9.0], [8.0, 2.0])
    nothing, one = torch.zeros(1, 1), torch.ones(1)
    batch = discrete_sac.Batch(nothing, torch.tensor([0]), one, nothing, 0.5 * one, one)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    # the lesser target values are 4 and 2
    goal = 1.0 + 0.5 * (0.75 * 4 + 0.25 * 2 + 0.2 * entropy)
    expected = 0.5 * ((1.0 - goal) ** 2 + (3.0 - goal) ** 2)
    got = discrete_sac.critic_loss(fixed, online, target, batch, 0.2)
    assert got.item() == pytest.approx(expected, rel=1e-6)
    # the lesser values are 1 and 0
    acting = discrete_sac.actor_loss(fixed, online, batch, 0.2)
    assert acting.item() == pytest.approx(-0.2 * entropy - 0.75, rel=1e-6)
    heat = torch.tensor(0.0, requires_grad=True)
    discrete_sac.temperature_loss(heat, torch.tensor([entropy]), 0.5).backward()
    assert heat.grad.item() == pytest.approx(entropy - 0.5, rel=1e-6)
