"""SAC for one member, as plain loops; members are independent of each other.

Haarnoja et al. 2018, "Soft actor-critic algorithms and applications" (arXiv
1812.05905), with the choices of Stable-Baselines3: twin critics, a tanh-Gaussian actor,
target critics that follow by ``tau``, and a temperature whose logarithm is learned.
Optional: a temperature that is set, n-step returns and prioritised replay (`replay`).

`critic_loss`, `actor_loss` and `temperature_loss` are the definition, in torch; what
trains is tested against them.

Letters: P members, N inner environments a member, C transitions kept of each, B batch
size, D observation features, A components of an action.
"""

from __future__ import annotations

import math
from collections import namedtuple
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dacrl_env.algorithms.features import scaled
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
from dacrl_env.algorithms.tanh_gaussian import (
    Drawn,
    by_outputs,
    make_drawn,
    propose,
    proposed,
)
from dacrl_env.kernels import dense
from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.dense import (
    Network,
    Scratch,
    backward,
    input_gradient,
    predict,
)
from dacrl_env.kernels.functions import exp, tanh
from dacrl_env.kernels.moments import mean_and_spread
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
# draws of batches lie before these; those of actions in updates, and of both in probes
_NOISE, _PROBE_DRAWS, _PROBE_NOISE = 2**40, 2**41, 2**42

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

    actor: Network  # to means and log standard deviations, 2A
    critic: Network  # from observation and action, D + A, to one value
    N: int
    T: int  # steps between which nothing is learned: 1
    D: int
    A: int
    learning_starts: int
    held_starts: int  # steps that a random action is held, before learning starts
    scale: float  # of observations, before they enter the networks
    parts: NDArray[
        np.int64
    ]  # (8,) of a row: body and last layer of all three, the rest
    prioritised: bool  # whether there is room for priorities

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
    keys: NDArray[np.uint64]  # (P, purposes)
    env_steps: NDArray[np.int64]  # (P,) taken so far
    gradient_steps: NDArray[np.int64]  # (P,)
    since_train: NDArray[np.int64]  # (P,) environment steps since the training event
    envs: Any = None  # state of the inner environments, P × N


_ARRAYS = [f.name for f in fields(State) if f.name != "envs"]
Arrays = namedtuple("Arrays", _ARRAYS)  # type: ignore[misc]


class Memory(NamedTuple):
    """Memory of one thread."""

    scratch: Scratch
    gradients: NDArray[np.float32]  # (row,)
    seen: NDArray[np.float32]  # (N or AT_ONCE, D) before a step
    following: NDArray[np.float32]  # (N, D) after it
    actions: NDArray[np.float64]  # (N or AT_ONCE, A) within the bounds
    low: NDArray[np.float64]  # (A,) bounds of actions
    high: NDArray[np.float64]
    inputs: NDArray[np.float32]  # (B, D) of the actor
    next_inputs: NDArray[np.float32]  # (B, D)
    taken: NDArray[np.float32]  # (B, A) actions
    columns: NDArray[np.float32]  # (4, B) returns, discounts, weights, errors
    places: NDArray[np.int64]  # (B,) in the replay
    drawn: Drawn  # for observations
    next_drawn: Drawn  # for those that follow
    pairs: NDArray[np.float32]  # (B, D + A) inputs of the critics
    first: NDArray[np.float32]  # (B, 1) values of the first critic
    second: NDArray[np.float32]  # (B, 1) … of the second
    slope: NDArray[np.float32]  # (B, 1) gradient of a value
    by_action: NDArray[np.float32]  # (B, A) gradient of the actor's loss by its actions
    part: NDArray[np.float32]  # (B, A) … that one critic gives
    d_outputs: NDArray[np.float32]  # (B, 2A)
    parts: NDArray[np.int64]  # (5,) of what a step is taken with
    room: NDArray[np.float64]  # (K,) for constants of an environment


