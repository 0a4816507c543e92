"""Explore as much as the best actions are about to change: bootstrapped meta-gradients.

Flennerhag, Schroecker, Zahavy, van Hasselt, Silver and Singh 2022, "Bootstrapped
meta-learning" (ICLR, arXiv 2109.04504): the learner is its own target. It learns on for
L updates, and hyperparameters are moved so that it comes nearer to what it will be. For
the exploration of an ε-greedy learner of action values no derivative of the update is
needed. The target is the greedy policy of the learner after the L updates. What comes
nearer to it is the ε-greedy policy of the learner as it is, by the divergence

    E[KL(target ‖ ε-greedy)] = −(1 − d) log(1 − ε (|A| − 1) / |A|) − d log(ε / |A|) ,

where d is the share of states whose best action changes. It is smallest where the best
action is left as often as it changes, at

    ε* = d |A| / (|A| − 1) .

The paper follows gradients of the divergence. Here ε, one number a run, moves a share
of the way to where it is smallest at every decision. d is counted over states of the
replay. The fork learns on from this replay as it is, and the run pays for it: its
updates are charged as gradient steps. Actions that are held (``ez-greedy``) are more
random than the formula supposes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dacrl_env.core.checks import whole
from dacrl_env.learners.dqn import DQN
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.policies import probe

Floats = NDArray[np.float64]


class BMGEpsilon:
    """Epsilon that follows the share of best actions that further updates change.

    Until the member learns nothing is known, and epsilon is where it starts.

    Args:
        updates: L, gradient steps of the fork at each decision.
        states: that d is counted over.
        step: share of the way to ε* at each decision; 0: epsilon stays.
        initial: epsilon at the start; None: the default.
        decisions: outer steps of a run; None: the task's.

    Raises:
        ValueError: updates, states or decisions below 1, or a step outside [0, 1]; at
            `reset`, another learner than the compiled DQN, epsilon not controlled, or
            an initial value out of range.
    """

    action_mode = "values"
    independent = True
    hyperparameters: ClassVar[dict[str, tuple[str, ...]]] = {"dqn": ("epsilon",)}

    def __init__(
        self,
        updates: int = 100,
        states: int = 256,
        step: float = 0.5,
        initial: float | None = None,
        decisions: int | None = None,
    ) -> None:
        self.updates, self.states = whole("updates", updates), whole("states", states)
        if not 0 <= step <= 1:
            raise ValueError(f"step must lie between 0 and 1, got {step}")
        self.step, self.initial = step, initial
        self.decisions = None if decisions is None else whole("decisions", decisions)

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Start every member at the initial epsilon."""
        learner: Any = envs.population.learner
        if not isinstance(learner, DQN):
            raise ValueError(
                f"bmg-epsilon forks the compiled dqn; {type(learner).__name__} with "
                f"implementation={envs.settings.implementation!r} cannot be forked"
            )
        h = envs.settings.number("epsilon")
        self.start = h.default if self.initial is None else self.initial
        h.check(self.start)
        self.envs, self.range = envs, h.ends
        self.learning_starts = learner.config.learning_starts
        self.actions = envs.population.env.num_actions
        self.epsilons = np.full(envs.num_envs, self.start)

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, d)``."""
        self.epsilons[infos["env_steps"] == 0] = self.start
        live = probe.under_way(self.envs, infos)
        live &= infos["env_steps"] > self.learning_starts
        if live.any():
            shares = probe.greedy_changes(self.envs, live, self.states, self.updates)
            towards = np.clip(target(shares[live], self.actions), *self.range)
            self.epsilons[live] += self.step * (towards - self.epsilons[live])
        return self.envs.to_actions({"epsilon": self.epsilons})


def target(shares: Floats, actions: int) -> Floats:
    """ε* of shares d of changed best actions, where there are so many actions."""
    return shares * actions / max(actions - 1, 1)
