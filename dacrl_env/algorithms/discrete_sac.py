"""SAC with discrete actions for one member, as plain loops; members are independent.

Christodoulou 2019, "Soft actor-critic for discrete action settings" (arXiv 1910.07207):
the actor has a probability for each action, critics a value for each, and expectations
over actions are sums. The rest is that of `sac`: twin critics, target critics that
follow by ``tau``, a temperature that is learned or set, n-step returns and prioritised
replay (`replay`). The entropy that a learned temperature keeps up is a share of log A,
the most that there is.

Observations may be normalised by running moments, and random Fourier features stand in
their place (`features`).

`critic_loss`, `actor_loss` and `temperature_loss` are the definition, in torch; what
trains is tested against them.

Letters: P members, N inner environments a member, C transitions kept of each, B batch
size, D observation features, I inputs of the networks, A actions.
"""

from __future__ import annotations

import math
from collections import namedtuple
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dacrl_env.algorithms.features import (
    draw_frequencies,
    make_frequencies,
    make_turns,
    prepare,
    prepare_batch,
    scaled,
)
from dacrl_env.algorithms.interval import AT_ONCE, SAMPLES, UPDATES
from dacrl_env.algorithms.register import Register
from dacrl_env.algorithms.replay import (
    DISCOUNT,
    ERROR,
    RETURN,
    WEIGHT,
    Replay,
    draw_evenly,
    forget,
    gather,
    sample,
    set_priorities,
    write,
)
from dacrl_env.algorithms.soft import (
    AUTO,
    PARTS,
    actor_of,
    are_due,
    critic_of,
    critics_of,
    lesser,
    mean_of,
    rest_of,
    row_length,
    step,
    temperature_of,
    write_fresh,
)
from dacrl_env.kernels import choices, dense, moments
from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.dense import Network, Scratch, backward, predict
from dacrl_env.kernels.functions import exp, log
from dacrl_env.kernels.moments import Moments, mean_and_spread
from dacrl_env.kernels.random_numbers import draw, uniform
from dacrl_env.kernels.views import (
    aligned,
    approach,
    copy,
    matrix,
    row_of,
    vector,
)

if TYPE_CHECKING:
    from torch import Tensor

PROBE_BATCH = np.int64(256)  # transitions the signals of an interval are computed from
_PROBE_DRAWS = 2**40  # their draws lie beyond those of any gradient step

INIT, ACT, REPLAY = range(3)  # purposes of a member's keys
LOSS, ACTOR_LOSS, GRAD_NORM, ENTROPY, TEMPERATURE = range(5)  # sums of an interval
TD_ERROR, VALUE_MEAN, VALUE_STD, UPDATE_RATIO = range(4)  # signals


class Values(NamedTuple):
    """Applied hyperparameters, one number a member: ``(P,)`` each."""

    learning_rate: NDArray[np.float64]
    batch_size: NDArray[np.float64]
    gamma: NDArray[np.float64]
    tau: NDArray[np.float64]
    train_freq: NDArray[np.float64]
    gradient_steps: NDArray[np.float64]
    ent_rule: NDArray[np.float64]
    alpha: NDArray[np.float64]
    target_entropy: NDArray[np.float64]
    replay_window: NDArray[np.float64]
    n_step: NDArray[np.float64]
    priority_alpha: NDArray[np.float64]
    priority_beta: NDArray[np.float64]


class Fixed(NamedTuple):
    """What is the same for all members and for the whole of a run."""

    actor: Network  # to logits, A
    critic: Network  # to values, A
    N: int
    T: int  # steps between which nothing is learned: 1
    D: int
    A: int
    learning_starts: int
    scale: float  # of observations, before they enter the networks
    parts: NDArray[np.int64]  # (8,) of a row, see `soft`
    prioritised: bool  # whether there is room for priorities
    normalize_observations: bool = False  # which are then not scaled
    fourier_features: int = 0  # in place of an observation; 0: none
    fourier_scale: float = 1.0  # deviation of what they multiply an observation with

    @property
    def row(self) -> int:
        """Length of a row: actor, two critics, log temperature."""
        return row_length(self.actor, self.critic)


