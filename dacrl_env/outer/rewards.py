"""Rewards of the outer environment.

All but ``"final"`` telescope or integrate, so that undiscounted returns mean
something: progress adds up to final minus initial score, best to the gain of the best
score, auc to the area under the curve of scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dacrl_env.core.blame import blame_if_users
from dacrl_env.core.checks import unknown

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RewardContext:
    """What a reward is computed from, after an outer step; arrays ``(P,)``.

    Args:
        score: now.
        previous_score: at the decision before.
        best_score: best so far, the initial score included.
        previous_best_score: best before this step.
        fraction: share of the budget that this step took.
        remaining: share of the budget that is left.
        ended: the run is over.
        diverged: the run is over since something became non-finite; its score is the
            floor.
    """

    score: Floats
    previous_score: Floats
    best_score: Floats
    previous_best_score: Floats
    fraction: Floats
    remaining: Floats
    ended: NDArray[np.bool_]
    diverged: NDArray[np.bool_]


Reward = Callable[[RewardContext], Floats]


def progress(c: RewardContext) -> Floats:
    """Score now minus score before."""
    return c.score - c.previous_score


def best(c: RewardContext) -> Floats:
    """Gain of the best score so far."""
    return c.best_score - c.previous_best_score


def auc(c: RewardContext) -> Floats:
    """Score times share of the budget; a diverged run stays at the floor."""
    return c.score * (c.fraction + np.where(c.diverged, c.remaining, 0.0))


def final(c: RewardContext) -> Floats:
    """The score at the end, nothing before."""
    return np.where(c.ended, c.score, 0.0)


REWARDS: dict[str, Reward] = {f.__name__: f for f in (progress, best, auc, final)}


def get_reward(reward: str | Reward) -> Reward:
    """A reward by name, or the given function.

    Raises:
        ValueError: unknown name.
    """
    if callable(reward):
        return reward
    if not isinstance(reward, str) or reward not in REWARDS:
        raise ValueError(
            f"{unknown('reward', reward, REWARDS)}, or a function of a RewardContext"
        )
    return REWARDS[reward]


def rewarded(
    reward: Reward, context: RewardContext, when: Callable[[NDArray[np.int64]], str]
) -> Floats:
    """Outer rewards ``(P,)``.

    Args:
        reward: possibly a function of the user's.
        context: of the outer step.
        when: what says, for an error, where members are in their runs.

    Raises:
        ValueError: what the reward function returns is something else.
    """
    members = len(context.score)
    name = getattr(reward, "__qualname__", repr(reward))
    with blame_if_users(reward, f"reward {name}"):
        given = reward(context)
    if np.ma.is_masked(given):
        raise ValueError(f"reward {name} returned masked values: {given!r}")
    try:
        rewards = np.asarray(given)
    except ValueError as failure:
        raise ValueError(
            f"reward {name} must return a value for each member, but returned {given!r}"
        ) from failure
    if rewards.shape != (members,):
        raise ValueError(
            f"reward {name} must return a value for each member, shape ({members},), "
            f"but returned shape {rewards.shape}"
        )
    if rewards.dtype.kind not in "biuf":
        raise ValueError(
            f"reward {name} must return real numbers, but returned dtype "
            f"{rewards.dtype}: {given!r}"
        )
    rewards = rewards.astype(np.float64)
    finite = np.isfinite(rewards)
    if not finite.all():
        bad = {int(i): float(rewards[i]) for i in np.flatnonzero(~finite)}
        raise ValueError(
            f"reward {name} must return finite numbers, but returned (value by member) "
            f"{bad} at {when(np.flatnonzero(~finite))}"
        )
    return rewards
