"""A population as a vectorised environment of Stable-Baselines3.

So that P inner runs, one tensor program, feed one controller:

    from stable_baselines3 import PPO
    envs = gym.make_vec("dacrl/DQN-CartPole-v0", num_envs=64, action_mode="relative")
    # a rollout of n_steps × 64 decisions is one inner run of every member
    ppo = PPO("MlpPolicy", to_sb3(envs), n_steps=20, batch_size=128, gamma=1.0)
    ppo.learn(100_000)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from dacrl_env.outer.vector_env import PopulationEnv


def to_sb3(envs: VectorEnv[Any, Any, Any], monitored: bool = True) -> VecEnv:
    """A population behind Stable-Baselines3's interface.

    Infos are one dictionary a member. Where a run ended, its last observation and info
    are in ``info["terminal_observation"]`` and ``info["final_info"]``, and the
    observation returned is the first of the next run. Ends are never truncations: a run
    that has used its budget is over.

    Args:
        envs: a :class:`~dacrl_env.PopulationEnv`, or what ``gymnasium.make_vec`` made.
        monitored: keep return and length of outer episodes in ``info["episode"]``,
            which Stable-Baselines3 logs (``VecMonitor``).

    Raises:
        TypeError: another vector environment, or wrappers, which would be lost.
        ValueError: a population whose runs are not followed in the same step.
    """
    if not isinstance(envs, PopulationEnv):
        raise TypeError(
            f"to_sb3 takes a PopulationEnv without wrappers, got {envs!r}; use the "
            "wrappers of stable_baselines3.common.vec_env on the result"
        )
    if envs.autoreset_mode is not AutoresetMode.SAME_STEP:
        raise ValueError(
            "Stable-Baselines3 needs autoreset_mode SAME_STEP, which is the default; "
            f"got {envs.autoreset_mode.name}"
        )
    adapter = PopulationVecEnv(envs)
    return VecMonitor(adapter) if monitored else adapter


class PopulationVecEnv(VecEnv):
    """See `to_sb3`.

    Members share one object: attributes are those of the population, the same for
    every member, and neither they nor methods can be reached for single members.

    Args:
        envs: the population.
    """

    def __init__(self, envs: PopulationEnv) -> None:
        self.envs = envs
        self._seed: int | None = None
        self._actions: Any = None
        super().__init__(
            envs.num_envs, envs.single_observation_space, envs.single_action_space
        )

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Member i gets stream i of this seed at the next reset; None: of a new one."""
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        self._seed = seed
        return [seed] * self.num_envs

    def reset(self) -> NDArray[np.float32]:
        """First observations ``(P, D)``; infos are in ``reset_infos``."""
        options: dict[str, Any] = {}
        if any(self._options):
            known = {"instance"}
            unknown = {key for given in self._options for key in given} - known
            if unknown:
                raise ValueError(
                    f"unknown option {', '.join(map(repr, sorted(unknown)))}; valid: "
                    "'instance'"
                )
            options["instance"] = [given.get("instance") for given in self._options]
        observations, infos = self.envs.reset(seed=self._seed, options=options)
        self.reset_infos = member_infos(infos, self.num_envs)
        self._seed = None
        self._reset_options()
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions ``(P, d)`` or ``(P,)`` for `step_wait`."""
        self._actions = actions

    def step_wait(
        self,
    ) -> tuple[
        NDArray[np.float32],
        NDArray[np.float32],
        NDArray[np.bool_],
        list[dict[str, Any]],
    ]:
        """Observations, rewards, ends ``(P, …)`` and infos of one outer step."""
        observations, rewards, ended, _, infos = self.envs.step(self._actions)
        final = infos.pop("final_obs", None)
        infos.pop("_final_obs", None)
        members = member_infos(infos, self.num_envs)
        for i in np.flatnonzero(ended):
            members[i]["terminal_observation"] = final[i]
            members[i]["TimeLimit.truncated"] = False
        return observations, rewards.astype(np.float32), ended, members

    def close(self) -> None:
        """Close the population."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the population, once for every member asked for."""
        value = getattr(self.envs, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not supported."""
        raise AttributeError(_SHARED.format(f"set_attr({attr_name!r})"))

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: Any = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Not supported."""
        raise AttributeError(_SHARED.format(f"env_method({method_name!r})"))

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """False: there are no environments to wrap."""
        return [False for _ in self._get_indices(indices)]


_SHARED = "{}: members are no objects of their own; use `.envs`, the population"


def member_infos(infos: dict[str, Any], P: int) -> list[dict[str, Any]]:
    """One dictionary a member, of those keys that it has.

    Args:
        infos: arrays ``(P,)``, or dictionaries of them, with a mask beside each.
        P: members.
    """
    members: list[dict[str, Any]] = [{} for _ in range(P)]
    for key, value in infos.items():
        if key.startswith("_"):
            continue
        nested = isinstance(value, dict)
        values = member_infos(value, P) if nested else value.tolist()
        for i in np.flatnonzero(infos[f"_{key}"]):
            members[i][key] = values[i]
    return members
