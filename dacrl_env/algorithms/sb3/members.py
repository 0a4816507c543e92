"""Members of a population, one after the other through one model.

What all algorithms need: fresh members, loading and storing, stretches of training,
evaluation episodes. A learner has a `Members` and hands it what is particular to its
algorithm; nothing here knows which one it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.logger import Logger
from torch import Tensor

from dacrl_env.algorithms.interval import Interval
from dacrl_env.algorithms.sb3.envs import MemberEnvs
from dacrl_env.algorithms.sb3.rows import (
    OptimizerLayout,
    OptimizerState,
    from_row,
    to_row,
)
from dacrl_env.algorithms.sb3.updates import DivergedError, Updates
from dacrl_env.core import random_state, streams
from dacrl_env.core.isolation import globals_kept
from dacrl_env.core.snapshot import copy_rows, take_rows
from dacrl_env.inner_envs import InnerEnv
from dacrl_env.learners.rollout import play


class Trained(Protocol):
    """What signals are computed from, beside sums and probes."""

    parameters: Tensor  # (P, row) that the optimisers change


class State(Trained, Protocol):
    """The arrays that the states of all algorithms have."""

    buffers: NDArray[np.float64]
    optimizer: OptimizerState
    generators: random_state.Generators
    envs: Any
    keys: streams.UInts
    env_steps: NDArray[np.int64]
    gradient_steps: NDArray[np.int64]


class Members:
    """The model, its environments, and how members get in and out of it.

    Args:
        env: inner environment.
        eval_env: another of the same, for evaluations.
        num_envs: N.
        budget: inner environment steps of a run.
        build: a model of Stable-Baselines3 on the given environments.
        trained: the parameters of a model that its optimisers change.
        optimizers: of a model; a gradient step is a step of the first one, and the
            gradient's norm that of its parameters.

    Raises:
        ValueError: an optimiser whose state cannot be kept.
    """

    def __init__(
        self,
        env: InnerEnv,
        eval_env: InnerEnv,
        num_envs: int,
        budget: int,
        build: Callable[[MemberEnvs], Any],
        trained: Callable[[Any], list[Tensor]],
        optimizers: Callable[[Any], list[torch.optim.Optimizer]],
    ) -> None:
        self.env = env
        self.eval_env = eval_env
        self.N = num_envs
        self.budget = budget
        self._build = build
        self._trained = trained
        self._optimizers = optimizers
        with globals_kept(), torch.enable_grad():
            self.venv, self.model = self._new_model(0)
            self.model.policy.set_training_mode(False)
            self._layout = OptimizerLayout(optimizers(self.model))
        # `collect_rollouts` wants a callback; this one does nothing
        self.callback = CallbackList([])
        self.callback.init_callback(self.model)
        self.updates = Updates(optimizers(self.model)[0])

    def _new_model(self, seed: int) -> tuple[MemberEnvs, Any]:
        """A model as Stable-Baselines3 builds it with this seed; draws globally."""
        random_state.seed_globals(seed)
        venv = MemberEnvs(self.env, self.N)
        model = self._build(venv)
        model.action_space.seed(seed)
        model.set_logger(Logger(None, []))
        model.ep_info_buffer, model.ep_success_buffer = deque(), deque()
        return venv, model

    # -- state ------------------------------------------------------------------

    def allocate(
        self, keys: streams.UInts, physics: NDArray[np.float64]
    ) -> dict[str, Any]:
        """The fields of `State` for members that `begin` has yet to fill.

        Args:
            keys: ``(P, purposes)``.
            physics: ``(P, K)`` constants of the inner environments.
        """
        P = len(keys)
        buffers = sum(b.numel() for b in self.model.policy.buffers())
        return {
            "parameters": to_row(self._trained(self.model)).repeat(P, 1),
            "buffers": np.zeros((P, buffers)),
            "optimizer": self._layout.allocate(P),
            "generators": random_state.Generators.allocate(P),
            "envs": self.env.init(streams.env_keys(keys, self.N), physics),
            "keys": keys.copy(),
            "env_steps": np.zeros(P, np.int64),
            "gradient_steps": np.zeros(P, np.int64),
        }

    def restart_envs(
        self,
        state: State,
        members: NDArray[np.int64],
        keys: streams.UInts,
        physics: NDArray[np.float64],
    ) -> None:
        """New streams and environments for some members, which `begin` follows."""
        state.keys[members] = keys
        self.env.restart(state.envs, members, streams.env_keys(keys, self.N), physics)

    def begin(self, state: State, i: int) -> Any:
        """Give a member, whose keys are set, a fresh model; returns the model."""
        with globals_kept():
            seed = random_state.seed_of(streams.of(state.keys, "init")[i])
            _, model = self._new_model(seed)
            state.gradient_steps[i] = 0
            self._store(state, i, model)
        return model

    def _store(self, state: State, i: int, model: Any) -> None:
        """Set the rows of a member from a model and the global generators."""
        state.parameters[i] = to_row(self._trained(model))
        state.buffers[i] = to_row(model.policy.buffers(), torch.float64).numpy()
        self._layout.read(self._optimizers(model), state.optimizer, i)
        key = streams.of(state.keys, "init")[i]
        random_state.read(model.action_space, state.generators, i, key)
        state.env_steps[i] = model.num_timesteps

    @contextmanager
    def loaded(self, state: State, i: int) -> Iterator[Any]:
        """The model as member ``i`` left it; nothing is stored."""
        model = self.model
        # the engine switches gradients off; diverging numbers are expected
        with (
            globals_kept(),
            torch.enable_grad(),
            np.errstate(all="ignore"),
        ):
            from_row(self._trained(model), state.parameters[i])
            from_row(model.policy.buffers(), torch.from_numpy(state.buffers[i]))
            self._layout.write(self._optimizers(model), state.optimizer, i)
            key = streams.of(state.keys, "init")[i]
            random_state.write(model.action_space, state.generators, i, key)
            model.num_timesteps = int(state.env_steps[i])
            # progress is a share of this; our schedules are constant, do not use it
            model._total_timesteps = self.budget
            yield model

    # -- act --------------------------------------------------------------------

    def play(
        self,
        state: State,
        members: NDArray[np.int64],
        keys: streams.UInts,
        physics: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Returns ``(m, E)`` of evaluation episodes and steps ``(m,)`` they took.

        Args:
            state: of the population; not changed.
            members: ``(m,)``.
            keys: ``(m, E)`` of the episodes.
            physics: ``(m, K)``.
        """
        returns, steps = np.empty(keys.shape), np.empty(len(members), np.int64)
        lifetime = state.env_steps[members] // self.N
        for k, i in enumerate(members):
            one = slice(k, k + 1)
            with self.loaded(state, i):
                returns[one], steps[one] = play(
                    lambda _: self._greedy,
                    self.eval_env,
                    keys[one],
                    physics[one],
                    lifetime[one],
                )
        return returns, steps

    def _greedy(self, observations: NDArray[Any]) -> NDArray[Any]:
        """Best actions ``(1, E)`` for observations ``(1, E, …)``, of the loaded."""
        shown = self.venv.shown(observations[0])
        actions, _ = self.model.policy.predict(shown, deterministic=True)
        result: NDArray[Any] = actions[None]
        return result

    # -- train ------------------------------------------------------------------

    def stretch(
        self,
        state: State,
        i: int,
        steps: int,
        interval: Interval,
        advance: Callable[[int], None],
    ) -> None:
        """Take the loaded member ``steps`` environment steps further, and store it.

        A member that has diverged takes its remaining steps without learning, so that
        budgets stay exact.

        Args:
            state: of the population, changed in place.
            i: the member.
            steps: to take.
            interval: sums, changed in place.
            advance: collects and learns up to the given environment step of the run.
        """
        model, venv = self.model, self.venv
        venv.state, venv.episodes = take_rows(state.envs, [i]), []
        model._last_obs = model.env.reset()
        end = model.num_timesteps + steps
        try:
            if np.isfinite(interval.sums[i]).all():
                advance(end)
        except DivergedError:
            interval.sums[i] = np.nan
        except (ValueError, RuntimeError) as error:
            if not is_not_finite(error):
                raise
            interval.sums[i] = np.nan
        while model.num_timesteps < end:
            venv.idle()
            model.num_timesteps += self.N
        self._store(state, i, model)
        copy_rows(state.envs, slice(i, i + 1), venv.state)
        venv.state = None  # nobody else keeps environments from being closed
        for total, length in venv.episodes:
            interval.finished[i] += 1, total, length


