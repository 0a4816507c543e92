"""The state of P outer episodes, and what an outer step is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.algorithms.interval import Interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass
class PopulationState:
    """Everything P outer episodes consist of. What is not in it does not exist."""

    learner: Any  # state of the inner training runs
    seeds: Ints  # (P,)
    seed_members: Ints  # (P,) member number within the seed
    episodes: Ints  # (P,) outer episode number within seed and member
    instances: Ints  # (P,) index into the settings' instances
    requested: Floats  # (P, d) values of the controlled hyperparameters, not rounded
    applied: Floats  # (P, n) values of all hyperparameters, as applied
    ignored: NDArray[np.bool_]  # (P, n) events of the last decision that could not be
    happened_at: Ints  # (P, e) environment steps when each event last did; −1: never
    decisions: Ints  # (P,) taken
    diverged: NDArray[np.bool_]  # (P,)
    score: Floats  # (P,) observed
    initial_score: Floats  # (P,)
    best_score: Floats  # (P,)
    auc: Floats  # (P,) of the observed score, so far
    eval_return: Floats  # (P,) latest evaluation; NaN: none yet
    train_return: Floats  # (P,) latest training episodes; NaN: none yet
    episode_length: Floats  # (P,) of the latest training episodes
    initial_return: Floats  # (P,) observed returns: first, lowest, highest
    low_return: Floats
    high_return: Floats
    best_at: Ints  # (P,) environment steps at the best observed return
    evaluations: Ints  # (P,) done
    eval_steps: Ints  # (P,)
    fork_gradient_steps: Ints  # (P,) those of forks, which policies have looked at
    samples: Ints  # (P,) transitions used in updates
    # (P,) floating-point operations of updates; and by how much those of actions so far
    # differ from what they would be with the networks of now
    update_flops: Floats
    wall_seconds: Floats  # (P,) the member's share, without reports
    reports: Floats  # (P, points) report scores; NaN: not yet
    # (P, 2) sum of returns and number of the training episodes since the last report
    # point, less those that the interval under way had before it
    since_report: Floats
    observation: NDArray[np.float32]  # (P, history, features), newest first


@dataclass(frozen=True)
class UnderWay:
    """An outer step that has begun; arrays ``(P, …)``."""

    values: dict[str, Floats]  # as the learner takes them
    interval: Interval
    began_at: Ints  # environment steps
    over: NDArray[np.bool_]  # runs that were
    acted: Ints  # actions taken so far, and the work of one
    acted_by: Any
    previous_score: Floats
    previous_best: Floats
    previous_return: Floats


@dataclass(frozen=True)
class Outcome:
    """What an outer step gave; arrays ``(P,)``."""

    rewards: Floats
    ended: NDArray[np.bool_]
