"""Networks for either state of an environment that goes back and forth.

What was learned before a change is right again when the environment changes back.
Networks that have done well and suddenly do poorly are put aside, and those that were
put aside the last time take their place: of several models the one that fits, as in
adaptive control (Narendra and Balakrishnan 1997, "Adaptive control using multiple
models") and for environments with few modes (da Silva et al. 2006, "Dealing with
non-stationary environments using context detection"). A schedule cannot know when.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dacrl_env.core import streams
from dacrl_env.core.checks import unknown, whole
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.policies.static import extremes
from dacrl_env.tasks import Option

EVENT = "swap"
RATE = "learning_rate"
FIRST = ("fresh", "copy")
_ALWAYS = -1e9  # a fall that every score is


class SwapWhenFallen:
    """Swap networks with those in the register where the score has fallen far.

    The first time there are none, and fresh ones, or a copy, learn what is new. While
    the score is good, learning all but stops, so that networks are put aside as they
    were when they did well. Replay and inner environments go on.

    Args:
        fall: how far the score has to be below the best one since these networks came.
        threshold: score at and above which the learning rate is the smallest there is.
        first: what goes on the first time, "fresh" networks or a "copy".
        patience: decisions that networks have before they may go.
        shuffle: a control: every member goes by the score of another, drawn anew for
            each decision.
        **config: the configuration otherwise; what is left out keeps its default.

    Raises:
        ValueError: patience below 1, or another ``first``; at `reset`, an algorithm
            without the event.
    """

    action_mode = "values"

    def __init__(
        self,
        fall: float = 0.5,
        threshold: float = 0.9,
        first: str = "fresh",
        patience: int = 1,
        shuffle: bool = False,
        **config: Option,
    ) -> None:
        self.fall, self.threshold = float(fall), float(threshold)
        if first not in FIRST:
            raise ValueError(unknown("first", first, FIRST))
        self.first = first
        self.patience = whole("patience", patience)
        self.shuffle, self.config = shuffle, config
        self.hyperparameters = tuple(dict.fromkeys((EVENT, RATE, *config)))
        self.extremes = extremes({name: (value,) for name, value in config.items()})

    def arguments(self) -> dict[str, Any]:
        """What makes it again, as JSON values."""
        rule: dict[str, Any] = {
            "fall": self.fall,
            "threshold": self.threshold,
            "first": self.first,
        }
        if self.patience > 1:
            rule["patience"] = self.patience
        if self.shuffle:
            rule["shuffle"] = True
        return {**rule, **self.config}

    def shuffled(self) -> SwapWhenFallen:
        """The same rule by the scores of others: a control."""
        return SwapWhenFallen(
            self.fall, self.threshold, self.first, self.patience, True, **self.config
        )

    def every(self, decisions: int) -> SwapWhenFallen:
        """Swaps at equal distances, whatever the score: a control."""
        return SwapWhenFallen(
            _ALWAYS, self.threshold, self.first, decisions, False, **self.config
        )

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Translate the configuration into actions: as it is, frozen, and to swap."""
        smallest = envs.settings.number(RATE).low
        self._learn = envs.to_actions(self.config)
        self._freeze = envs.to_actions({**self.config, RATE: smallest})
        self._swap = envs.to_actions({**self.config, EVENT: self.first})
        self._ages = np.zeros(envs.num_envs, np.int64)
        self._peaks = np.full(envs.num_envs, -np.inf)
        self._keys = envs.policy_keys[:1] if self.shuffle else None

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, d)``."""
        steps = infos["env_steps"]
        known = steps > 0
        score = np.where(known, infos["score"], np.nan)
        score = score[streams.seen_by(self._keys, steps)]
        self._ages = np.where(known, self._ages + 1, 0)
        self._peaks = np.fmax(np.where(known, self._peaks, -np.inf), score)
        fallen = is_fallen(score, self._peaks, self.fall)
        fallen &= self._ages >= self.patience
        self._ages[fallen], self._peaks[fallen] = 0, -np.inf
        actions = np.where(
            (score >= self.threshold)[:, None], self._freeze, self._learn
        )
        return np.where(fallen[:, None], self._swap, actions)


def is_fallen(score: ArrayLike, peak: ArrayLike, fall: ArrayLike) -> NDArray[np.bool_]:
    """Which networks ``(P,)`` are put aside.

    Args:
        score: ``(P,)`` observed last; NaN: nothing is known.
        peak: ``(P,)`` the best score since the networks came, this one included.
        fall: how far below it the score has to be.
    """
    now, best, least = (np.asarray(x, np.float64) for x in (score, peak, fall))
    return np.asarray(now < best - least)
