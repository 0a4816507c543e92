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
from dacrl_env.core.checks import real, unknown, whole
from dacrl_env.learners.events import FIRST
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.policies.static import extremes
from dacrl_env.tasks import Option

EVENT = "swap"
RATE = "learning_rate"


class SwapWhenFallen:
    """Swap networks with those in the register where the score has fallen far.

    The first time there are none, and fresh ones, or a copy, learn what is new. While
    the score is good, learning all but stops, so that networks are put aside as they
    were when they did well. (With PPO's ``lr_rule`` kl-adaptive it does not: that rule
    soon has its learning rate back.) Replay and inner environments go on.

    Args:
        fall: how far the score has to be below the best one since these networks came.
        threshold: score at and above which the learning rate is the smallest there is.
        first: what goes on the first time, "fresh" networks or a "copy".
        distance: a control: networks are swapped each so many decisions, whatever the
            score; 0: where they have fallen.
        shuffle: a control: what each run would do is done to another, drawn anew for
            each decision.
        **config: the configuration otherwise; what is left out keeps its default.

    Raises:
        ValueError: a fall that is no positive number, a threshold that is no finite
            one, another ``first``, a distance below 0, or the event in the
            configuration; at `reset`, an algorithm without it.
    """

    action_mode = "values"

    def __init__(
        self,
        fall: float = 0.5,
        threshold: float = 0.9,
        first: str = "fresh",
        distance: int = 0,
        shuffle: bool = False,
        **config: Option,
    ) -> None:
        if not real("fall", fall) > 0:
            raise ValueError(f"fall must be positive, got {fall}")
        if first not in FIRST:
            raise ValueError(unknown("first", first, FIRST))
        if EVENT in config:
            raise ValueError(f"{EVENT} is what the rule decides; leave it out")
        self.fall, self.first = float(fall), first
        self.threshold = float(real("threshold", threshold))
        self.distance = whole("distance", distance, 0)
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
        if self.distance:
            rule["distance"] = self.distance
        if self.shuffle:
            rule["shuffle"] = True
        return {**rule, **self.config}

    def shuffled(self) -> SwapWhenFallen:
        """The same rule by what others would do: a control."""
        return SwapWhenFallen(**{**self.arguments(), "shuffle": True})

    def every(self, decisions: int) -> SwapWhenFallen:
        """Swaps at equal distances, whatever the score: a control."""
        return SwapWhenFallen(**{**self.arguments(), "distance": decisions})

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
        self._ages = np.where(known, self._ages + 1, 0)
        self._peaks = np.fmax(np.where(known, self._peaks, -np.inf), score)
        if self.distance:
            over = self._ages >= self.distance
        else:
            over = is_fallen(score, self._peaks, self.fall)
        self._ages[over], self._peaks[over] = 0, -np.inf
        whose = streams.seen_by(self._keys, steps)
        good = (score >= self.threshold)[whose]
        actions = np.where(good[:, None], self._freeze, self._learn)
        return np.where(over[whose][:, None], self._swap, actions)


def is_fallen(score: ArrayLike, peak: ArrayLike, fall: ArrayLike) -> NDArray[np.bool_]:
    """Which networks ``(P,)`` are put aside.

    Args:
        score: ``(P,)`` observed last; NaN: nothing is known.
        peak: ``(P,)`` the best score since the networks came, this one included.
        fall: how far below it the score has to be.
    """
    now, best, least = (np.asarray(x, np.float64) for x in (score, peak, fall))
    return np.asarray(now < best - least)