# -- functions of models and members ----------------------------------------------


def hyperparameters_of(
    values: Mapping[str, NDArray[np.float64]], i: int
) -> dict[str, float]:
    """One member's hyperparameters, from arrays ``(P,)``."""
    return {name: float(column[i]) for name, column in values.items()}


def one_observation(model: Any) -> Any:
    """An observation ``(1, …)`` of zeros, as the policy takes it."""
    space = model.observation_space
    parts = getattr(space, "spaces", None)  # of a dictionary of observations
    if parts is None:
        zeros: Any = np.zeros((1, *space.shape), space.dtype)
    else:
        zeros = {k: np.zeros((1, *s.shape), s.dtype) for k, s in parts.items()}
    return model.policy.obs_to_tensor(zeros)[0]


def signals(
    state: Trained,
    interval: Interval,
    names: Sequence[str],
    probes: Sequence[Mapping[str, Tensor]],
) -> dict[str, NDArray[np.float64]]:
    """What an interval tells of each member ``(P,)``, and the probes' single values."""
    columns = {
        name: np.array([float(probe[name]) for probe in probes]) for name in probes[0]
    }
    now, before = state.parameters.numpy().astype(float), interval.start.astype(float)
    with np.errstate(over="ignore", invalid="ignore"):  # a member may have diverged
        moved = np.linalg.norm(now - before, axis=1)
    size = np.linalg.norm(before, axis=1)
    return {**interval.means(names), "update_ratio": moved / size, **columns}


def is_not_finite(error: Exception) -> bool:
    """Whether torch refused to sample from a distribution that is not a number.

    ``Distribution.__init__`` validates its parameters; without that (``python -O``)
    ``torch.multinomial`` does.
    """
    text = str(error)
    return "but found invalid values" in text or "probability tensor contains" in text
