"""What algorithms with a replay share: writing, drawing and gathering transitions.

Transitions are drawn uniformly, or in proportion to a power of their last
temporal-difference error (Schaul et al. 2016, "Prioritized experience replay",
proportional variant), from the newest ``replay_window`` ones. Their next n rewards are
folded into one return. All functions are for one member, p.

Priorities are kept as they are. The tree over their powers is made anew when the
exponent or the window has changed, and follows every transition and update from then.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.functions import exp, log
from dacrl_env.kernels.random_numbers import below, uniform
from dacrl_env.kernels.sum_tree import change, find, leaves, sum_up
from dacrl_env.kernels.views import aligned, matrix, vector

REWARD, CONTINUES, DONE, ACTIONS = range(4)  # columns of a transition
RETURN, DISCOUNT, WEIGHT, ERROR = range(4)  # columns of a batch
LEAST_PRIORITY = np.float32(1e-6)
ALPHA, WINDOW = range(2)  # what the tree was made for
MOST_STEPS = 10  # of a return


class Replay(NamedTuple):
    """What P members remember of N inner environments each."""

    observations: NDArray[Any]  # (P, N, C, 2, D) before a step and after it
    transitions: NDArray[np.float32]  # (P, N, C, 3 + columns of an action)
    first: NDArray[np.int64]  # (P,) number of the first transition in use
    priorities: NDArray[np.float32]  # (P, N, C), or (P, N, 0) without
    tree: NDArray[np.float32]  # (P, 2L) over their powers, see `sum_tree`
    made_for: NDArray[np.float64]  # (P, 2) exponent and window of the tree; NaN: none
    top_priority: NDArray[np.float32]  # (P,) the highest so far

    @classmethod
    def of(
        cls,
        P: int,
        N: int,
        C: int,
        D: int,
        actions: int,
        dtype: type,
        prioritised: bool,
    ) -> Replay:
        """Memory for P members.

        Args:
            P: members.
            N: inner environments of each.
            C: transitions kept of each inner environment.
            D: features of an observation.
            actions: columns of an action.
            dtype: of observations as they are kept.
            prioritised: whether there is room for priorities.
        """
        room = C if prioritised else 0
        return cls(
            observations=np.zeros((P, N, C, 2, D), dtype),
            transitions=aligned(P, N, C, ACTIONS + actions),
            first=np.zeros(P, np.int64),
            priorities=np.zeros((P, N, room), np.float32),
            tree=np.zeros((P, 2 * leaves(N * room)), np.float32),
            made_for=np.full((P, 2), np.nan),
            top_priority=np.ones(P, np.float32),
        )


@compiled
def forget(p, replay):
    """Put member p before its first transition."""
    replay.first[p] = 0
    replay.made_for[p, ALPHA] = replay.made_for[p, WINDOW] = np.nan
    replay.top_priority[p] = np.float32(1.0)


@compiled
def write(p, n, reward, terminated, done, run, memory):
    """Write a transition of inner environment n to the replay."""
    replay, N, D = run.state.replay, run.fixed.N, run.fixed.D
    C, W = replay.transitions.shape[2], memory.actions.shape[1]
    written = run.state.env_steps[p] // N
    at = (p * N + n) * C + written % C
    pair = vector(replay.observations, at * 2 * D, 2 * D)
    for k in range(D):
        pair[k] = memory.seen[n, k]
        pair[D + k] = memory.following[n, k]
    row = vector(replay.transitions, at * (ACTIONS + W), ACTIONS + W)
    row[REWARD] = np.float32(reward)
    row[CONTINUES] = np.float32(0.0) if terminated else np.float32(1.0)
    row[DONE] = np.float32(1.0) if done else np.float32(0.0)
    for a in range(W):
        row[ACTIONS + a] = np.float32(memory.actions[n, a])
    if run.fixed.prioritised:
        enter(p, n, written, run)


@compiled
def window(p, written, run):
    """Transitions of each inner environment that batches are drawn from."""
    replay = run.state.replay
    kept = min(written - replay.first[p], replay.transitions.shape[2])
    return min(kept, max(int(run.values.replay_window[p]) // run.fixed.N, 1))


@compiled
def draw_evenly(p, drawn, B, run, memory):
    """Places of B of the newest transitions, with replacement, all as likely."""
    N, C = run.fixed.N, run.state.replay.transitions.shape[2]
    written = run.state.env_steps[p] // N
    size = window(p, written, run)
    oldest = (written - size) % C if size < min(written, C) else 0
    weights = vector(memory.columns, WEIGHT * B, B)
    for b in range(B):
        place = below(drawn, b, size * N)
        ring = place // size * C if N > 1 else 0
        slot = oldest + (place % size if N > 1 else place)
        memory.places[b] = ring + (slot - C if slot >= C else slot)
        weights[b] = np.float32(1.0)


@compiled
def gather(p, B, run, memory):
    """Observations, returns and discounts of the transitions at the places in memory.

    An n-step return ends early where the episode does, or where the newest transition
    is reached, and then bootstraps from there.
    """
    replay, N, D = run.state.replay, run.fixed.N, run.fixed.D
    C, W = replay.transitions.shape[2], memory.actions.shape[1]
    width, n_step = ACTIONS + W, int(run.values.n_step[p])
    pairs = matrix(replay.observations, p * N * C * 2 * D, N * C, 2 * D)
    transitions = matrix(replay.transitions, p * N * C * width, N * C, width)
    inputs = matrix(memory.inputs, 0, B, D)
    next_inputs = matrix(memory.next_inputs, 0, B, D)
    columns = matrix(memory.columns, 0, 4, B)
    taken = matrix(memory.taken, 0, B, W)
    scale, gamma = np.float32(run.fixed.scale), np.float32(run.values.gamma[p])
    newest = (run.state.env_steps[p] // N - 1) % C
    for b in range(B):
        first = last = memory.places[b]
        slot = first % C if N > 1 else first
        total, discount = transitions[first, REWARD], gamma
        for _ in range(1, n_step):
            if transitions[last, DONE] > np.float32(0.0) or slot == newest:
                break
            last += 1
            slot += 1
            if slot == C:
                last, slot = last - C, 0
            total += discount * transitions[last, REWARD]
            discount *= gamma
        for k in range(D):
            inputs[b, k] = np.float32(pairs[first, k]) * scale
            next_inputs[b, k] = np.float32(pairs[last, D + k]) * scale
        for a in range(W):
            taken[b, a] = transitions[first, ACTIONS + a]
        columns[RETURN, b] = total
        columns[DISCOUNT, b] = discount * transitions[last, CONTINUES]


@compiled
def sample(p, drawn, B, run, memory):
    """A batch to learn from, into memory."""
    if run.fixed.prioritised and run.values.priority_alpha[p] > 0.0:
        draw_by_priority(p, drawn, B, run, memory)
    else:
        draw_evenly(p, drawn, B, run, memory)
    gather(p, B, run, memory)


# -- priorities ------------------------------------------------------------------------


@compiled
def power(x, exponent):
    """X to a power, for positive x."""
    return exp(exponent * log(x))


@compiled
def tree_of(p, run):
    """The member's tree of priorities."""
    size = run.state.replay.tree.shape[1]
    return vector(run.state.replay.tree, p * size, size)