@dataclass
class State:
    """Everything P runs consist of. What is not in it does not exist."""

    parameters: NDArray[np.float32]  # (P, row)
    target: NDArray[np.float32]  # (P, row) of which critics are used
    mean: NDArray[np.float32]  # (P, row) Adam's first moments
    square: NDArray[np.float32]  # (P, row) … second moments
    replay: Replay
    part_steps: NDArray[np.int64]  # (P, 7) of the optimiser, with each part
    register: Register
    observation_moments: Moments  # (P, D), or (P, 0) without
    frequencies: NDArray[
        np.float32
    ]  # (P, D, whole lines), see `features`; or (P, 0, 0)
    keys: NDArray[np.uint64]  # (P, purposes)
    env_steps: NDArray[np.int64]  # (P,) taken so far
    gradient_steps: NDArray[np.int64]  # (P,)
    since_train: NDArray[np.int64]  # (P,) environment steps since the training event
    envs: Any = None  # state of the inner environments, P × N


_ARRAYS = [f.name for f in fields(State) if f.name != "envs"]
Arrays = namedtuple("Arrays", _ARRAYS)  # type: ignore[misc]


class Policies(NamedTuple):
    """What the actor thinks of B observations, and how it came to it."""

    hidden: NDArray[np.float32]  # outputs of its hidden layers
    log_probs: NDArray[np.float32]  # (B, A)
    probs: NDArray[np.float32]  # (B, A)
    entropies: NDArray[np.float32]  # (B,)


class Memory(NamedTuple):
    """Memory of one thread."""

    scratch: Scratch
    gradients: NDArray[np.float32]  # (row,)
    seen: NDArray[np.float32]  # (N or AT_ONCE, D) before a step
    following: NDArray[np.float32]  # (N, D) after it
    actions: NDArray[np.float64]  # (N or AT_ONCE, 1)
    inputs: NDArray[np.float32]  # (B, I) of the networks, before that observations
    next_inputs: NDArray[np.float32]  # (B, I)
    turns: NDArray[np.float32]  # room for `features`
    taken: NDArray[np.float32]  # (B, 1) actions
    columns: NDArray[np.float32]  # (4, B) returns, discounts, weights, errors
    places: NDArray[np.int64]  # (B,) in the replay
    policies: Policies  # for observations
    next_policies: Policies  # for those that follow
    first: NDArray[np.float32]  # (B, A) values of the first critic
    second: NDArray[np.float32]  # (B, A) … of the second
    d_outputs: NDArray[np.float32]  # (B, A)
    parts: NDArray[np.int64]  # (5,) of what a step is taken with
    room: NDArray[np.float64]  # (K,) for constants of an environment


