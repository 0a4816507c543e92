"""DQN for one member, as plain loops; members are independent of each other.

Mnih et al. 2015, "Human-level control through deep reinforcement learning" (Nature
518), with the choices of Stable-Baselines3: Huber loss, hard target updates, uniform
replay, gradient norm clipping, Adam. Optional: double Q-learning (van Hasselt, Guez
and Silver 2016) and n-step returns (Sutton 1988). Batches are drawn from the newest
``replay_window`` transitions, so that the age of what is replayed can be set while a
run goes on (Liu and Zou 2018, "The effects of memory replay in reinforcement learning";
Fedus et al. 2020, "Revisiting fundamentals of experience replay").

`loss` is the definition, in torch; what trains is `loss_and_gradient`, which is tested
against it.

Letters: P members, N inner environments a member, C transitions kept of each, B batch
size, D observation features, A actions.
"""

from __future__ import annotations

import math
from collections import namedtuple
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dacrl_env.algorithms.interval import SAMPLES, UPDATES, Interval
from dacrl_env.kernels import dense
from dacrl_env.kernels.adam import adam_step
from dacrl_env.kernels.choices import largest
from dacrl_env.kernels.compiling import compiled, entry
from dacrl_env.kernels.dense import Network, Scratch, backward, forward, predict
from dacrl_env.kernels.moments import mean_and_spread
from dacrl_env.kernels.products import dot
from dacrl_env.kernels.random_numbers import below, draw, uniform
from dacrl_env.kernels.views import ONE, aligned, copy, held, matrix, row_of, vector

if TYPE_CHECKING:
    from torch import Tensor

ADAM_EPSILON = 1e-8
PROBE_BATCH = np.int64(256)  # transitions the signals of an interval are computed from
_PROBE_DRAWS = 2**40  # their draws lie beyond those of any gradient step

INIT, ACT, REPLAY = range(3)  # purposes of a member's keys
ACTION, REWARD, CONTINUES, DONE = range(4)  # columns of a transition
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


class Fixed(NamedTuple):
    """What is the same for all members and for the whole of a run."""

    net: Network
    N: int
    T: int  # steps between which nothing is learned: 1
    D: int
    A: int
    learning_starts: int
    double_q: bool
    n_step: int
    scale: float  # of observations, before they enter the network


@dataclass
class State:
    """Everything P runs consist of. What is not in it does not exist."""

    parameters: NDArray[np.float32]  # (P, row)
    target: NDArray[np.float32]  # (P, row)
    mean: NDArray[np.float32]  # (P, row) Adam's first moments
    square: NDArray[np.float32]  # (P, row) … second moments
    observations: NDArray[np.float32 | np.uint8]  # (P, N, C, 2, D) before, after a step
    transitions: NDArray[np.float32]  # (P, N, C, 4)
    keys: NDArray[np.uint64]  # (P, purposes)
    env_steps: NDArray[np.int64]  # (P,) taken so far
    gradient_steps: NDArray[np.int64]  # (P,)
    since_train: NDArray[np.int64]  # (P,) environment steps since the training event
    since_target: NDArray[np.int64]  # (P,) … since the target network was set
    envs: Any = None  # state of the inner environments, P × N


_ARRAYS = [f.name for f in fields(State) if f.name != "envs"]
Arrays = namedtuple("Arrays", _ARRAYS)  # type: ignore[misc]


class Run(NamedTuple):
    """All that training P members takes, beside their environments."""

    fixed: Fixed
    values: Values
    state: Arrays
    interval: Interval


class Memory(NamedTuple):
    """Memory of one thread."""

    scratch: Scratch
    gradients: NDArray[np.float32]  # (row,)
    seen: NDArray[np.float32]  # (N, D) before a step
    following: NDArray[np.float32]  # (N, D) after it
    actions: NDArray[np.float64]  # (N, 1)
    inputs: NDArray[np.float32]  # (B, D) of the network
    next_inputs: NDArray[np.float32]  # (B, D)
    columns: NDArray[np.float32]  # (3, B) actions, returns, discounts
    outputs: NDArray[np.float32]  # (B, A)
    best: NDArray[np.float32]  # (B, A) of the online network, for double_q
    d_outputs: NDArray[np.float32]  # (B, A)
    room: NDArray[np.float64]  # (K,) for constants of an environment