@compiled
def made_for(p, run):
    """Whether the tree is that of the exponent and window of now."""
    known, values = run.state.replay.made_for, run.values
    same = known[p, ALPHA] == values.priority_alpha[p]
    return same and known[p, WINDOW] == values.replay_window[p]


@compiled
def enter(p, n, written, run):
    """Give a new transition the highest priority so far, and one that leaves none."""
    state, C = run.state, run.state.replay.transitions.shape[2]
    state.replay.priorities[p, n, written % C] = state.replay.top_priority[p]
    if run.values.priority_alpha[p] == 0.0:
        # transitions that the tree misses are written
        state.replay.made_for[p, ALPHA] = np.nan
    if not made_for(p, run):
        return
    tree = tree_of(p, run)
    size = window(p, written + 1, run)
    if written >= size:
        change(tree, n * C + (written - size) % C, np.float32(0.0))
    alpha = np.float32(run.values.priority_alpha[p])
    change(tree, n * C + written % C, power(state.replay.top_priority[p], alpha))


@compiled
def plant(p, run):
    """Make the tree for the exponent and window of now."""
    state, values = run.state, run.values
    N, C = run.fixed.N, run.state.replay.transitions.shape[2]
    tree, alpha = tree_of(p, run), np.float32(values.priority_alpha[p])
    for k in range(len(tree)):
        tree[k] = np.float32(0.0)
    written = state.env_steps[p] // N
    for n in range(N):
        for k in range(written - window(p, written, run), written):
            weight = power(state.replay.priorities[p, n, k % C], alpha)
            tree[len(tree) // 2 + n * C + k % C] = weight
    sum_up(tree)
    state.replay.made_for[p, ALPHA] = values.priority_alpha[p]
    state.replay.made_for[p, WINDOW] = values.replay_window[p]


@compiled
def draw_by_priority(p, drawn, B, run, memory):
    """Places of B transitions by priority, one from each B-th of the sum, and weights.

    Weights make up for what is drawn too often, to the power β, and are divided by the
    largest of the batch.
    """
    if not made_for(p, run):
        plant(p, run)
    tree, N = tree_of(p, run), run.fixed.N
    total, half = tree[1], len(tree) // 2
    count = np.float32(N * window(p, run.state.env_steps[p] // N, run))
    beta = np.float32(run.values.priority_beta[p])
    weights = vector(memory.columns, WEIGHT * B, B)
    most = np.float32(0.0)
    for b in range(B):
        share = np.float32((b + uniform(drawn, b)) / B)
        place = find(tree, share * total)
        memory.places[b] = place
        weights[b] = power(count * tree[half + place] / total, -beta)
        most = max(most, weights[b])
    for b in range(B):
        weights[b] /= most


@compiled
def set_priorities(p, B, run, memory):
    """Give what was just learned from the priority of its error."""
    state, C = run.state, run.state.replay.transitions.shape[2]
    alpha = np.float32(run.values.priority_alpha[p])
    tree, errors = tree_of(p, run), vector(memory.columns, ERROR * B, B)
    for b in range(B):
        error = abs(errors[b])
        # a member that diverges keeps priorities that can be drawn
        error = error if error < np.float32(1e30) else np.float32(1e30)
        priority = error + LEAST_PRIORITY
        place = memory.places[b]
        state.replay.priorities[p, place // C, place % C] = priority
        state.replay.top_priority[p] = max(state.replay.top_priority[p], priority)
        change(tree, place, power(priority, alpha))
