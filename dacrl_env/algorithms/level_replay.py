"""Prioritised level replay: in which level the next training episode takes place.

M. Jiang, E. Grefenstette and T. Rocktäschel 2021, "Prioritized Level Replay" (arXiv
2010.03934). Levels from which much is to be learned are played more often. The score of
a level is the mean absolute advantage of the steps of an episode in a rollout, the
latest there was; of an episode that lasts longer each rollout has a part, which is
scored by itself. A level that has a score is *seen*.

With probability ``level_replay`` × the share of levels seen an episode takes a level
that is seen: one drawn by P = (1 − ρ) P_score + ρ P_stale, where

- P_score ∝ rank ^ (−1 / β), rank 1 having the highest score (β → ∞: uniform),
- P_stale ∝ the number of episodes begun since the level's latest one.

Otherwise it takes one that is not seen, each equally likely; once all are seen, any.
``level_replay`` of 1 is the paper's schedule in proportion to the levels seen. With 0
the choice is the environment's own. β is ``level_temperature``, ρ ``level_staleness``.

`chances` is the definition, in numpy; `choose` draws, for one member. An algorithm
takes `on_level` and `next_level` for its own, has a table ``levels`` in its state and
room ``levels`` (N, T) in its memory, and calls `score` with a rollout's advantages.

Letters: P members, N inner environments a member, T steps of a rollout, L levels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.functions import exp_double, log_double
from dacrl_env.kernels.random_numbers import below, draw, uniform
from dacrl_env.kernels.views import matrix

NO_CHOICE = -1  # the level stays what the environment has drawn
# choices of levels are draws of the environments' keys that neither starts of episodes
# nor steps have
CHOICES = np.uint64(2**61)
_REPLAYED, _WHICH, _STALE = range(3)  # lanes of a choice


class Levels(NamedTuple):
    """What members know of the levels they train on; L = 0: there are none."""

    scores: NDArray[np.float64]  # (P, L)
    seen: NDArray[np.bool_]  # (P, L) whether there is a score
    latest: NDArray[np.int64]  # (P, L) number of the latest episode; 0: there was none
    begun: NDArray[np.int64]  # (P,) episodes

    @classmethod
    def of(cls, P: int, L: int) -> Levels:
        """Memory for P members, who have seen nothing."""
        return cls(
            scores=np.zeros((P, L)),
            seen=np.zeros((P, L), bool),
            latest=np.zeros((P, L), np.int64),
            begun=np.zeros(P, np.int64),
        )


@compiled
def forget(p, table):
    """Put member p before its first episode."""
    for level in range(table.scores.shape[1]):
        table.scores[p, level] = 0.0
        table.seen[p, level] = False
        table.latest[p, level] = 0
    table.begun[p] = 0


@compiled
def begin(p, level, table):
    """Take note of the first step of an episode."""
    table.begun[p] += 1
    table.latest[p, level] = table.begun[p]


@compiled
def score(p, advantages, going_on, levels, table):
    """Score the levels of a rollout by its advantages.

    Args:
        p: number of the member.
        advantages: (N, T).
        going_on: (N, T) 0 where an episode ended.
        levels: (N, T) in which the steps were taken.
        table: of all members.
    """
    N, T = levels.shape
    for n in range(N):
        total, first = 0.0, 0
        for t in range(T):
            total += abs(np.float64(advantages[n, t]))
            if going_on[n, t] == np.float32(0.0) or t == T - 1:
                mean = total / (t + 1 - first)
                # what is no number has no rank
                table.scores[p, levels[n, t]] = mean if mean == mean else 0.0
                table.seen[p, levels[n, t]] = True
                total, first = 0.0, t + 1


# -- for drivers -----------------------------------------------------------------------


@compiled
def on_level(p, n, t, level, is_first, run, memory):
    """Take note of the level in which environment n takes a step."""
    memory.levels[n, t] = level
    if is_first:
        begin(p, level, run.state.levels)


@compiled
def next_level(p, key, episode, run):
    """The level of an episode of the environment with a key, or `NO_CHOICE`."""
    values, drawn = run.values, draw(key, CHOICES + np.uint64(episode))
    return choose(
        p, drawn, values.level_replay[p], values.level_temperature[p],
        values.level_staleness[p], run.state.levels,
    )  # fmt: skip


# -- the choice ------------------------------------------------------------------------


@compiled
def choose(p, drawn, replay, temperature, staleness, table):
    """The level of member p's next episode, or `NO_CHOICE`.

    Args:
        p: number of the member.
        drawn: a draw of random numbers.
        replay: share of the probability to take a level that is seen.
        temperature: β.
        staleness: ρ.
        table: of all members.
    """
    if replay == 0.0:
        return NO_CHOICE
    L = table.scores.shape[1]
    seen = 0
    for level in range(L):
        seen += table.seen[p, level]
    if uniform(drawn, _REPLAYED) * L >= replay * seen:
        if seen == L:
            return below(drawn, _WHICH, L)
        return _unseen(p, below(drawn, _WHICH, L - seen), table)
    u = uniform(drawn, _WHICH)
    if uniform(drawn, _STALE) < staleness:
        return _stale(p, u, seen, table)
    return _ranked(p, _rank(u, seen, temperature), table)


@compiled
def _unseen(p, which, table):
    """A level without a score, by its place among them."""
    for level in range(table.scores.shape[1]):
        if not table.seen[p, level]:
            if which == 0:
                return level
            which -= 1
    return NO_CHOICE


@compiled
def _stale(p, u, seen, table):
    """A level that is seen, by the episodes since its latest one; u in [0, 1)."""
    L, begun = table.scores.shape[1], table.begun[p]
    total = 0
    for level in range(L):
        if table.seen[p, level]:
            total += begun - table.latest[p, level]
    # where none waits, all are alike
    each = 1 if total == 0 else 0
    left = np.int64(u * (seen if total == 0 else total))
    for level in range(L):
        if table.seen[p, level]:
            left -= each if total == 0 else begun - table.latest[p, level]
            if left < 0:
                return level
    return NO_CHOICE


@compiled
def _rank(u, seen, temperature):
    """A rank from 1 to ``seen``, by u in [0, 1)."""
    total = 0.0
    for rank in range(1, seen + 1):
        total += _weight(rank, temperature)
    left = u * total
    for rank in range(1, seen):
        left -= _weight(rank, temperature)
        if left < 0.0:
            return rank
    return seen


@compiled
def note_scores(p, r, advantages, run, memory):
    """`score` the levels of rollout r, whose column of advantages is given."""
    N, T, rollout = run.fixed.N, run.fixed.T, memory.rollout
    found = matrix(rollout.columns, (r * 4 + advantages) * N * T, N, T)
    going_on = matrix(rollout.going_on, r * N * T, N, T)
    score(p, found, going_on, memory.levels, run.state.levels)


@compiled
def _weight(rank, temperature):
    """Rank ^ (−1 / β)."""
    return exp_double(-log_double(np.float64(rank)) / temperature)


@compiled
def _ranked(p, rank, table):
    """The level of a rank; of equal scores the lower number is the higher rank."""
    found = NO_CHOICE
    for _ in range(rank):
        before, best = found, NO_CHOICE
        for level in range(table.scores.shape[1]):
            if not table.seen[p, level]:
                continue
            if before >= 0 and not _is_after(p, before, level, table):
                continue
            if best < 0 or table.scores[p, level] > table.scores[p, best]:
                best = level
        found = best
    return found


@compiled
def _is_after(p, before, level, table):
    """Whether a level has a lower rank than another one."""
    scores = table.scores
    if scores[p, level] == scores[p, before]:
        return level > before
    return scores[p, level] < scores[p, before]


# -- the definition --------------------------------------------------------------------


def chances(
    table: Levels, replay: float, temperature: float, staleness: float, p: int = 0
) -> NDArray[np.float64]:
    """Probabilities ``(L,)`` of the levels of member p's next episode.

    Args:
        table: of all members.
        replay: share of the probability to take a level that is seen, above 0.
        temperature: β, above 0, may be infinite.
        staleness: ρ.
        p: number of the member.
    """
    seen, L = table.seen[p], table.seen.shape[1]
    new = np.ones(L) if seen.all() else 1.0 - seen
    share = replay * seen.mean()
    result: NDArray[np.float64] = (1 - share) * new / new.sum()
    if not seen.any():
        return result
    order = np.lexsort((np.arange(L), -table.scores[p], ~seen))
    by_score = np.zeros(L)
    by_score[order] = np.arange(1, L + 1) ** (-1 / temperature)
    by_score *= seen
    waited = np.where(seen, table.begun[p] - table.latest[p], 0.0)
    by_staleness = waited if waited.any() else 1.0 * seen
    result += share * (1 - staleness) * by_score / by_score.sum()
    result += share * staleness * by_staleness / by_staleness.sum()
    return result