def make_memory(
    fixed: Fixed,
    largest_batch: int,
    K: int,
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> Memory:
    """Memory of one thread, for K physical constants and actions within bounds."""
    N, D, A = fixed.N, fixed.D, fixed.A
    B = max(largest_batch, int(PROBE_BATCH), N)

    return Memory(
        scratch=dense.make_scratch(fixed.critic, B),
        gradients=aligned(fixed.row),
        seen=aligned(max(N, AT_ONCE), D),
        following=aligned(N, D),
        actions=np.zeros((max(N, AT_ONCE), A)),
        low=np.array(low, np.float64),
        high=np.array(high, np.float64),
        inputs=aligned(B, D),
        next_inputs=aligned(B, D),
        taken=aligned(B, A),
        columns=aligned(4, B),
        places=np.zeros(B, np.int64),
        drawn=make_drawn(fixed.actor, A, B),
        next_drawn=make_drawn(fixed.actor, A, B),
        pairs=aligned(B, D + A),
        first=aligned(B, 1),
        second=aligned(B, 1),
        slope=aligned(B, 1),
        by_action=aligned(B, A),
        part=aligned(B, A),
        d_outputs=aligned(B, 2 * A),
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
    N, D, A, row = fixed.N, fixed.D, fixed.A, fixed.row
    return State(
        parameters=aligned(P, row),
        target=aligned(P, row),
        mean=aligned(P, row),
        square=aligned(P, row),
        replay=Replay.of(P, N, capacity, D, A, dtype, fixed.prioritised),
        part_steps=np.zeros((P, PARTS), np.int64),
        register=Register.of(P, 4, row if saved else 0, PARTS),
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
    state.env_steps[p] = state.gradient_steps[p] = state.since_train[p] = 0
    forget(p, state.replay)


@compiled
def fresh(key, row, run):
    """Write fresh networks, and a temperature of 1, to a row."""
    write_fresh(key, row, run.fixed)


# -- acting ----------------------------------------------------------------------------


@compiled
def act(p, r, t, run, memory):
    """Actions of the actor, or any with equal density before learning starts.

    Those are held for ``held_starts`` steps of each environment.
    """
    fixed, state = run.fixed, run.state
    N, A, done = fixed.N, fixed.A, state.env_steps[p]
    drawn = draw(state.keys[p, ACT], done)
    if done < fixed.learning_starts:
        drawn = draw(state.keys[p, ACT], done - done % (N * fixed.held_starts))
        for n in range(N):
            for a in range(A):
                memory.actions[n, a] = 2.0 * uniform(drawn, n * A + a) - 1.0
    else:
        scaled(vector(memory.seen, 0, N * fixed.D), fixed, memory)
        x, into = matrix(memory.inputs, 0, N, fixed.D), memory.drawn
        actor = actor_of(row_of(p, state.parameters), fixed)
        propose(fixed.actor, x, drawn, actor, A, into)
        for n in range(N):
            for a in range(A):
                memory.actions[n, a] = np.float64(matrix(into.actions, 0, N, A)[n, a])
    for n in range(N):
        stretch(row_of(n, memory.actions), memory)


@compiled
def best(p, rows, run, memory):
    """The most likely actions."""
    fixed, hidden = run.fixed, memory.drawn.hidden
    scaled(vector(memory.seen, 0, rows * fixed.D), fixed, memory)
    x, out = (
        matrix(memory.inputs, 0, rows, fixed.D),
        matrix(memory.d_outputs, 0, rows, 2 * fixed.A),
    )
    row = actor_of(row_of(p, run.state.parameters), fixed)
    predict(fixed.actor, row, x, hidden, out)
    for n in range(rows):
        for a in range(fixed.A):
            memory.actions[n, a] = np.float64(tanh(out[n, a]))
        stretch(row_of(n, memory.actions), memory)


@compiled
def stretch(action, memory):
    """From ± 1 to the bounds, in place; NaN counts as zero."""
    for a in range(len(action)):
        value = action[a] if action[a] == action[a] else 0.0
        low, high = memory.low[a], memory.high[a]
        action[a] = min(max(low + 0.5 * (value + 1.0) * (high - low), low), high)


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
    key = state.keys[p, REPLAY]
    sample(p, draw(key, done), B, run, memory)
    squeeze(B, fixed, memory)
    draw_actions(B, draw(key, done + _NOISE), row, fixed, memory)
    temperature = temperature_of(p, row, run)
    entropy = -mean_of(vector(memory.drawn.log_probs, 0, B))
    if values.ent_rule[p] == AUTO:
        wanted = np.float32(values.target_entropy[p] * fixed.A)
        rest = rest_of(memory.gradients, fixed)
        rest[0] = entropy - wanted
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
def squeeze(B, fixed, memory):
    """Actions taken (B, A), from their bounds to ± 1, in place."""
    taken = matrix(memory.taken, 0, B, fixed.A)
    for b in range(B):
        for a in range(fixed.A):
            low, high = memory.low[a], memory.high[a]
            share = (np.float64(taken[b, a]) - low) / (high - low)
            taken[b, a] = np.float32(2.0 * share - 1.0)


@compiled
def draw_actions(B, drawn, row, fixed, memory):
    """Actions of the actor for the batch, and for what follows it, into memory."""
    actor = actor_of(row, fixed)
    x = matrix(memory.inputs, 0, B, fixed.D)
    propose(fixed.actor, x, draw(drawn, 0), actor, fixed.A, memory.drawn)
    x = matrix(memory.next_inputs, 0, B, fixed.D)
    propose(fixed.actor, x, draw(drawn, 1), actor, fixed.A, memory.next_drawn)


@compiled
def pair(x, actions, memory):
    """Observations (B, D) and actions (B, A) side by side, for the critics."""
    B, D, A = len(x), x.shape[1], actions.shape[1]
    pairs = matrix(memory.pairs, 0, B, D + A)
    for b in range(B):
        for k in range(D):
            pairs[b, k] = x[b, k]
        for a in range(A):
            pairs[b, D + a] = actions[b, a]
    return pairs


@compiled
def targets(B, temperature, target, fixed, memory):
    """Replace the returns of the batch: return + discount · (value + entropy)."""
    hidden, A = memory.scratch.hidden, fixed.A
    x = matrix(memory.next_inputs, 0, B, fixed.D)
    pairs = pair(x, matrix(memory.next_drawn.actions, 0, B, A), memory)
    first, second = matrix(memory.first, 0, B, 1), matrix(memory.second, 0, B, 1)
    predict(fixed.critic, critic_of(0, target, fixed), pairs, hidden, first)
    predict(fixed.critic, critic_of(1, target, fixed), pairs, hidden, second)
    columns = matrix(memory.columns, 0, 4, B)
    for b in range(B):
        value = lesser(first[b, 0], second[b, 0])
        value -= temperature * memory.next_drawn.log_probs[b]
        columns[RETURN, b] += columns[DISCOUNT, b] * value


@compiled
def critic_gradient(B, temperature, row, target, fixed, memory):
    """Weighted mean loss of both critics; gradient and mean errors into memory."""
    half, two = np.float32(0.5), np.float32(2.0)
    targets(B, temperature, target, fixed, memory)
    x, taken = matrix(memory.inputs, 0, B, fixed.D), matrix(memory.taken, 0, B, fixed.A)
    pairs, hidden = pair(x, taken, memory), memory.scratch.hidden
    value, slope = matrix(memory.first, 0, B, 1), matrix(memory.slope, 0, B, 1)
    columns, loss = matrix(memory.columns, 0, 4, B), np.float32(0.0)
    for k in range(2):
        critic = critic_of(k, row, fixed)
        predict(fixed.critic, critic, pairs, hidden, value)
        for b in range(B):
            error = value[b, 0] - columns[RETURN, b]
            slope[b, 0] = np.float32(1.0 / B) * columns[WEIGHT, b] * error
            loss += half * slope[b, 0] * error
            # of both critics, the mean size
            size = abs(error)
            columns[ERROR, b] = size if k == 0 else (columns[ERROR, b] + size) / two
        into = critic_of(k, memory.gradients, fixed)
        backward(fixed.critic, critic, pairs, hidden, slope, into, memory.scratch)
    return loss


@compiled
def actor_gradient(B, temperature, row, fixed, memory):
    """Mean loss of the actor with the actions drawn for the batch; its gradient."""
    A, drawn, share = fixed.A, memory.drawn, np.float32(1.0 / B)
    x, actions = matrix(memory.inputs, 0, B, fixed.D), matrix(drawn.actions, 0, B, A)
    value, loss = by_action(B, x, actions, row, fixed, memory), np.float32(0.0)
    for b in range(B):
        loss += share * (temperature * drawn.log_probs[b] - value[b, 0])
    slopes, d = matrix(memory.by_action, 0, B, A), matrix(memory.d_outputs, 0, B, 2 * A)
    by_outputs(B, A, drawn, temperature, slopes, d)
    actor, into = actor_of(row, fixed), actor_of(memory.gradients, fixed)
    backward(fixed.actor, actor, x, drawn.hidden, d, into, memory.scratch)
    return loss


@compiled
def by_action(B, x, actions, row, fixed, memory):
    """The lesser value (B, 1) of actions; its gradients by them (B, A) into memory."""
    zero, one, A = np.float32(0.0), np.float32(1.0), fixed.A
    net, scratch, pairs = fixed.critic, memory.scratch, pair(x, actions, memory)
    one_row, other_row = critic_of(0, row, fixed), critic_of(1, row, fixed)
    first, second = matrix(memory.first, 0, B, 1), matrix(memory.second, 0, B, 1)
    # hidden outputs of what follows are needed no more
    hidden, other_hidden = memory.scratch.hidden, memory.next_drawn.hidden
    predict(net, one_row, pairs, hidden, first)
    predict(net, other_row, pairs, other_hidden, second)
    slope = matrix(memory.slope, 0, B, 1)
    slopes, part = matrix(memory.by_action, 0, B, A), matrix(memory.part, 0, B, A)
    for b in range(B):
        slope[b, 0] = zero if second[b, 0] < first[b, 0] else one
    input_gradient(net, one_row, fixed.D, hidden, slope, slopes, scratch)
    for b in range(B):
        slope[b, 0] = one - slope[b, 0]
    input_gradient(net, other_row, fixed.D, other_hidden, slope, part, scratch)
    for b in range(B):
        first[b, 0] = lesser(first[b, 0], second[b, 0])
        for a in range(A):
            slopes[b, a] += part[b, a]
    return first


# -- beside training -------------------------------------------------------------------


@compiled
def signals(p, run, memory, into):
    """What the interval tells of member p, into ``into`` (4,).

    Temporal-difference error and values come from one larger batch, drawn from a part
    of the replay stream that training does not use.
    """
    fixed, state, B = run.fixed, run.state, PROBE_BATCH
    row, target = row_of(p, state.parameters), row_of(p, state.target)
    key, number = state.keys[p, REPLAY], state.env_steps[p]
    draw_evenly(p, draw(key, number + _PROBE_DRAWS), B, run, memory)
    gather(p, B, run, memory)
    squeeze(B, fixed, memory)
    draw_actions(B, draw(key, number + _PROBE_NOISE), row, fixed, memory)
    temperature = exp(rest_of(row, fixed)[0])
    targets(B, temperature, target, fixed, memory)
    x, taken = matrix(memory.inputs, 0, B, fixed.D), matrix(memory.taken, 0, B, fixed.A)
    value = matrix(memory.first, 0, B, 1)
    critic, hidden = critic_of(0, row, fixed), memory.scratch.hidden
    predict(fixed.critic, critic, pair(x, taken, memory), hidden, value)
    columns, errors = matrix(memory.columns, 0, 4, B), 0.0
    for b in range(B):
        errors += abs(np.float64(value[b, 0]) - columns[RETURN, b]) / B
    mean, square = mean_and_spread(vector(memory.first, 0, B))
    into[TD_ERROR], into[VALUE_MEAN] = errors, mean
    into[VALUE_STD] = math.sqrt(square / (B - 1))
    into[UPDATE_RATIO] = dense.relative_change(row_of(p, run.interval.start), row)


# -- the definition --------------------------------------------------------------------


class Batch(NamedTuple):
    """Sampled transitions, n-step rewards folded into one; batch shape ``(…, B)``."""

    observations: Tensor  # (…, B, D) float32, scaled
    actions: Tensor  # (…, B, A) within ± 1
    returns: Tensor  # (…, B) sum of discounted rewards
    next_observations: Tensor  # (…, B, D)
    discounts: Tensor  # (…, B) of the bootstrap value; 0 after termination
    weights: Tensor  # (…, B) of prioritised replay; else 1


def critics(
    fixed: Fixed, rows: Tensor, observations: Tensor, actions: Tensor
) -> tuple[Tensor, Tensor]:
    """Values ``(…, B)`` that both critics give actions."""
    import torch

    pairs, at = torch.cat([observations, actions], -1), fixed.actor.row
    parts = (
        rows[..., at + k * fixed.critic.row : at + (k + 1) * fixed.critic.row]
        for k in range(2)
    )
    first, second = (dense.apply(fixed.critic, part, pairs) for part in parts)
    return first.squeeze(-1), second.squeeze(-1)


def temperature_loss(
    log_temperature: Tensor, log_probs: Tensor, target_entropy: float
) -> Tensor:
    """Mean loss ``(…)``; differentiable by the logarithm of the temperature."""
    return -(log_temperature[..., None] * (log_probs + target_entropy).detach()).mean(
        -1
    )


def critic_loss(
    fixed: Fixed,
    rows: Tensor,
    target: Tensor,
    batch: Batch,
    temperature: Tensor | float,
    noise: Tensor,
) -> Tensor:
    """Weighted mean loss of both critics ``(…)``; differentiable by their rows."""
    import torch

    with torch.no_grad():
        actor = rows[..., : fixed.actor.row]
        seen = batch.next_observations
        actions, log_probs = proposed(fixed.actor, actor, seen, noise)
        first, second = critics(fixed, target, batch.next_observations, actions)
        value = torch.minimum(first, second) - temperature * log_probs
        goal = batch.returns + batch.discounts * value
    values = critics(fixed, rows, batch.observations, batch.actions)
    errors = torch.stack(values) - goal
    return 0.5 * (batch.weights * errors.square()).mean(-1).sum(0)


def actor_loss(
    fixed: Fixed,
    rows: Tensor,
    batch: Batch,
    temperature: Tensor | float,
    noise: Tensor,
) -> Tensor:
    """Mean loss of the actor ``(…)``; differentiable by its part of the rows."""
    import torch

    actor = rows[..., : fixed.actor.row]
    actions, log_probs = proposed(fixed.actor, actor, batch.observations, noise)
    value = torch.minimum(*critics(fixed, rows.detach(), batch.observations, actions))
    return (temperature * log_probs - value).mean(-1)
