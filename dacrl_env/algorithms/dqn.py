"""DQN for one member, as plain loops; members are independent of each other.

Mnih et al. 2015, "Human-level control through deep reinforcement learning" (Nature
518), with the choices of Stable-Baselines3: Huber loss, hard target updates, uniform
replay, gradient norm clipping, Adam. Optional: double Q-learning (van Hasselt, Guez
and Silver 2016), n-step returns (Sutton 1988), prioritised replay (`replay`), soft
target updates (``tau``; Lillicrap et al. 2016), squared errors, values kept low
(``q_regularisation`` k: δ² + k · Q with squared errors is DQNReg, Co-Reyes et al. 2021,
"Evolving reinforcement learning algorithms"), and random actions that are held (Dabney
et al. 2021, "Temporally-extended ε-greedy exploration"). Batches are drawn from the
newest ``replay_window`` transitions, so that the age of what is replayed can be set
while a run goes on (Liu and Zou 2018, "The effects of memory replay in reinforcement
learning"; Fedus et al. 2020, "Revisiting fundamentals of experience replay").

Observations may be normalised by running moments, and random Fourier features stand in
their place (`features`).

`loss` is the definition, in torch; what trains is `loss_and_gradient`, which is tested
against it.

Letters: P members, N inner environments a member, C transitions kept of each, B batch
size, D observation features, I inputs of the network, A actions.
"""

from __future__ import annotations

import math
from collections import namedtuple
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dacrl_env.algorithms import features, replay
from dacrl_env.algorithms.features import inputs_of
from dacrl_env.algorithms.interval import AT_ONCE, SAMPLES, UPDATES
from dacrl_env.algorithms.register import Register
from dacrl_env.algorithms.replay import DISCOUNT, ERROR, RETURN, WEIGHT, Replay
from dacrl_env.kernels import dense, moments, views
from dacrl_env.kernels.adam import adam_step
from dacrl_env.kernels.choices import largest, zipf
from dacrl_env.kernels.compiling import compiled, entry
from dacrl_env.kernels.dense import Network, Scratch, backward, forward, predict
from dacrl_env.kernels.moments import Moments, mean_and_spread
from dacrl_env.kernels.products import dot
from dacrl_env.kernels.random_numbers import draw, uniform
from dacrl_env.kernels.views import aligned, matrix, row_of, start_of, vector

if TYPE_CHECKING:
    from torch import Tensor

ADAM_EPSILON = 1e-8
PROBE_BATCH = np.int64(256)  # transitions the signals of an interval are computed from
_PROBE_DRAWS = 2**40  # their draws lie beyond those of any gradient step

INIT, ACT, REPLAY = range(3)  # purposes of a member's keys
HUBER, MSE = range(2)  # options of the loss
EPSILON_GREEDY, EZ_GREEDY = range(2)  # … of exploration
LOSS, GRAD_NORM = range(2)  # sums of an interval
TD_ERROR, VALUE_MEAN, VALUE_STD, UPDATE_RATIO = range(4)  # signals


class Values(NamedTuple):
    """Applied hyperparameters, one number a member: ``(P,)`` each."""

    learning_rate: NDArray[np.float64]
    epsilon: NDArray[np.float64]
    batch_size: NDArray[np.float64]
    gamma: NDArray[np.float64]
    target_update_interval: NDArray[np.float64]
    train_freq: NDArray[np.float64]
    gradient_steps: NDArray[np.float64]
    max_grad_norm: NDArray[np.float64]
    replay_window: NDArray[np.float64]
    n_step: NDArray[np.float64]
    double_q: NDArray[np.float64]
    loss: NDArray[np.float64]
    q_regularisation: NDArray[np.float64]
    tau: NDArray[np.float64]
    priority_alpha: NDArray[np.float64]
    priority_beta: NDArray[np.float64]
    exploration: NDArray[np.float64]
    hold_exponent: NDArray[np.float64]


class Fixed(NamedTuple):
    """What is the same for all members and for the whole of a run."""

    net: Network
    N: int
    T: int  # steps between which nothing is learned: 1
    D: int
    A: int
    learning_starts: int
    scale: float  # of observations, before they enter the network
    parts: NDArray[np.int64]  # (3,) of a row: where body and last layer begin; its end
    prioritised: bool  # whether there is room for priorities
    normalize_observations: bool = False  # which are then not scaled
    fourier_features: int = 0  # in place of an observation; 0: none
    fourier_scale: float = 1.0  # deviation of what they multiply an observation with


