"""The compiled gradients against the definitions in torch, option by option."""

import math

import numpy as np
import pytest
import torch

from dacrl_env.algorithms import dqn, drivers, ppo
from dacrl_env.kernels import dense
from dacrl_env.kernels.compiling import entry

SIZES = [(64, 64), (50, 30), (128,), (32, 64, 16)]


@entry
def _dqn_loss(B, parameters, target, fixed, memory):
    return dqn.loss_and_gradient(B, parameters, target, fixed, memory)


@entry
def _ppo_loss(p, B, parameters, run, memory):
    return ppo.loss_and_gradient(p, B, parameters, run, memory)


@pytest.mark.parametrize("hidden", SIZES)
@pytest.mark.parametrize("double_q", [False, True])
@pytest.mark.parametrize("B", [4, 5, 64, 256])
def test_dqn(hidden, double_q, B) -> None:
    rng, D, A = np.random.default_rng(B), 5, 3
    activation = "tanh" if B == 5 else "relu"
    net = dense.make_network(D, hidden, A, activation)
    fixed = dqn.Fixed(net, 1, 1, D, A, 0, double_q, 1, 1.0)
    memory, state = (
        dqn.make_memory(fixed, 256, 1),
        dqn.make_state(2, fixed, 2, float, 3),
    )
    state.keys[:] = [[1], [2]]
    for p in range(2):
        dqn.restart(p, fixed, state)
    parameters, target = state.parameters
    memory.inputs[:B] = rng.normal(size=(B, D))
    memory.next_inputs[:B] = rng.normal(size=(B, D))
    columns = np.stack(
        [rng.integers(0, A, B), 2 * rng.normal(size=B), 0.9 * rng.integers(0, 2, B)]
    ).astype(np.float32)
    memory.columns.reshape(-1)[: 3 * B] = columns.ravel()
    loss = _dqn_loss(B, parameters, target, fixed, memory)
    batch = dqn.Batch(
        torch.tensor(memory.inputs[:B]),
        torch.tensor(columns[0]).long(),
        torch.tensor(columns[1]),
        torch.tensor(memory.next_inputs[:B]),
        torch.tensor(columns[2]),
    )
    rows = torch.tensor(parameters, requires_grad=True)
    expected = dqn.loss(net, rows, torch.tensor(target), batch, double_q)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(memory.gradients, rows.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("hidden", SIZES)
@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("limit", [math.inf, 0.2])
@pytest.mark.parametrize("B", [1, 7, 64, 256])
def test_ppo(hidden, continuous, limit, B) -> None:
    rng, D, A = np.random.default_rng(B), 5, 3
    activation = "relu" if B == 7 else "tanh"
    actor, critic = (dense.make_network(D, hidden, n, activation) for n in (A, 1))
    fixed = ppo.Fixed(
        actor, critic, 4, 64, D, A, continuous, False, False, True, limit, 1.0
    )
    bounds = np.full(A, 2.0)
    memory, state = (
        ppo.make_memory(fixed, 256, 1, -bounds, bounds, ppo.make_rollout(1, fixed)),
        ppo.make_state(1, fixed, 3),
    )
    state.keys[:] = 5
    ppo.restart(0, fixed, state)
    parameters = state.parameters[0]
    at = actor.row + critic.row
    parameters[at : at + A] = [-0.5, 0.1, 0.3] if continuous else 0.0
    chosen = rng.normal(size=(B, A)) if continuous else rng.integers(0, A, (B, 1))
    memory.inputs[:B], memory.taken[:B] = rng.normal(size=(B, D)), chosen
    columns = rng.normal(size=(4, B)).astype(np.float32)
    columns[ppo.LOG_PROB] = -(4.0 if continuous else 1.0) + 0.3 * columns[ppo.LOG_PROB]
    memory.columns.reshape(-1)[: 4 * B] = columns.ravel()
    coefficients = {"clip_range": 0.2, "ent_coef": 0.05, "vf_coef": 0.5}
    values = ppo.Values(
        **{name: np.array([coefficients.get(name, 1.0)]) for name in ppo.Values._fields}
    )
    interval = drivers.Interval(np.zeros((1, 6)), np.zeros((1, 3)), state.parameters)
    run = ppo.Run(fixed, values, state, interval)
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
    rows = torch.tensor(parameters, requires_grad=True)
    given = (torch.tensor(np.float32(v)) for v in coefficients.values())
    expected = ppo.loss(fixed, rows, batch, *given)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-4, abs=1e-5)
    assert 0 < entropy < 10
    # clipping makes both policy and value gradients vanish for some
    np.testing.assert_allclose(memory.gradients, rows.grad, rtol=1e-3, atol=2e-6)