def make_memory(fixed: Fixed, largest_batch: int, K: int) -> Memory:
    """Memory of one thread, for K physical constants."""
    N, D, A = fixed.N, fixed.D, fixed.A
    B = max(largest_batch, int(PROBE_BATCH), N)
    return Memory(
        scratch=dense.make_scratch(fixed.net, B),
        gradients=aligned(fixed.net.row),
        seen=aligned(N, D),
        following=aligned(N, D),
        actions=np.zeros((N, 1)),
        inputs=aligned(B, D),
        next_inputs=aligned(B, D),
        columns=aligned(3, B),
        outputs=aligned(B, A),
        best=aligned(B, A),
        d_outputs=aligned(B, A),
        room=np.zeros(max(K, 1)),
    )


def make_state(
    P: int, fixed: Fixed, capacity: int, dtype: type, purposes: int
) -> State:
    """Memory for P runs; `restart` gives it meaning.

    Args:
        P: members.
        fixed: of the population.
        capacity: transitions kept of each inner environment.
        dtype: of observations as they are kept.
        purposes: keys of a member.
    """
    row, N = fixed.net.row, fixed.N
    return State(
        parameters=aligned(P, row),
        target=aligned(P, row),
        mean=aligned(P, row),
        square=aligned(P, row),
        observations=np.zeros((P, N, capacity, 2, fixed.D), dtype),
        transitions=aligned(P, N, capacity, 4),
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
    row = vector(state.parameters, p * fixed.net.row, fixed.net.row)
    dense.init_uniform(fixed.net, state.keys[p, INIT], row)
    copy(row, vector(state.target, p * fixed.net.row, fixed.net.row))
    state.mean[p] = np.float32(0.0)
    state.square[p] = np.float32(0.0)
    state.env_steps[p] = state.gradient_steps[p] = 0
    state.since_train[p] = state.since_target[p] = 0


@compiled
def act(p, r, t, run, memory):
    """Actions at random or the best."""
    fixed, values, state = run.fixed, run.values, run.state
    N = fixed.N
    done = state.env_steps[p]
    drawn = draw(state.keys[p, ACT], done)
    any_greedy = False
    for n in range(N):
        explore = uniform(drawn, n) < values.epsilon[p] or done < fixed.learning_starts
        random = math.floor(uniform(drawn, N + n) * fixed.A)
        memory.actions[n, 0] = random if explore else -1.0
        any_greedy = any_greedy or not explore
    if not any_greedy:
        return
    parameters = vector(state.parameters, p * fixed.net.row, fixed.net.row)
    q = greedy(N, vector(memory.seen, 0, N * fixed.D), parameters, fixed, memory)
    for n in range(N):
        if memory.actions[n, 0] < 0.0:
            memory.actions[n, 0] = largest(row_of(n, q))


@compiled
def best(p, run, memory):
    """The action of the largest value."""
    fixed = run.fixed
    parameters = vector(run.state.parameters, p * fixed.net.row, fixed.net.row)
    q = greedy(ONE, vector(memory.seen, 0, fixed.D), parameters, fixed, memory)
    memory.actions[0, 0] = largest(row_of(0, q))


@compiled
def greedy(rows, observations, parameters, fixed, memory):
    """Action values (rows, A) of observations (rows · D,)."""
    inputs = vector(memory.inputs, 0, rows * fixed.D)
    scale = np.float32(fixed.scale)
    for k in range(len(inputs)):
        inputs[k] = observations[k] * scale
    q = matrix(memory.outputs, 0, rows, fixed.A)
    x = matrix(memory.inputs, 0, rows, fixed.D)
    predict(fixed.net, parameters, x, memory.scratch.hidden, q)
    return q


@compiled
def record(p, r, n, t, reward, terminated, done, run, memory):
    """Write a transition of inner environment n to the replay."""
    fixed, state = run.fixed, run.state
    N, C, D = fixed.N, state.transitions.shape[2], fixed.D
    at = (p * N + n) * C + state.env_steps[p] // N % C
    pair = vector(state.observations, at * 2 * D, 2 * D)
    for k in range(D):
        pair[k] = memory.seen[n, k]
        pair[D + k] = memory.following[n, k]
    row = vector(state.transitions, at * 4, 4)
    row[ACTION] = np.float32(memory.actions[n, 0])
    row[REWARD] = np.float32(reward)
    row[CONTINUES] = np.float32(0.0) if terminated else np.float32(1.0)
    row[DONE] = np.float32(1.0) if done else np.float32(0.0)


@compiled
def learn(p, r, t, run, memory):
    """What is due after a step of all environments: target network, gradient steps."""
    fixed, values, state = run.fixed, run.values, run.state
    N, row = fixed.N, fixed.net.row
    state.env_steps[p] += N
    state.since_target[p] += N
    if state.since_target[p] >= values.target_update_interval[p]:
        state.since_target[p] = 0
        target = vector(state.target, p * row, row)
        copy(vector(state.parameters, p * row, row), target)
    state.since_train[p] += N
    if state.since_train[p] < values.train_freq[p]:
        return
    state.since_train[p] = 0
    if state.env_steps[p] > fixed.learning_starts:
        for _ in range(int(values.gradient_steps[p])):
            update(p, run, memory)


@compiled
def update(p, run, memory):
    """One gradient step."""
    fixed, values, state, interval = run.fixed, run.values, run.state, run.interval
    row, done = fixed.net.row, state.gradient_steps[p]
    parameters = vector(state.parameters, p * row, row)
    B = int(values.batch_size[p])
    sample(p, draw(state.keys[p, REPLAY], done), B, run, memory)
    loss = loss_and_gradient(
        B, parameters, vector(state.target, p * row, row), fixed, memory
    )
    norm = adam_step(
        parameters,
        memory.gradients,
        vector(state.mean, p * row, row),
        vector(state.square, p * row, row),
        done + 1,
        values.learning_rate[p],
        ADAM_EPSILON,
        values.max_grad_norm[p],
    )
    state.gradient_steps[p] = done + 1
    interval.sums[p, LOSS] += loss
    interval.sums[p, GRAD_NORM] += norm
    interval.counts[p, UPDATES] += 1
    interval.counts[p, SAMPLES] += B


@compiled
def sample(p, drawn, B, run, memory):
    """Take B of the newest transitions of member p, with replacement.

    An n-step return ends early where the episode does, or where the newest transition
    is reached, and then bootstraps from there.
    """
    fixed, values, state = run.fixed, run.values, run.state
    N, D, C = fixed.N, fixed.D, state.transitions.shape[2]
    replay = matrix(state.observations, p * N * C * 2 * D, N * C, 2 * D)
    transitions = matrix(state.transitions, p * N * C * 4, N * C, 4)
    inputs = matrix(memory.inputs, 0, B, D)
    next_inputs = matrix(memory.next_inputs, 0, B, D)
    columns = matrix(memory.columns, 0, 3, B)
    scale, gamma = np.float32(fixed.scale), np.float32(values.gamma[p])
    written = state.env_steps[p] // N
    kept = min(written, C)
    size = min(kept, max(int(values.replay_window[p]) // N, 1))
    oldest = (written - size) % C if size < kept else 0
    newest = (written - 1) % C
    for b in range(B):
        place = below(drawn, b, size * N)
        ring = place // size * C if N > 1 else 0
        slot = oldest + (place % size if N > 1 else place)
        slot = slot - C if slot >= C else slot
        first = last = ring + slot
        total, discount = transitions[first, REWARD], gamma
        for _ in range(1, fixed.n_step):
            if transitions[last, DONE] > np.float32(0.0) or slot == newest:
                break
            slot = slot + 1 if slot + 1 < C else 0
            last = ring + slot
            total += discount * transitions[last, REWARD]
            discount *= gamma
        for k in range(D):
            inputs[b, k] = np.float32(replay[first, k]) * scale
            next_inputs[b, k] = np.float32(replay[last, D + k]) * scale
        columns[0, b] = transitions[first, ACTION]
        columns[1, b] = total
        columns[2, b] = discount * transitions[last, CONTINUES]


@compiled
def td_error(b, action, h, goal, parameters, fixed, memory):
    """Value of the action of row b, minus its target."""
    last = len(fixed.net.weights) - 1
    w = dense.weights(fixed.net, parameters, last)
    return (
        dot(h, b, w, action) + dense.biases(fixed.net, parameters, last)[action] - goal
    )


@compiled
def targets(B, parameters, target, fixed, memory):
    """Replace the returns of the batch by targets: return + discount · value."""
    net, hidden = fixed.net, memory.scratch.hidden
    x = matrix(memory.next_inputs, 0, B, fixed.D)
    q = matrix(memory.outputs, 0, B, fixed.A)
    by = q
    if fixed.double_q:
        by = matrix(memory.best, 0, B, fixed.A)
        predict(net, parameters, x, hidden, by)
    predict(net, target, x, hidden, q)
    columns = matrix(memory.columns, 0, 3, B)
    for b in range(B):
        columns[1, b] += columns[2, b] * q[b, largest(row_of(b, by))]


@compiled
def loss_and_gradient(B, parameters, target, fixed, memory):
    """Mean Huber loss of the batch in memory, where its gradient goes, too."""
    one, zero, share = np.float32(1.0), np.float32(0.0), np.float32(1.0 / B)
    targets(B, parameters, target, fixed, memory)
    x = matrix(memory.inputs, 0, B, fixed.D)
    h = forward(fixed.net, parameters, x, memory.scratch.hidden)
    columns = matrix(memory.columns, 0, 3, B)
    d_q = matrix(memory.d_outputs, 0, B, fixed.A)
    loss = zero
    for b in range(B):
        action = int(columns[0, b])
        error = td_error(b, action, h, columns[1, b], parameters, fixed, memory)
        clipped = min(max(error, -one), one)
        loss += share * clipped * (error - np.float32(0.5) * clipped)
        for a in range(fixed.A):
            d_q[b, a] = zero
        d_q[b, action] = share * clipped
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
    fixed, state, interval = run.fixed, run.state, run.interval
    row, B = fixed.net.row, PROBE_BATCH
    parameters = vector(state.parameters, p * row, row)
    target = vector(state.target, p * row, row)
    drawn = draw(state.keys[p, REPLAY], state.env_steps[p] + _PROBE_DRAWS)
    sample(p, drawn, B, run, memory)
    targets(B, parameters, target, fixed, memory)
    x = matrix(memory.inputs, 0, B, fixed.D)
    h = forward(fixed.net, parameters, x, memory.scratch.hidden)
    columns = matrix(memory.columns, 0, 3, B)
    errors = 0.0
    for b in range(B):
        goal = np.float64(columns[1, b])
        error = td_error(
            b, int(columns[0, b]), h, np.float32(goal), parameters, fixed, memory
        )
        columns[2, b] = np.float32(error + goal)  # the value of the action taken
        errors += abs(error) / B
    mean, square = mean_and_spread(vector(columns, 2 * B, B))
    into[TD_ERROR], into[VALUE_MEAN] = errors, mean
    into[VALUE_STD] = math.sqrt(square / (B - 1))
    into[UPDATE_RATIO] = dense.relative_change(
        vector(interval.start, p * row, row), parameters
    )


@entry
def batch_of(p, key, B, run, memory):
    """A batch of member p for somebody else, into memory; see `sample`."""
    run, memory = held(run), held(memory)
    sample(p, draw(key, run.state.env_steps[p]), B, run, memory)


# -- the definition --------------------------------------------------------------------


class Batch(NamedTuple):
    """Sampled transitions, n-step rewards folded into one; batch shape ``(…, B)``."""

    observations: Tensor  # (…, B, D) float32, scaled
    actions: Tensor  # (…, B) int64
    returns: Tensor  # (…, B) sum of discounted rewards
    next_observations: Tensor  # (…, B, D)
    discounts: Tensor  # (…, B) of the bootstrap value; 0 after termination


def td_errors(
    net: Network, parameters: Tensor, target: Tensor, batch: Batch, double_q: bool
) -> Tensor:
    """Value of the action taken minus its target, ``(…, B)``; differentiable."""
    following = dense.apply(net, target, batch.next_observations)
    chosen = following
    if double_q:
        chosen = dense.apply(net, parameters, batch.next_observations)
    best = chosen.argmax(-1, keepdim=True)
    value = following.gather(-1, best).squeeze(-1)
    goal = (batch.returns + batch.discounts * value).detach()
    q = dense.apply(net, parameters, batch.observations)
    return q.gather(-1, batch.actions[..., None]).squeeze(-1) - goal


def loss(
    net: Network, parameters: Tensor, target: Tensor, batch: Batch, double_q: bool
) -> Tensor:
    """Mean Huber loss of a batch ``(…)``; differentiable by the parameters."""
    from torch.nn.functional import huber_loss

    errors = td_errors(net, parameters, target, batch, double_q)
    return huber_loss(
        errors, errors.new_zeros(()).expand_as(errors), reduction="none"
    ).mean(-1)