def make_memory(fixed: Fixed, largest_batch: int, K: int) -> Memory:
    """Memory of one thread, for K physical constants."""
    N, D, A, inputs = fixed.N, fixed.D, fixed.A, int(fixed.actor.sizes[0])
    B = max(largest_batch, int(PROBE_BATCH), N)
    rows = -(-B * max(D, inputs) // inputs)  # room for observations, too

    def policies() -> Policies:
        hidden = dense.make_scratch(fixed.actor, B).hidden
        return Policies(hidden, aligned(B, A), aligned(B, A), aligned(B))

    return Memory(
        scratch=dense.make_scratch(fixed.critic, B),
        gradients=aligned(fixed.row),
        seen=aligned(max(N, AT_ONCE), D),
        following=aligned(N, D),
        actions=np.zeros((max(N, AT_ONCE), 1)),
        inputs=aligned(rows, inputs),
        next_inputs=aligned(rows, inputs),
        turns=make_turns(B, fixed.fourier_features),
        taken=aligned(B, 1),
        columns=aligned(4, B),
        places=np.zeros(B, np.int64),
        policies=policies(),
        next_policies=policies(),
        first=aligned(B, A),
        second=aligned(B, A),
        d_outputs=aligned(B, A),
        parts=np.zeros(5, np.int64),
        room=np.zeros(max(K, 1)),
    )


def make_state(
    P: int, fixed: Fixed, capacity: int, dtype: type, purposes: int, saved: bool = False
) -> State:
    """Memory for P runs; `restart` gives it meaning.

    Args:
        P: members.
        fixed: of the population.
        capacity: transitions kept of each inner environment.
        dtype: of observations as they are kept.
        purposes: keys of a member.
        saved: whether there is room for a register.
    """
    N, D, row = fixed.N, fixed.D, fixed.row
    kept = D if fixed.normalize_observations else 0
    return State(
        parameters=aligned(P, row),
        target=aligned(P, row),
        mean=aligned(P, row),
        square=aligned(P, row),
        replay=Replay.of(P, N, capacity, D, 1, dtype, fixed.prioritised),
        part_steps=np.zeros((P, PARTS), np.int64),
        register=Register.of(P, 4, row if saved else 0, PARTS),
        observation_moments=Moments.of(P, kept),
        frequencies=make_frequencies(P, D, fixed.fourier_features),
        keys=np.zeros((P, purposes), np.uint64),
        env_steps=np.zeros(P, np.int64),
        gradient_steps=np.zeros(P, np.int64),
        since_train=np.zeros(P, np.int64),
    )


# -- one member ------------------------------------------------------------------------


@compiled
def restart(p, run):
    """Put member p before its first step, with the keys it has now."""
    state = run.state
    fresh(state.keys[p, INIT], row_of(p, state.parameters), run)
    copy(row_of(p, state.parameters), row_of(p, state.target))
    state.mean[p] = np.float32(0.0)
    state.square[p] = np.float32(0.0)
    state.part_steps[p] = 0
    state.register.is_saved[p] = False
    moments.start(p, state.observation_moments)
    draw_frequencies(p, run)
    state.env_steps[p] = state.gradient_steps[p] = state.since_train[p] = 0
    forget(p, state.replay)


@compiled
def fresh(key, row, run):
    """Write fresh networks, and a temperature of 1, to a row."""
    write_fresh(key, row, run.fixed)


@compiled
def seen_by(rows, room, fixed):
    """What the networks see (rows, I)."""
    return matrix(room, 0, rows, fixed.actor.sizes[0])


# -- acting ----------------------------------------------------------------------------


@compiled
def act(p, r, t, run, memory):
    """Actions of the actor, or any, all as likely, before learning starts.

    Running moments take note of what is seen.
    """
    fixed, state = run.fixed, run.state
    N, done = fixed.N, state.env_steps[p]
    if fixed.normalize_observations:
        seen = matrix(memory.seen, 0, N, fixed.D)
        moments.take_note(p, seen, state.observation_moments)
    drawn = draw(state.keys[p, ACT], done)
    if done < fixed.learning_starts:
        for n in range(N):
            memory.actions[n, 0] = math.floor(uniform(drawn, n) * fixed.A)
        return
    logits = logits_of(p, N, run, memory)
    for n in range(N):
        action, _ = choices.sampled(row_of(n, logits), uniform(drawn, n))
        memory.actions[n, 0] = action


@compiled
def best(p, rows, run, memory):
    """The most likely actions."""
    logits = logits_of(p, rows, run, memory)
    for n in range(rows):
        memory.actions[n, 0] = choices.largest(row_of(n, logits))


@compiled
def logits_of(p, rows, run, memory):
    """Logits (rows, A) for what is seen first in memory."""
    fixed = run.fixed
    scaled(vector(memory.seen, 0, rows * fixed.D), fixed, memory)
    prepare(p, rows, memory.inputs, run, memory)
    x, logits = (
        seen_by(rows, memory.inputs, fixed),
        matrix(memory.policies.log_probs, 0, rows, fixed.A),
    )
    actor = actor_of(row_of(p, run.state.parameters), fixed)
    predict(fixed.actor, actor, x, memory.policies.hidden, logits)
    return logits


@compiled
def record(p, r, n, t, reward, terminated, done, run, memory):
    """Write a transition of inner environment n to the replay."""
    write(p, n, reward, terminated, done, run, memory)


# -- learning --------------------------------------------------------------------------


@compiled
def learn(p, r, t, run, memory):
    """The gradient steps that are due after a step of all environments."""
    if are_due(p, run):
        for _ in range(int(run.values.gradient_steps[p])):
            update(p, run, memory)


@compiled
def update(p, run, memory):
    """One gradient step each: temperature, critics, actor; targets follow."""
    fixed, values, state, interval = run.fixed, run.values, run.state, run.interval
    B, done = int(values.batch_size[p]), state.gradient_steps[p]
    row, target = row_of(p, state.parameters), row_of(p, state.target)
    sample(p, draw(state.keys[p, REPLAY], done), B, run, memory)
    prepare_batch(p, B, run, memory)
    think(B, memory.inputs, row, fixed, memory.policies)
    think(B, memory.next_inputs, row, fixed, memory.next_policies)
    temperature = temperature_of(p, row, run)
    entropy = mean_of(vector(memory.policies.entropies, 0, B))
    if values.ent_rule[p] == AUTO:
        most = np.float64(log(np.float32(fixed.A)))
        rest = rest_of(memory.gradients, fixed)
        rest[0] = entropy - np.float32(values.target_entropy[p] * most)
        step(p, 6, 7, run, memory)
    loss = critic_gradient(B, temperature, row, target, fixed, memory)
    if fixed.prioritised and values.priority_alpha[p] > 0.0:
        set_priorities(p, B, run, memory)
    norm = step(p, 2, 6, run, memory)
    actor_loss = actor_gradient(B, temperature, row, fixed, memory)
    step(p, 0, 2, run, memory)
    approach(critics_of(row, fixed), values.tau[p], critics_of(target, fixed))
    state.gradient_steps[p] = done + 1
    sums = row_of(p, interval.sums)
    sums[LOSS] += loss
    sums[ACTOR_LOSS] += actor_loss
    sums[GRAD_NORM] += norm
    sums[ENTROPY] += entropy
    sums[TEMPERATURE] += temperature
    interval.counts[p, UPDATES] += 1
    interval.counts[p, SAMPLES] += B


@compiled
def think(B, inputs, row, fixed, into):
    """Probabilities, their logarithms and entropies of the actor for a batch."""
    log_probs, probs = (
        matrix(into.log_probs, 0, B, fixed.A),
        matrix(into.probs, 0, B, fixed.A),
    )
    x = seen_by(B, inputs, fixed)
    predict(fixed.actor, actor_of(row, fixed), x, into.hidden, log_probs)
    for b in range(B):
        entropy = choices.log_softmax(row_of(b, log_probs), row_of(b, probs))
        into.entropies[b] = entropy


@compiled
def targets(B, temperature, target, fixed, memory):
    """Replace the returns of the batch: return + discount · (value + entropy)."""
    hidden, A, policies = memory.scratch.hidden, fixed.A, memory.next_policies
    x = seen_by(B, memory.next_inputs, fixed)
    first, second = matrix(memory.first, 0, B, A), matrix(memory.second, 0, B, A)
    predict(fixed.critic, critic_of(0, target, fixed), x, hidden, first)
    predict(fixed.critic, critic_of(1, target, fixed), x, hidden, second)
    log_probs, probs = (
        matrix(policies.log_probs, 0, B, A),
        matrix(policies.probs, 0, B, A),
    )
    columns = matrix(memory.columns, 0, 4, B)
    for b in range(B):
        value = np.float32(0.0)
        for a in range(A):
            each = lesser(first[b, a], second[b, a]) - temperature * log_probs[b, a]
            value += probs[b, a] * each
        columns[RETURN, b] += columns[DISCOUNT, b] * value


@compiled
def critic_gradient(B, temperature, row, target, fixed, memory):
    """Weighted mean loss of both critics; gradient and mean errors into memory."""
    zero, half, two, A = np.float32(0.0), np.float32(0.5), np.float32(2.0), fixed.A
    targets(B, temperature, target, fixed, memory)
    x, hidden = seen_by(B, memory.inputs, fixed), memory.scratch.hidden
    value, d = matrix(memory.first, 0, B, A), matrix(memory.d_outputs, 0, B, A)
    columns, loss = matrix(memory.columns, 0, 4, B), zero
    for k in range(2):
        critic = critic_of(k, row, fixed)
        predict(fixed.critic, critic, x, hidden, value)
        for b in range(B):
            action = int(memory.taken[b, 0])
            error = value[b, action] - columns[RETURN, b]
            slope = np.float32(1.0 / B) * columns[WEIGHT, b] * error
            for a in range(A):
                d[b, a] = zero
            d[b, action] = slope
            loss += half * slope * error
            # of both critics, the mean size
            size = abs(error)
            columns[ERROR, b] = size if k == 0 else (columns[ERROR, b] + size) / two
        into = critic_of(k, memory.gradients, fixed)
        backward(fixed.critic, critic, x, hidden, d, into, memory.scratch)
    return loss


@compiled
def actor_gradient(B, temperature, row, fixed, memory):
    """Mean loss of the actor over the batch, all actions weighed; its gradient."""
    A, policies, share = fixed.A, memory.policies, np.float32(1.0 / B)
    x, hidden = seen_by(B, memory.inputs, fixed), memory.scratch.hidden
    first, second = matrix(memory.first, 0, B, A), matrix(memory.second, 0, B, A)
    predict(fixed.critic, critic_of(0, row, fixed), x, hidden, first)
    predict(fixed.critic, critic_of(1, row, fixed), x, hidden, second)
    log_probs, probs = (
        matrix(policies.log_probs, 0, B, A),
        matrix(policies.probs, 0, B, A),
    )
    d, loss = matrix(memory.d_outputs, 0, B, A), np.float32(0.0)
    for b in range(B):
        mean = np.float32(0.0)
        for a in range(A):
            # what an action costs
            d[b, a] = temperature * log_probs[b, a] - lesser(first[b, a], second[b, a])
            mean += probs[b, a] * d[b, a]
        for a in range(A):
            d[b, a] = share * probs[b, a] * (d[b, a] - mean)
        loss += share * mean
    actor, into = actor_of(row, fixed), actor_of(memory.gradients, fixed)
    backward(fixed.actor, actor, x, policies.hidden, d, into, memory.scratch)
    return loss


# -- beside training -------------------------------------------------------------------


@compiled
def signals(p, run, memory, into):
    """What the interval tells of member p, into ``into`` (4,).

    Temporal-difference error and values come from one larger batch, drawn from a part
    of the replay stream that training does not use.
    """
    fixed, state, B = run.fixed, run.state, PROBE_BATCH
    row, target = row_of(p, state.parameters), row_of(p, state.target)
    drawn = draw(state.keys[p, REPLAY], state.env_steps[p] + _PROBE_DRAWS)
    draw_evenly(p, drawn, B, run, memory)
    gather(p, B, run, memory)
    prepare_batch(p, B, run, memory)
    think(B, memory.next_inputs, row, fixed, memory.next_policies)
    temperature = exp(rest_of(row, fixed)[0])
    targets(B, temperature, target, fixed, memory)
    x, value = seen_by(B, memory.inputs, fixed), matrix(memory.first, 0, B, fixed.A)
    critic = critic_of(0, row, fixed)
    predict(fixed.critic, critic, x, memory.scratch.hidden, value)
    columns, errors = matrix(memory.columns, 0, 4, B), 0.0
    for b in range(B):
        of_action = value[b, int(memory.taken[b, 0])]
        errors += abs(np.float64(of_action) - columns[RETURN, b]) / B
        columns[DISCOUNT, b] = of_action
    mean, square = mean_and_spread(vector(columns, DISCOUNT * B, B))
    into[TD_ERROR], into[VALUE_MEAN] = errors, mean
    into[VALUE_STD] = math.sqrt(square / (B - 1))
    into[UPDATE_RATIO] = dense.relative_change(row_of(p, run.interval.start), row)


# -- the definition --------------------------------------------------------------------


class Batch(NamedTuple):
    """Sampled transitions, n-step rewards folded into one; batch shape ``(…, B)``."""

    observations: Tensor  # (…, B, I) float32, as networks see them
    actions: Tensor  # (…, B) int64
    returns: Tensor  # (…, B) sum of discounted rewards
    next_observations: Tensor  # (…, B, I)
    discounts: Tensor  # (…, B) of the bootstrap value; 0 after termination
    weights: Tensor  # (…, B) of prioritised replay; else 1


def critics(fixed: Fixed, rows: Tensor, observations: Tensor) -> tuple[Tensor, Tensor]:
    """Values ``(…, B, A)`` that both critics give all actions."""
    at, n = fixed.actor.row, fixed.critic.row
    parts = (rows[..., at + k * n : at + (k + 1) * n] for k in range(2))
    first, second = (dense.apply(fixed.critic, part, observations) for part in parts)
    return first, second


def policy(fixed: Fixed, rows: Tensor, observations: Tensor) -> Tensor:
    """Log probabilities ``(…, B, A)`` of all actions."""
    actor = rows[..., : fixed.actor.row]
    return dense.apply(fixed.actor, actor, observations).log_softmax(-1)


def temperature_loss(
    log_temperature: Tensor, entropies: Tensor, target_entropy: float
) -> Tensor:
    """Mean loss ``(…)``; differentiable by the logarithm of the temperature.

    Args:
        log_temperature: ``(…)``.
        entropies: ``(…, B)`` of the policy.
        target_entropy: in nats.
    """
    above = (entropies - target_entropy).detach()
    return (log_temperature[..., None] * above).mean(-1)


def critic_loss(
    fixed: Fixed,
    rows: Tensor,
    target: Tensor,
    batch: Batch,
    temperature: Tensor | float,
) -> Tensor:
    """Weighted mean loss of both critics ``(…)``; differentiable by their rows."""
    import torch

    with torch.no_grad():
        log_probs = policy(fixed, rows, batch.next_observations)
        lower = torch.minimum(*critics(fixed, target, batch.next_observations))
        value = (log_probs.exp() * (lower - temperature * log_probs)).sum(-1)
        goal = batch.returns + batch.discounts * value
    values = torch.stack(critics(fixed, rows, batch.observations))
    actions = batch.actions[..., None].expand(*values.shape[:-1], 1)
    errors = values.gather(-1, actions).squeeze(-1) - goal
    return 0.5 * (batch.weights * errors.square()).mean(-1).sum(0)


def actor_loss(
    fixed: Fixed, rows: Tensor, batch: Batch, temperature: Tensor | float
) -> Tensor:
    """Mean loss of the actor ``(…)``; differentiable by its part of the rows."""
    import torch

    log_probs = policy(fixed, rows, batch.observations)
    lower = torch.minimum(*critics(fixed, rows.detach(), batch.observations))
    return (log_probs.exp() * (temperature * log_probs - lower)).sum(-1).mean(-1)
