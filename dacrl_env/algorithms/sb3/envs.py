"""The inner environments of one member, as Stable-Baselines3 steps them."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from dacrl_env.inner_envs import InnerEnv


class MemberEnvs(VecEnv):
    """N inner environments behind Stable-Baselines3's interface.

    They are arrays, not objects: there is nothing inside whose attributes or methods
    could be reached through `get_attr`, `set_attr` and `env_method`.

    Args:
        env: inner environment.
        num_envs: N.
    """

    def __init__(self, env: InnerEnv, num_envs: int) -> None:
        # its networks need an axis; a single number has none
        shape, dtype = env.observation_shape or (1,), np.dtype(env.observation_dtype)
        low: Any = -np.inf
        high: Any = np.inf
        if dtype.kind in "iu":
            low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        elif dtype.kind == "b":
            low, high = 0, 1
        actions: spaces.Space[Any]
        if env.num_actions:
            actions = spaces.Discrete(env.num_actions)
        else:
            least, most = env.action_low, env.action_high
            actions = spaces.Box(least.astype(np.float32), most.astype(np.float32))
        self.env = env
        self.state: Any = None  # of a population of one, while a member is loaded
        self.episodes: list[tuple[float, int]] = []  # return and length of the ended
        # Stable-Baselines3 has no use for single numbers without an axis
        self._shape = shape or (1,)
        observations = spaces.Box(low, high, self._shape, dtype.type)
        super().__init__(num_envs, observations, actions)

    def reset(self) -> NDArray[Any]:
        """The current observations: episodes begin by themselves."""
        return self.shown(self.state.observations[0])

    def shown(self, observations: NDArray[Any]) -> NDArray[Any]:
        """A copy of observations ``(n, …)`` as the space has them."""
        return observations.reshape(-1, *self._shape).copy()

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions ``(N, …)`` for `step_wait`."""
        self._actions = actions

    def step_wait(
        self,
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], list[dict[str, Any]]]:
        """Observations, rewards, ends ``(N, …)`` and infos of one step."""
        step = self.env.step(self.state, self._actions[None])
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        done = step.done[0]
        for n in np.flatnonzero(done):
            infos[n] = {
                "terminal_observation": self.shown(step.observations[0, [n]])[0],
                "TimeLimit.truncated": not step.terminated[0, n],
            }
            self.episodes.append((float(step.returns[0, n]), int(step.lengths[0, n])))
        # PPO adds to the rewards in place
        return self.reset(), step.rewards[0].astype(np.float32), done.copy(), infos

    def idle(self) -> None:
        """One step of every environment that nobody learns from."""
        if self.env.num_actions:
            actions = np.zeros(self.num_envs, np.int64)
        else:
            nothing = np.clip(0.0, self.env.action_low, self.env.action_high)
            actions = np.tile(nothing, (self.num_envs, 1))
        self.step(actions)

    def close(self) -> None:
        """There is nothing to close."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """No render mode, for each of the environments; they have nothing else."""
        if attr_name != "render_mode":
            raise _nothing_inside(f"get_attr({attr_name!r})")
        return [None for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not supported."""
        raise _nothing_inside(f"set_attr({attr_name!r})")

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **kwargs: Any
    ) -> list[Any]:
        """Not supported."""
        raise _nothing_inside(f"env_method({method_name!r})")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """False for each of the environments."""
        return [False for _ in self._get_indices(indices)]


def _nothing_inside(call: str) -> AttributeError:
    return AttributeError(
        f"{call} is not supported: the inner environments of learner 'sb3' are arrays "
        "without attributes or methods of their own; valid: get_attr('render_mode')"
    )
