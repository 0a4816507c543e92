"""PPO for one member, as plain loops; members are independent of each other.

Schulman et al. 2017, "Proximal policy optimization algorithms" (arXiv 1707.06347),
with generalised advantage estimation (Schulman et al. 2016) and the choices of
Stable-Baselines3: separate actor and critic, orthogonal initialisation, advantages
normalised per minibatch, bootstrapping where an episode is truncated. Discrete and
continuous (diagonal Gaussian) actions. Optional: observations and rewards normalised by
running moments, as VecNormalize does, random Fourier features in the place of
observations (`features`), and clipped changes of values; a learned drift function in
the place of clipping (`ppo_gain`); epochs that end where the policy has moved far
(``stop_early``, as Stable-Baselines3's ``target_kl``); and a learning rate that follows
how far each step moves it (`ppo_rate`).

`loss` is the definition, in torch; what trains is `loss_and_gradient`, which is tested
against it.

Letters: P members, N inner environments a member, T steps of a rollout, S = N · T,
B batch size, D observation features, I inputs of the networks, A actions or components
of an action.
"""

from __future__ import annotations

import math
from collections import namedtuple
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dacrl_env.algorithms import features, level_replay
from dacrl_env.algorithms.interval import AT_ONCE, SAMPLES, UPDATES
from dacrl_env.algorithms.level_replay import Levels
from dacrl_env.algorithms.level_replay import next_level as next_level  # for drivers
from dacrl_env.algorithms.level_replay import on_level as on_level
from dacrl_env.algorithms.ppo_gain import Options, gains, objective
from dacrl_env.algorithms.ppo_rate import rate_of
from dacrl_env.algorithms.register import Register
from dacrl_env.algorithms.rollout import Rollout
from dacrl_env.kernels import choices, dense, moments, views
from dacrl_env.kernels.adam import adam_step
from dacrl_env.kernels.advantages import gae
from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.dense import Network, Scratch, backward, predict
from dacrl_env.kernels.functions import exp
from dacrl_env.kernels.moments import Moments
from dacrl_env.kernels.random_numbers import draw, normal, shuffle, uniform
from dacrl_env.kernels.views import FIRST, ONE, aligned, matrix, row_of, vector

if TYPE_CHECKING:
    from torch import Tensor

ADAM_EPSILON = 1e-5
EPOCHS = 32  # more than n_epochs can be: addresses of shuffles do not meet
_BLOCK = 256  # rows whose values are computed at once: they stay in the cache

TOO_FAR = 1.5  # times target_kl: epochs end

INIT, ACT, REPLAY = range(3)  # purposes of a member's keys
# columns of a rollout beside observations and actions
LOG_PROB, VALUE, ADVANTAGE, RETURN = range(4)
# sums of an interval
LOSS, GRAD_NORM, KL, ENTROPY = range(4)
UPDATE_RATIO, VALUE_MEAN, VALUE_STD = range(3)  # signals


class Values(NamedTuple):
    """Applied hyperparameters, one number a member: ``(P,)`` each."""

    learning_rate: NDArray[np.float64]
    clip_range: NDArray[np.float64]
    batch_size: NDArray[np.float64]
    gamma: NDArray[np.float64]
    gae_lambda: NDArray[np.float64]
    n_epochs: NDArray[np.float64]
    ent_coef: NDArray[np.float64]
    vf_coef: NDArray[np.float64]
    max_grad_norm: NDArray[np.float64]
    drift: NDArray[np.float64]
    drift_alpha: NDArray[np.float64]
    drift_beta: NDArray[np.float64]
    lr_rule: NDArray[np.float64]
    desired_kl: NDArray[np.float64]
    stop_early: NDArray[np.float64]
    target_kl: NDArray[np.float64]
    level_replay: NDArray[np.float64]
    level_temperature: NDArray[np.float64]
    level_staleness: NDArray[np.float64]