@dataclass
class State:
    """Everything P runs consist of. What is not in it does not exist."""

    parameters: NDArray[np.float32]  # (P, row)
    target: NDArray[np.float32]  # (P, row)
    mean: NDArray[np.float32]  # (P, row) Adam's first moments
    square: NDArray[np.float32]  # (P, row) … second moments
    replay: Replay
    held_action: NDArray[np.int64]  # (P, N) random action
    held_steps: NDArray[np.int64]  # (P, N) for which it is still to be taken
    part_steps: NDArray[np.int64]  # (P, 2) of the optimiser, with each part
    register: Register
    observation_moments: Moments  # (P, D), or (P, 0) without
    frequencies: NDArray[np.float32]  # see `features.make_frequencies`
    keys: NDArray[np.uint64]  # (P, purposes)
    env_steps: NDArray[np.int64]  # (P,) taken so far
    gradient_steps: NDArray[np.int64]  # (P,)
    since_train: NDArray[np.int64]  # (P,) environment steps since the training event
    since_target: NDArray[np.int64]  # (P,) … since the target network was set
    envs: Any = None  # state of the inner environments, P × N


_ARRAYS = [f.name for f in fields(State) if f.name != "envs"]
Arrays = namedtuple("Arrays", _ARRAYS)  # type: ignore[misc]


class Memory(NamedTuple):
    """Memory of one thread."""

    scratch: Scratch
    gradients: NDArray[np.float32]  # (row,)
    seen: NDArray[np.float32]  # (N or AT_ONCE, D) before a step
    following: NDArray[np.float32]  # (N, D) after it
    actions: NDArray[np.float64]  # (N or AT_ONCE, 1)
    inputs: NDArray[np.float32]  # (B, I) of the network, before that observations
    next_inputs: NDArray[np.float32]  # (B, I)
    turns: NDArray[np.float32]  # room for `features`
    taken: NDArray[np.float32]  # (B, 1) actions
    columns: NDArray[np.float32]  # (4, B) returns, discounts, weights, errors
    places: NDArray[np.int64]  # (B,) in the replay
    outputs: NDArray[np.float32]  # (B, A)
    best: NDArray[np.float32]  # (B, A) of the online network, for double_q
    d_outputs: NDArray[np.float32]  # (B, A)
    room: NDArray[np.float64]  # (K,) for constants of an environment


