"""Reports: what runs are judged by, at points of the run budget.

Policies see none of it. A report is the score of episodes that are played for it, or,
on a task that is judged by training, of the training episodes since the point before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dacrl_env.algorithms.interval import Interval
from dacrl_env.outer.settings import Settings
from dacrl_env.tasks import FINAL_REPORT_EPISODES, REPORT_EPISODES, REPORT_POINTS

if TYPE_CHECKING:
    from dacrl_env.outer.population import Population

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def wanted(settings: Settings) -> bool:
    """Whether runs stop at report points; training episodes cost nothing more."""
    return settings.report or _by_training(settings)


def _by_training(settings: Settings) -> bool:
    """Whether training episodes are what runs are judged by."""
    return settings.task.judged_by == "training"


def take(
    runs: Population, due: NDArray[np.bool_], interval: Interval | None = None
) -> None:
    """Report members, where reports are wanted.

    Args:
        runs: at a report point.
        due: mask ``(P,)`` of members.
        interval: that is under way; None: the run begins.
    """
    state, s = runs.state, runs.settings
    if not wanted(s) or not due.any():
        return
    point = np.searchsorted(s.report_steps, state.learner.env_steps)
    point = np.minimum(point, REPORT_POINTS)
    alive = due & ~state.diverged
    if _by_training(s):
        _of_training(runs, np.flatnonzero(alive), point, interval)
        return
    last = point == REPORT_POINTS
    for group, episodes in (
        (alive & ~last, REPORT_EPISODES),
        (alive & last, FINAL_REPORT_EPISODES),
    ):
        members = np.flatnonzero(group)
        if len(members):
            state.reports[members, point[members]] = _played(
                runs, members, point[members], episodes
            )


def _of_training(
    runs: Population, members: Ints, point: Ints, interval: Interval | None
) -> None:
    """Scores of training episodes since the last point; without any, as there.

    Args:
        runs: at a report point.
        members: ``(m,)``.
        point: ``(P,)`` numbers of the report points.
        interval: that is under way; None: the run begins.
    """
    state, at = runs.state, point[members]
    if interval is None:
        state.reports[members, at] = 0.0  # of a random policy
        return
    had = np.stack([interval.returns, interval.episodes], axis=1)[members]
    total, episodes = (state.since_report[members] + had).T
    state.since_report[members] = np.where(np.isfinite(had), -had, 0.0)
    means = total / np.maximum(episodes, 1)
    new = runs.scored(members, means[:, None])
    known = ~np.isnan(state.reports[members])
    latest = (known * np.arange(REPORT_POINTS + 1)).max(axis=1)
    before = state.reports[members, latest]
    state.reports[members, at] = np.where(episodes > 0, new, before)


def final(runs: Population) -> Floats:
    """Scores ``(P,)`` of runs that are over: the last report."""
    scores = runs.references().floor_score
    members = np.flatnonzero(~runs.state.diverged)
    if _by_training(runs.settings):
        scores[members] = runs.state.reports[members, REPORT_POINTS]
    elif len(members):
        last = np.full(len(members), REPORT_POINTS)
        scores[members] = _played(runs, members, last, FINAL_REPORT_EPISODES)
    return scores


def _played(runs: Population, members: Ints, point: Ints, episodes: int) -> Floats:
    """Report scores ``(m,)`` of episodes that members play."""
    returns, _ = runs.play(members, "report", point, episodes)
    return runs.scored(members, returns)
