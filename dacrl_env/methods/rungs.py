"""Brackets and rungs: many candidates are trained a little, the best go on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dacrl_env.methods.search import (
    Incumbent,
    Objective,
    check_candidates,
    go_on,
    means,
)
from dacrl_env.methods.trials import Trials

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
# of one bracket: how many candidates are trained to which fidelity
Rungs = list[tuple[int, int]]


def brackets(longest: int, eta: int) -> list[Rungs]:
    """The brackets of one round, the most aggressive first.

    Algorithm 1 of the paper with R = ``longest``: bracket s = s_max, …, 0 starts with
    ⌈η^s (s_max + 1) / (s + 1)⌉ candidates at R / η^s; each rung keeps one in η, rounded
    down. Fidelities are rounded to the nearest whole number, halves up: R = 20 and
    η = 3 gives rungs at 2, 7 and 20.

    Args:
        longest: fidelity of a complete run.
        eta: at least 2.
    """
    s_max = 0
    while eta ** (s_max + 1) <= longest:
        s_max += 1
    table = []
    for s in range(s_max, -1, -1):
        n = -(-(s_max + 1) * eta**s // (s + 1))
        parts = [eta ** (s - i) for i in range(s + 1)]
        fidelities = [(2 * longest + part) // (2 * part) for part in parts]
        table.append([(n // eta**i, f) for i, f in enumerate(fidelities)])
    return table


def decisions(rungs: Rungs) -> int:
    """What a bracket trains in all, in decisions of one run a candidate."""
    before = [0, *(fidelity for _, fidelity in rungs)]
    return sum(n * (f - b) for (n, f), b in zip(rungs, before, strict=False))


def shrink(rungs: Rungs, eta: int, affordable: int) -> Rungs:
    """The same bracket with as many candidates as can be paid for; maybe none.

    Args:
        rungs: of a bracket.
        eta: of which one is promoted.
        affordable: decisions.
    """
    for n in range(rungs[0][0], 0, -1):
        fewer = [(max(1, n // eta**i), f) for i, (_, f) in enumerate(rungs)]
        if decisions(fewer) <= affordable:
            return fewer
    return []


def promote(scores: Floats, k: int) -> Ints:
    """Indices ``(k,)`` of the best scores, the best first.

    Of equal ones the first comes first; −∞ and NaN come last.
    """
    ranked = np.where(np.isnan(scores), -np.inf, scores)
    return np.argsort(-ranked, kind="stable")[:k]


def race(
    best: Incumbent,
    candidates: Floats,
    rungs: Rungs,
    seeds: int,
    objective: Objective,
    promoted: Callable[[Floats, int], Ints] = promote,
) -> Floats:
    """Train the candidates of one bracket, each rung as one population.

    Args:
        best: is offered those that were trained to the end.
        candidates: ``(n, k)``.
        rungs: how many go on to how many decisions; n in the first.
        seeds: tuning runs a candidate, the same for all candidates.
        objective: of a run, as far as it has come; or several, where ``promoted`` can
            rank them.
        promoted: from mean scores, as `means` has them, and a number to the indices of
            those that go on.

    Returns:
        Mean scores of the last rung.
    """
    trials = best.trials
    alive, done, scores = np.arange(len(candidates)), 0, np.empty(0)
    trials.begin(trials.tuning_seeds(seeds) * len(candidates))
    for n, fidelity in rungs:
        if done:
            kept = promoted(scores, n)
            # runs that are not promoted are given up here
            trials.select((kept[:, None] * seeds + np.arange(seeds)).ravel())
            alive = alive[kept]
        if fidelity == trials.decisions:
            best.settle()  # the rungs before were needed for any of the last
        part = candidates[alive]
        observed = go_on(trials, best.space, part, seeds, done, fidelity)
        scores, done = means(observed, seeds, objective), fidelity
    best.offer(candidates[alive], scores, trials.judge().reshape(-1, seeds).mean(1))
    return scores


def check_bracket(trials: Trials, rungs: Rungs, seeds: int) -> None:
    """Raise a ValueError if the budget does not pay for a whole bracket."""
    check_candidates(trials, seeds)
    least = decisions(rungs) * seeds * trials.settings.decision_interval
    if trials.left < least:
        raise ValueError(
            f"a tuning budget of {trials.left:,} steps is below one bracket of "
            f"{rungs[0][0]} candidates on {seeds} tuning seeds, which takes {least:,}"
        )


def check_eta(eta: int) -> None:
    """Raise a ValueError for an eta that promotes everybody or is no whole number."""
    if not isinstance(eta, int) or eta < 2:
        raise ValueError(f"eta must be a whole number of at least 2, got {eta!r}")
