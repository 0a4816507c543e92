"""A bandit over hyperparameters and their values, within a single run.

Yuan, Li, Jin and Zeng 2025, "ULTHO: Ultra-lightweight yet efficient hyperparameter
optimization in deep reinforcement learning" (arXiv 2503.06101): a multi-armed bandit
with clustered arms. A cluster is a hyperparameter, its arms are values. Every decision
chooses a cluster, then one of its arms, by upper confidence bounds (Auer, Cesa-Bianchi
and Fischer 2002, "Finite-time analysis of the multiarmed bandit problem"):

    argmax  Q + c √(ln t / N)

N is how often a cluster, or an arm, was chosen, t the sum of N over those that are
chosen among, Q the mean of its last W payoffs: a sliding window, since what a value is
worth changes in the course of training. What has not been tried comes first; ties are
broken at random. The chosen hyperparameter gets the chosen value, all others keep the
one they have.

The payoff is the observed score after the decision. The paper's is the mean return of
a rollout. W and c are those of the authors' programs for Atari (c = 1, W = 10;
github.com/yuanmingqi/ULTHO), which decide at every rollout, and whose returns are of
another scale. After 100 decisions spread over nine arms, c √(ln t / N) is 0.6 c: where
scores differ by less, c = 1 still tries all of them about as often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.core import streams
from dacrl_env.core.checks import whole
from dacrl_env.kernels.elementary import log
from dacrl_env.outer.actions import check_names
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.policies.static import extremes
from dacrl_env.tasks import Event, Knob, Number, Option

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Configuration = Mapping[str, Option]


class ULTHO:
    """Upper confidence bounds over clusters of values, a bandit for each member.

    A run's draws follow from its own seed, whatever population it stands in.

    Args:
        menu: name to the values of a cluster; or whole configurations, each name to
            value, which are the arms of one cluster, and in which what is left out has
            its default. None: all that is controlled, but events: ``points`` values of
            each number, and all options of each choice.
        window: W, payoffs of an arm that count.
        exploration: c, in units of the score.
        points: values of each number of the default menu, see `default_menu`.
        decisions: outer steps of a run; None: the task's. With more of them than
            evaluations, some see no news.

    Raises:
        ValueError: a menu of fewer than two arms, or that is none; window below 1,
            exploration negative, or fewer than two points; at `reset`, unknown names or
            values, or nothing to choose from.
    """

    action_mode = "values"
    independent = True

    def __init__(
        self,
        menu: Mapping[str, Sequence[Option]] | Sequence[Configuration] | None = None,
        window: int = 10,
        exploration: float = 1.0,
        points: int = 3,
        decisions: int | None = None,
    ) -> None:
        self.window = whole("window", window)
        if not 0 <= exploration < np.inf:
            raise ValueError(f"exploration must not be negative, got {exploration}")
        self.exploration = exploration
        self.points = whole("points", points, least=2)
        self.decisions = None if decisions is None else whole("decisions", decisions)
        self.clusters = None if menu is None else clusters_of(menu)
        values: dict[str, list[Option]] = {}
        for arm in (arm for cluster in self.clusters or () for arm in cluster):
            for name, value in arm.items():
                values.setdefault(name, []).append(value)
        self.hyperparameters = tuple(values)
        self.extremes = extremes(values)

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Start a bandit for every member, with nothing learned."""
        controlled = envs.settings.controlled
        clusters = self.clusters
        if clusters is None:
            clusters = clusters_of(default_menu(controlled, self.points))
        arms = [arm for cluster in clusters for arm in cluster]
        names = list(dict.fromkeys(name for arm in arms for name in arm))
        check_names(names, [h.name for h in controlled], "hyperparameter")
        by_name = {h.name: h for h in controlled}
        self.envs, self.knobs = envs, [by_name[name] for name in names]
        self.start = np.array([h.start for h in self.knobs])
        self.held = np.array([h.held for h in self.knobs])
        P, C, n = envs.num_envs, len(clusters), len(names)
        self.sizes = np.array([len(cluster) for cluster in clusters])
        K = int(self.sizes.max())
        self.arms = np.full((C, K, n), np.nan)  # codes; NaN: as it is
        for c, cluster in enumerate(clusters):
            for k, arm in enumerate(cluster):
                for name, value in arm.items():
                    code = by_name[name].codes(value)
                    self.arms[c, k, names.index(name)] = float(code)
        if C == 1:  # configurations: what they leave out has its default
            self.arms = np.where(np.isnan(self.arms), self.start, self.arms)
        self.values = np.tile(self.start, (P, 1))  # (P, n) codes
        self.chosen = np.full((P, 2), -1)  # cluster and arm; −1: none yet
        self.counts = np.zeros((P, C, K), np.int64)
        self.payoffs = np.zeros((P, C, K, self.window))  # the last ones, in a ring
        self.cluster_payoffs = np.zeros((P, C, self.window))

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, d)``."""
        new = infos["env_steps"] == 0
        self.chosen[new], self.counts[new] = -1, 0
        self.values[new] = self.start
        old = np.flatnonzero(self.chosen[:, 0] >= 0)
        self._learn(old, np.asarray(infos["score"], np.float64)[old])
        P, C, K = self.counts.shape
        draws = streams.uniforms(self.envs.policy_keys, infos["env_steps"], C + K)
        rows, c = np.arange(P), self.exploration
        bounds = upper_bounds(self.counts.sum(2), self.cluster_payoffs, c)
        cluster = first_of(bounds, draws[:, :C])
        at = rows, cluster
        bounds = upper_bounds(self.counts[at], self.payoffs[at], c)
        bounds[np.arange(K) >= self.sizes[cluster][:, None]] = -np.inf
        arm = first_of(bounds, draws[:, C:])
        self.chosen[:, 0], self.chosen[:, 1] = cluster, arm
        self.values[:, ~self.held] = self.start[~self.held]
        wanted = self.arms[cluster, arm]
        self.values = np.where(np.isnan(wanted), self.values, wanted)
        columns = zip(self.knobs, self.values.T, strict=True)
        return self.envs.to_actions({h.name: _native(h, x) for h, x in columns})

    def _learn(self, members: Ints, payoffs: Floats) -> None:
        """Note what the choices of some members ``(m,)`` have brought."""
        cluster, arm = self.chosen[members].T
        at = self.counts[members, cluster].sum(1) % self.window
        self.cluster_payoffs[members, cluster, at] = payoffs
        at = self.counts[members, cluster, arm] % self.window
        self.payoffs[members, cluster, arm, at] = payoffs
        self.counts[members, cluster, arm] += 1


def clusters_of(menu: Any) -> list[list[dict[str, Option]]]:
    """Arms of each cluster, each what it sets.

    Args:
        menu: as of `ULTHO`.

    Raises:
        ValueError: it is none, or has fewer than two arms.
    """
    if isinstance(menu, Mapping) and all(_listed(values) for values in menu.values()):
        clusters = [[{name: value} for value in menu[name]] for name in menu]
    elif _listed(menu) and all(isinstance(arm, Mapping) and arm for arm in menu):
        clusters = [[dict(arm) for arm in menu]]
    else:
        raise ValueError(
            "a menu is a dict of name to values, or a list of configurations, each a "
            f"dict of name to value; got {menu!r}"
        )
    arms = [len(cluster) for cluster in clusters]
    if sum(arms) < 2 or not all(arms):
        raise ValueError(f"a menu needs at least two arms, got {menu!r}")
    return clusters


def default_menu(knobs: Sequence[Knob], points: int) -> dict[str, list[Option]]:
    """Values of each number, and all options of each choice; events are left out.

    A number's values are evenly spread over the axis of continuous actions, whose
    middle is the default and whose ends are those of the range, without the ends. For
    three points they are half way, on the number's own scale, from the default to
    either end, and the default.

    Args:
        knobs: that are controlled.
        points: at least 2.

    Raises:
        ValueError: there is nothing but events.
    """
    menu: dict[str, list[Option]] = {}
    for h in knobs:
        if isinstance(h, Number):
            low, middle, high = h.to_unit([h.low, h.default, h.high]).tolist()
            a = np.linspace(-1, 1, points + 2)[1:-1]
            unit = middle + a * np.where(a < 0, middle - low, high - middle)
            values = np.where(a == 0, h.default, h.from_unit(unit))  # to the last bit
            menu[h.name] = np.unique(h.rounded(values)).tolist()
        elif not isinstance(h, Event):
            menu[h.name] = list(h.options)
    if not menu:
        raise ValueError(
            "ultho has nothing to choose from: no number and no choice is controlled, "
            f"but {', '.join(h.name for h in knobs)}; a menu may name events"
        )
    return menu


def upper_bounds(counts: Ints, payoffs: Floats, exploration: float) -> Floats:
    """Upper confidence bounds ``(P, K)``; infinite for what has not been tried.

    Args:
        counts: ``(P, K)``, N.
        payoffs: ``(P, K, W)``, the last ones in any order, from the first place on.
        exploration: c.
    """
    W = payoffs.shape[2]
    total = np.zeros(counts.shape)
    for k in range(W):  # in this order, for the same bits anywhere
        total += np.where(k < counts, payoffs[:, :, k], 0.0)
    N = np.maximum(counts, 1)
    t = np.maximum(counts.sum(1, keepdims=True), 1)
    bounds = total / np.minimum(N, W) + exploration * np.sqrt(log(t) / N)
    return np.where(counts == 0, np.inf, bounds)


def first_of(bounds: Floats, draws: Floats) -> Ints:
    """Places ``(P,)`` of the largest of ``(P, K)``, of equal ones by uniform draws."""
    best = bounds == bounds.max(1, keepdims=True)
    return np.asarray(np.where(best, draws, -1.0).argmax(1))


def _listed(values: Any) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str)


def _native(knob: Knob, codes: Floats) -> NDArray[Any]:
    """Codes ``(P,)`` as users write them."""
    if isinstance(knob, Number):
        return codes
    return np.array([knob.native(code) for code in codes], object)