class Fixed(NamedTuple):
    """What is the same for all members and for the whole of a run."""

    actor: Network
    critic: Network
    N: int
    T: int
    D: int
    A: int
    continuous: bool
    normalize_observations: bool
    normalize_rewards: bool
    normalize_advantages: bool
    clip_range_vf: float  # infinite: any change
    scale: float  # of observations, before anything else
    parts: NDArray[np.int64]  # (6,) of a row: body and last layer of both, the rest
    fourier_features: int = 0  # in place of an observation; 0: none
    fourier_scale: float = 1.0  # deviation of what they multiply an observation with

    @property
    def row(self) -> int:
        """Length of a row: actor, critic, log standard deviations."""
        return self.actor.row + self.critic.row + rest(self.A)


def rest(A: int) -> int:
    """Length of the part of a row that has log standard deviations."""
    return 4 * views.LINE * (1 + A // (4 * views.LINE))


@dataclass
class State:
    """Everything P runs consist of. What is not in it does not exist."""

    parameters: NDArray[np.float32]  # (P, row)
    mean: NDArray[np.float32]  # (P, row) Adam's first moments
    square: NDArray[np.float32]  # (P, row) … second moments
    part_steps: NDArray[np.int64]  # (P, 5) of the optimiser, with each part
    register: Register
    observation_moments: Moments  # (P, D)
    frequencies: NDArray[np.float32]  # see `features.make_frequencies`
    return_moments: Moments  # (P, 1)
    discounted: NDArray[np.float64]  # (P, N) running discounted returns
    rate: NDArray[np.float64]  # (P,) learning rate that follows the divergence
    rate_from: NDArray[np.float64]  # (P,) rate as set that it began at; NaN: none
    keys: NDArray[np.uint64]  # (P, purposes)
    env_steps: NDArray[np.int64]  # (P,) taken so far
    gradient_steps: NDArray[np.int64]  # (P,)
    levels: Levels  # that environments are trained on
    envs: Any = None  # state of the inner environments, P × N


_ARRAYS = [f.name for f in fields(State) if f.name != "envs"]
Arrays = namedtuple("Arrays", _ARRAYS)  # type: ignore[misc]


class Memory(NamedTuple):
    """Memory of one thread."""

    rollout: Rollout
    scratch: Scratch
    gradients: NDArray[np.float32]  # (row,)
    seen: NDArray[np.float32]  # (N or AT_ONCE, D) before a step
    following: NDArray[np.float32]  # (N, D) after it
    actions: NDArray[np.float64]  # (N or AT_ONCE, A) within the bounds, or (N, 1)
    low: NDArray[np.float64]  # (A,) bounds of continuous actions
    high: NDArray[np.float64]
    order: NDArray[np.int64]  # (S,) shuffled
    levels: NDArray[np.int64]  # (N, T) in which steps were taken
    inputs: NDArray[np.float32]  # (B, I) of a minibatch, before that observations
    turns: NDArray[np.float32]  # room for `features`
    taken: NDArray[np.float32]  # (B, A) its actions
    columns: NDArray[np.float32]  # (4, B)
    outputs: NDArray[np.float32]  # (B, A)
    d_outputs: NDArray[np.float32]  # (B, A)
    slope: NDArray[np.float32]  # (B, 1) gradient of the values
    room: NDArray[np.float64]  # (K,) for constants of an environment


def make_memory(
    fixed: Fixed,
    largest_batch: int,
    K: int,
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    rollout: Rollout,
) -> Memory:
    """Memory of one thread, for K physical constants and actions within bounds."""
    N, D, A, S = fixed.N, fixed.D, fixed.A, fixed.N * fixed.T
    B, inputs = max(min(largest_batch, S), _BLOCK, N), int(fixed.actor.sizes[0])
    kept = A if fixed.continuous else 1
    rows = -(-B * max(D, inputs) // inputs)  # room for observations, too
    return Memory(
        rollout=rollout,
        scratch=dense.make_scratch(fixed.actor, B),
        gradients=aligned(fixed.row),
        seen=aligned(max(N, AT_ONCE), D),
        following=aligned(N, D),
        actions=np.zeros((max(N, AT_ONCE), kept)),
        low=np.array(low, np.float64),
        high=np.array(high, np.float64),
        order=np.zeros(S, np.int64),
        levels=np.zeros((N, fixed.T), np.int64),
        inputs=aligned(rows, inputs),
        turns=features.make_turns(B, fixed.fourier_features),
        taken=aligned(B, kept),
        columns=aligned(4, B),
        outputs=aligned(B, A),
        d_outputs=aligned(B, A),
        slope=aligned(B, 1),
        room=np.zeros(max(K, 1)),
    )


def make_state(
    P: int, fixed: Fixed, purposes: int, saved: bool = False, levels: int = 0
) -> State:
    """Memory for P runs; `restart` gives it meaning."""
    return State(
        parameters=aligned(P, fixed.row),
        mean=aligned(P, fixed.row),
        square=aligned(P, fixed.row),
        part_steps=np.zeros((P, 5), np.int64),
        register=Register.of(P, 3, fixed.row if saved else 0, 5),
        observation_moments=Moments.of(P, fixed.D),
        frequencies=features.make_frequencies(P, fixed.D, fixed.fourier_features),
        return_moments=Moments.of(P, 1),
        discounted=np.zeros((P, fixed.N)),
        rate=np.zeros(P),
        rate_from=np.full(P, np.nan),
        keys=np.zeros((P, purposes), np.uint64),
        env_steps=np.zeros(P, np.int64),
        gradient_steps=np.zeros(P, np.int64),
        levels=Levels.of(P, levels),
    )


# -- one member ------------------------------------------------------------------------


@compiled
def restart(p, run):
    """Put member p before its first step, with the keys it has now."""
    state = run.state
    fresh(state.keys[p, INIT], row_of(p, state.parameters), run)
    state.mean[p] = np.float32(0.0)
    state.square[p] = np.float32(0.0)
    state.part_steps[p] = 0
    state.register.is_saved[p] = False
    moments.start(p, state.observation_moments)
    features.draw_frequencies(p, run)
    moments.start(p, state.return_moments)
    state.discounted[p] = state.rate[p] = 0.0
    state.rate_from[p] = np.nan
    state.env_steps[p] = state.gradient_steps[p] = 0
    level_replay.forget(p, state.levels)


@compiled
def fresh(key, row, run):
    """Write fresh networks to a row."""
    fixed = run.fixed
    row[:] = np.float32(0.0)
    actor, critic = fixed.actor, fixed.critic
    dense.init_orthogonal(actor, key, FIRST, 0.01, vector(row, 0, actor.row))
    dense.init_orthogonal(critic, key, ONE, 1.0, vector(row, actor.row, critic.row))


@compiled
def actor_of(p, fixed, rows):
    """The actor's part of row p."""
    return vector(rows, p * rows.shape[1], fixed.actor.row)


@compiled
def critic_of(p, fixed, rows):
    """The critic's part of row p."""
    return vector(rows, p * rows.shape[1] + fixed.actor.row, fixed.critic.row)


@compiled
def log_std_of(p, fixed, rows):
    """The log standard deviations (A,) of row p."""
    at = p * rows.shape[1] + fixed.actor.row + fixed.critic.row
    return vector(rows, at, fixed.A)


# -- rollout ---------------------------------------------------------------------------


@compiled
def inputs_for(p, observations, run, memory):
    """What networks of member p see (rows, I) of observations (rows · D,)."""
    rows = len(observations) // run.fixed.D
    features.scaled(observations, run.fixed, memory)
    features.prepare(p, rows, memory.inputs, run, memory)
    return matrix(memory.inputs, 0, rows, run.fixed.actor.sizes[0])


@compiled
def act(p, r, t, run, memory):
    """Draw actions for ``memory.seen`` into ``memory.actions``, and write them down.

    Running moments take note of what is seen.
    """
    fixed, state, rollout = run.fixed, run.state, memory.rollout
    N, T, A, width = fixed.N, fixed.T, fixed.A, fixed.actor.sizes[0]
    features.scaled(vector(memory.seen, 0, N * fixed.D), fixed, memory)
    if fixed.normalize_observations:
        seen = matrix(memory.inputs, 0, N, fixed.D)
        moments.take_note(p, seen, state.observation_moments)
    features.prepare(p, N, memory.inputs, run, memory)
    inputs = matrix(memory.inputs, 0, N, width)
    for n in range(N):
        at = ((r * N + n) * (T + 1) + t) * width
        views.copy(row_of(n, inputs), vector(rollout.observations, at, width))
    parameters = actor_of(p, fixed, state.parameters)
    q = matrix(memory.outputs, 0, N, A)
    predict(fixed.actor, parameters, inputs, memory.scratch.hidden, q)
    drawn = draw(state.keys[p, ACT], state.env_steps[p])
    for n in range(N):
        if fixed.continuous:
            log_std, mean = log_std_of(p, fixed, state.parameters), row_of(n, q)
            action = vector(rollout.actions, ((r * N + n) * T + t) * A, A)
            for a in range(A):
                z = np.float32(normal(drawn, n * A + a, N * A))
                action[a] = mean[a] + exp(log_std[a]) * z
            log_prob = choices.log_density(action, mean, log_std)
            choices.bounded(action, memory.low, memory.high, row_of(n, memory.actions))
        else:
            choice, log_prob = choices.sampled(row_of(n, q), uniform(drawn, n))
            memory.actions[n, 0] = rollout.actions[r, n, t, 0] = choice
        rollout.columns[r, LOG_PROB, n, t] = log_prob


@compiled
def record(p, r, n, t, reward, terminated, done, run, memory):
    """Write down what a step of environment n gave.

    Where an episode was truncated the value of what would follow is added.
    """
    fixed, values, state, rollout = run.fixed, run.values, run.state, memory.rollout
    if fixed.normalize_rewards:
        # the moments take note of all N environments at the end of the step
        state.discounted[p, n] = state.discounted[p, n] * values.gamma[p] + reward
    rollout.rewards[r, n, t] = np.float32(reward)
    rollout.going_on[r, n, t] = np.float32(0.0) if done else np.float32(1.0)
    rollout.values[r, n, t] = np.float32(0.0)
    if done and not terminated:
        into = inputs_for(p, row_of(n, memory.following), run, memory)
        value = matrix(memory.slope, 0, 1, 1)
        parameters = critic_of(p, fixed, state.parameters)
        predict(fixed.critic, parameters, into, memory.scratch.hidden, value)
        # kept apart until rewards are scaled
        rollout.values[r, n, t] = np.float32(values.gamma[p]) * value[0, 0]


@compiled
def step_over(p, r, t, run, memory):
    """What follows a step of all N environments: rewards scaled, steps counted."""
    fixed, state, rollout = run.fixed, run.state, memory.rollout
    if fixed.normalize_rewards:
        returns = row_of(p, state.discounted)
        moments.take_note(p, matrix(returns, 0, fixed.N, 1), state.return_moments)
        for n in range(fixed.N):
            reward = np.float64(rollout.rewards[r, n, t])
            reward = moments.scaled(p, reward, state.return_moments)
            rollout.rewards[r, n, t] = np.float32(reward)
            if rollout.going_on[r, n, t] == np.float32(0.0):
                state.discounted[p, n] = 0.0
    for n in range(fixed.N):
        rollout.rewards[r, n, t] += rollout.values[r, n, t]
    state.env_steps[p] += fixed.N


@compiled
def finish(p, r, run, memory):
    """Values of all steps, generalised advantages and returns, into the rollout.

    What is seen after the rollout is in ``memory.seen``.
    """
    fixed, values, state, rollout = run.fixed, run.values, run.state, memory.rollout
    N, T, width = fixed.N, fixed.T, fixed.actor.sizes[0]
    for n in range(N):
        seen = inputs_for(p, row_of(n, memory.seen), run, memory)
        at = ((r * N + n) * (T + 1) + T) * width
        views.copy(row_of(FIRST, seen), vector(rollout.observations, at, width))
    parameters = critic_of(p, fixed, state.parameters)
    rows = N * (T + 1)
    for first in range(0, rows, _BLOCK):
        B = min(_BLOCK, rows - first)
        x = matrix(rollout.observations, (r * rows + first) * width, B, width)
        found = matrix(rollout.values, r * rows + first, B, 1)
        predict(fixed.critic, parameters, x, memory.scratch.hidden, found)
    gamma = np.float32(values.gamma[p])
    decay = gamma * np.float32(values.gae_lambda[p])
    for n in range(N):
        at = (r * N + n) * T
        own = vector(rollout.values, at + r * N + n, T + 1)
        advantages = vector(rollout.columns, ((r * 4 + ADVANTAGE) * N + n) * T, T)
        gae(
            vector(rollout.rewards, at, T), own, vector(rollout.going_on, at, T), gamma,
            decay, advantages,
        )  # fmt: skip
        for t in range(T):
            rollout.columns[r, VALUE, n, t] = own[t]
            rollout.columns[r, RETURN, n, t] = advantages[t] + own[t]


# -- learning --------------------------------------------------------------------------


@compiled
def learn(p, r, t, run, memory):
    """After each step: rewards scaled, steps counted; after T of them all epochs."""
    fixed, values, state = run.fixed, run.values, run.state
    step_over(p, r, t, run, memory)
    if t < fixed.T - 1:
        return
    S, size = fixed.N * fixed.T, int(values.batch_size[p])
    finish(p, r, run, memory)
    if state.levels.scores.shape[1]:
        level_replay.note_scores(p, r, ADVANTAGE, run, memory)
    moved = False
    for epoch in range(int(values.n_epochs[p])):
        number = state.env_steps[p] * EPOCHS + epoch
        shuffle(draw(state.keys[p, REPLAY], number), memory.order)
        for first in range(0, S, size):
            B = min(size, S - first)
            take(r, first, B, run, memory)
            if not update(p, B, moved, run, memory):
                return
            moved = True


@compiled
def take(r, first, B, run, memory):
    """Copy a minibatch of the rollout: B steps in the order, from the first on."""
    fixed, rollout = run.fixed, memory.rollout
    T, S, width = fixed.T, fixed.N * fixed.T, fixed.actor.sizes[0]
    kept = rollout.actions.shape[3]
    inputs = matrix(memory.inputs, 0, B, width)
    taken = matrix(memory.taken, 0, B, kept)
    columns = matrix(memory.columns, 0, 4, B)
    for b in range(B):
        i = memory.order[first + b]
        at = (r * (S + fixed.N) + i + i // T) * width
        views.copy(vector(rollout.observations, at, width), row_of(b, inputs))
        action = vector(rollout.actions, (r * S + i) * kept, kept)
        for a in range(kept):
            taken[b, a] = action[a]
        for k in range(4):
            columns[k, b] = vector(rollout.columns, (r * 4 + k) * S + i, 1)[0]
    if fixed.normalize_advantages:
        moments.standardise(vector(columns, ADVANTAGE * B, B))


@compiled
def update(p, B, moved, run, memory):
    """One gradient step; not where the epochs end, for the policy is too far.

    ``moved`` is whether the policy is another one than that which acted.
    """
    values, state, interval = run.values, run.state, run.interval
    parameters = row_of(p, state.parameters)
    loss, kl, entropy = loss_and_gradient(p, B, parameters, run, memory)
    if values.stop_early[p] > 0.0 and kl > TOO_FAR * values.target_kl[p]:
        return False
    state.gradient_steps[p] += 1
    norm = adam_step(
        parameters, memory.gradients, row_of(p, state.mean), row_of(p, state.square),
        run.fixed.parts, row_of(p, state.part_steps), rate_of(p, kl, moved, run),
        ADAM_EPSILON, values.max_grad_norm[p],
    )  # fmt: skip
    sums = row_of(p, interval.sums)
    sums[LOSS] += loss
    sums[GRAD_NORM] += norm
    sums[KL] += kl
    sums[ENTROPY] += entropy
    interval.counts[p, UPDATES] += 1
    interval.counts[p, SAMPLES] += B
    return True


@compiled
def loss_and_gradient(p, B, parameters, run, memory):
    """Loss, KL divergence and entropy of the minibatch; gradients into memory."""
    value_loss = value_gradient(p, B, parameters, run, memory)
    if run.fixed.continuous:
        policy = gaussian_gradient(p, B, parameters, run, memory)
    else:
        policy = discrete_gradient(p, B, parameters, run, memory)
    return value_loss + policy[0], policy[1], policy[2]


@compiled
def value_gradient(p, B, parameters, run, memory):
    """Loss of the critic; its gradient into memory."""
    fixed, values = run.fixed, run.values
    row = vector(parameters, fixed.actor.row, fixed.critic.row)
    x = matrix(memory.inputs, 0, B, fixed.actor.sizes[0])
    columns = matrix(memory.columns, 0, 4, B)
    value, slope = matrix(memory.outputs, 0, B, 1), matrix(memory.slope, 0, B, 1)
    hidden = memory.scratch.hidden
    predict(fixed.critic, row, x, hidden, value)
    share = np.float32(values.vf_coef[p]) / np.float32(B)
    limit = np.float32(fixed.clip_range_vf)
    loss = np.float32(0.0)
    for b in range(B):
        error, moves = value[b, 0] - columns[RETURN, b], True
        if limit < np.inf:
            moved = value[b, 0] - columns[VALUE, b]
            moves = abs(moved) <= limit
            clipped = min(max(moved, -limit), limit)
            error = columns[VALUE, b] + clipped - columns[RETURN, b]
        loss += share * error * error
        slope[b, 0] = np.float32(2.0) * share * error if moves else np.float32(0.0)
    into = vector(memory.gradients, fixed.actor.row, fixed.critic.row)
    backward(fixed.critic, row, x, hidden, slope, into, memory.scratch)
    return loss


@compiled
def discrete_gradient(p, B, parameters, run, memory):
    """Loss, KL divergence and entropy of a policy over actions; its gradient."""
    fixed, values = run.fixed, run.values
    A, row = fixed.A, vector(parameters, 0, fixed.actor.row)
    x = matrix(memory.inputs, 0, B, fixed.actor.sizes[0])
    columns = matrix(memory.columns, 0, 4, B)
    logits, d = matrix(memory.outputs, 0, B, A), matrix(memory.d_outputs, 0, B, A)
    hidden = memory.scratch.hidden
    predict(fixed.actor, row, x, hidden, logits)
    bonus = np.float32(values.ent_coef[p]) / np.float32(B)
    loss = kl = mean_entropy = np.float32(0.0)
    for b in range(B):
        action = int(memory.taken[b, 0])
        # logits become log probabilities, d probabilities
        entropy = choices.log_softmax(row_of(b, logits), row_of(b, d))
        log_ratio = logits[b, action] - columns[LOG_PROB, b]
        gain, slope, shift = objective(p, columns[ADVANTAGE, b], log_ratio, B, values)
        for a in range(A):
            d[b, a] *= slope + bonus * (logits[b, a] + entropy)
        d[b, action] -= slope
        loss -= gain + bonus * entropy
        kl += shift
        mean_entropy += entropy / np.float32(B)
    into = vector(memory.gradients, 0, fixed.actor.row)
    backward(fixed.actor, row, x, hidden, d, into, memory.scratch)
    return loss, kl, mean_entropy


@compiled
def gaussian_gradient(p, B, parameters, run, memory):
    """Loss, KL divergence and entropy of a policy of normal actions; its gradient."""
    fixed, values = run.fixed, run.values
    A, row = fixed.A, vector(parameters, 0, fixed.actor.row)
    at = fixed.actor.row + fixed.critic.row
    log_std, d_log_std = vector(parameters, at, A), vector(memory.gradients, at, A)
    x = matrix(memory.inputs, 0, B, fixed.actor.sizes[0])
    taken = matrix(memory.taken, 0, B, A)
    columns = matrix(memory.columns, 0, 4, B)
    means, d = matrix(memory.outputs, 0, B, A), matrix(memory.d_outputs, 0, B, A)
    hidden = memory.scratch.hidden
    predict(fixed.actor, row, x, hidden, means)
    ent_coef = np.float32(values.ent_coef[p])
    entropy = np.float32(0.0)
    for a in range(A):
        d_log_std[a] = -ent_coef
        entropy += log_std[a] + np.float32(0.5) * (np.float32(1.0) + choices.LOG_2PI)
    loss, kl = -ent_coef * entropy, np.float32(0.0)
    for b in range(B):
        log_prob = choices.log_density(row_of(b, taken), row_of(b, means), log_std)
        log_ratio = log_prob - columns[LOG_PROB, b]
        gain, slope, shift = objective(p, columns[ADVANTAGE, b], log_ratio, B, values)
        for a in range(A):
            deviation = exp(log_std[a])
            z = (taken[b, a] - means[b, a]) / deviation
            d[b, a] = -slope * z / deviation
            d_log_std[a] -= slope * (z * z - np.float32(1.0))
        loss -= gain
        kl += shift
    into = vector(memory.gradients, 0, fixed.actor.row)
    backward(fixed.actor, row, x, hidden, d, into, memory.scratch)
    return loss, kl, entropy


# -- beside training -------------------------------------------------------------------


@compiled
def signals(p, run, memory, into):
    """What the interval tells of member p, who sees ``memory.seen``: ``into`` (3,)."""
    fixed, state, N = run.fixed, run.state, run.fixed.N
    parameters = critic_of(p, fixed, state.parameters)
    inputs = inputs_for(p, vector(memory.seen, 0, N * fixed.D), run, memory)
    value = matrix(memory.outputs, 0, N, 1)
    predict(fixed.critic, parameters, inputs, memory.scratch.hidden, value)
    mean, square = moments.mean_and_spread(vector(value, 0, N))
    into[VALUE_MEAN], into[VALUE_STD] = mean, math.sqrt(square / N)
    before = row_of(p, run.interval.start)
    into[UPDATE_RATIO] = dense.relative_change(before, row_of(p, state.parameters))


@compiled
def best(p, rows, run, memory):
    """The most likely actions."""
    fixed, state = run.fixed, run.state
    inputs = inputs_for(p, vector(memory.seen, 0, rows * fixed.D), run, memory)
    q = matrix(memory.outputs, 0, rows, fixed.A)
    parameters = actor_of(p, fixed, state.parameters)
    predict(fixed.actor, parameters, inputs, memory.scratch.hidden, q)
    for n in range(rows):
        actions = row_of(n, memory.actions)
        if fixed.continuous:
            choices.bounded(row_of(n, q), memory.low, memory.high, actions)
        else:
            actions[0] = choices.largest(row_of(n, q))


# -- the definition --------------------------------------------------------------------


class Batch(NamedTuple):
    """A minibatch; any batch shape ``(…, B)``."""

    observations: Tensor  # (…, B, I)
    actions: Tensor  # (…, B) int64, or (…, B, A) float32
    log_probs: Tensor  # (…, B) when acting
    advantages: Tensor  # (…, B)
    returns: Tensor  # (…, B)
    values: Tensor  # (…, B) when acting


def loss(fixed: Fixed, rows: Tensor, batch: Batch, options: Options) -> Tensor:
    """Mean loss of a minibatch ``(…)``; differentiable by the rows ``(…, row)``."""
    import torch

    at = fixed.actor.row + fixed.critic.row
    log_std = rows[..., None, at : at + fixed.A]
    out = dense.apply(fixed.actor, rows[..., : fixed.actor.row], batch.observations)
    critic = rows[..., fixed.actor.row : at]
    values = dense.apply(fixed.critic, critic, batch.observations).squeeze(-1)
    if fixed.continuous:
        normals = torch.distributions.Normal(out, log_std.exp(), validate_args=False)
        log_probs = normals.log_prob(batch.actions).sum(-1)
        entropy = normals.entropy().sum(-1)
    else:
        choices = torch.distributions.Categorical(logits=out, validate_args=False)
        log_probs, entropy = choices.log_prob(batch.actions), choices.entropy()
    gain = gains(log_probs - batch.log_probs, batch.advantages, options)
    if fixed.clip_range_vf < math.inf:
        limit = fixed.clip_range_vf
        values = batch.values + (values - batch.values).clamp(-limit, limit)
    error = (values - batch.returns).square()
    vf_coef, ent_coef = (
        torch.as_tensor(x)[..., None] for x in (options.vf_coef, options.ent_coef)
    )
    return (vf_coef * error - gain - ent_coef * entropy).mean(-1)