def make_memory(fixed: Fixed, largest_batch: int, K: int) -> Memory:
    """Memory of one thread, for K physical constants."""
    N, D, A, inputs = fixed.N, fixed.D, fixed.A, int(fixed.net.sizes[0])
    B = max(largest_batch, int(PROBE_BATCH), N)
    rows = -(-B * max(D, inputs) // inputs)  # room for observations, too
    return Memory(
        scratch=dense.make_scratch(fixed.net, B),
        gradients=aligned(fixed.net.row),
        seen=aligned(max(N, AT_ONCE), D),
        following=aligned(N, D),
        actions=np.zeros((max(N, AT_ONCE), 1)),
        inputs=aligned(rows, inputs),
        next_inputs=aligned(rows, inputs),
        turns=features.make_turns(B, fixed.fourier_features),
        taken=aligned(B, 1),
        columns=aligned(4, B),
        places=np.zeros(B, np.int64),
        outputs=aligned(B, A),
        best=aligned(B, A),
        d_outputs=aligned(B, A),
        room=np.zeros(max(K, 1)),
    )


def make_state(
    P: int, fixed: Fixed, capacity: int, dtype: type, purposes: int, saved: bool = False
) -> State:
    """Memory for P runs, with transitions of a dtype; `restart` gives it meaning."""
    row, N, D = fixed.net.row, fixed.N, fixed.D
    kept = D if fixed.normalize_observations else 0
    return State(
        parameters=aligned(P, row),
        target=aligned(P, row),
        mean=aligned(P, row),
        square=aligned(P, row),
        replay=Replay.of(P, N, capacity, D, 1, dtype, fixed.prioritised),
        held_action=np.zeros((P, N), np.int64),
        held_steps=np.zeros((P, N), np.int64),
        part_steps=np.zeros((P, 2), np.int64),
        register=Register.of(P, 4, row if saved else 0, 2),
        observation_moments=Moments.of(P, kept),
        frequencies=features.make_frequencies(P, D, fixed.fourier_features),
        keys=np.zeros((P, purposes), np.uint64),
        env_steps=np.zeros(P, np.int64),
        gradient_steps=np.zeros(P, np.int64),
        since_train=np.zeros(P, np.int64),
        since_target=np.zeros(P, np.int64),
    )


# -- one member ------------------------------------------------------------------------


@compiled
def restart(p, run):
    """Put member p before its first step, with the keys it has now."""
    fixed, state = run.fixed, run.state
    row = start_of(p, state.parameters, fixed.net.row)
    fresh(state.keys[p, INIT], row, run)
    views.copy(row, start_of(p, state.target, fixed.net.row))
    state.mean[p] = np.float32(0.0)
    state.square[p] = np.float32(0.0)
    state.part_steps[p] = 0
    state.register.is_saved[p] = False
    moments.start(p, state.observation_moments)
    features.draw_frequencies(p, run)
    state.env_steps[p] = state.gradient_steps[p] = 0
    state.since_train[p] = state.since_target[p] = 0
    replay.forget(p, state.replay)
    for n in range(fixed.N):
        state.held_steps[p, n] = 0


@compiled
def fresh(key, row, run):
    """Write a fresh network to a row."""
    dense.init_uniform(run.fixed.net, key, row)


@compiled
def act(p, r, t, run, memory):
    """Actions at random, which may be held for a while, or the best.

    Running moments take note of what is seen.
    """
    fixed, values, state = run.fixed, run.values, run.state
    N, hold = fixed.N, values.exploration[p] == EZ_GREEDY
    if fixed.normalize_observations:
        seen = matrix(memory.seen, 0, N, fixed.D)
        moments.take_note(p, seen, state.observation_moments)
    done = state.env_steps[p]
    drawn = draw(state.keys[p, ACT], done)
    any_greedy = False
    for n in range(N):
        explore = uniform(drawn, n) < values.epsilon[p] or done < fixed.learning_starts
        random = math.floor(uniform(drawn, N + n) * fixed.A)
        if hold and state.held_steps[p, n] > 0:
            explore, random = True, state.held_action[p, n]
            state.held_steps[p, n] -= 1
        elif hold and explore:
            steps = zipf(uniform(drawn, 2 * N + n), values.hold_exponent[p])
            state.held_action[p, n], state.held_steps[p, n] = random, steps - 1
        memory.actions[n, 0] = random if explore else -1.0
        any_greedy = any_greedy or not explore
    if not any_greedy:
        return
    q = greedy(p, N, run, memory)
    for n in range(N):
        if memory.actions[n, 0] < 0.0:
            memory.actions[n, 0] = largest(row_of(n, q))


@compiled
def best(p, rows, run, memory):
    """Actions of the largest values."""
    q = greedy(p, rows, run, memory)
    for n in range(rows):
        memory.actions[n, 0] = largest(row_of(n, q))


@compiled
def greedy(p, rows, run, memory):
    """Action values (rows, A) of what is seen first in memory."""
    fixed = run.fixed
    features.scaled(vector(memory.seen, 0, rows * fixed.D), fixed, memory)
    features.prepare(p, rows, memory.inputs, run, memory)
    parameters = start_of(p, run.state.parameters, fixed.net.row)
    x = inputs_of(rows, memory.inputs, fixed)
    q = matrix(memory.outputs, 0, rows, fixed.A)
    predict(fixed.net, parameters, x, memory.scratch.hidden, q)
    return q


@compiled
def record(p, r, n, t, reward, terminated, done, run, memory):
    """Write a transition of inner environment n to the replay."""
    replay.write(p, n, reward, terminated, done, run, memory)
    if done:
        run.state.held_steps[p, n] = 0


@compiled
def learn(p, r, t, run, memory):
    """What is due after a step of all environments: target network, gradient steps."""
    fixed, state = run.fixed, run.state
    state.env_steps[p] += fixed.N
    if are_due(p, run) and state.env_steps[p] > fixed.learning_starts:
        for _ in range(int(run.values.gradient_steps[p])):
            update(p, run, memory)


@compiled
def are_due(p, run):
    """Whether gradient steps are after a step; the target network is set if that is."""
    values, state, N, row = run.values, run.state, run.fixed.N, run.fixed.net.row
    state.since_target[p] += N
    if state.since_target[p] >= values.target_update_interval[p]:
        state.since_target[p] = 0
        target = start_of(p, state.target, row)
        views.approach(start_of(p, state.parameters, row), values.tau[p], target)
    state.since_train[p] += N
    if state.since_train[p] < values.train_freq[p]:
        return False
    state.since_train[p] = 0
    return True


@compiled
def update(p, run, memory):
    """One gradient step."""
    fixed, values, state, interval = run.fixed, run.values, run.state, run.interval
    row, done = fixed.net.row, state.gradient_steps[p]
    parameters = start_of(p, state.parameters, row)
    B = int(values.batch_size[p])
    replay.sample(p, draw(state.keys[p, REPLAY], done), B, run, memory)
    features.prepare_batch(p, B, run, memory)
    target = start_of(p, state.target, row)
    loss = loss_and_gradient(p, B, parameters, target, fixed, values, memory)
    if fixed.prioritised and values.priority_alpha[p] > 0.0:
        replay.set_priorities(p, B, run, memory)
    norm = adam_step(
        parameters, memory.gradients, start_of(p, state.mean, row),
        start_of(p, state.square, row), fixed.parts, row_of(p, state.part_steps),
        values.learning_rate[p], ADAM_EPSILON, values.max_grad_norm[p],
    )  # fmt: skip
    state.gradient_steps[p] = done + 1
    interval.sums[p, LOSS] += loss
    interval.sums[p, GRAD_NORM] += norm
    interval.counts[p, UPDATES] += 1
    interval.counts[p, SAMPLES] += B


@compiled
def td_error(b, action, h, goal, parameters, fixed, memory):
    """Value of the action of row b, minus its target."""
    last = len(fixed.net.weights) - 1
    w = dense.weights(fixed.net, parameters, last)
    bias = dense.biases(fixed.net, parameters, last)[action]
    return dot(h, b, w, action) + bias - goal


@compiled
def targets(B, parameters, target, double_q, fixed, memory):
    """Replace the returns of the batch by targets: return + discount · value."""
    net, hidden = fixed.net, memory.scratch.hidden
    x = inputs_of(B, memory.next_inputs, fixed)
    q = matrix(memory.outputs, 0, B, fixed.A)
    by = q
    if double_q:
        by = matrix(memory.best, 0, B, fixed.A)
        predict(net, parameters, x, hidden, by)
    predict(net, target, x, hidden, q)
    columns = matrix(memory.columns, 0, 4, B)
    for b in range(B):
        columns[RETURN, b] += columns[DISCOUNT, b] * q[b, largest(row_of(b, by))]


@compiled
def loss_and_gradient(p, B, parameters, target, fixed, values, memory):
    """Weighted mean loss of the batch in memory, where gradient and errors go, too."""
    one, zero, two = np.float32(1.0), np.float32(0.0), np.float32(2.0)
    squared, low = values.loss[p] == MSE, np.float32(values.q_regularisation[p])
    targets(B, parameters, target, values.double_q[p] > 0.0, fixed, memory)
    x = inputs_of(B, memory.inputs, fixed)
    h = forward(fixed.net, parameters, x, memory.scratch.hidden)
    columns = matrix(memory.columns, 0, 4, B)
    d_q = matrix(memory.d_outputs, 0, B, fixed.A)
    loss = zero
    for b in range(B):
        share = np.float32(1.0 / B) * columns[WEIGHT, b]
        action = int(memory.taken[b, 0])
        goal = columns[RETURN, b]
        error = td_error(b, action, h, goal, parameters, fixed, memory)
        columns[ERROR, b] = error
        clipped = min(max(error, -one), one)
        each = clipped * (error - np.float32(0.5) * clipped)
        slope = clipped
        if squared:
            each, slope = error * error, two * error
        loss += share * (each + low * (error + goal))
        for a in range(fixed.A):
            d_q[b, a] = zero
        d_q[b, action] = share * (slope + low)
    backward(
        fixed.net, parameters, x, memory.scratch.hidden, d_q, memory.gradients,
        memory.scratch,
    )  # fmt: skip
    return loss


@compiled
def signals(p, run, memory, into):
    """What the interval tells of member p, into ``into`` (4,).

    Temporal-difference error and values come from one larger batch, drawn from a part
    of the replay stream that training does not use.
    """
    fixed, state, row, B = run.fixed, run.state, run.fixed.net.row, PROBE_BATCH
    parameters = start_of(p, state.parameters, row)
    target = start_of(p, state.target, row)
    drawn = draw(state.keys[p, REPLAY], state.env_steps[p] + _PROBE_DRAWS)
    replay.draw_evenly(p, drawn, B, run, memory)
    replay.gather(p, B, run, memory)
    features.prepare_batch(p, B, run, memory)
    targets(B, parameters, target, run.values.double_q[p] > 0.0, fixed, memory)
    x = inputs_of(B, memory.inputs, fixed)
    h = forward(fixed.net, parameters, x, memory.scratch.hidden)
    columns = matrix(memory.columns, 0, 4, B)
    errors = 0.0
    for b in range(B):
        action, goal = int(memory.taken[b, 0]), np.float64(columns[RETURN, b])
        error = td_error(b, action, h, np.float32(goal), parameters, fixed, memory)
        columns[DISCOUNT, b] = np.float32(error + goal)  # value of the action taken
        errors += abs(error) / B
    mean, square = mean_and_spread(vector(columns, DISCOUNT * B, B))
    into[TD_ERROR], into[VALUE_MEAN] = errors, mean
    into[VALUE_STD] = math.sqrt(square / (B - 1))
    before = start_of(p, run.interval.start, row)
    into[UPDATE_RATIO] = dense.relative_change(before, parameters)


@entry
def batch_of(p, key, B, run, memory):
    """A batch of member p for somebody else, into memory, all as likely."""
    run, memory = views.held(run), views.held(memory)
    replay.draw_evenly(p, draw(key, run.state.env_steps[p]), B, run, memory)
    replay.gather(p, B, run, memory)
    features.prepare_batch(p, B, run, memory)


# -- the definition --------------------------------------------------------------------


class Batch(NamedTuple):
    """Sampled transitions, n-step rewards folded into one; batch shape ``(…, B)``."""

    observations: Tensor  # (…, B, I) float32, as networks see them
    actions: Tensor  # (…, B) int64
    returns: Tensor  # (…, B) sum of discounted rewards
    next_observations: Tensor  # (…, B, I)
    discounts: Tensor  # (…, B) of the bootstrap value; 0 after termination
    weights: Tensor  # (…, B) of prioritised replay; else 1


class Options(NamedTuple):
    """What the loss depends on: numbers, or tensors ``(…)`` of each batch's own."""

    double_q: Tensor | float = 0.0
    loss: Tensor | float = HUBER
    q_regularisation: Tensor | float = 0.0


def td_errors(
    net: Network, parameters: Tensor, target: Tensor, batch: Batch, options: Options
) -> tuple[Tensor, Tensor]:
    """Values of the actions taken, and those minus their targets, ``(…, B)``."""
    import torch

    following = dense.apply(net, target, batch.next_observations)
    online = dense.apply(net, parameters, batch.next_observations)
    double_q = torch.as_tensor(options.double_q)[..., None, None] > 0
    best = torch.where(double_q, online, following).argmax(-1, keepdim=True)
    value = following.gather(-1, best).squeeze(-1)
    goal = (batch.returns + batch.discounts * value).detach()
    q = dense.apply(net, parameters, batch.observations)
    q = q.gather(-1, batch.actions[..., None]).squeeze(-1)
    return q, q - goal


def loss(
    net: Network, parameters: Tensor, target: Tensor, batch: Batch, options: Options
) -> Tensor:
    """Weighted mean loss of a batch ``(…)``; differentiable by the parameters."""
    import torch
    from torch.nn.functional import huber_loss

    q, errors = td_errors(net, parameters, target, batch, options)
    nothing = errors.new_zeros(()).expand_as(errors)
    squared = torch.as_tensor(options.loss)[..., None] == MSE
    huber = huber_loss(errors, nothing, reduction="none")
    each = torch.where(squared, errors**2, huber)
    k = torch.as_tensor(options.q_regularisation)[..., None]
    return (batch.weights * (each + k * q)).mean(-1)
